"""Damaged tables: whatever is in the file, a PyserError comes out, or values; no crash, no hang, no memory by a claim."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader
from pyser.kaldi.objects import KINDS
from pyser.kaldi.tables import read_objects

GOLDEN = Path(__file__).parent / "golden/tables"
FILES = {
    "float_matrix": "matrix", "double_vector": "vector", "int32": "int32", "double": "double", "bool": "bool",
    "int32_vector": "integers", "int32_vector_vector": "integer-lists", "int32_pair_vector": "integer-pairs",
    "float_pair_vector": "float-pairs", "posterior": "posterior", "general_sparse": "sparse",
}
CASES = [(f"{name}.{form}", kind) for name, kind in FILES.items() for form in ("ark", "txt")] + [
    ("general_sparse.ark", "matrix"), ("general_sparse.txt", "matrix"), ("features_method1.ark", "matrix"),
    ("features_method3.ark", "matrix"), ("uint8_method6.ark", "matrix")]
MOST_MEMORY = 100 << 20

bytes_that_mean_something = st.sampled_from([
    b"\0", b"\0B", b" ", b"\n", b"[", b"]", b";", b"-", b"\xff", b"\4", b"\10", b"nan", b"1e999", b"9" * 20, b"rows=",
    b"dim=", b"FM ", b"DM ", b"CM ", b"CM2 ", b"SM ", b"SV ", b"FV ",
    *(struct.pack("<i", size) for size in (-1, -(2**31), 2**31 - 1, 10**6)),
])
change = st.tuples(st.floats(0, 1), st.integers(0, 8), st.one_of(bytes_that_mean_something, st.binary(max_size=4)))
damage = st.tuples(st.lists(change, max_size=4), st.floats(0.05, 1))


def damaged(data: bytes, how: tuple[list[tuple[float, int, bytes]], float]) -> bytes:
    """Replace some bytes (as many as given) at some places (fractions of the length), then cut at a fraction."""
    changes, kept = how
    for place, count, new in changes:
        start = int(place * len(data))
        data = data[:start] + new + data[start + count :]
    return data[: int(kept * len(data)) or 1] if kept < 0.9 else data


def read_all(rspecifier: str, kind: str) -> None:
    tracemalloc.start()
    try:
        for _ in read_objects(rspecifier, KINDS[kind]):
            pass
    except PyserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_MEMORY


SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name, kind", CASES)
@SETTINGS
@given(how=damage)
@example(how=([], 1.0))
def test_archives(tmp_path_factory, name, kind, how):
    data = damaged((GOLDEN / name).read_bytes(), how)
    directory = tmp_path_factory.getbasetemp()
    (directory / "fuzz.ark").write_bytes(data)
    read_all(f"ark:{directory}/fuzz.ark", kind)


@SETTINGS
@given(how=damage, packed=damage)
def test_gzip(tmp_path_factory, how, packed):
    data = damaged(gzip.compress(damaged((GOLDEN / "float_matrix.ark").read_bytes(), how), 1), packed)
    directory = tmp_path_factory.getbasetemp()
    (directory / "fuzz.gz").write_bytes(data)
    read_all(f"ark:{directory}/fuzz.gz", "matrix")


@SETTINGS
@given(how=damage, offset=st.integers(-5, 1100),
       part=st.sampled_from(["", "[0:3]", "[:,1:2]", "[", "]", "[::]", "[0:99999999999]"]))
def test_scp_files(tmp_path_factory, how, offset, part):
    directory = tmp_path_factory.getbasetemp()
    line = f"a {GOLDEN}/features_float.ark:{offset}{part}\n".encode()
    (directory / "fuzz.scp").write_bytes(damaged(line, how))
    read_all(f"scp:{directory}/fuzz.scp", "matrix")


@pytest.mark.parametrize("name, read", [
    ("sp_double.bin", Reader.symmetric), ("sp_double.txt", Reader.symmetric), ("vector_double.bin", Reader.vector),
    ("matrix_double.mat.txt", Reader.matrix), ("int32_vector.txt", Reader.integers), ("int32.txt", Reader.token),
])
@SETTINGS
@given(how=damage)
def test_single_objects(tmp_path_factory, name, read, how):
    path = tmp_path_factory.getbasetemp() / "fuzz.bin"
    path.write_bytes(damaged((GOLDEN / name).read_bytes(), how))
    try:
        with Reader(path) as reader:
            read(reader)
            reader.peek()
    except PyserError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize("header", [
    b"FM \4" + struct.pack("<i", 10**9) + b"\4" + struct.pack("<i", 10**9), b"CM " + struct.pack("<ffii", 0, 1, 10**9, 10**9),
    b"FV \4" + struct.pack("<i", 2**31 - 1), b"CM3 " + struct.pack("<ffii", 0, 1, 50_000, 50_000),
])
@pytest.mark.parametrize("source", ["file", "gzip", "pipe"])
def test_claims_of_terabytes(tmp_path, header, source):
    """The reader asks for what is there, not for what the header says, where the length cannot be known beforehand too."""
    data = b"a \0B" + header + bytes(1 << 20)
    (tmp_path / "x").write_bytes(data)
    (tmp_path / "x.gz").write_bytes(gzip.compress(data, 1))
    path = {"file": f"{tmp_path}/x", "gzip": f"{tmp_path}/x.gz", "pipe": f"cat {tmp_path}/x |"}[source]
    kind = KINDS["vector" if header.startswith(b"FV") else "matrix"]
    tracemalloc.start()
    with pytest.raises(PyserError, match="a: byte .*expected .* (numbers|bytes)"):
        list(read_objects(f"ark:{path}", kind, allow_pipes=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
