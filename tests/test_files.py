"""A finished name is a finished file, whatever happens."""

import os
import sys

import pytest

from pyser.errors import PyserError
from pyser.files import atomic, read_lines, silent_stderr, write_json, write_text, write_torch


def test_nothing_is_left_of_a_failed_write(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ValueError):
        with atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise ValueError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(PyserError, match="cannot write .*b.txt: No space left on device; check space"):
        with atomic(tmp_path / "b.txt") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("something")
    assert os.listdir(tmp_path) == []


def test_links_stay_links(tmp_path):
    (tmp_path / "disk2").mkdir()
    for name, target in (("x.mdl", "disk2/y.mdl"), ("z.mdl", "x.mdl"), ("new.mdl", "disk2/sub/new.mdl")):
        (tmp_path / name).symlink_to(target)
        with atomic(tmp_path / name) as temporary:
            assert temporary.parent.parent in (tmp_path, tmp_path / "disk2")  # beside the target, on its disk
            temporary.write_text(name)
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == name
    assert (tmp_path / "disk2/y.mdl").read_text() == "z.mdl" and sorted(os.listdir(tmp_path / "disk2")) == ["sub", "y.mdl"]


def test_torch_and_json_files(tmp_path):
    import torch

    write_torch(tmp_path / "x.pt", {"x": torch.ones(2)})
    assert torch.load(tmp_path / "x.pt", weights_only=True)["x"].tolist() == [1, 1]
    write_json(tmp_path / "x.json", {"ä": 1})
    assert read_lines(tmp_path / "x.json") == ["{", ' "ä": 1', "}"]


def test_missing_and_foreign_text(tmp_path):
    with pytest.raises(PyserError, match="none: no such file; run the earlier stages first"):
        read_lines(tmp_path / "none")
    (tmp_path / "latin1").write_bytes("Müller".encode("latin-1"))
    with pytest.raises(PyserError, match="latin1: not UTF-8 .* at byte 1"):
        read_lines(tmp_path / "latin1")


def test_silent_stderr(capfd):
    with silent_stderr():
        os.write(2, b"from C++\n")
    print("from here", file=sys.stderr)
    assert capfd.readouterr().err == "from here\n"
