"""Kaldi's objects in single files (not tables), binary or text: tokens, numbers, matrices, vectors, packed matrices.

A binary file starts with \\0B; a token ends in one space; int32 is \\4 and four bytes, float \\4, double \\8 (little
endian); matrices are `FM `/`DM ` rows cols data, vectors `FV `/`DV ` dim data, packed ones `FP `/`DP ` dim and the lower
triangle row by row, integer vectors \\4, four bytes of length, data. In text the same things are words separated by white
space, numbers with 7 digits, matrices and vectors between brackets
(base/io-funcs.h, base/io-funcs-inl.h, matrix/kaldi-matrix.cc, matrix/kaldi-vector.cc, matrix/packed-matrix.cc).
"""

from __future__ import annotations

import re
import struct
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.files import atomic
from pyser.kaldi.compressed import HEADER, data_size, decompress
from pyser.kaldi.stream import Stream, open_input

MAX_TOKEN = 1000
_END_OF_ROW = re.compile(rb"[\n;]")


class Reader:
    """Reads one object file front to back, binary or text; every surprise is a PyserError with file and byte."""

    def __init__(self, path: str | Path):
        stream = open_input(str(Path(path)))
        weakref.finalize(self, stream.close)
        self._begin(stream, str(path))

    @classmethod
    def of(cls, stream: Any, name: str) -> Reader:
        """Read from an open `Stream` or any binary file object, from where it stands; `name` is for the messages."""
        reader = cls.__new__(cls)
        reader._begin(stream if isinstance(stream, Stream) else Stream(stream, name), name)
        return reader

    def _begin(self, stream: Stream, name: str) -> None:
        self.stream, self.path = stream, name
        start = stream.peek(2)
        self.binary = start == b"\0B"
        if self.binary:
            stream.take(2)
        elif start[:1] == b"\0":
            raise self.fail("a Kaldi file")

    @property
    def place(self) -> int:
        """The byte that comes next."""
        return self.stream.place

    def fail(self, expected: str, place: int | None = None) -> PyserError:
        place = self.place if place is None else place
        return PyserError(f"{self.path}: byte {place}: expected {expected}; the file is damaged or of another kind")

    def close(self) -> None:
        self.stream.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def take(self, size: int, expected: str) -> bytes:
        """`size` bytes as they are."""
        place = self.place
        taken = self.stream.take(size) if size >= 0 else b""
        if len(taken) != size:
            raise self.fail(expected, place)
        return taken

    # tokens and lines

    def token(self) -> str:
        """The next word; the one white-space character after it is consumed too."""
        word = self.stream.word(MAX_TOKEN)
        if not 0 < len(word) <= MAX_TOKEN:
            raise self.fail("a token")
        self.stream.take(1)
        return word.decode("utf-8", "replace")

    def peek(self) -> str:
        """The next token, not consumed; empty at the end of the file."""
        self.stream.skip_white()
        ahead = self.stream.peek(MAX_TOKEN).split(None, 1)
        return ahead[0].decode("utf-8", "replace") if ahead else ""

    def expect(self, *tokens: str) -> None:
        for token in tokens:
            if self.peek() != token:
                raise self.fail(token)
            self.token()

    def line(self) -> str:
        """The rest of the line, without its newline (the configuration inside nnet3 files is text even in binary ones)."""
        line = self.stream.line()
        if line is None:
            raise self.fail("a line")
        return line.decode("utf-8", "replace")

    # numbers

    def int32(self) -> int:
        if self.binary:
            data = self.stream.peek(5)
            if len(data) != 5 or data[0] != 4:
                raise self.fail("an int32")
            self.stream.take(5)
            return int(struct.unpack_from("<i", data, 1)[0])
        return int(self.to_integers([self.token().encode()], "an int32")[0])

    def size(self, what: str) -> int:
        """An int32 that must not be negative."""
        value = self.int32()
        if value < 0:
            raise self.fail(f"{what}, not {value}")
        return value

    def real(self) -> float:
        """A float or a double."""
        if self.binary:
            kind = self.stream.peek(1)
            if kind not in (b"\4", b"\10"):
                raise self.fail("a float or a double")
            data = self.take(1 + kind[0], "a number")
            return float(struct.unpack_from("<f" if kind == b"\4" else "<d", data, 1)[0])
        return float(self.to_reals([self.token().encode()])[0])

    def boolean(self) -> bool:
        if not self.binary:
            self.stream.skip_white()
        letter = self.stream.peek(1)
        if letter not in (b"T", b"F"):
            raise self.fail("T or F")
        self.stream.take(1)
        return letter == b"T"

    # arrays

    def matrix(self) -> np.ndarray:
        """(rows, cols) float64, of whatever precision or compression it is stored in."""
        with np.errstate(invalid="ignore"):  # (a signalling NaN; whoever wants finite numbers looks for them)
            return self.native_matrix().astype(np.float64)

    def native_matrix(self) -> np.ndarray:
        """(rows, cols) in the precision it is stored in: float64 for `DM` and text, else float32."""
        if not self.binary:
            return self._text_matrix()
        kind = self.peek()
        if kind in ("CM", "CM2", "CM3"):
            return self._compressed(self.token())
        if kind not in ("FM", "DM"):
            raise self.fail("a matrix")
        self.token()
        rows, cols = self.size("a number of rows"), self.size("a number of columns")
        if (rows == 0) != (cols == 0):
            raise self.fail(f"a matrix, not one of {rows} rows and {cols} columns")
        return self._reals(kind, rows * cols).reshape(rows, cols).copy()

    def _compressed(self, kind: str) -> np.ndarray:
        header = self.take(HEADER.size, "the header of a compressed matrix")
        rows, cols = HEADER.unpack(header)[2:]
        if cols == 0:  # (of an empty matrix Kaldi writes 20 bytes and reads 16)
            if self.stream.peek(4) == bytes(4):
                self.stream.take(4)
            return np.zeros((0, 0), np.float32)
        if rows <= 0 or cols < 0:
            raise self.fail(f"a matrix, not one of {rows} rows and {cols} columns")
        size = data_size(kind, rows, cols)
        return decompress(kind, header, self.take(size, f"{size} bytes of a compressed matrix"))

    def vector(self) -> np.ndarray:
        """(dim,) float64."""
        if not self.binary:
            inside = self.brackets()
            if b"\n" in inside:
                raise self.fail("a vector, not a matrix")
            return self.to_reals(inside.split())
        kind = self.peek()
        if kind not in ("FV", "DV"):
            raise self.fail("a vector")
        self.token()
        with np.errstate(invalid="ignore"):
            return self._reals(kind, self.size("a dimension")).astype(np.float64)

    def symmetric(self) -> np.ndarray:
        """(dim, dim) float64, from the packed lower triangle."""
        lower = self.triangular()
        return lower + np.tril(lower, -1).T

    def triangular(self) -> np.ndarray:
        """(dim, dim) float64 with zeros above the diagonal, from the packed lower triangle."""
        if self.binary:
            kind = self.peek()
            if kind not in ("FP", "DP"):
                raise self.fail("a packed matrix")
            self.token()
            dim = self.size("a dimension")
            values = self._reals(kind, dim * (dim + 1) // 2)
        else:
            values = self.to_reals(self.brackets().split())
            dim = int((2 * len(values)) ** 0.5)
            if dim * (dim + 1) // 2 != len(values):
                raise self.fail(f"the lower triangle of a matrix, not {len(values)} numbers")
        full = np.zeros((dim, dim))
        full[np.tril_indices(dim)] = values
        return full

    def integers(self) -> np.ndarray:
        """(dim,) int32 (WriteIntegerVector)."""
        if not self.binary:
            return self.to_integers(self.brackets().split())
        if self.stream.peek(1) != b"\4":
            raise self.fail("a vector of int32")
        dim = int(struct.unpack("<i", self.take(5, "a vector of int32")[1:])[0])
        return np.frombuffer(self.take(4 * dim, f"{dim} integers"), "<i4").astype(np.int32)

    def _reals(self, kind: str, count: int) -> np.ndarray:
        dtype = np.dtype("<f4" if kind[0] == "F" else "<f8")
        return np.frombuffer(self.take(count * dtype.itemsize, f"{count} numbers"), dtype)

    # text

    def brackets(self) -> bytes:
        """What is between the next [ and ], both consumed with one newline after them."""
        self.stream.skip_white()
        if self.stream.peek(1) != b"[":
            raise self.fail("[")
        self.stream.take(1)
        inside = self.stream.until(b"]")
        if inside is None:
            raise self.fail("]")
        self.stream.take(1)
        if self.stream.peek(2) == b"\r\n":
            self.stream.take(1)
        if self.stream.peek(1) == b"\n":
            self.stream.take(1)
        return inside

    def _text_matrix(self) -> np.ndarray:
        rows = [words for row in _END_OF_ROW.split(self.brackets()) if (words := row.split())]
        if not rows:
            return np.zeros((0, 0))
        if {len(words) for words in rows} != {len(rows[0])}:
            raise self.fail("rows of the same length")
        return self.to_reals([word for words in rows for word in words]).reshape(len(rows), -1)

    def to_reals(self, words: list[bytes]) -> np.ndarray:
        """(dim,) float64 of words of text."""
        try:
            if any(b"_" in word for word in words):  # (1_0 is a number to Python only)
                raise ValueError
            return np.array([float(word) for word in words], np.float64)
        except ValueError:
            raise self.fail("numbers") from None

    def to_integers(self, words: list[bytes], expected: str = "integers of 32 bits") -> np.ndarray:
        """(dim,) int32 of words of text."""
        try:
            if any(b"_" in word for word in words):
                raise ValueError
            values = np.array([int(word) for word in words], np.int64)
        except (ValueError, OverflowError):
            raise self.fail(expected) from None
        if np.any(values != values.astype(np.int32)):
            raise self.fail(expected)
        return values.astype(np.int32)


class Writer:
    """Collects one object file, binary or text; `save` puts it in place whole."""

    def __init__(self, binary: bool = True) -> None:
        self.binary = binary
        self.parts = [b"\0B"] if binary else []

    def token(self, *tokens: str) -> None:
        self.parts += [token.encode("utf-8") + b" " for token in tokens]

    def line(self, text: str = "") -> None:
        """A line of text, in binary files too."""
        self.parts.append(text.encode("utf-8") + b"\n")

    def int32(self, value: int) -> None:
        self.parts.append(b"\4" + struct.pack("<i", value) if self.binary else b"%d " % value)

    def real(self, value: float) -> None:
        """A number in single precision."""
        with np.errstate(over="ignore"):
            single = float(np.float32(value))
        self.parts.append(b"\4" + struct.pack("<f", single) if self.binary else b"%.7g " % single)

    def double(self, value: float) -> None:
        self.parts.append(b"\10" + struct.pack("<d", value) if self.binary else b"%.7g " % value)

    def boolean(self, value: bool) -> None:
        self.parts.append((b"T" if value else b"F") + (b"" if self.binary else b" "))

    def matrix(self, value: np.ndarray, kind: str = "DM") -> None:
        """`value` (rows, cols) in single (kind FM) or double precision (DM); one without elements is written as 0 x 0."""
        value = _cast(value if value.size else value.reshape(0, 0), kind)
        if self.binary:
            self.token(kind)
            self.int32(value.shape[0])
            self.int32(value.shape[1])
            self.parts.append(value.tobytes())
        elif value.size:
            row = b"\n  " + b"%.7g " * value.shape[1]
            self.parts += [b" [", *(row % tuple(numbers) for numbers in value.tolist()), b"]\n"]
        else:
            self.parts.append(b" [ ]\n")

    def vector(self, value: np.ndarray, kind: str = "DV") -> None:
        """`value` (dim,) in single (kind FV) or double precision (DV)."""
        value = _cast(value, kind)
        if self.binary:
            self.token(kind)
            self.int32(len(value))
            self.parts.append(value.tobytes())
        else:
            self.parts.append(b" [ " + b"%.7g " * len(value) % tuple(value.tolist()) + b"]\n")

    def symmetric(self, value: np.ndarray, kind: str = "DP") -> None:
        """The lower triangle of `value` (dim, dim) in single (kind FP) or double precision (DP)."""
        lower = _cast(value[np.tril_indices(len(value))], kind)
        if self.binary:
            self.token(kind)
            self.int32(len(value))
            self.parts.append(lower.tobytes())
        elif len(value):
            rows = [lower[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2].tolist() for i in range(len(value))]
            self.parts += [b"[\n", b"\n".join(b"%.7g " * len(row) % tuple(row) for row in rows), b"]\n"]
        else:
            self.parts.append(b"[ ]\n")

    def integers(self, value: np.ndarray) -> None:
        """`value` (dim,) as a vector of int32 (WriteIntegerVector)."""
        if self.binary:
            self.parts.append(b"\4" + struct.pack("<i", len(value)) + np.ascontiguousarray(value, "<i4").tobytes())
        else:
            self.parts.append(b"[ " + b"%d " * len(value) % tuple(np.asarray(value).tolist()) + b"]\n")

    def data(self) -> bytes:
        return b"".join(self.parts)

    def save(self, path: str | Path) -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(self.data())


def _cast(value: np.ndarray, kind: str) -> np.ndarray:
    return np.ascontiguousarray(value, "<f4" if kind[0] == "F" else "<f8")
