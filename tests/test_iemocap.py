"""IEMOCAP in its own layout -> labels, speakers, ratings, folds, and what is said of a copy that is not whole."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_wav import wav

from pyser.cli.corpus import group
from pyser.corpora.corpus import write_corpus
from pyser.corpora.iemocap import _summaries, _transcripts, full_size, prepare_iemocap
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, validate


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


@pytest.mark.parametrize("label_set, emotions, sessions", [
    ("5531", {"ang": 1103, "hap": 1636, "neu": 1708, "sad": 1084}, (1085, 1023, 1151, 1031, 1241)),
    ("4936", {"ang": 1103, "exc": 1041, "neu": 1708, "sad": 1084}, (950, 906, 1016, 966, 1098)),
])
def test_iemocap_full_size(label_set, emotions, sessions):
    found: Counter[str] = Counter()
    for key, count in full_size(label_set, "all").items():
        session, emotion = key.split()
        found.update({session: count, emotion: count})
    assert found == emotions | {f"Ses{n:02d}": count for n, count in enumerate(sessions, start=1)}
    improvised, scripted = (sum(full_size("5531", subset).values()) for subset in ("improvised", "scripted"))
    assert (improvised, scripted) == (2943, 2588)


def test_iemocap_full_size_of_4936_is_zhou_and_beigis_table():
    table = {"ang": (229, 137, 240, 327, 170), "exc": (143, 210, 151, 238, 299), "neu": (384, 362, 320, 258, 384),
             "sad": (194, 197, 305, 143, 245)}
    assert full_size("4936", "all") == {f"Ses{n:02d} {emotion}": count for emotion, row in table.items()
                                        for n, count in enumerate(row, start=1)}


def test_iemocap_says_what_differs(tmp_path):
    root = iemocap(tmp_path)
    notes = prepare_iemocap(root).notes
    assert notes[-1].startswith("iemocap: NOT the full corpus: 2 of 229 Ses01 ang, 2 of 137 Ses02 ang, ")
    assert "4 of 442 Ses05 hap" in notes[-1] and notes[-1].count(" of ") == 20
    assert "1 of 22 Ses02 ang" in prepare_iemocap(root, "4936", "improvised").notes[-1]
    assert prepare_iemocap(root, "5500").notes[-1] == (
        "iemocap: NOT the full corpus: 10 of 1103 ang, 20 of 1615 hap, 10 of 1704 neu, 0 of 1078 sad")


def test_iemocap_whole_corpus_has_no_notes(tmp_path):
    """As many labels as the full corpus has, in its sessions: nothing is said to differ."""
    for session in range(1, 6):
        folder = tmp_path / f"Session{session}"
        for kind in ("improvised", "scripted"):
            dialog = f"Ses{session:02d}F_{'impro01' if kind == 'improvised' else 'script01_1'}"
            labels = [key[6:] for key, n in full_size("4936", kind).items() if key[:5] == dialog[:5] for _ in range(n)]
            happy = full_size("5531", kind)[f"{dialog[:5]} hap"] - full_size("4936", kind)[f"{dialog[:5]} exc"]
            lines = [f"[1.0 - 2.0]\t{dialog}_F{n:03d}\t{label}\t[2.5, 3.0, 3.5]"
                     for n, label in enumerate(labels + ["hap"] * happy)]
            texts = [f"{line.split()[3]} [001.0-002.0]: Yes." for line in lines]
            for name, content in (("EmoEvaluation", lines), ("transcriptions", texts)):
                (folder / "dialog" / name).mkdir(parents=True, exist_ok=True)
                (folder / "dialog" / name / f"{dialog}.txt").write_text("\n".join(content) + "\n")
            wav(folder / f"sentences/wav/{dialog}/{dialog}_F000.wav")
    for label_set, size in (("5531", 5531), ("4936", 4936)):
        corpus = prepare_iemocap(tmp_path, label_set)
        assert len(corpus.utterances) == size and corpus.notes == [] and corpus.missing == []
    assert prepare_iemocap(tmp_path, subset="scripted").notes == []
    assert prepare_iemocap(tmp_path, "5500", "improvised").notes == []
    (tmp_path / "Session2/dialog/EmoEvaluation/Ses02F_impro01.txt").write_text(
        "[1.0 - 2.0]\tSes02F_impro01_F000\tang\t[2.5, 3.0, 3.5]\n")
    assert prepare_iemocap(tmp_path, "5500", "improvised").notes == [
        "iemocap, with words or without: NOT the full corpus: 1 of 22 Ses02 ang, 0 of 191 Ses02 hap, 0 of 217 Ses02 neu, "
        "0 of 100 Ses02 sad"]


def test_iemocap_dialogs_that_are_not_everywhere_are_named(tmp_path):
    root = iemocap(tmp_path / "corpus")
    gone = ["Session1/dialog/transcriptions/Ses01F_impro01.txt", "Session3/dialog/EmoEvaluation/Ses03M_script01_1.txt",
            "Session5/sentences/wav/Ses05M_script01_1"]
    for name in gone:
        shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()
    (root / "Session1/dialog/transcriptions/._Ses01F_impro02.txt").touch()
    (root / "Session1/sentences/wav/.DS_Store").touch()
    for label_set in ("5531", "5500"):
        assert prepare_iemocap(root, label_set).notes[-1] == f"iemocap: missing 3 of the corpus's files: {', '.join(gone)}"
    improvised = prepare_iemocap(root, subset="improvised")
    assert improvised.missing == gone[:1]
    write_corpus(prepare_iemocap(root), tmp_path / "data", max_dropped=0.2)
    turns = [f"Ses05M_script01_1_{turn}.wav" for turn in ("F000", "F001", "M000", "M001", "M003")]
    assert (tmp_path / "data/iemocap/folds/missing.txt").read_text().split() == sorted([*gone, *turns])


def test_iemocap_a_session_without_dialogs_of_the_subset(tmp_path):
    root = iemocap(tmp_path)
    (root / "Session4/dialog/EmoEvaluation/Ses04F_impro01.txt").unlink()
    with pytest.raises(PyserError, match="Session4/dialog/EmoEvaluation: no evaluation files of improvised dialogs; IEMOCAP"):
        prepare_iemocap(root, "5500", "improvised")
    assert len(prepare_iemocap(root, "5500", "scripted").utterances) == 20


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
    with pytest.raises(PyserError, match="iemocap: no label set 9999; there are 5531, 5500, 4936"):
        prepare_iemocap(root, "9999")
    with pytest.raises(PyserError, match="iemocap: no subset some; there are all, improvised, scripted"):
        prepare_iemocap(root, subset="some")
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
    about = {"corpus": "iemocap", "label_set": "5531", "subset": "improvised", "avd": "1-5"}
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


def test_missing_audio_files_are_named(tmp_path, capsys):
    root = iemocap(tmp_path / "corpus")
    for number, path in enumerate(sorted((root / "Session1/sentences/wav").rglob("*.wav"))):
        path.unlink()
        if number == 3:  # a .flac in its place will do
            wav(path.with_suffix(".flac"))
    with pytest.raises(PyserError, match="9 without audio file .*more than --max-dropped 5%"):
        write_corpus(prepare_iemocap(root), tmp_path / "data")
    out = write_corpus(prepare_iemocap(root), tmp_path / "data", max_dropped=0.5)
    assert "9 without audio file" in out
    named, where = capsys.readouterr().out.splitlines()[-2:]
    listed = tmp_path / "data/iemocap/folds/missing.txt"
    assert where == f"iemocap: 9 missing in all, named in {listed}"
    assert listed.read_text().splitlines() == named.partition("utterances: ")[2].split(", ")
    assert named == ("iemocap: audio missing for 9 of 50 utterances: Ses01F_impro01_F000.wav, Ses01F_impro01_F001.wav, "
                     "Ses01F_impro01_M001.wav, Ses01F_impro01_M003.wav, Ses01M_script01_1_F000.wav, "
                     "Ses01M_script01_1_F001.wav, Ses01M_script01_1_M000.wav, Ses01M_script01_1_M001.wav, "
                     "Ses01M_script01_1_M003.wav")
