"""MSP-Podcast in its own layout -> labels, ratings, and the corpus's partition as the one fold."""

import json

import pytest
from click.testing import CliRunner
from small_wav import wav

from pyser.cli.corpus import group
from pyser.corpora.corpus import write_corpus
from pyser.corpora.msp_podcast import prepare_msp_podcast
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, validate
from pyser.ser.folds import check_leaks, read_fold

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
LINES = [
    "MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1",
    "MSP-PODCAST_0001_0009.wav,A,5.777778,2.555556,5.0,39,Female,Test1",
    "MSP-PODCAST_0002_0001.wav,H,5.5,7.0,7.0,1200,Female,Train",
    "MSP-PODCAST_0002_0002.wav,C,3.0,3.0,4.0,1200,Female,Train",
    "MSP-PODCAST_0002_0003.wav,X,3.0,3.0,4.0,1200,Female,Train",
    "MSP-PODCAST_0002_0004.wav,O,3.0,3.0,4.0,1200,Female,Train",
    "MSP-PODCAST_0003_0001.wav,S,2.0,1.0,2.0,Unknown,Unknown,Train",
    "MSP-PODCAST_0004_0001.wav,S,2.0,1.0,2.0,7,Male,Development",
    "MSP-PODCAST_0005_0001.wav,U,2.0,5.0,2.0,39,Female,Test2",
    "MSP-PODCAST_test3_0001.wav,N,1.0,1.0,1.0,Unknown,Unknown,Test3",
]


def release(root, lines=LINES, transcripts=True):
    (root / "Labels").mkdir(parents=True)
    (root / "Labels/labels_consensus.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    for line in lines:
        stem = line.split(".wav")[0]
        wav(root / f"Audios/{stem}.wav")
        if transcripts and not stem.endswith("0009"):
            (root / "Transcripts").mkdir(exist_ok=True)
            (root / f"Transcripts/{stem}.txt").write_text("Well, I don\u2019t know.\n", encoding="utf-8")
    return root


def test_labels_ratings_and_speakers(tmp_path):
    corpus = prepare_msp_podcast(release(tmp_path))
    found = {one.id: one for one in corpus.utterances}
    assert sorted(found) == ["MSP-PODCAST_0003_0001", "spk0007-MSP-PODCAST_0004_0001", "spk0030-MSP-PODCAST_0001_0008",
                             "spk0039-MSP-PODCAST_0001_0009", "spk0039-MSP-PODCAST_0005_0001",
                             "spk1200-MSP-PODCAST_0002_0001", "spk1200-MSP-PODCAST_0002_0002"]
    one = found["spk0039-MSP-PODCAST_0001_0009"]
    assert (one.speaker, one.gender, one.emotion, one.avd) == ("spk0039", "f", "angry", "5.777778 2.555556 5.0")
    assert (one.text, found["spk0007-MSP-PODCAST_0004_0001"].text) == ("<UNK>", "WELL I DON'T KNOW")
    unknown = found["MSP-PODCAST_0003_0001"]  # a speaker of nothing else
    assert (unknown.speaker, unknown.gender) == ("MSP-PODCAST_0003_0001", None)
    four = prepare_msp_podcast(tmp_path, "4")
    assert {one.emotion for one in four.utterances} == {"angry", "happy", "neutral", "sad"}
    with pytest.raises(PyserError, match="msp-podcast: no label set 10; there are 8, 4"):
        prepare_msp_podcast(tmp_path, "10")


def test_partition_is_the_fold(tmp_path):
    root, data = release(tmp_path / "corpus"), tmp_path / "data"
    run = CliRunner().invoke(group, ["prepare", "msp-podcast", str(root), str(data)], catch_exceptions=False)
    assert "UT Dallas" in run.output and "1 speaker-independent fold; angry 1, contempt 1, happy 1" in run.output
    assert ("labelled train 5 valid 1 test 2 test2 1: NOT release 1.11, which has train 84030 valid 19815 test 30647 "
            "test2 14815") in run.output
    assert "1 utterances with unknown speakers" in run.output
    folder = data / "msp-podcast"
    fold = read_fold(folder / "folds/1", "1")
    assert fold.train == ("MSP-PODCAST_0003_0001", "spk1200-MSP-PODCAST_0002_0001", "spk1200-MSP-PODCAST_0002_0002")
    assert fold.valid == ("spk0007-MSP-PODCAST_0004_0001",)
    assert fold.test == ("spk0030-MSP-PODCAST_0001_0008", "spk0039-MSP-PODCAST_0001_0009")
    check_leaks(fold, read_table(folder / "utt2spk"))
    assert (folder / "folds/1/test2.list").read_text() == "spk0039-MSP-PODCAST_0005_0001\n"
    assert json.loads((folder / "folds/info.json").read_text()) == {
        "corpus": "msp-podcast", "label_set": "8 emotions", "subset": "Test1", "avd": "1-7"}
    assert read_table(folder / "utt2avd")["MSP-PODCAST_0003_0001"] == "2.0 1.0 2.0"
    assert "7 utterances, 5 speakers" in validate(folder, need_text=True)


def test_speakers_who_are_tested_are_not_trained_on(tmp_path):
    more = ["MSP-PODCAST_0006_0001.wav,N,2,4,2,39,Female,Train", "MSP-PODCAST_0006_0002.wav,N,2,4,2,7,Male,Train",
            "MSP-PODCAST_0006_0003.wav,N,2,4,2,30,Male,Validation"]
    out = write_corpus(prepare_msp_podcast(release(tmp_path / "corpus", LINES + more)), tmp_path / "data")
    assert "2 utterances of train are left out of train.list" in out and "1 utterances of valid are left out" in out
    folder = tmp_path / "data/msp-podcast"
    fold, speakers = read_fold(folder / "folds/1", "1"), read_table(folder / "utt2spk")
    assert {speakers[utt] for utt in fold.train} == {"MSP-PODCAST_0003_0001", "spk1200"}
    assert {speakers[utt] for utt in fold.valid} == {"spk0007"}


def test_a_release_without_transcripts_and_with_audio_missing(tmp_path, capsys):
    root = release(tmp_path / "corpus", transcripts=False)
    (root / "Labels/labels_consensus.csv").rename(root / "Labels/labels_concensus.csv")  # sic, in early releases
    (root / "Audios").rename(root / "Audio")
    wav((root / "Audio/MSP-PODCAST_0002_0001.wav").with_suffix(".flac"))
    (root / "Audio/MSP-PODCAST_0002_0001.wav").unlink()
    (root / "Audio/MSP-PODCAST_0002_0002.wav").unlink()
    write_corpus(prepare_msp_podcast(root), tmp_path / "data", max_dropped=0.5)
    assert "audio missing for 1 of 7 utterances: MSP-PODCAST_0002_0002.wav" in capsys.readouterr().out
    assert not (tmp_path / "data/msp-podcast/text").exists()
    folder = tmp_path / "data/msp-podcast"
    assert len(read_table(folder / "utt2avd")) == 6
    assert read_fold(folder / "folds/1", "1").train == ("MSP-PODCAST_0003_0001", "spk1200-MSP-PODCAST_0002_0001")


def test_labels_in_json_and_partitions_in_a_file_of_their_own(tmp_path):
    """The same corpus as from the csv; utterances of no agreed emotion are rated too."""
    names, rows = HEADER.split(","), [line.split(",") for line in LINES]
    expected = prepare_msp_podcast(release(tmp_path), "all")
    assert [one.emotion for one in expected.utterances][4:6] == ["no-agreement", "other"] and len(expected.utterances) == 9
    assert expected.info["label_set"] == "all"
    table = {row[0]: dict(zip(names[1:-1], (row[1], *map(float, row[2:5]), *row[5:7]), strict=True)) for row in rows}
    (tmp_path / "Labels/labels_consensus.csv").unlink()
    (tmp_path / "Labels/labels_consensus.json").write_text(json.dumps(table))
    with pytest.raises(PyserError, match="json: MSP-PODCAST_0001_0008.wav: expected values for"):  # in no part
        prepare_msp_podcast(tmp_path)
    partitions = [f"{row[-1]}; {row[0]}" for row in rows]
    (tmp_path / "Partitions.txt").write_text("\n".join(partitions) + "\n\n")
    found = prepare_msp_podcast(tmp_path, "all")
    assert [(one.id, one.emotion) for one in found.utterances] == [(one.id, one.emotion) for one in expected.utterances]
    assert found.parts == expected.parts
    assert [float(x) for x in found.utterances[1].avd.split()] == [5.777778, 2.555556, 5.0]
    (tmp_path / "Labels/labels_consensus.json").write_text(json.dumps(table | {rows[0][0]: {
        **table[rows[0][0]], "Split_Set": "Train"}}))
    with pytest.raises(PyserError, match="0001_0008.wav is in Train, but in Test1 by Partitions.txt"):
        prepare_msp_podcast(tmp_path)
    (tmp_path / "Partitions.txt").write_text("Test1 MSP-PODCAST_0001_0008.wav\n")
    with pytest.raises(PyserError, match="Partitions.txt:1: 'Test1 MSP"):
        prepare_msp_podcast(tmp_path)
    (tmp_path / "Labels/labels_consensus.json").write_text("[1, 2]")
    with pytest.raises(PyserError, match="not an object of labels"):
        prepare_msp_podcast(tmp_path)


@pytest.mark.parametrize("line, message", [
    ("a.wav,Q,1,1,1,1,Male,Train", "labels_consensus.csv:12: EmoClass Q is none of A, S, H"),
    ("a.wav,N,1,1,1,1,Male,Test9", "labels_consensus.csv:12: Split_Set Test9 is none of Train, Development"),
    ("a.wav,N,1,8.5,1,1,Male,Train", "labels_consensus.csv:12: EmoVal 8.5 is no number from 1 to 7"),
    ("a.wav,N,1,1,1,Male,Train", "labels_consensus.csv:12: expected values for FileName,EmoClass"),
])
def test_bad_lines(tmp_path, line, message):
    root = release(tmp_path)
    with (root / "Labels/labels_consensus.csv").open("a") as table:
        table.write(line + "\n")
    with pytest.raises(PyserError, match=message):
        prepare_msp_podcast(root)


def test_missing_parts(tmp_path):
    with pytest.raises(PyserError, match="Labels/labels_consensus.csv: not there; give the folder of the release"):
        prepare_msp_podcast(tmp_path)
    root = release(tmp_path / "a", [line for line in LINES if "Development" not in line])
    with pytest.raises(PyserError, match="no utterances for valid.list; copy the corpus whole"):
        write_corpus(prepare_msp_podcast(root), tmp_path / "data")
    for path in (root / "Audios").iterdir():
        path.unlink()
    with pytest.raises(PyserError, match="a: no audio, e.g. no Audios/MSP-PODCAST_0001_0008.wav; copy the corpus whole"):
        prepare_msp_podcast(root)
    (root / "Labels/labels_consensus.csv").write_text("FileName,EmoClass\n")
    with pytest.raises(PyserError, match="labels_consensus.csv: has no column EmoAct"):
        prepare_msp_podcast(root)
