"""What Kaldi keeps in tables: each kind with its way of being read and written (util/kaldi-holder-inl.h, hmm/posterior.cc,
matrix/sparse-matrix.cc).

Inside a table the integer vectors differ from those in model files: every element carries its size byte in binary, and in
text the object is a line of its own.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyser.kaldi.binary import Reader, Writer

MAX_DENSE = 1 << 24  # elements of a sparse matrix that is asked for in full
_INT = np.dtype([("mark", "u1"), ("value", "<i4")])
_FLOAT = np.dtype([("mark", "u1"), ("value", "<f4")])
_DOUBLE = np.dtype([("mark", "u1"), ("value", "<f8")])
Weighted = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class SparseMatrix:
    """`rows`: per row the dimension, the columns (int32, ascending) and the values (float32) there."""

    rows: list[tuple[int, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Kind:
    """One kind of object: how it is read from a Reader and written to a Writer."""

    name: str
    read: Callable[[Reader], Any]
    write: Callable[[Writer, Any], None]


def read_matrix(reader: Reader) -> np.ndarray:
    """(rows, cols), float64 where it is stored so, else float32; sparse ones in full."""
    if reader.peek() == "SM" or reader.peek().startswith("rows="):
        sparse = read_sparse(reader)
        dims = {dim for dim, _, _ in sparse.rows} or {0}
        if len(dims) > 1 or len(sparse.rows) * max(dims) > MAX_DENSE:
            raise reader.fail("a sparse matrix with rows of one moderate size")
        full = np.zeros((len(sparse.rows), dims.pop()), np.float32)
        for row, (_, columns, values) in zip(full, sparse.rows, strict=True):
            row[columns] = values
        return full
    return reader.native_matrix() if reader.binary else reader.matrix().astype(np.float32)


def read_vector(reader: Reader) -> np.ndarray:
    """(dim,), float64 where it is stored so, else float32."""
    dtype = np.float64 if reader.binary and reader.peek() == "DV" else np.float32
    return reader.vector().astype(dtype)


def write_matrix(writer: Writer, value: np.ndarray) -> None:
    writer.matrix(value, "DM" if value.dtype == np.float64 else "FM")


def write_vector(writer: Writer, value: np.ndarray) -> None:
    writer.vector(value, "DV" if value.dtype == np.float64 else "FV")


def read_packed(reader: Reader) -> np.ndarray:
    """(dim, dim): the lower triangle; what is above it is zero."""
    dtype = np.float64 if reader.binary and reader.peek() == "DP" else np.float32
    return reader.triangular().astype(dtype)


def write_packed(writer: Writer, value: np.ndarray) -> None:
    writer.symmetric(value, "DP" if value.dtype == np.float64 else "FP")


# integers and pairs

def _marked(reader: Reader, dtype: np.dtype[Any], count: int, marks: tuple[int, ...]) -> np.ndarray:
    place = reader.place
    values = np.frombuffer(reader.take(dtype.itemsize * count, f"{count} numbers"), dtype)
    if any((values[name] != mark).any() for name, mark in zip(("mark", "mark2"), marks, strict=False)):
        raise reader.fail(f"{count} numbers, each with its size before it", place)
    return values


def _line(reader: Reader) -> list[bytes]:
    line = reader.stream.line()
    if line is None:
        raise reader.fail("a line")
    return line.split()


def read_ints(reader: Reader) -> np.ndarray:
    """(dim,) int32."""
    if not reader.binary:
        return reader.to_integers(_line(reader))
    return _marked(reader, _INT, reader.size("a length"), (4,))["value"].astype(np.int32)


def write_integers(writer: Writer, value: np.ndarray) -> None:
    if writer.binary:
        writer.int32(len(value))
        marked = np.full(len(value), 4, _INT)
        marked["value"] = value
        writer.parts.append(marked.tobytes())
    else:
        writer.parts.append(b"%d " * len(value) % tuple(np.asarray(value).tolist()) + b"\n")


def read_integer_lists(reader: Reader) -> list[np.ndarray]:
    """A list of (dim,) int32."""
    if reader.binary:
        return [read_ints(reader) for _ in range(reader.size("a length"))]
    *whole, last = b" ".join(_line(reader)).split(b";")
    if last.strip():
        raise reader.fail("a semicolon after the last list")
    return [reader.to_integers(words.split()) for words in whole]


def write_integer_lists(writer: Writer, value: list[np.ndarray]) -> None:
    if writer.binary:
        writer.int32(len(value))
        for integers in value:
            write_integers(writer, integers)
    else:
        writer.line("".join("%d " * len(integers) % tuple(integers.tolist()) + "; " for integers in value))


def read_integer_pairs(reader: Reader) -> np.ndarray:
    """(pairs, 2) int32."""
    if reader.binary:
        return _marked(reader, _INT, 2 * reader.size("a length"), (4,))["value"].astype(np.int32).reshape(-1, 2)
    return reader.to_integers(_pair_words(reader)).reshape(-1, 2)


def read_float_pairs(reader: Reader) -> np.ndarray:
    """(pairs, 2) float32."""
    if reader.binary:
        count = 2 * reader.size("a length")
        double = reader.stream.peek(1) == b"\10"
        values = _marked(reader, _DOUBLE if double else _FLOAT, count, (8 if double else 4,))
        return values["value"].astype(np.float32).reshape(-1, 2)
    return reader.to_reals(_pair_words(reader)).astype(np.float32).reshape(-1, 2)


def _pair_words(reader: Reader) -> list[bytes]:
    words = _line(reader)
    pairs = [pair.split() for pair in b" ".join(words).split(b";")] if words else []
    if any(len(pair) != 2 for pair in pairs):
        raise reader.fail("pairs with semicolons between them")
    return [word for pair in pairs for word in pair]


def write_pairs(writer: Writer, value: np.ndarray) -> None:
    """(pairs, 2) int32 or float32."""
    floats = value.dtype.kind == "f"
    if writer.binary:
        writer.int32(len(value))
        marked = np.full(value.size, 4, _FLOAT if floats else _INT)
        marked["value"] = value.ravel()
        writer.parts.append(marked.tobytes())
    else:
        pair = "%.7g %.7g " if floats else "%d %d "
        writer.line("; ".join(pair % tuple(row) for row in value.tolist()))


# posteriors and sparse matrices

def _read_weighted(reader: Reader, count: int) -> Weighted:
    """`count` times an int32 and a float, in binary."""
    weights = b"\10" if reader.stream.peek(6)[5:] == b"\10" else b"\4"
    number = "<f8" if weights == b"\10" else "<f4"
    dtype = np.dtype([("mark", "u1"), ("index", "<i4"), ("mark2", "u1"), ("weight", number)])
    values = _marked(reader, dtype, count, (4, weights[0]))
    return values["index"].astype(np.int32), values["weight"].astype(np.float32)


def _write_weighted(writer: Writer, indices: np.ndarray, weights: np.ndarray) -> None:
    dtype = np.dtype([("mark", "u1"), ("index", "<i4"), ("mark2", "u1"), ("weight", "<f4")])
    marked = np.full(len(indices), 4, dtype)
    marked["index"], marked["weight"] = indices, weights
    writer.parts.append(marked.tobytes())


def _words_to_weighted(reader: Reader, words: list[bytes]) -> Weighted:
    if len(words) % 2:
        raise reader.fail("pairs of an integer and a weight")
    return reader.to_integers(words[::2]), reader.to_reals(words[1::2]).astype(np.float32)


def _weighted_text(indices: np.ndarray, weights: np.ndarray) -> str:
    pairs = zip(indices.tolist(), weights.astype(np.float32).tolist(), strict=True)
    return "[ " + "".join(f"{index} {weight:.7g} " for index, weight in pairs) + "] "


def read_posterior(reader: Reader) -> list[Weighted]:
    """Per frame the indices (int32) and their weights (float32)."""
    if reader.binary:
        return [_read_weighted(reader, reader.size("a length")) for _ in range(reader.size("a number of frames"))]
    *frames, last = b" ".join(_line(reader)).split(b"]")
    if last.strip() or any(not frame.lstrip().startswith(b"[") for frame in frames):
        raise reader.fail("a posterior like [ 1 0.5 7 0.5 ] [ 3 1 ]")
    return [_words_to_weighted(reader, frame.replace(b"[", b"", 1).split()) for frame in frames]


def write_posterior(writer: Writer, value: list[Weighted]) -> None:
    if writer.binary:
        writer.int32(len(value))
        for indices, weights in value:
            writer.int32(len(indices))
            _write_weighted(writer, indices, weights)
    else:
        writer.line("".join(_weighted_text(*frame) for frame in value))


def read_sparse(reader: Reader) -> SparseMatrix:
    """A general matrix that is stored sparse."""
    rows = []
    if reader.binary:
        reader.expect("SM")
        count = reader.size("a number of rows")
    else:
        count = _assigned(reader, "rows")
    for _ in range(count):
        if reader.binary:
            reader.expect("SV")
            dim = reader.size("a dimension")
            columns, values = _read_weighted(reader, reader.size("a number of elements"))
        else:
            dim = _assigned(reader, "dim")
            columns, values = _words_to_weighted(reader, reader.brackets().split())
        if len(columns) and not (0 <= columns[0] and columns[-1] < dim and (np.diff(columns.astype(np.int64)) > 0).all()):
            raise reader.fail("ascending columns below the dimension")
        rows.append((dim, columns, values))
    return SparseMatrix(rows)


def _assigned(reader: Reader, name: str) -> int:
    token = reader.token()
    start, _, value = token.partition("=")
    if start != name or not (value.isascii() and value.isdigit()) or len(value) > 9:
        raise reader.fail(f"{name}=NUMBER")
    return int(value)


def write_sparse(writer: Writer, value: SparseMatrix) -> None:
    if writer.binary:
        writer.token("SM")
        writer.int32(len(value.rows))
        for dim, columns, values in value.rows:
            writer.token("SV")
            writer.int32(dim)
            writer.int32(len(columns))
            _write_weighted(writer, columns, values)
    else:
        rows = (f"dim={dim} {_weighted_text(columns, values)}" for dim, columns, values in value.rows)
        writer.line(f"rows={len(value.rows)} " + "".join(rows))


# single values

def _alone(read: Callable[[Reader], Any]) -> Callable[[Reader], Any]:
    def read_alone(reader: Reader) -> Any:
        if reader.binary:
            return read(reader)
        words = _line(reader)
        if len(words) != 1:
            raise reader.fail(f"one value on the line, not {len(words)}")
        word = Reader.of(io.BytesIO(words[0]), reader.path)
        value = read(word)
        if word.stream.peek(1):
            raise reader.fail(f"one value on the line, not '{words[0][:20].decode(errors='replace')}'")
        return value

    return read_alone


def _on_a_line(write: Callable[[Writer, Any], None]) -> Callable[[Writer, Any], None]:
    def write_on_a_line(writer: Writer, value: Any) -> None:
        write(writer, value)
        if not writer.binary:
            writer.line()

    return write_on_a_line


KINDS = {kind.name: kind for kind in (
    Kind("matrix", read_matrix, write_matrix),
    Kind("vector", read_vector, write_vector),
    Kind("packed", read_packed, write_packed),
    Kind("sparse", read_sparse, write_sparse),
    Kind("integers", read_ints, write_integers),
    Kind("integer-lists", read_integer_lists, write_integer_lists),
    Kind("integer-pairs", read_integer_pairs, write_pairs),
    Kind("float-pairs", read_float_pairs, write_pairs),
    Kind("posterior", read_posterior, write_posterior),
    Kind("int32", _alone(Reader.int32), _on_a_line(Writer.int32)),
    Kind("float", _alone(Reader.real), _on_a_line(Writer.real)),
    Kind("double", _alone(Reader.real), _on_a_line(Writer.double)),
    Kind("bool", _alone(Reader.boolean), _on_a_line(Writer.boolean)),
)}
