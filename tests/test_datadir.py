"""Kaldi data directories: every list follows its utterances, and what is left is what Kaldi's scripts leave.

golden/datadir was written by Kaldi's utils/subset_data_dir.sh, split_data.sh, fix_data_dir.sh and combine_data.sh from
directories made for it; X.txt holds the files of a directory, each after a line `==> name <==`.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from pyser.cli.data import group
from pyser.errors import PyserError
from pyser.kaldi import datadir
from pyser.kaldi.datadir import read_table, write_table

GOLDEN = Path(__file__).parent / "golden/datadir"
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


def unpacked(name):
    parts = re.split(r"==> (\S+) <==\n", (GOLDEN / f"{name}.txt").read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def unpack(name, directory):
    directory.mkdir(parents=True)
    for file, text in unpacked(name).items():
        (directory / file).write_text(text)
    return directory


def same_as_kaldi(directory, name):
    for file, text in unpacked(name).items():
        assert (directory / file).read_text() == text, file
    assert {path.name for path in directory.iterdir()} - {".backup"} == set(unpacked(name))


def pyser_data(*args):
    """Output of `pyser data …`; a PyserError comes through."""
    return CliRunner().invoke(group, [str(arg) for arg in args], catch_exceptions=False).output


def chosen(kind):
    lines = [line.split(": ") for line in (GOLDEN / "chosen.txt").read_text().splitlines()]
    return [(*name.split()[1:], utts.split()) for name, utts in lines if name.split()[0] == kind]


@pytest.mark.parametrize("how, num, utts", chosen("subset"))
def test_subset_chooses_what_kaldi_chooses(tmp_path, how, num, utts):
    option = [] if how == "evenly" else [f"--{how}"]
    source = unpack("source", tmp_path / "d")
    assert f" {len(utts)} of 35 utterances" in pyser_data("subset", *option, source, num, tmp_path / "s")
    assert list(read_table(tmp_path / "s/utt2spk")) == utts == list(read_table(tmp_path / "s/utt2num_frames"))


@pytest.mark.parametrize("kind, num", [("per-spk", 3), ("per-spk", 5), ("per-utt", 3), ("per-utt", 5)])
def test_split_is_kaldis(tmp_path, kind, num):
    source, option, name = unpack("source", tmp_path / "d"), [], f"split{num}"
    if kind == "per-utt":
        option, name = ["--per-utt"], f"split{num}utt"
    pyser_data("split", *option, source, num)
    parts = [utts for how, count, _, utts in chosen("split") if (how, count) == (kind, str(num))]
    assert [list(read_table(source / name / str(job) / "utt2spk")) for job in range(1, num + 1)] == parts
    assert sum(map(len, parts)) == 35


def test_split_again_only_when_something_is_newer(tmp_path):
    source = make_dir(tmp_path / "d")
    assert "2 parts of 4" in pyser_data("split", source, 2)
    assert pyser_data("split", source, 2) == ""
    write_table(source / "utt2emo", dict.fromkeys(UTTS, "hap"))
    os.utime(source / "utt2emo", ns=(2**62, 2**62))
    assert "2 parts of 4" in pyser_data("split", source, 2)
    assert read_table(source / "split2/1/utt2emo") == {"a-1": "hap", "a-2": "hap"}
    with pytest.raises(PyserError, match="'x' is not a number above 0"):
        pyser_data("split", source, "x")


def test_split_keeps_speakers_whole(tmp_path):
    assert "2 parts of 4" in pyser_data("split", "--nj", 2, make_dir(tmp_path / "d"), tmp_path / "s")
    assert read_table(tmp_path / "s/1/utt2spk") == {"a-1": "a", "a-2": "a"}
    assert read_table(tmp_path / "s/2/utt2emo") == {"b-1": "neu", "c-1": "ang"}
    assert read_table(tmp_path / "s/2/spk2gender") == {"b": "f", "c": "f"}
    with pytest.raises(PyserError, match="d: cannot split 3 speakers into 4; .* --per-utt"):
        datadir.split(tmp_path / "d", tmp_path / "s", 4)
    with pytest.raises(PyserError, match="cannot split 4 utterances into 5"):
        datadir.split(tmp_path / "d", tmp_path / "s", 5, per_utt=True)
    datadir.split(with_segments(tmp_path / "e"), tmp_path / "p", 2, per_utt=True)
    assert read_table(tmp_path / "p/1/wav.scp") == read_table(tmp_path / "p/2/wav.scp") == {"a-r": "r.wav"}
    assert read_table(tmp_path / "p/2/segments") == {"a-2": "a-r 0.9 -1"}


def test_subset_by_lists_and_what_goes_along(tmp_path):
    source = make_dir(tmp_path / "d", vad_scp={u: f"v.ark:{u[2]}" for u in UTTS}, utt2fold={u: u[2] for u in UTTS})
    (source / "stm").write_text(";; head\na-1 A a 0 1 w\nb-1 A b 0 1 w\n")
    (source / "frame_shift").write_text("0.03\n")
    (tmp_path / "list").write_text("a-1 with more\nz-9\n")
    assert "1 of 4 utterances" in pyser_data("subset", "--utt-list", tmp_path / "list", source, tmp_path / "s")
    assert read_table(tmp_path / "s/utt2fold") == {"a-1": "1"} and read_table(tmp_path / "s/vad.scp") == {"a-1": "v.ark:1"}
    assert (tmp_path / "s/stm").read_text() == ";; head\na-1 A a 0 1 w\n"
    assert (tmp_path / "s/frame_shift").read_text() == "0.03\n"
    (tmp_path / "list").write_text("b\nc\n")
    pyser_data("subset", "--spk-list", tmp_path / "list", source, tmp_path / "t")
    assert read_table(tmp_path / "t/utt2emo") == {"b-1": "neu", "c-1": "ang"}
    pyser_data("subset", "--num", 2, source, tmp_path / "u")
    assert list(read_table(tmp_path / "u/text")) == ["a-2", "c-1"]
    with pytest.raises(PyserError, match="cannot take 5 of 4 utterances"):
        pyser_data("subset", source, 5, tmp_path / "v")
    with pytest.raises(PyserError, match="need utt2num_frames or feats.scp"):
        pyser_data("subset", "--shortest", source, 1, tmp_path / "v")
    for wrong in (["--first", source, tmp_path / "v"], ["--num", 1, "--utt-list", tmp_path / "list", source, tmp_path / "v"],
                  ["--first", "--utt-list", tmp_path / "list", source, tmp_path / "v"]):
        with pytest.raises(PyserError, match="give SOURCE N TARGET with"):
            pyser_data("subset", *wrong)
    (tmp_path / "list").write_text("z\n")
    with pytest.raises(PyserError, match="none of those is in it"):
        pyser_data("subset", "--spk-list", tmp_path / "list", source, tmp_path / "v")


def test_subset_of_python(tmp_path):
    make_dir(tmp_path / "d", feats_scp={u: f"x.ark:{u[2]}" for u in UTTS})
    datadir.subset(tmp_path / "d", tmp_path / "s", ["c-1", "a-2"])
    assert read_table(tmp_path / "s/utt2emo") == {"a-2": "sad", "c-1": "ang"}
    assert read_table(tmp_path / "s/feats.scp") == {"a-2": "x.ark:2", "c-1": "x.ark:1"}
    with pytest.raises(PyserError, match="1 of the wanted utterances are not in it, e.g. z-1"):
        datadir.subset(tmp_path / "d", tmp_path / "s", ["a-1", "z-1"])


def test_fix_is_kaldis(tmp_path):
    directory = unpack("broken", tmp_path / "d")
    line = pyser_data("fix", directory)
    same_as_kaldi(directory, "fixed")
    assert ": kept 10 of 18 utterances (3 not in spk2gender, e.g. sp03-u092; " in line
    assert {path.name: path.read_text() for path in (directory / ".backup").iterdir()} == unpacked("broken")


def test_fix_treats_labels_as_kaldi_treats_text(tmp_path):
    make_dir(tmp_path, vad_scp={"a-1": "v.ark:1", "z": "v.ark:2"}, utt2fold={"b-1": "1", "z": "2"})
    (tmp_path / "utt2emo").write_text("b-1\tneu\n\na-1 ang\na-1 sad\n")
    (tmp_path / "text").write_text("b-1\na-2 x\na-1  two  words \r\n")
    for name in ("notes", "people"):
        (tmp_path / name).write_text("a-1 note\na b\nz z\n")
    pyser_data("fix", "--utt-extra-files", "notes", "--spk-extra-files", "people", tmp_path)
    assert (tmp_path / "utt2emo").read_text() == "a-1 ang\nb-1 neu\n"  # neither Kaldi's list nor complete: it counts
    assert (tmp_path / "text").read_text() == "a-1 two  words\nb-1\n"  # no words are words
    assert (tmp_path / "spk2utt").read_text() == "a a-1\nb b-1\n"
    assert read_table(tmp_path / "vad.scp") == {"a-1": "v.ark:1"} and read_table(tmp_path / "utt2fold") == {"b-1": "1"}
    assert (tmp_path / "notes").read_text() == "a-1 note\n" and (tmp_path / "people").read_text() == "a b\n"


@pytest.mark.parametrize("name, text, message", [
    ("utt2spk", "a-1 a b\n", "utt2spk: a-1: expected one speaker"), ("utt2spk", "", "utt2spk: missing or empty"),
    ("utt2spk", "a-1 c\na-2 a\nb-1 b\n", "a-1 of c: sorting by utterance and by speaker differ"),
    ("text", "z-1 x\n", r"no utterance is in every list \(4 not in text, e.g. a-1\)"),
    ("segments", "a-1 a-1 0 1\n", "wav.scp: missing or empty, but there is a segments file"),
])
def test_fix_leaves_alone_what_it_cannot_mend(tmp_path, name, text, message):
    (make_dir(tmp_path) / name).write_text(text)
    if name == "segments":
        (tmp_path / "wav.scp").unlink()
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    with pytest.raises(PyserError, match=message):
        datadir.fix(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_copy_renames(tmp_path):
    source = make_dir(tmp_path / "d", cmvn_scp={s: f"c.ark:{s}" for s in "abc"}, reco2dur=dict.fromkeys(UTTS, "2"))
    (source / "glm").write_text("glm\n")
    line = pyser_data("copy", "--utt-prefix", "p-", "--spk-prefix", "p-", "--utt-suffix", ".x", source, tmp_path / "c")
    assert "4 utterances, 3 speakers" in line and (tmp_path / "c/glm").read_text() == "glm\n"
    assert (tmp_path / "c/spk2utt").read_text() == "p-a p-a-1.x p-a-2.x\np-b p-b-1.x\np-c p-c-1.x\n"
    for name, key, value in (("utt2emo", "p-b-1.x", "neu"), ("cmvn.scp", "p-b", "c.ark:b"), ("reco2dur", "p-b-1.x", "2"),
                             ("wav.scp", "p-b-1.x", "b-1.wav"), ("utt2uniq", "p-b-1.x", "b-1")):
        assert read_table(tmp_path / "c" / name)[key] == value
    pyser_data("copy", "--utt-prefix", "q", "--spk-prefix", "q", tmp_path / "c", tmp_path / "e")
    assert read_table(tmp_path / "e/utt2uniq")["qp-b-1.x"] == "b-1"
    pyser_data("copy", "--utt-prefix", "q", with_segments(tmp_path / "s"), tmp_path / "t")
    assert read_table(tmp_path / "t/segments")["qa-1"] == "a-r 0 0.9"
    assert read_table(tmp_path / "t/wav.scp") == {"a-r": "r.wav"}
    with pytest.raises(PyserError, match="the source itself"):
        datadir.copy(tmp_path / "c", tmp_path / "c")


def test_copy_is_checked_and_moves_old_lists_away(tmp_path):
    target = make_dir(tmp_path / "c", vad_scp=dict.fromkeys(UTTS, "old"))
    source = make_dir(tmp_path / "d", feats_scp={u: f"x.ark:{u[2]}" for u in UTTS})
    assert "feats.scp" in pyser_data("copy", source, target) and (target / ".backup/vad.scp").exists()
    assert not (target / "vad.scp").exists()
    assert "feats.scp" not in pyser_data("copy", "--no-feats", source, target)
    (source / "wav.scp").unlink()
    with pytest.raises(PyserError, match="wav.scp: missing"):
        pyser_data("copy", source, tmp_path / "e")
    assert "4 utterances" in pyser_data("copy", "--validate-opts", "--no-wav", source, tmp_path / "e")


def test_combine_is_kaldis(tmp_path):
    one, two = unpack("one", tmp_path / "1"), unpack("two", tmp_path / "2")
    lines = pyser_data("combine", tmp_path / "d", one, two)
    same_as_kaldi(tmp_path / "d", "one_and_two")  # two has no segments, they are made from its utt2dur
    assert "not combining vad.scp, which is not in every source" in lines and ": kept 25 of 25 utterances" in lines


def test_combine(tmp_path):
    one, two = make_dir(tmp_path / "1", UTTS[:2], utt2lang={"a-1": "en", "a-2": "en"}), make_dir(tmp_path / "2", UTTS[1:])
    datadir.combine(tmp_path / "d", [one, two])
    assert read_table(tmp_path / "d/utt2emo") == EMOTIONS and not (tmp_path / "d/utt2lang").exists()
    write_table(two / "utt2emo", EMOTIONS | {"a-2": "hap"})
    with pytest.raises(PyserError, match="a-2 differs between the utt2emo"):
        datadir.combine(tmp_path / "d", [one, two])
    for source, extra in ((one, "a-1 x\n"), (make_dir(tmp_path / "3", UTTS[2:]), "b-1 y\n")):
        (source / "notes").write_text(extra)
    (one / "text").write_text("a-1 x\n")
    datadir.combine(tmp_path / "e", [one, tmp_path / "3"], ["notes"])
    assert read_table(tmp_path / "e/notes") == {"a-1": "x", "b-1": "y"} and "a-2" not in read_table(tmp_path / "e/utt2spk")
    datadir.combine(tmp_path / "e", [one, tmp_path / "3"], skip_fix=True)
    assert "a-2" in read_table(tmp_path / "e/utt2spk")


def test_combine_makes_segments_of_audio(tmp_path):
    soundfile.write(tmp_path / "c-1.wav", np.zeros(8000), 16000)
    speedy = {"c-1": f"sox -t wav {tmp_path}/c-1.wav -t wav - speed 2 |"}
    two = make_dir(tmp_path / "2", UTTS[3:], wav_scp=speedy, utt2dur={})
    datadir.combine(tmp_path / "d", [with_segments(tmp_path / "s"), two])
    assert read_table(tmp_path / "d/segments") == {"a-1": "a-r 0 0.9", "a-2": "a-r 0.9 -1", "c-1": "c-1 0 0.25"}
    write_table(two / "wav.scp", {"c-1": "cat c-1.wav |"})
    with pytest.raises(PyserError, match="2: no length for c-1"):
        datadir.combine(tmp_path / "d", [tmp_path / "s", two])


def test_combine_refuses_different_frame_shifts(tmp_path):
    sources = [make_dir(tmp_path / u, [u], feats_scp={u: "f.ark:1"}) for u in UTTS[:2]]
    for source, shift in zip(sources, ("0.01\n", "0.03\n"), strict=True):
        (source / "frame_shift").write_text(shift)
    with pytest.raises(PyserError, match="a-1/frame_shift 0.01, .*a-2/frame_shift 0.03"):
        datadir.combine(tmp_path / "d", sources)
    (sources[0] / "frame_shift").write_text("0.03\n")
    datadir.combine(tmp_path / "d", sources)
    assert (tmp_path / "d/frame_shift").read_text() == "0.03\n"


def test_perturb_speed_keeps_emotions(tmp_path):
    datadir.perturb_speed(make_dir(tmp_path / "d"), tmp_path / "p", [0.9, 1.0])
    assert read_table(tmp_path / "p/utt2emo") == EMOTIONS | {f"sp0.9-{u}": e for u, e in EMOTIONS.items()}
    assert read_table(tmp_path / "p/utt2uniq") == {u: u for u in UTTS} | {f"sp0.9-{u}": u for u in UTTS}
    for name, old, new in (("utt2spk", "b", "sp0.9-b"), ("utt2dur", "1.8", "2"), ("text", *["words of b-1"] * 2),
                           ("wav.scp", "b-1.wav", "sox -t wav b-1.wav -t wav - speed 0.9 |")):
        assert [read_table(tmp_path / "p" / name)[key] for key in ("b-1", "sp0.9-b-1")] == [old, new]
    datadir.validate(tmp_path / "p", need_text=True)
    (with_segments(tmp_path / "s") / "segments").write_text("a-1 a-r 0 0.9\na-2 a-r 0.9 -1 1\n")
    datadir.perturb_speed(tmp_path / "s", tmp_path / "q", [0.9])
    assert read_table(tmp_path / "q/segments") == {"sp0.9-a-1": "sp0.9-a-r 0 1", "sp0.9-a-2": "sp0.9-a-r 1 -1 1"}
    (tmp_path / "s/segments").write_text("a-1 a-r 0 0.9\na-2 a-r 0.9\n")
    with pytest.raises(PyserError, match="s/segments: expected 'recording start end'"):
        datadir.perturb_speed(tmp_path / "s", tmp_path / "q", [0.9])


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
    from pyser.kaldi.tables import MatrixWriter

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
