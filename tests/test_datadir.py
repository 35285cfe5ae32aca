"""Kaldi data directories: what validate says, and that every list follows its utterances through each operation."""

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.kaldi import datadir
from pyser.kaldi.datadir import read_table, write_table
from pyser.kaldi.tables import MatrixWriter

UTTS = ("a-1", "a-2", "b-1", "c-1")  # speakers a, b and c
EMOTIONS = dict(zip(UTTS, ("ang", "sad", "neu", "ang"), strict=True))


def make_dir(path, utts=UTTS, **more):
    lists = {"wav.scp": {u: f"{u}.wav" for u in utts}, "utt2spk": {u: u[0] for u in utts},
             "utt2emo": {u: EMOTIONS[u] for u in utts}, "text": {u: f"words of {u}" for u in utts},
             "utt2dur": dict.fromkeys(utts, "1.8"), "spk2gender": {u[0]: "f" for u in utts}}
    datadir.write_dir(path, lists | {name.replace("_", "."): table for name, table in more.items()})
    return path


def with_segments(path):
    segments = {"a-1": "a-r 0 0.9", "a-2": "a-r 0.9 -1"}
    return make_dir(path, ("a-1", "a-2"), wav_scp={"a-r": "r.wav"}, segments=segments)


def test_validate_says_what_is_there(tmp_path):
    assert datadir.validate(make_dir(tmp_path / "d"), need_text=True).endswith(
        "/d: 4 utterances, 3 speakers, lists: spk2gender text utt2dur utt2emo utt2spk wav.scp")
    assert (tmp_path / "d/spk2utt").read_text() == "a a-1 a-2\nb b-1\nc c-1\n"
    assert "2 utterances, 1 speakers" in datadir.validate(with_segments(tmp_path / "s"))


@pytest.mark.parametrize("name, text, message", [
    ("utt2emo", "a-1 ang\na-2 sad\nc-1 ang\n", "utt2emo: 1 utterances differ from utt2spk, e.g. b-1 is not in"),
    ("wav.scp", "a-1 x\na-2 x\nb-1 x\nc-1 x\nd-9 x\n", "wav.scp: 1 utterances differ from utt2spk, e.g. d-9 is only in"),
    ("text", "a-1 x\na-2 x\nb-1\nc-1 x\n", "text: b-1 has no words"), ("text", "a-1 x\na-1 y\n", "text:2: a-1 occurs twice"),
    ("text", "a-2 x\na-1 x\nb-1 x\nc-1 x\n", "text: not sorted"), ("wav.scp", "", "wav.scp: missing or empty"),
    ("utt2spk", "a-1 a\na-2 z\nb-1 b\nc-1 c\n", "a-2 does not begin with its speaker z"),
    ("utt2spk", "a-1 a\na-2 a\nb-1 b b\nc-1 c\n", "utt2spk: b-1: expected one speaker"),
])
def test_validate_names_the_utterance(tmp_path, name, text, message):
    (make_dir(tmp_path) / name).write_text(text)
    with pytest.raises(PyserError, match=message):
        datadir.validate(tmp_path)


@pytest.mark.parametrize("value", ["none 0 1", "a-r 0", "a-r 1 1", "a-r -2 1", "a-r zero 1", "a-r 0 nan"])
def test_validate_names_the_bad_segment(tmp_path, value):
    write_table(with_segments(tmp_path) / "segments", {"a-1": "a-r 0 1", "a-2": value})
    with pytest.raises(PyserError, match="segments: a-2: "):
        datadir.validate(tmp_path)


def test_split_keeps_speakers_whole(tmp_path):
    datadir.split(make_dir(tmp_path / "d"), tmp_path / "s", 2)
    assert read_table(tmp_path / "s/1/utt2spk") == {"a-1": "a", "a-2": "a"}  # the largest speaker, then b and c
    assert read_table(tmp_path / "s/2/utt2emo") == {"b-1": "neu", "c-1": "ang"}
    assert read_table(tmp_path / "s/2/spk2gender") == {"b": "f", "c": "f"}
    with pytest.raises(PyserError, match="cannot split 3 speakers into 4"):
        datadir.split(tmp_path / "d", tmp_path / "s", 4)


def test_subset_and_copy(tmp_path):
    make_dir(tmp_path / "d", feats_scp={u: f"x.ark:{u[2]}" for u in UTTS})
    datadir.subset(tmp_path / "d", tmp_path / "s", ["c-1", "a-2"])
    assert read_table(tmp_path / "s/utt2emo") == {"a-2": "sad", "c-1": "ang"}
    assert read_table(tmp_path / "s/feats.scp") == {"a-2": "x.ark:2", "c-1": "x.ark:1"}
    datadir.copy(tmp_path / "s", tmp_path / "c")
    assert {p.name for p in (tmp_path / "s").iterdir()} - {p.name for p in (tmp_path / "c").iterdir()} == {"feats.scp"}
    with pytest.raises(PyserError, match="1 of the wanted utterances are not in it, e.g. z-1"):
        datadir.subset(tmp_path / "d", tmp_path / "s", ["a-1", "z-1"])
    assert datadir.first(tmp_path / "d", 2) == ["a-1", "b-1"]


def test_combine(tmp_path):
    one, two = make_dir(tmp_path / "1", UTTS[:2], utt2lang={"a-1": "en", "a-2": "en"}), make_dir(tmp_path / "2", UTTS[1:])
    datadir.combine(tmp_path / "d", [one, two])
    assert read_table(tmp_path / "d/utt2emo") == EMOTIONS and not (tmp_path / "d/utt2lang").exists()
    write_table(two / "utt2emo", EMOTIONS | {"a-2": "hap"})
    with pytest.raises(PyserError, match="a-2 differs between the utt2emo"):
        datadir.combine(tmp_path / "d", [one, two])
    with pytest.raises(PyserError, match="some sources have segments"):
        datadir.combine(tmp_path / "e", [with_segments(tmp_path / "s"), make_dir(tmp_path / "3", UTTS[2:])])


def test_perturb_speed_keeps_emotions(tmp_path):
    datadir.perturb_speed(make_dir(tmp_path / "d"), tmp_path / "p", [0.9, 1.0])
    assert read_table(tmp_path / "p/utt2emo") == EMOTIONS | {f"sp0.9-{u}": e for u, e in EMOTIONS.items()}
    assert read_table(tmp_path / "p/utt2uniq") == {u: u for u in UTTS} | {f"sp0.9-{u}": u for u in UTTS}
    for name, old, new in (("utt2spk", "b", "sp0.9-b"), ("utt2dur", "1.8", "2"), ("text", *["words of b-1"] * 2),
                           ("wav.scp", "b-1.wav", "sox -t wav b-1.wav -t wav - speed 0.9 |")):
        assert [read_table(tmp_path / "p" / name)[key] for key in ("b-1", "sp0.9-b-1")] == [old, new]
    datadir.validate(tmp_path / "p", need_text=True)
    datadir.perturb_speed(with_segments(tmp_path / "s"), tmp_path / "q", [0.9])
    assert read_table(tmp_path / "q/segments") == {"sp0.9-a-1": "sp0.9-a-r 0 1", "sp0.9-a-2": "sp0.9-a-r 1 -1"}


def test_perturb_volume_keeps_emotions(tmp_path):
    datadir.perturb_volume(make_dir(tmp_path / "d", UTTS[:2]), tmp_path / "p", seed=0)
    assert read_table(tmp_path / "p/utt2emo") == {"a-1": "ang", "a-2": "sad"}
    # random.Random(0) draws 0.84442185 and 0.75795440; 0.125 + 1.875 of those
    assert [entry.split()[2] for entry in read_table(tmp_path / "p/wav.scp").values()] == ["1.7083", "1.5462"]
    write_table(tmp_path / "d/wav.scp", {"a-1": "cat a-1.wav |", "a-2": "a-2.wav"})
    with pytest.raises(PyserError, match="cannot perturb the command 'cat a-1.wav |'"):
        datadir.perturb_volume(tmp_path / "d", tmp_path / "p")


@pytest.mark.parametrize("compress", [True, False])
def test_collect_feats_counts_what_is_missing(tmp_path, compress):
    for utt, rows in (("a-1", 3), ("a-2", 20), ("c-1", 5)):
        with MatrixWriter(f"ark,scp:{tmp_path}/{utt}.ark,{tmp_path}/{utt}.scp", compress) as writer:
            writer.write(utt, np.ones((rows, 2)))
    scps = sorted(tmp_path.glob("*.scp"))
    with pytest.raises(PyserError, match="4 utterances, 1 dropped: .*more than --max-dropped 5%"):
        datadir.collect_feats(make_dir(tmp_path / "d"), scps)
    line = datadir.collect_feats(tmp_path / "d", scps, max_dropped=0.25)
    assert "4 utterances, 1 dropped: 1 without features" in line and line.endswith("(e.g. b-1)")
    assert read_table(tmp_path / "d/utt2num_frames") == {"a-1": "3", "a-2": "20", "c-1": "5"}
    assert sorted(read_table(tmp_path / "d/utt2emo")) == ["a-1", "a-2", "c-1"]
