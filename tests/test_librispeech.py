"""LibriSpeech in its own layout -> a data directory for each part, with Kaldi's ids."""

import pytest
from click.testing import CliRunner
from lhotse import RecordingSet, SupervisionSet, recipes
from small_wav import wav

from pyser.cli.corpus import group
from pyser.corpora.librispeech import prepare_librispeech
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, validate


def librispeech(root):
    for part, reader, chapter in (("train-clean-100", 103, 1240), ("train-clean-100", 103, 124), ("train-clean-100", 26, 495),
                                  ("dev-clean", 84, 121123)):
        folder = root / f"LibriSpeech/{part}/{reader}/{chapter}"
        for number in range(2):
            wav(folder / f"{reader}-{chapter}-{number:04d}.flac")
        (folder / f"{reader}-{chapter}.trans.txt").write_text(
            f"{reader}-{chapter}-0000 CHAPTER ONE MISSUS RACHEL LYNDE\n{reader}-{chapter}-0001 IT'S SURPRISED\n")
        (folder / f"._{reader}-{chapter}.trans.txt").write_bytes(b"\0\5\26\7\xff")
    (root / "LibriSpeech/SPEAKERS.TXT").write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n26   | M | train-clean-100  | 25.09 | Denny Sayers\n"
        "84   | F | dev-clean        |  8.02 | Christie Nowak\n103  | F | train-clean-100  | 20.04 | Karen Savage\n")
    return root


def test_parts_and_ids(tmp_path):
    root = librispeech(tmp_path)
    run = CliRunner().invoke(group, ["prepare", "librispeech", str(root), str(tmp_path / "data")], catch_exceptions=False)
    assert "CC BY 4.0" in run.output and "NOT the full corpus: 6 of 28539 utterances of train-clean-100" in run.output
    train, dev = tmp_path / "data/train_clean_100", tmp_path / "data/dev_clean"
    assert "6 utterances, 3 speakers" in validate(train, need_text=True)
    assert "2 utterances, 1 speakers" in validate(dev, need_text=True)
    assert read_table(dev / "text") == {"lbi-84-121123-0000": "CHAPTER ONE MISSUS RACHEL LYNDE",
                                        "lbi-84-121123-0001": "IT'S SURPRISED"}
    assert read_table(train / "utt2spk")["lbi-103-1240-0001"] == "lbi-103-1240"
    assert read_table(train / "spk2gender") == {"lbi-103-124": "f", "lbi-103-1240": "f", "lbi-26-495": "m"}
    assert read_table(dev / "wav.scp")["lbi-84-121123-0000"] == str(
        root / "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac")
    assert not (train / "utt2emo").exists() and not (tmp_path / "data/test_clean").exists()
    manifest = SupervisionSet.from_file(tmp_path / "data/manifests/dev_clean_supervisions.jsonl.gz")
    assert [one.id for one in manifest] == ["lbi-84-121123-0000", "lbi-84-121123-0001"]


def test_as_lhotse_reads_it(tmp_path):
    root = librispeech(tmp_path) / "LibriSpeech"
    (root / "dev-clean").rename(root / "dev-clean-2")  # Mini LibriSpeech's
    prepare_librispeech(root, tmp_path / "data")
    for path in root.rglob("._*"):
        path.unlink()  # Lhotse cannot read past them
    theirs = recipes.prepare_librispeech(root)
    assert set(theirs) == {"train-clean-100", "dev-clean-2"}
    for part, found in theirs.items():
        manifest = tmp_path / "data/manifests" / part.replace("-", "_")
        recordings = {f"lbi-{one.id}": one for one in found["recordings"]}
        ours = {one.id: one for one in RecordingSet.from_file(f"{manifest}_recordings.jsonl.gz")}
        assert {name: (one.sources[0].source, one.duration) for name, one in ours.items()} \
            == {name: (one.sources[0].source, one.duration) for name, one in recordings.items()}
        words = {one.id: one.text for one in SupervisionSet.from_file(f"{manifest}_supervisions.jsonl.gz")}
        assert words == {f"lbi-{one.id}": one.text for one in found["supervisions"]}


def test_what_is_missing(tmp_path, capsys):
    root = librispeech(tmp_path) / "LibriSpeech"
    (root / "dev-clean/84/121123/84-121123-0001.flac").unlink()
    with pytest.raises(PyserError, match="librispeech dev-clean: 2 utterances, 1 dropped: 1 without audio file"):
        prepare_librispeech(root, tmp_path / "data")
    assert "audio missing for 1 of 2 utterances: 84-121123-0001.flac" in capsys.readouterr().out
    assert not (tmp_path / "data/dev_clean").exists()
    wav(root / "dev-clean/84/121123/84-121123-0001.wav")  # unpacked to another format
    prepare_librispeech(root, tmp_path / "data")
    (root / "dev-clean/84/121123/84-121123.trans.txt").write_text("84-121123-0000 GO\n84-121-0001 ON\n")
    with pytest.raises(PyserError, match=r"84-121123.trans.txt:2: expected '84-121123-0000 WORDS'"):
        prepare_librispeech(root, tmp_path / "data")
    (root / "SPEAKERS.TXT").write_text("; nobody\n")
    with pytest.raises(PyserError, match="84-121123.trans.txt: reader 84 is not in SPEAKERS.TXT"):
        prepare_librispeech(root, tmp_path / "data")
    (root / "SPEAKERS.TXT").unlink()
    with pytest.raises(PyserError, match="SPEAKERS.TXT: no such file"):
        prepare_librispeech(root, tmp_path / "data")
    with pytest.raises(PyserError, match="none of dev-clean, dev-other, .* is in it; give the folder LibriSpeech"):
        prepare_librispeech(root / "dev-clean", tmp_path / "data")
