"""Lossy matrices, against what Kaldi's copy-feats wrote and read back."""

from pathlib import Path

import numpy as np
import pytest

from pyser.kaldi.compressed import HEADER, compress, data_size, decompress
from pyser.kaldi.tables import MatrixWriter, read_mats

GOLDEN = Path(__file__).parent / "golden/tables"
CASES = [("gen_features.txt", f"features_method{method}", method) for method in (1, 2, 3, 5)] + [
    ("gen_int16.txt", "int16_method4", 4), ("gen_uint8.txt", "uint8_method6", 6), ("gen_zero_one.txt", "zero_one_method7", 7)]


@pytest.mark.parametrize("source, name, method", CASES)
def test_every_method_writes_and_reads_what_kaldi_does(tmp_path, source, name, method):
    with MatrixWriter(f"ark:{tmp_path}/x.ark", method) as writer:
        for key, matrix in read_mats(f"ark:{GOLDEN / source}"):
            writer.write(key, matrix)
    assert (tmp_path / "x.ark").read_bytes() == (GOLDEN / f"{name}.ark").read_bytes()
    with MatrixWriter(f"ark:{tmp_path}/y.ark", compress=False) as writer:
        for key, matrix in read_mats(f"ark:{GOLDEN / name}.ark"):
            writer.write(key, matrix)
    assert (tmp_path / "y.ark").read_bytes() == (GOLDEN / f"{name}_decompressed.ark").read_bytes()


def test_hires_features_both_ways(tmp_path):
    [(key, matrix)] = read_mats(f"ark:{GOLDEN}/hires_float.ark")
    with MatrixWriter(f"ark:{tmp_path}/x.ark") as writer:
        writer.write(key, matrix)
    assert (tmp_path / "x.ark").read_bytes() == (GOLDEN / "hires_compressed.ark").read_bytes()
    [(_, read)] = read_mats(f"ark:{tmp_path}/x.ark")
    [(_, expected)] = read_mats(f"ark:{GOLDEN}/hires_decompressed.ark")
    np.testing.assert_array_equal(read, expected)


def round_trip(matrix: np.ndarray, method: int) -> np.ndarray:
    data = compress(matrix, method)
    token, rest = data.split(b" ", 1)
    header, values = rest[: HEADER.size], rest[HEADER.size :]
    assert len(values) == data_size(token.decode(), *matrix.shape)
    return decompress(token.decode(), header, values)


@pytest.mark.parametrize("rows", range(1, 12))
def test_every_number_of_rows_with_per_column_points(rows):
    """From 5 rows on the points are quartiles; with 4 or fewer they are the values themselves."""
    matrix = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    np.testing.assert_allclose(round_trip(matrix, 2), matrix, atol=np.ptp(matrix) / (60 if rows > 4 else 65535))


def test_the_automatic_method_takes_two_bytes_up_to_eight_rows():
    assert compress(np.ones((8, 2), np.float32)).startswith(b"CM2 ")
    assert compress(np.ones((9, 2), np.float32)).startswith(b"CM ")


@pytest.mark.parametrize("method", [1, 2, 3, 5])
@pytest.mark.parametrize("value", [0.0, -3.5, 1e6, 1e30, -1e-30])
def test_constant_matrices(method, value):
    matrix = np.full((20, 2), value, np.float32)
    np.testing.assert_allclose(round_trip(matrix, method), matrix, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [2, 3, 5])
def test_a_range_that_is_tiny_beside_the_values(method):
    """The quartiles coincide in float32; nothing may overflow into other codes."""
    matrix = (1e6 + np.arange(40).reshape(20, 2) % 3 * 0.0625).astype(np.float32)
    np.testing.assert_allclose(round_trip(matrix, method), matrix, atol=0.13)


@pytest.mark.parametrize("method, low, high", [(4, -32768, 32767), (6, 0, 255), (7, 0, 1)])
def test_fixed_ranges_clip(method, low, high):
    matrix = np.array([[low - 5, low, high, high + 5]], np.float32)
    np.testing.assert_allclose(round_trip(matrix, method), [[low, low, high, high]], atol=1e-6 * high)


def test_empty_matrices(tmp_path):
    with MatrixWriter(f"ark:{tmp_path}/x") as writer:
        writer.write("a", np.zeros((0, 0)))
        writer.write("b", np.ones((2, 2)))
    kaldi = b"a \0BCM " + b"\7\7\7\7" + bytes(16)  # Kaldi itself writes its 'format' field too here, uninitialised
    (tmp_path / "y").write_bytes(kaldi + (tmp_path / "x").read_bytes()[23:])
    for name in "xy":
        shapes = {key: matrix.shape for key, matrix in read_mats(f"ark:{tmp_path}/{name}")}
        assert shapes == {"a": (0, 0), "b": (2, 2)}
