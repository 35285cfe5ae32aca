"""The checks of utils/validate_data_dir.sh: a whole directory passes, and every single fault is named."""

import re

import pytest
from click.testing import CliRunner

from pyser.cli.data import group
from pyser.errors import PyserError
from pyser.kaldi.datadir import validate

UTTS = ("a-1", "a-2", "b-1", "c-1")
SPEAKERS = {"a": "a-1 a-2", "b": "b-1", "c": "c-1"}
PER_UTT = {"text": "SOME WORDS", "feats.scp": "f.ark:7", "vad.scp": "v.ark:7", "utt2lang": "en", "utt2uniq": "u",
           "utt2emo": "sad", "utt2avd": "3 3 3", "utt2dur": "1.25", "utt2num_frames": "123", "utt2warp": "1.1"}
PER_SPK = {"cmvn.scp": "c.ark:7", "spk2gender": "f", "spk2warp": "0.9"}
PER_RECO = {"wav.scp": "x.wav", "reco2dur": "9.5", "reco2file_and_channel": "x A"}


def make(path, segments):
    """A data directory with every list that Kaldi checks; its recordings are r1 and r2 or the utterances."""
    files = {name: [f"{key} {value}" for key in UTTS] for name, value in PER_UTT.items()}
    files |= {name: [f"{key} {value}" for key in SPEAKERS] for name, value in PER_SPK.items()}
    files |= {name: [f"{key} {value}" for key in (("r1", "r2") if segments else UTTS)] for name, value in PER_RECO.items()}
    files |= {"utt2spk": [f"{utt} {utt[0]}" for utt in UTTS], "spk2utt": [" ".join(pair) for pair in SPEAKERS.items()]}
    if segments:
        files["segments"] = ["a-1 r1 0 1.5", "a-2 r1 1.5 -1", "b-1 r2 0.0 2", "c-1 r2 2 3e0"]
    for name, lines in files.items():
        (path / name).write_text("".join(line + "\n" for line in lines))
    return path


def lines_of(path):
    return path.read_text().splitlines()


def set_line(path, number, line):
    lines = lines_of(path)
    lines[number] = line
    path.write_bytes("".join(one + "\n" for one in lines).encode())


def fails(path, message, **options):
    with pytest.raises(PyserError, match=re.escape(message)) as error:
        validate(path, **{"need_text": True, **options})
    assert "\n" not in str(error.value)


LISTS = ["utt2spk", "spk2utt", "segments", *PER_UTT, *PER_SPK, *PER_RECO]


@pytest.mark.parametrize("segments", [False, True])
def test_a_whole_directory_passes(tmp_path, segments):
    line = validate(make(tmp_path, segments), need_text=True, need_feats=True)
    assert line.startswith(f"{tmp_path}: 4 utterances, 3 speakers, lists: cmvn.scp feats.scp reco2dur reco2file_and_channel ")
    assert "\n" not in line  # no warning
    for name in LISTS:
        if (tmp_path / name).exists():
            (tmp_path / name).write_text((tmp_path / name).read_text().replace(" ", "\t"))
    assert validate(tmp_path, need_text=True, need_feats=True) == line  # tabs are as good as blanks


@pytest.mark.parametrize("name", LISTS)
def test_every_list_is_sorted_unique_and_ends_in_a_newline(tmp_path, name):
    path = make(tmp_path, name == "segments") / name
    lines = lines_of(path)
    for wrong, message in (
        ([lines[1], lines[0], *lines[2:]], f"{name}: not sorted: {lines[0].split()[0]} in line 2 comes after"),
        ([lines[0], *lines], f"{name}:2: {lines[0].split()[0]} occurs twice"),
        ([*lines, ""], f"{name}:{len(lines) + 1}: empty line"),
        ([lines[0], lines[1] + "\r", *lines[2:]], f"{name}:2: a carriage return"),
    ):
        path.write_bytes("".join(line + "\n" for line in wrong).encode())
        fails(tmp_path, message)
    path.write_text("\n".join(lines))
    fails(tmp_path, f"{name}: the last line does not end in a newline")
    path.write_bytes(b"a-1\xff x\n" if name.endswith(".scp") else b"a-1 \xff\n")  # (file names may be any bytes)
    fails(tmp_path, f"{name}: not UTF-8")


@pytest.mark.parametrize("name", [name for name in LISTS if name not in ("utt2spk", "spk2utt")])
@pytest.mark.parametrize("segments", [False, True])
def test_every_list_has_exactly_its_keys(tmp_path, name, segments):
    if name == "segments" and not segments:
        return
    path = make(tmp_path, segments) / name
    lines = lines_of(path)
    what = "speakers differ from spk2utt" if name in PER_SPK else "utterances differ from utt2spk"
    if segments and name in PER_RECO:
        what = "recordings differ from segments"
    path.write_text("".join(line + "\n" for line in [*lines, f"z {lines[-1].split(' ', 1)[1]}"]))
    fails(tmp_path, f"{name}: 1 {what}, e.g. z is only in {name}; ")
    path.write_text("".join(line + "\n" for line in lines[1:]))
    mended_by_fix = name not in ("vad.scp", "utt2uniq", "utt2warp", "reco2file_and_channel", "reco2dur", *PER_SPK)
    if (name, segments) == ("wav.scp", True):
        fails(tmp_path, "segments: a-1: expected 'recording start end' with a recording of wav.scp")
    else:
        fails(tmp_path, f"{name}: 1 {what}, e.g. {lines[0].split()[0]} is not in {name}; " + "mend" * mended_by_fix)


@pytest.mark.parametrize("name, value, message", [
    ("utt2spk", "", "expected one speaker"), ("utt2spk", "a b", "expected one speaker"),
    ("wav.scp", "", "expected a file name"),
    ("wav.scp", "~/x.wav", "the whole path in place of ~"), ("feats.scp", "", "expected a file name"),
    ("vad.scp", "", "expected a file name"), ("cmvn.scp", "", "expected a file name"),
    *[("spk2gender", value, "expected m or f") for value in ("", "M", "female", "m f")],
    *[("spk2warp", value, "expected a warp factor") for value in ("0.5", "1.5", "", "one", "1 1")],
    *[("utt2warp", value, "expected a warp factor") for value in ("0.5", "nan")],
    *[(name, value, "expected a duration") for name in ("utt2dur", "reco2dur") for value in ("0", "x", "", "1 1", "inf")],
    *[("utt2num_frames", value, "expected a whole number of frames") for value in ("0", "-1", "1.5", "x", "", "1 1")],
    *[("reco2file_and_channel", value, "expected 'file A' or 'file B'") for value in ("x", "x C", "x 2", "x A B")],
])
def test_values(tmp_path, name, value, message):
    path = make(tmp_path, False) / name
    key = lines_of(path)[0].split()[0]
    set_line(path, 0, f"{key} {value}")
    fails(tmp_path, f"{name}: {key}: ")
    fails(tmp_path, message)


@pytest.mark.parametrize("value", [
    "none 0 1", "r1 0", "r1 0 1 2 3", "r1 0 1 A", "r1 1 1", "r1 2 1", "r1 -2 1", "r1 zero 1", "r1 0 nan",
])
def test_segments(tmp_path, value):
    set_line(make(tmp_path, True) / "segments", 1, f"a-2 {value}")
    fails(tmp_path, "segments: a-2: ")


def test_segments_may_name_their_channel(tmp_path):
    set_line(make(tmp_path, True) / "segments", 1, "a-2 r1 1.5 -1 1")
    validate(tmp_path, need_text=True)


@pytest.mark.parametrize("text", ["", "a-1 <s>\n", "z X\n", "b\na\n"])
def test_a_text_that_is_not_required_is_not_looked_at(tmp_path, text):
    (make(tmp_path, False) / "text").write_text(text)
    assert "4 utterances" in validate(tmp_path)
    with pytest.raises(PyserError, match="text"):
        validate(tmp_path, need_text=True)


def test_wav_scp_holds_no_other_recordings_and_may_use_a_tilde_in_a_command(tmp_path):
    make(tmp_path, False)
    set_line(tmp_path / "wav.scp", 0, "a-1 cat ~/x.wav |")
    validate(tmp_path)
    make(tmp_path, True)
    (tmp_path / "wav.scp").write_text("r0 x\nr1 x\nr2 x\n")
    fails(tmp_path, "wav.scp: 1 recordings differ from segments, e.g. r0 is only in wav.scp; mend it with: pyser data fix")


@pytest.mark.parametrize("words, message", [
    ("<s> A", "text:2: the symbol <s>"), ("A </s>", "text:2: the symbol </s>"), ("#0", "text:2: the symbol #0"),
    ("A-<s>", "the symbol <s>"), ("A\aB", "text:2: non-printable character U+0007"), ("A\uffffB", "character U+FFFF"),
    ("A\u00a0B", "text:2: white space U+00A0"), ("A\u2028B", "white space U+2028"), ("A\fB", "white space U+000C"),
])
def test_text_has_no_odd_characters(tmp_path, words, message):
    set_line(make(tmp_path, False) / "text", 1, f"a-2 {words}")
    fails(tmp_path, message)
    if "printable" in message:
        validate(tmp_path, need_text=True, printable=False)


@pytest.mark.parametrize("words", ["Äß 中文", "A\tB  C", "A#0B", "A<s>", "<unk> [noise]", "क\u200dष"])
def test_text_may_have_what_kaldi_allows(tmp_path, words):
    set_line(make(tmp_path, False) / "text", 1, f"a-2 {words}")
    assert "WARNING" not in validate(tmp_path, need_text=True)


def test_what_must_be_there(tmp_path):
    for name in ("utt2spk", "spk2utt", "wav.scp", "text", "feats.scp"):
        for empty in (True, False):
            make(tmp_path, False)
            (tmp_path / name).unlink()
            if empty:
                (tmp_path / name).write_text("")
            fails(tmp_path, f"{name}: missing or empty; run the stage that writes it", need_text=True, need_feats=True)
    make(tmp_path, False)
    for name in ("wav.scp", "text", "feats.scp"):
        (tmp_path / name).unlink()
    validate(tmp_path, need_wav=False)
    make(tmp_path, True)
    (tmp_path / "wav.scp").unlink()
    fails(tmp_path, "wav.scp: missing", need_wav=False)  # segments need it
    fails(tmp_path / "none", "none: no such data directory")


def test_command(tmp_path):
    make(tmp_path, False)
    for name in ("wav.scp", "text", "feats.scp"):
        (tmp_path / name).unlink()
    options = ["--no-feats", "--no-text", "--no-wav", "--no-spk-sort", "--non-print"]
    assert CliRunner().invoke(group, ["validate", *options, str(tmp_path)]).output.startswith(f"{tmp_path}: 4 utterances")
    for left_out in options[:3]:  # by default all three are needed
        result = CliRunner().invoke(group, ["validate", *(one for one in options if one != left_out), str(tmp_path)])
        assert f"(or give {left_out})" in str(result.exception)


def speakers(path, utt2spk, spk2utt):
    for name in (*PER_SPK, "reco2file_and_channel"):
        (path / name).unlink(missing_ok=True)
    (path / "utt2spk").write_text("".join(f"{utt} {spk}\n" for utt, spk in zip(UTTS, utt2spk.split(), strict=True)))
    (path / "spk2utt").write_text(spk2utt)


def test_speakers(tmp_path):
    make(tmp_path, False)
    speakers(tmp_path, "a z b c", "a a-1\nb b-1\nc c-1\nz a-2\n")
    fails(tmp_path, "utt2spk: a-2 does not begin with its speaker z: sorting by utterance and by speaker would differ")
    validate(tmp_path, spk_sort=False)
    speakers(tmp_path, "a a- a b", "a a-1 b-1\na- a-2\nb c-1\n")
    fails(tmp_path, "utt2spk: b-1 does not begin with its speaker a")
    (tmp_path / "utt2spk").write_text("a-1 a\na-b-1 a-b\na-c a\n")
    fails(tmp_path, "utt2spk: a-c comes after another speaker than its a: sorting by utterance and")
    speakers(tmp_path, "k k m z", "k a-1 a-2\nm b-1\nz c-1\n")
    validate(tmp_path)  # no prefixes, but the same order
    for spk2utt, spk in (("k a-2 a-1\nm b-1\nz c-1\n", "k"), ("k a-1 a-2\nm b-1\n", "z"), ("k a-1 a-2\nm\nz c-1\n", "m")):
        speakers(tmp_path, "k k m z", spk2utt)
        fails(tmp_path, f"spk2utt: {spk}: its utterances differ from those of utt2spk; write spk2utt again")


def test_warnings(tmp_path):
    make(tmp_path, False)
    set_line(tmp_path / "text", 2, "b-1")
    set_line(tmp_path / "reco2file_and_channel", 1, "a-2 x 1")
    lines = validate(tmp_path, need_text=True).splitlines()
    assert lines[1] == f"WARNING: {tmp_path}/text: 1 utterances have no words, e.g. b-1"
    assert lines[2].endswith("reco2file_and_channel: a-2: the channel should be A or B, not 1")
    speakers(tmp_path, "s s s s", "s a-1 a-2 b-1 c-1\n")
    assert "only one speaker" in validate(tmp_path).splitlines()[1]
