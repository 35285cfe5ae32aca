"""Kaldi's binary objects, byte by byte."""

import struct

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer


def test_bytes_of_a_matrix(tmp_path):
    writer = Writer()
    writer.token("<X>")
    writer.matrix(np.array([[1.0, 2.0]]), "FM")
    writer.save(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"\0B<X> FM \4\1\0\0\0\4\2\0\0\0" + struct.pack("<2f", 1, 2)


def test_packed_symmetric_is_the_lower_triangle_by_rows(tmp_path):
    (tmp_path / "x").write_bytes(b"\0BFP \4\2\0\0\0" + struct.pack("<3f", 1, 2, 3))
    assert Reader(tmp_path / "x").symmetric().tolist() == [[1, 2], [2, 3]]


def test_round_trip(tmp_path):
    symmetric = np.array([[4.0, 1.0, 2.0], [1.0, 5.0, 3.0], [2.0, 3.0, 6.0]])
    writer = Writer()
    writer.int32(-7)
    writer.double(0.1)
    writer.vector(np.arange(3.0))
    writer.symmetric(symmetric)
    writer.save(tmp_path / "x")
    reader = Reader(tmp_path / "x")
    assert reader.int32() == -7 and reader.real() == 0.1
    assert reader.vector().tolist() == [0, 1, 2]
    assert (reader.symmetric() == symmetric).all()


def test_damage_is_named(tmp_path):
    (tmp_path / "text").write_text("<X> [ 1 2 ]")
    with pytest.raises(PyserError, match="text: not a binary Kaldi file"):
        Reader(tmp_path / "text")
    (tmp_path / "short").write_bytes(b"\0BDM \4\2\0\0\0\4\2\0\0\0" + bytes(8))
    with pytest.raises(PyserError, match="short: byte 15: expected 4 numbers"):
        Reader(tmp_path / "short").matrix()
    with pytest.raises(PyserError, match="missing: cannot read it"):
        Reader(tmp_path / "missing")
