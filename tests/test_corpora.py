"""Corpora in their own layouts -> utterances, folds, manifests and data directories."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from pyser.cli.corpus import group
from pyser.corpora.corpus import write_folds
from pyser.corpora.emodb import prepare_emodb
from pyser.corpora.iemocap import prepare_iemocap
from pyser.corpora.kaldi_dir import prepare_kaldi_dir
from pyser.corpora.ravdess import prepare_ravdess
from pyser.corpora.tedlium2 import clean, prepare_tedlium2
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table

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
    run = CliRunner().invoke(group, ["prepare", "iemocap", str(root), str(tmp_path / "data")])
    assert "1 without audio file (e.g. Ses02F-Ses02F_impro01_F000)" in run.output
    for path in (root / "Session3/dialog/EmoEvaluation").iterdir():
        path.unlink()
    with pytest.raises(PyserError, match="Session3/dialog/EmoEvaluation: no evaluation files"):
        prepare_iemocap(root)


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
    wav(tmp_path / "99a01Wa.wav")
    with pytest.raises(PyserError, match="99a01Wa.wav: EmoDB has no speaker 99"):
        prepare_emodb(tmp_path)


def test_folds_rotate_validation_and_refuse_strangers(tmp_path):
    write_folds({"a1": "a", "b1": "b", "c1": "c", "d1": "d"}, [["a"], ["b"], ["c", "d"]], tmp_path)
    assert (tmp_path / "3/test.list").read_text() == "c1\nd1\n"
    assert (tmp_path / "3/valid.list").read_text() == "a1\n"
    assert (tmp_path / "3/train.list").read_text() == "b1\n"
    with pytest.raises(PyserError, match="speaker z belongs to no fold"):
        write_folds({"z1": "z"}, [["a"]], tmp_path)


def test_tedlium_text():
    known = {"they're", "it's", "'cause"}
    assert clean("they 're <unk> here {NOISE} now(2) [NOISE] ' cause it 's", known) == "they're here now 'cause it's"


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
    assert "a AH\na EY\n" in (tmp_path / "data/local/dict/lexicon.txt").read_text()


def test_tedlium_missing_parts(tmp_path):
    root = tedlium(tmp_path / "T")
    (root / "dev/sph/Bob_2010.sph").write_bytes(b"NIST_1A\n   1024\n")
    with pytest.raises(PyserError, match="T/dev.*Bob_2010"):
        prepare_tedlium2(root, tmp_path / "data")
    (root / "dev/sph/Bob_2010.sph").unlink()
    with pytest.raises(PyserError, match="T/dev: Bob_2010 has only one of its two files"):
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
