"""Corpora in their own layouts -> utterances, folds, manifests and data directories."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from lhotse import SupervisionSet

from pyser.cli.corpus import group
from pyser.corpora.corpus import write_corpus, write_folds
from pyser.corpora.emodb import prepare_emodb
from pyser.corpora.iemocap import _summaries, _transcripts, prepare_iemocap
from pyser.corpora.kaldi_dir import prepare_kaldi_dir
from pyser.corpora.ravdess import prepare_ravdess
from pyser.corpora.tedlium2 import clean, prepare_tedlium2
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, validate

RATE = 16000


def wav(path: Path, seconds: float = 0.2, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(int(RATE * seconds)), RATE, **options)
    return path


def iemocap(root: Path) -> Path:
    """Two dialogs a session; happy, excited, neutral, angry and sad turns, one without agreement, one frustrated."""
    for session in range(1, 6):
        for dialog in (f"Ses{session:02d}F_impro01", f"Ses{session:02d}M_script01_1"):
            turns = [("F000", "hap"), ("F001", "exc"), ("M000", "neu"), ("M001", "ang"), ("F002", "xxx"), ("M002", "fru"),
                     ("M003", "sad")]
            folder = root / f"Session{session}"
            lines, texts = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
            for number, (turn, emotion) in enumerate(turns):
                lines += [f"[{number}.2901 - {number + 1}.1]\t{dialog}_{turn}\t{emotion}\t[2.5000, 3.0000, 3.5000]",
                          "C-E2:\tNeutral;\t()", ""]
                if turn != "M003":  # (the sad one has no transcript)
                    texts.append(f"{dialog}_{turn} [00{number}.2901-00{number + 1}.1000]: Well, [LAUGHTER] it's mine.")
                wav(folder / "sentences/wav" / dialog / f"{dialog}_{turn}.wav")
            for kind, content in (("EmoEvaluation", lines), ("transcriptions", texts)):
                (folder / "dialog" / kind).mkdir(parents=True, exist_ok=True)
                (folder / "dialog" / kind / f"{dialog}.txt").write_text("\n".join(content) + "\n")
            (folder / "dialog/EmoEvaluation" / f"._{dialog}.txt").write_bytes(b"\0\5\26\7\xff")
    return root


def test_iemocap_label_sets(tmp_path):
    root = iemocap(tmp_path)
    count = {one: [u.emotion for u in prepare_iemocap(root, one).utterances] for one in ("5531", "5500", "4936")}
    assert {e: count["5531"].count(e) for e in set(count["5531"])} == {"hap": 20, "neu": 10, "ang": 10, "sad": 10}
    assert {e: count["5500"].count(e) for e in set(count["5500"])} == {"hap": 20, "neu": 10, "ang": 10}
    assert {e: count["4936"].count(e) for e in set(count["4936"])} == {"exc": 10, "neu": 10, "ang": 10, "sad": 10}
    assert any("NOT the full corpus" in note for note in prepare_iemocap(root).notes)


def test_iemocap_speaker_is_the_letter_before_the_turn(tmp_path):
    found = {one.id: one for one in prepare_iemocap(iemocap(tmp_path)).utterances}
    man = found["Ses01M-Ses01F_impro01_M000"]  # the dialog's name says F: whose markers were recorded
    assert (man.speaker, man.gender, man.emotion) == ("Ses01M", "m", "neu")
    assert man.text == "WELL IT'S MINE"
    assert man.avd == "3.0000 2.5000 3.5000"  # the file has valence first


def test_iemocap_subsets(tmp_path):
    root = iemocap(tmp_path)
    assert all("impro" in one.id for one in prepare_iemocap(root, subset="improvised").utterances)
    assert all("script" in one.id for one in prepare_iemocap(root, subset="scripted").utterances)
    assert len(prepare_iemocap(root, subset="scripted").utterances) == 25


def test_iemocap_missing_parts(tmp_path):
    with pytest.raises(PyserError, match="nowhere: no such folder"):
        prepare_iemocap(tmp_path / "nowhere")
    root = iemocap(tmp_path)
    (root / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav").unlink()
    line = write_corpus(prepare_iemocap(root), tmp_path / "data").splitlines()
    assert "corpus iemocap: 50 utterances, 1 dropped: 1 without audio file (e.g. Ses02F-Ses02F_impro01_F000)" in line
    with pytest.raises(PyserError, match="1 dropped.*more than --max-dropped 1%"):
        write_corpus(prepare_iemocap(root), tmp_path / "data", max_dropped=0.01)
    with pytest.raises(PyserError, match="label set 9999, subset all: expected 5531"):
        prepare_iemocap(root, "9999")
    for path in (root / "Session3/dialog/EmoEvaluation").iterdir():
        path.unlink()
    with pytest.raises(PyserError, match="Session3/dialog/EmoEvaluation: no evaluation files"):
        prepare_iemocap(root)
    for session in range(1, 6):
        shutil.rmtree(root / f"Session{session}/sentences")
    (root / "Session3/dialog/EmoEvaluation/x.txt").write_text("")
    with pytest.raises(PyserError, match="no audio in Session"):
        prepare_iemocap(root)


def test_iemocap_utterances_without_words_stay_in_5531(tmp_path):
    line = write_corpus(prepare_iemocap(iemocap(tmp_path / "corpus")), tmp_path / "data")
    assert "10 labelled utterances have no words in the transcript, transcribed <UNK>" in line
    text = read_table(tmp_path / "data/iemocap/text")
    assert len(text) == 50 and text["Ses04M-Ses04M_script01_1_M003"] == "<UNK>"
    assert "data/iemocap: 50 utterances, 10 speakers" in validate(tmp_path / "data/iemocap", need_text=True)


def test_iemocap_summary_lines(tmp_path):
    path = tmp_path / "Ses01F_impro01.txt"
    path.write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
                    "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
                    "C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
                    "[10.01 - 11.39]\tSes01F_impro01_M001\txxx\t[2.0000, 3.5000, 1.0000]\r\n")
    assert _summaries(path) == [("Ses01F_impro01_F000", "neu", "2.5000", "2.5000", "2.5000"),
                                ("Ses01F_impro01_M001", "xxx", "2.0000", "3.5000", "1.0000")]


def test_iemocap_transcripts(tmp_path):
    path = tmp_path / "Ses01F_impro01.txt"
    path.write_bytes("Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n"
                     "Ses01F_impro01_M001 [008.5-010.0]: I don\u2019t [BREATHING] know--no.\n"
                     "Ses01F_impro01_M002 [011.5-012.0]: [LAUGHTER]\nM: not a line\n".encode() + b"\xff\n")
    assert _transcripts(path) == {"Ses01F_impro01_F000": "EXCUSE ME", "Ses01F_impro01_M001": "I DON'T KNOW NO",
                                  "Ses01F_impro01_M002": ""}


def test_prepare_command_writes_everything(tmp_path):
    root, data = iemocap(tmp_path / "corpus"), tmp_path / "data"
    (root / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav").write_bytes(b"")
    run = CliRunner().invoke(group, ["prepare", "--subset", "improvised", "iemocap", str(root), str(data)])
    assert run.exit_code == 0, run.output
    assert "SAIL" in run.output and "1 unreadable (e.g. Ses01F-Ses01F_impro01_F000)" in run.output
    assert len(read_table(data / "iemocap/utt2emo")) == 24
    assert read_table(data / "iemocap/spk2gender")["Ses03M"] == "m"
    about = {"corpus": "iemocap", "label_set": "5531", "subset": "improvised"}
    assert json.loads((data / "iemocap/folds/info.json").read_text()) == about
    lists = {part: (data / f"iemocap/folds/5/{part}.list").read_text().split() for part in ("train", "valid", "test")}
    assert {utt[:5] for utt in lists["test"]} == {"Ses05"} and {utt[:5] for utt in lists["valid"]} == {"Ses01"}
    assert {utt[:5] for utt in lists["train"]} == {"Ses02", "Ses03", "Ses04"}
    assert (data / "manifests/iemocap_supervisions.jsonl.gz").exists()


def test_too_many_unreadable_files_stop_it(tmp_path):
    root = iemocap(tmp_path / "corpus")
    for path in (root / "Session1/sentences/wav").rglob("*.wav"):
        path.write_bytes(b"RIFFnothing")
    run = CliRunner().invoke(group, ["prepare", "iemocap", str(root), str(tmp_path / "data")])
    assert isinstance(run.exception, PyserError) and "more than --max-dropped 5%" in str(run.exception)


def test_ravdess(tmp_path):
    for actor in range(1, 25):
        for emotion in ("01", "05"):
            wav(tmp_path / f"Actor_{actor:02d}/03-01-{emotion}-01-02-01-{actor:02d}.wav")
    wav(tmp_path / "Actor_01/._03-01-08-01-01-01-01.wav")
    corpus = prepare_ravdess(tmp_path)
    assert len(corpus.utterances) == 48 and len(corpus.groups) == 6
    one = {u.id: u for u in corpus.utterances}["Actor_02-03-01-05-01-02-01-02"]
    assert (one.emotion, one.gender, one.text) == ("angry", "f", "DOGS ARE SITTING BY THE DOOR")
    assert corpus.notes == ["ravdess: 48 of the corpus's 1440 utterances are here"]
    write_corpus(corpus, tmp_path / "data")
    tests = [(tmp_path / f"data/ravdess/folds/{k}/test.list").read_text().split() for k in range(1, 7)]
    assert {utt[:8] for utt in tests[1]} == {"Actor_05", "Actor_06", "Actor_07", "Actor_08"}
    assert sorted(sum(tests, [])) == sorted(one.id for one in corpus.utterances)
    assert json.loads((tmp_path / "data/ravdess/folds/info.json").read_text())["label_set"] == "8 emotions"
    wav(tmp_path / "03-01-01-01-02-01-25.wav")
    with pytest.raises(PyserError, match="RAVDESS has no emotion 01, statement 02 or actor 25"):
        prepare_ravdess(tmp_path)
    with pytest.raises(PyserError, match="no such folder"):
        prepare_ravdess(tmp_path / "nowhere")


def test_emodb(tmp_path):
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        wav(tmp_path / "Angry" / f"{speaker}a01Wa.flac")
    corpus = prepare_emodb(tmp_path)
    one = corpus.utterances[0]
    assert (one.id, one.speaker, one.gender, one.emotion) == ("03a01Wa", "03", "m", "angry")
    assert "emodb: 10 of 127 angry utterances are here" in corpus.notes
    assert sorted(speaker for group_ in corpus.groups for speaker in group_) == sorted({u.speaker for u in corpus.utterances})
    wav(tmp_path / "copy/16a01Wa.wav")
    with pytest.raises(PyserError, match="16a01Wa is twice in the corpus, .*Angry/16a01Wa.flac and .*copy/16a01Wa.wav"):
        write_corpus(prepare_emodb(tmp_path), tmp_path / "data")
    wav(tmp_path / "99a01Wa.wav")
    with pytest.raises(PyserError, match="99a01Wa.wav: EmoDB has no speaker 99"):
        prepare_emodb(tmp_path)


def test_folds_rotate_validation_and_refuse_strangers(tmp_path):
    write_folds({"a1": "a", "b1": "b", "c1": "c", "d1": "d"}, [["a"], ["b"], ["c", "d"]], tmp_path)
    assert (tmp_path / "3/test.list").read_text() == "c1\nd1\n"
    assert (tmp_path / "3/valid.list").read_text() == "a1\n"
    assert (tmp_path / "3/train.list").read_text() == "b1\n"
    write_folds({"a1": "a", "c1": "c", "e1": "e"}, [["a"], ["b"], ["c"], ["e"]], tmp_path)  # b's fold goes
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "4"]
    assert (tmp_path / "4/valid.list").read_text() == "a1\n"
    with pytest.raises(PyserError, match="speakers of 2 folds only"):
        write_folds({"a1": "a", "b1": "b"}, [["a"], ["b"]], tmp_path)
    with pytest.raises(PyserError, match="speaker z belongs to no fold"):
        write_folds({"z1": "z"}, [["a"]], tmp_path)


def test_tedlium_text():
    known = {"they're", "it's", "'cause"}
    assert clean("they 're <unk> here {NOISE} now(2) [NOISE] ' cause it 's", known) == "they're here now 'cause it's"
    # Words are joined where the dictionary has the whole; the utterance's name at the end is none of its words.
    assert clean("google 's ' <sil> it 's (Ann_2009-1.5-3.0)", known) == "google 's it's"
    assert clean("<NA> {COUGH}", known) == ""


def tedlium(root: Path) -> Path:
    for part in ("train", "dev", "test"):
        for talk in ("Bob_2010", "Ann_2009"):
            wav(root / part / "sph" / f"{talk}.sph", 3.0, format="NIST", subtype="PCM_16")
            (root / part / "stm").mkdir(exist_ok=True)
            (root / part / "stm" / f"{talk}.stm").write_text(
                f"{talk} 1 {talk} 0.00 1.25 <o,f0,male> it 's a test\n"
                f"{talk} 1 inter_segment_gap 1.25 1.5 <o,,unknown> ignore_time_segment_in_scoring\n"
                f"{talk} 1 {talk} 1.50 3.4 <o,f0,male> the end <unk>\n")
    (root / "TEDLIUM.152k.dic").write_text("it's IH T S\na AH\na(2) EY\ntest T EH S T\nthe DH AH\nend EH N D\n")
    return root


def test_tedlium(tmp_path):
    out = prepare_tedlium2(tedlium(tmp_path / "TEDLIUM_release2"), tmp_path / "data")
    assert "corpus tedlium2 train: 4 utterances, 0 dropped" in out
    assert read_table(tmp_path / "data/train/text") == {
        "Ann_2009-0000000-0000125": "it's a test", "Ann_2009-0000150-0000300": "the end",
        "Bob_2010-0000000-0000125": "it's a test", "Bob_2010-0000150-0000300": "the end"}
    # (the last segment ends where the recording does)
    assert read_table(tmp_path / "data/train/segments")["Ann_2009-0000150-0000300"] == "Ann_2009 1.5 3"
    assert read_table(tmp_path / "data/train/spk2gender") == {"Ann_2009": "m", "Bob_2010": "m"}
    assert (tmp_path / "data/local/dict/lexicon.txt").read_text() == (
        "!SIL SIL\n<UNK> SPN\na AH\na EY\nend EH N D\nit's IH T S\ntest T EH S T\nthe DH AH\n")
    for part in ("train", "dev", "test"):
        validate(tmp_path / "data" / part, need_text=True)
        assert (tmp_path / f"data/manifests/{part}_supervisions.jsonl.gz").exists()


def test_tedlium_lm_text(tmp_path):
    root = tedlium(tmp_path / "T")
    assert f"{root}/LM: no *.en.gz there; the transcripts are the only text" in prepare_tedlium2(root, tmp_path / "data")
    (root / "LM").mkdir()
    (root / "LM/news.en.gz").write_bytes(gzip.compress(b"it 's the end </s>\n </s>\nthe caf\xe9 's a </s>\n"))
    (root / "LM/crawl.en.gz").write_bytes(gzip.compress("a\u2028 test\n".encode()))
    out = prepare_tedlium2(root, tmp_path / "data")
    assert out.endswith("data/local/lm/text.gz: 2 texts, 3 sentences, 9 words, 22.22% of them outside the dictionary")
    text = gzip.decompress((tmp_path / "data/local/lm/text.gz").read_bytes()).decode()
    assert text == "a test\nit's the end\nthe caf\ufffd 's a\n"
    (root / "LM/news.en.gz").write_bytes((root / "LM/news.en.gz").read_bytes()[:-9])
    with pytest.raises(PyserError, match="LM/news.en.gz: not a whole gzip file"):
        prepare_tedlium2(root, tmp_path / "data")
    assert not list((tmp_path / "data/local/lm").iterdir())  # neither half a text nor the one of before


def test_tedlium_dictionary_with_errors(tmp_path):
    root = tedlium(tmp_path / "T")
    with (root / "TEDLIUM.152k.dic").open("a") as dictionary:
        dictionary.write("<s> SIL\n<sil>\tSIL\n[NOISE] NSN\nempty\n\nbad\tERROR./text2pho.sh: line 3\na(7)\tEY\n#1 W AH N\n")
    out = prepare_tedlium2(root, tmp_path / "data")
    assert "lexicon.txt: 5 words; 3 lines that are no pronunciation left out (e.g. 'empty')" in out
    assert (tmp_path / "data/local/dict/lexicon.txt").read_text() == (
        "!SIL SIL\n<UNK> SPN\na AH\na EY\nend EH N D\nit's IH T S\ntest T EH S T\nthe DH AH\n")


def test_tedlium_drops_and_counts(tmp_path):
    root = tedlium(tmp_path / "T")
    with (root / "train/stm/Bob_2010.stm").open("a") as stm:
        stm.write("Bob_2010 1 Bob_2010 1.3 1.4 <F0_F> <sil> {NOISE}\n"
                  "Bob_2010 1 Bob_2010 0.00 1.25 <F0_F> it 's a test\n"
                  "Bob_2010 1 Bob_2010 7.0 8.0 <F0_F> too late\n"
                  "Bob_2010 1 Bob_2010 2.0 2.5 <NA> ignore_time_segment_in_scoring ?\n"
                  "Bob_2010 1 Bob_2010 2.0 2.5 <F0_F> the test (Bob_2010-2.0-2.5)\n")
    with pytest.raises(PyserError, match="train: 8 utterances, 3 dropped: .*more than --max-dropped 5%"):
        prepare_tedlium2(root, tmp_path / "data")
    out = prepare_tedlium2(root, tmp_path / "data", max_dropped=0.4)
    for reason in ("1 without words (e.g. Bob_2010-0000130-0000140)", "1 outside its recording (e.g. Bob_2010-5)",
                   "1 twice in the stm file (e.g. Bob_2010-0000000-0000125)"):
        assert reason in out
    text = read_table(tmp_path / "data/train/text")
    assert len(text) == 5 and text["Bob_2010-0000200-0000250"] == "the test"
    assert read_table(tmp_path / "data/train/spk2gender")["Bob_2010"] == "f"  # the last line said so
    (root / "test/stm/Ann_2009.stm").write_text("Ann_2009 1 Ann_2009 0.00\n")
    with pytest.raises(PyserError, match="test/stm/Ann_2009.stm:1: expected 'Ann_2009 channel speaker start end"):
        prepare_tedlium2(root, tmp_path / "data", max_dropped=0.4)


def test_tedlium_missing_parts(tmp_path):
    root = tedlium(tmp_path / "T")
    (root / "dev/sph/Bob_2010.sph").write_bytes(b"NIST_1A\n   1024\n")
    with pytest.raises(PyserError, match="T/dev/sph/Bob_2010.sph: not readable as audio"):
        prepare_tedlium2(root, tmp_path / "data")
    (root / "dev/sph/Bob_2010.sph").unlink()
    with pytest.raises(PyserError, match="T/dev: Bob_2010 has only one of its two files"):
        prepare_tedlium2(root, tmp_path / "data")
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "dev", dirs_exist_ok=True)
    with pytest.raises(PyserError, match="T/test/sph: no .sph files"):
        prepare_tedlium2(root, tmp_path / "data")
    (root / "TEDLIUM.152k.dic").unlink()
    with pytest.raises(PyserError, match="no TEDLIUM.152k.dic"):
        prepare_tedlium2(root, tmp_path / "data")


def test_kaldi_dir_drops_what_cannot_be_used(tmp_path):
    source = tmp_path / "source"
    for utt in ("a1", "a2", "a3", "a4"):
        wav(source / f"audio/{utt}.wav")
    (source / "audio/a3.wav").write_bytes(b"RIFF")
    (source / "wav.scp").write_text("".join(f"{utt} audio/{utt}.wav\n" for utt in ("a1", "a2", "a3", "a4")))
    (source / "utt2spk").write_text("a1 a\na2 a\na3 a\na4 a\n")
    (source / "text").write_text("a1 HELLO\na2\na3 HELLO\na4 WORLD\n")
    line = prepare_kaldi_dir(source, tmp_path / "target", max_dropped=0.5)
    assert "2 dropped" in line and "without transcript in text (e.g. a2)" in line and "unreadable (e.g. a3)" in line
    assert read_table(tmp_path / "target/wav.scp") == {u: str(source / f"audio/{u}.wav") for u in ("a1", "a4")}
    with pytest.raises(PyserError, match="more than --max-dropped 5%"):
        prepare_kaldi_dir(source, tmp_path / "target")
    with pytest.raises(PyserError, match="the source itself"):
        prepare_kaldi_dir(source, source)
    (source / "text").unlink()
    with pytest.raises(PyserError, match="text: missing"):
        prepare_kaldi_dir(source, tmp_path / "target")
    (source / "wav.scp").write_text("a1 flac -c -d -s a1.flac |\n")
    (source / "text").write_text("a1 HELLO\n")
    with pytest.raises(PyserError, match="wav.scp: a1 is a command; write the path of its file"):
        prepare_kaldi_dir(source, tmp_path / "target")


def test_kaldi_dir_with_segments_and_emotions(tmp_path):
    source = tmp_path / "corpus/source"
    wav(tmp_path / "corpus/audio/r.ogg", 1.0)  # beside the data directory
    source.mkdir()
    (source / "wav.scp").write_text("r audio/r.ogg\n")
    (source / "segments").write_text("a-1 r 0 0.25\na-2 r 0.5 -1\na-3 r 0.5 1.4\na-4 r 3 4\n")
    (source / "utt2spk").write_text("".join(f"a-{n} a\n" for n in range(1, 5)))
    (source / "utt2emo").write_text("".join(f"a-{n} hap\n" for n in range(1, 5)))
    target = tmp_path / "data/set"
    line = prepare_kaldi_dir(source, target, max_dropped=0.5)
    assert "4 utterances, 1 dropped: 1 with a bad segment (e.g. a-4)" in line and "3 utterances, 1 speakers" in line
    assert read_table(target / "utt2dur") == {"a-1": "0.25", "a-2": "0.5", "a-3": "0.5"}
    supervisions = SupervisionSet.from_file(tmp_path / "data/manifests/set_supervisions.jsonl.gz")
    assert [(one.id, one.start, one.end, one.custom) for one in supervisions] == [
        ("a-1", 0, 0.25, {"emotion": "hap"}), ("a-2", 0.5, 1, {"emotion": "hap"}), ("a-3", 0.5, 1, {"emotion": "hap"})]
    (source / "segments").write_text("a-1 r 0.5 0.25\n")
    with pytest.raises(PyserError, match="1 with a bad segment .e.g. a-1."):
        prepare_kaldi_dir(source, target, max_dropped=1.0)


def test_options_of_iemocap_are_refused_elsewhere(tmp_path):
    run = CliRunner().invoke(group, ["prepare", "--subset", "all", "ravdess", str(tmp_path), str(tmp_path / "data")])
    assert isinstance(run.exception, PyserError) and "are for iemocap" in str(run.exception)
