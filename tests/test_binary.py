"""Kaldi's objects in files: byte by byte, in text, and against what Kaldi itself wrote."""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer

GOLDEN = Path(__file__).parent / "golden/tables"


def test_bytes_of_a_matrix(tmp_path):
    writer = Writer()
    writer.token("<X>")
    writer.matrix(np.array([[1.0, 2.0]]), "FM")
    writer.save(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"\0B<X> FM \4\1\0\0\0\4\2\0\0\0" + struct.pack("<2f", 1, 2)


def test_packed_symmetric_is_the_lower_triangle_by_rows(tmp_path):
    (tmp_path / "x").write_bytes(b"\0BFP \4\2\0\0\0" + struct.pack("<3f", 1, 2, 3))
    assert Reader(tmp_path / "x").symmetric().tolist() == [[1, 2], [2, 3]]
    assert Reader(tmp_path / "x").triangular().tolist() == [[1, 0], [2, 3]]


@pytest.mark.parametrize("binary", [True, False])
def test_round_trip(tmp_path, binary):
    symmetric = np.array([[4.0, 1.0, 2.0], [1.0, 5.0, 3.0], [2.0, 3.0, 6.0]])
    writer = Writer(binary)
    writer.token("<Nnet3>", "name")
    writer.line("")
    writer.line("input-node name=input dim=40")
    writer.int32(-7)
    writer.double(0.1)
    writer.real(2.5)
    writer.boolean(True)
    writer.boolean(False)
    for dtype in ("D", "F"):
        writer.vector(np.arange(3.0), dtype + "V")
        writer.matrix(symmetric, dtype + "M")
        writer.symmetric(symmetric, dtype + "P")
    writer.integers(np.array([3, -1, 2**31 - 1]))
    writer.token("</Nnet3>")
    writer.save(tmp_path / "x")
    with Reader(tmp_path / "x") as reader:
        assert reader.binary == binary
        reader.expect("<Nnet3>", "name")
        assert (reader.line(), reader.line()) == ("", "input-node name=input dim=40")
        assert (reader.int32(), reader.real(), reader.real()) == (-7, 0.1, 2.5)
        assert (reader.boolean(), reader.boolean()) == (True, False)
        for _ in range(2):
            assert reader.vector().tolist() == [0, 1, 2]
            assert (reader.matrix() == symmetric).all()
            assert (reader.symmetric() == symmetric).all()
        assert reader.integers().tolist() == [3, -1, 2**31 - 1]
        assert reader.peek() == "</Nnet3>" and reader.peek() == "</Nnet3>"
        assert reader.token() == "</Nnet3>" and reader.peek() == ""


def test_text_is_laid_out_as_kaldi_does():
    for kind, name in (("FP", "sp_float"), ("DP", "sp_double"), ("DP", "tp_double")):
        writer = Writer(binary=False)
        writer.symmetric(Reader(GOLDEN / f"{name}.bin").triangular(), kind)
        assert writer.data() == (GOLDEN / f"{name}.txt").read_bytes()
    writer = Writer(binary=False)
    writer.matrix(Reader(GOLDEN / "matrix_double.bin").matrix())
    assert writer.data() == (GOLDEN / "matrix_double.mat.txt").read_bytes()
    writer = Writer(binary=False)
    writer.vector(Reader(GOLDEN / "vector_double.bin").vector())
    assert writer.data() == (GOLDEN / "vector_double.vec.txt").read_bytes()


def test_text_that_kaldi_wrote_is_read():
    close = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(
        Reader(GOLDEN / "sp_double.txt").symmetric(), Reader(GOLDEN / "sp_double.bin").symmetric(), **close)
    np.testing.assert_allclose(
        Reader(GOLDEN / "tp_double.txt").triangular(), Reader(GOLDEN / "tp_double.bin").triangular(), **close)
    np.testing.assert_allclose(
        Reader(GOLDEN / "matrix_double.mat.txt").matrix(), Reader(GOLDEN / "matrix_double.bin").matrix(), **close)
    np.testing.assert_allclose(
        Reader(GOLDEN / "vector_double.vec.txt").vector(), Reader(GOLDEN / "vector_double.bin").vector(), **close)


def test_binary_is_written_as_kaldi_does():
    for name, kind, read, write in (
        ("sp_float", "FP", Reader.symmetric, Writer.symmetric), ("sp_double", "DP", Reader.symmetric, Writer.symmetric),
        ("tp_double", "DP", Reader.triangular, Writer.symmetric), ("matrix_double", "DM", Reader.matrix, Writer.matrix),
        ("vector_double", "DV", Reader.vector, Writer.vector),
    ):
        writer = Writer()
        write(writer, read(Reader(GOLDEN / f"{name}.bin")), kind)
        assert writer.data() == (GOLDEN / f"{name}.bin").read_bytes(), name


def test_hand_written_text(tmp_path):
    (tmp_path / "x").write_text(" [ 1 2\n 3 4 ]\n[ 5 6; 7 -inf]\n [ ]\n[\n1 \n2 3 ]\n[ 1.5 nan ]\r\n<X>")
    reader = Reader(tmp_path / "x")
    assert reader.matrix().tolist() == [[1, 2], [3, 4]]
    assert reader.matrix().tolist() == [[5, 6], [7, -np.inf]]
    assert reader.matrix().shape == (0, 0)
    assert reader.symmetric().tolist() == [[1, 2], [2, 3]]
    np.testing.assert_array_equal(reader.vector(), [1.5, np.nan])
    reader.expect("<X>")


def test_gzip_and_open_streams(tmp_path):
    data = b"\0B<A> \4\5\0\0\0"
    (tmp_path / "x.gz").write_bytes(gzip.compress(data))
    for reader in (Reader(tmp_path / "x.gz"), Reader.of(io.BytesIO(data), "x")):
        reader.expect("<A>")
        assert reader.int32() == 5


@pytest.mark.parametrize("data, read, message", [
    (b"\0BDM \4\2\0\0\0\4\2\0\0\0" + bytes(8), Reader.matrix, "byte 15: expected 4 numbers"),
    (b"\0BFM \4\xff\xff\xff\x7f\4\xff\xff\xff\x7f", Reader.matrix, r"expected \d+ numbers"),
    (b"\0BFM \4\xff\xff\xff\xff\4\2\0\0\0", Reader.matrix, "a number of rows, not -1"),
    (b"\0BFM \4\2\0\0\0\4\0\0\0\0", Reader.matrix, "not one of 2 rows and 0 columns"),
    (b"\0BCM " + struct.pack("<ffii", 0, 1, 2**31 - 1, 2**31 - 1), Reader.matrix, "bytes of a compressed matrix"),
    (b"\0BCM2 " + struct.pack("<ffii", 0, 1, -5, 5), Reader.matrix, "not one of -5 rows"),
    (b"\0BCM ", Reader.matrix, "the header of a compressed matrix"),
    (b"\0BFP \4\xff\xff\xff\x7f", Reader.symmetric, "numbers"),
    (b"\0BFV \4\xff\xff\xff\x7f", Reader.vector, "2147483647 numbers"),
    (b"\0B\4\xff\xff\xff\x7f", Reader.integers, "2147483647 integers"),
    (b"\0B\4\xff\xff\xff\xff", Reader.integers, "integers"),
    (b"\0BFX ", Reader.matrix, "a matrix"), (b"\0BFV ", Reader.matrix, "a matrix"), (b"\0BFM ", Reader.vector, "a vector"),
    (b"\0B\10\0\0\0\0", Reader.int32, "an int32"), (b"\0B\4\0\0", Reader.real, "a number"),
    (b"\0BX", Reader.boolean, "T or F"),
    (b"\0X", Reader.token, "a Kaldi file"), (b"\0B", Reader.token, "a token"), (b"a" * 2000, Reader.token, "a token"),
    (b"[ 1 2\n 3 ]", Reader.matrix, "rows of the same length"), (b"[ 1 2", Reader.matrix, r"expected \]"),
    (b"[ 1 x ]", Reader.matrix, "numbers"), (b"1 2 ]", Reader.matrix, r"expected \["),
    (b"[ 1 2\n3 4 ]", Reader.vector, "a vector, not a matrix"), (b"[ 1 2 ]", Reader.symmetric, "the lower triangle"),
    (b"[ 1 99999999999 ]", Reader.integers, "32 bits"), (b"99999999999 ", Reader.int32, "an int32"),
    (b"", Reader.line, "a line"),
])
def test_damage_is_named(tmp_path, data, read, message):
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(PyserError, match=message) as caught:
        read(Reader(tmp_path / "bad"))
    assert str(caught.value).startswith(f"{tmp_path}/bad: byte ") and "\n" not in str(caught.value)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(PyserError, match="missing: no such file"):
        Reader(tmp_path / "missing")
    with pytest.raises(PyserError, match="cannot read it"):
        Reader(tmp_path)
    (tmp_path / "short.gz").write_bytes(gzip.compress(b"\0B" + bytes(1000))[:-12])
    with pytest.raises(PyserError, match=r"short\.gz: cannot read it"):
        Reader(tmp_path / "short.gz").take(1000, "zeros")
