"""Lists of keys and values: scp files, maps, whatever they are read from."""

import os

import pytest

from pyser.errors import PyserError
from pyser.kaldi.datadir import copy
from pyser.kaldi.maps import read_map
from pyser.kaldi.scripts import read_scp, read_table


def test_read_scp_keeps_the_order_and_the_ranges(tmp_path):
    (tmp_path / "x.scp").write_text("b x.ark:7\na  x.ark:9[0:3]\n")
    assert list(read_scp(tmp_path / "x.scp").items()) == [("b", "x.ark:7"), ("a", "x.ark:9[0:3]")]


@pytest.mark.parametrize("text, message", [("a x:1\nb\n", r"x\.scp:2: expected"), ("a x:1\na x:2\n", r":2: a occurs twice")])
def test_read_scp_names_the_bad_line(tmp_path, text, message):
    (tmp_path / "x.scp").write_text(text)
    with pytest.raises(PyserError, match=message):
        read_scp(tmp_path / "x.scp")


def test_read_table_splits_at_any_white_space(tmp_path):
    (tmp_path / "text").write_text("a\tb c\nd   e\u3000f \ng\n", encoding="utf-8")
    assert read_table(tmp_path / "text") == {"a": "b c", "d": "e\u3000f", "g": ""}


def test_maps_are_read_with_any_option_of_an_archive(tmp_path):
    (tmp_path / "spk2utt").write_text("s u1 u2\nt u3\n")
    for before in ("", "ark:", "ark,t:", "ark,s,cs:", "t,ark:"):
        assert read_map(f"{before}{tmp_path}/spk2utt") == {"s": "u1 u2", "t": "u3"}
    for source in (f"ark,x:{tmp_path}/spk2utt", f"scp:{tmp_path}/spk2utt"):
        with pytest.raises(PyserError, match=source):
            read_map(source)


def test_maps_from_pipes_are_the_same_as_from_files(tmp_path):
    """Only a newline ends a line, only ASCII blanks a word; what is wrong has its line."""
    path = tmp_path / "text"
    for content, message in ((b"a\tx\x0by\x0cz\nb \xe2\x80\xa8q\xc2\x85 r\r\nc\n", ""), (b"a x\n\n", ":2: empty line"),
                             (b"a x\nb\na y\n", ":3: a occurs twice"), (b"a \xff\n", ": not UTF-8")):
        path.write_bytes(content)
        for source in (str(path), f"cat {path} |", f"ark:cat {path} |", f"ark,t:{path}"):
            if not message:
                assert read_map(source, allow_pipes=True) == read_table(path) == {
                    "a": "x\x0by\x0cz", "b": "\u2028q\x85 r", "c": ""}
                continue
            with pytest.raises(PyserError, match=message):
                read_map(source, allow_pipes=True)
    with pytest.raises(PyserError, match="pipes are not run here"):
        read_map(f"cat {path} |")


def test_names_of_files_may_be_any_bytes(tmp_path):
    (source := tmp_path / "d").mkdir()
    for name, content in (("wav.scp", b"a \xff/a.wav\nb b\xe4.wav\n"), ("feats.scp", b"a f\xff.ark:2\nb f\xff.ark:9\n"),
                          ("utt2spk", b"a s\nb s\n")):
        (source / name).write_bytes(content)
    assert read_scp(source / "wav.scp") == {"a": os.fsdecode(b"\xff/a.wav"), "b": os.fsdecode(b"b\xe4.wav")}
    assert read_map(f"{source}/wav.scp", paths=True) == read_scp(source / "wav.scp")
    copy(source, tmp_path / "copy")
    for name in ("wav.scp", "feats.scp"):
        assert (tmp_path / "copy" / name).read_bytes() == (source / name).read_bytes()
    (source / "wav.scp").write_bytes(b"a x\nb\xff y\n")
    with pytest.raises(PyserError, match="wav.scp: not UTF-8 .invalid start byte at byte 5."):
        read_scp(source / "wav.scp")
    (source / "utt2spk").write_bytes(b"a \xff\n")
    with pytest.raises(PyserError, match="utt2spk: not UTF-8"):
        read_table(source / "utt2spk")
