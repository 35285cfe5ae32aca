"""Kaldi tables: what is read from hand-made bytes, and what the writer leaves on disk when it ends well or badly."""

import struct

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.kaldi.tables import MatrixWriter, load_matrix, load_vector, read_matrices, read_scp

MATRIX = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], dtype=np.float32)


def float_matrix(matrix: np.ndarray) -> bytes:
    rows, cols = matrix.shape
    return b"\0BFM " + struct.pack("<bibi", 4, rows, 4, cols) + matrix.astype("<f4").tobytes()


@pytest.fixture
def ark(tmp_path):
    """Two matrices, with keys a and b: the second one starts after 'a ', 15 + 48 bytes and 'b '."""
    path = tmp_path / "m.ark"
    path.write_bytes(b"a " + float_matrix(MATRIX) + b"b " + float_matrix(-MATRIX[:1]))
    return path


def writer_to(directory, **options):
    return MatrixWriter(f"ark,scp:{directory}/f.ark,{directory}/f.scp", **options)


def test_read_scp_keeps_the_order_and_the_ranges(tmp_path):
    (tmp_path / "x.scp").write_text("b x.ark:7\na  x.ark:9[0:3]\n")
    assert list(read_scp(tmp_path / "x.scp").items()) == [("b", "x.ark:7"), ("a", "x.ark:9[0:3]")]


@pytest.mark.parametrize("text, message", [("a x:1\nb\n", r"x\.scp:2: expected"), ("a x:1\na x:2\n", r":2: a occurs twice")])
def test_read_scp_names_the_bad_line(tmp_path, text, message):
    (tmp_path / "x.scp").write_text(text)
    with pytest.raises(PyserError, match=message):
        read_scp(tmp_path / "x.scp")


def test_load_matrix_at_an_offset(ark):
    np.testing.assert_array_equal(load_matrix(f"{ark}:2"), MATRIX)
    np.testing.assert_array_equal(load_matrix(f"{ark}:67"), [[-1, -2, -3]])
    assert load_matrix(f"{ark}:2").dtype == np.float32


@pytest.mark.parametrize("rows, expected", [
    ("[1:2]", [[4, 5, 6], [7, 8, 9]]), ("[0:0]", [[1, 2, 3]]), ("[3:3]", [[10, 11, 12]]), ("[1:2,0:1]", [[4, 5], [7, 8]]),
])
def test_ranges_include_their_last_row(ark, rows, expected):
    np.testing.assert_array_equal(load_matrix(f"{ark}:2{rows}"), expected)


def test_load_vector(tmp_path):
    (tmp_path / "v.ark").write_bytes(b"v \0BFV " + struct.pack("<bi2f", 4, 2, 0.5, -3))
    np.testing.assert_array_equal(load_vector(f"{tmp_path}/v.ark:2"), [0.5, -3])


@pytest.mark.parametrize("entry, message", [
    ("{}/none.ark:2", "no such archive"), ("{}/none.ark:2[0:1]", "no such archive"),
    ("{}/m.ark:5", "not a whole Kaldi archive"), ("{}/m.ark:2[7:9]", "not a whole Kaldi archive"),
    ("cat {}/m.ark |", "pipes are not run here"),
])
def test_bad_entries_are_named(ark, entry, message):
    with pytest.raises(PyserError, match=message) as caught:
        load_matrix(entry.format(ark.parent))
    assert str(caught.value).startswith(entry.format(ark.parent))


def test_read_matrices_from_ark_and_scp(ark):
    (scp := ark.with_suffix(".scp")).write_text(f"b {ark}:67\na {ark}:2[3:3]\n")
    assert [(key, matrix.tolist()) for key, matrix in read_matrices(f"scp:{scp}")] == [
        ("b", [[-1, -2, -3]]), ("a", [[10, 11, 12]])]
    assert [(key, matrix.shape) for key, matrix in read_matrices(f"ark:{ark}")] == [("a", (4, 3)), ("b", (1, 3))]
    scp.write_text(f"a {ark.parent}/none.ark:2\n")
    with pytest.raises(PyserError, match=r"m\.scp: a: .*no such archive"):
        list(read_matrices(f"scp:{scp}"))


def test_writer_without_compression_writes_these_bytes(tmp_path):
    with writer_to(tmp_path / "new", compress=False) as writer:
        writer.write("a", MATRIX)
        writer.write("b", -MATRIX[:1].astype(np.float64))
    assert (tmp_path / "new/f.ark").read_bytes() == b"a " + float_matrix(MATRIX) + b"b " + float_matrix(-MATRIX[:1])
    assert (tmp_path / "new/f.scp").read_text() == f"a {tmp_path}/new/f.ark:2\nb {tmp_path}/new/f.ark:67\n"


def test_compression_is_one_byte_a_value_and_close(tmp_path):
    long = np.arange(200, dtype=np.float32).reshape(100, 2)  # more than 8 rows: 8 bits a value, per-column percentiles
    with writer_to(tmp_path) as writer:
        writer.write("a", long)
    assert (tmp_path / "f.ark").stat().st_size == 2 + 2 + 3 + 16 + 2 * 8 + 200  # key, '\0B', 'CM ', header, quartiles, values
    # each quarter of the percentile range spans at most 100 and has 63 steps or more: half a step is below 1
    np.testing.assert_allclose(load_matrix(f"{tmp_path}/f.ark:2"), long, atol=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused_and_nothing_is_left(tmp_path, bad):
    with pytest.raises(PyserError, match="^utt7: not a number or infinite"), writer_to(tmp_path) as writer:
        writer.write("utt6", MATRIX)
        writer.write("utt7", np.array([[0.0, bad]]))
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_earlier_files(tmp_path):
    with writer_to(tmp_path) as writer:
        writer.write("a", MATRIX)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError), writer_to(tmp_path) as writer:
        writer.write("b", -MATRIX)
        raise KeyError("stop")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("wspecifier", ["ark:f.ark", "ark,scp:f.ark", "ark,scp:f.ark,f.scp,g", "f.ark"])
def test_writer_refuses_other_specifiers(wspecifier):
    with pytest.raises(PyserError, match="expected ark,scp:FILE.ark,FILE.scp"):
        MatrixWriter(wspecifier)
