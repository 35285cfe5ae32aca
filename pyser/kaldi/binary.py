"""Kaldi's binary objects (single files, not tables): tokens, numbers, matrices, vectors and packed symmetric matrices.

A file starts with \\0B; a token ends in one space; int32 is \\4 and four bytes, float \\4, double \\8 (little endian);
matrices are `FM `/`DM ` rows cols data, vectors `FV `/`DV ` dim data, symmetric ones `FP `/`DP ` dim and the lower
triangle row by row (base/io-funcs.h, matrix/kaldi-matrix.cc, matrix/packed-matrix.cc).
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.files import atomic


class Reader:
    """Reads one binary file front to back; every surprise is a PyserError with file and byte."""

    def __init__(self, path: str | Path):
        self.path, self.place = Path(path), 2
        try:
            self.data = self.path.read_bytes()
        except OSError as error:
            raise PyserError(f"{path}: cannot read it ({error.strerror}); is the directory complete?") from None
        if self.data[:2] != b"\0B":
            raise PyserError(f"{path}: not a binary Kaldi file (text form?); write it with --binary=true")

    def fail(self, expected: str) -> PyserError:
        return PyserError(f"{self.path}: byte {self.place}: expected {expected}; the file is damaged or of another kind")

    def _take(self, size: int, expected: str) -> bytes:
        if size < 0 or self.place + size > len(self.data):
            raise self.fail(expected)
        self.place += size
        return self.data[self.place - size : self.place]

    def token(self) -> str:
        end = self.data.find(b" ", self.place, self.place + 100)
        if end < 0:
            raise self.fail("a token")
        token = self.data[self.place : end].decode("ascii", "replace")
        self.place = end + 1
        return token

    def expect(self, *tokens: str) -> None:
        for token in tokens:
            start = self.place
            if self.token() != token:
                self.place = start
                raise self.fail(token)

    def int32(self) -> int:
        if self._take(1, "an int32") != b"\4":
            raise self.fail("an int32")
        return int(struct.unpack("<i", self._take(4, "an int32"))[0])

    def real(self) -> float:
        size = self._take(1, "a number")[0]
        if size not in (4, 8):
            raise self.fail("a float or a double")
        return float(struct.unpack("<f" if size == 4 else "<d", self._take(size, "a number"))[0])

    def _reals(self, kind: str, count: int) -> np.ndarray:
        dtype = np.dtype("<f4" if kind[0] == "F" else "<f8")
        return np.frombuffer(self._take(count * dtype.itemsize, f"{count} numbers"), dtype).astype(np.float64)

    def matrix(self) -> np.ndarray:
        """(rows, cols) float64."""
        kind = self.token()
        if kind not in ("FM", "DM"):
            raise self.fail("a matrix")
        rows, cols = self.int32(), self.int32()
        return self._reals(kind, rows * cols).reshape(rows, cols)

    def vector(self) -> np.ndarray:
        """(dim,) float64."""
        kind = self.token()
        if kind not in ("FV", "DV"):
            raise self.fail("a vector")
        return self._reals(kind, self.int32())

    def symmetric(self) -> np.ndarray:
        """(dim, dim) float64, from the packed lower triangle."""
        kind = self.token()
        if kind not in ("FP", "DP"):
            raise self.fail("a packed symmetric matrix")
        dim = self.int32()
        full = np.zeros((dim, dim))
        full[np.tril_indices(dim)] = self._reals(kind, dim * (dim + 1) // 2)
        return full + np.tril(full, -1).T


class Writer:
    """Collects one binary file; `save` puts it in place whole."""

    def __init__(self) -> None:
        self.parts = [b"\0B"]

    def token(self, *tokens: str) -> None:
        self.parts += [token.encode("ascii") + b" " for token in tokens]

    def int32(self, value: int) -> None:
        self.parts.append(b"\4" + struct.pack("<i", value))

    def double(self, value: float) -> None:
        self.parts.append(b"\10" + struct.pack("<d", value))

    def matrix(self, value: np.ndarray, kind: str = "DM") -> None:
        self.token(kind)
        self.int32(value.shape[0])
        self.int32(value.shape[1])
        self._reals(value, kind)

    def vector(self, value: np.ndarray, kind: str = "DV") -> None:
        self.token(kind)
        self.int32(len(value))
        self._reals(value, kind)

    def symmetric(self, value: np.ndarray, kind: str = "DP") -> None:
        self.token(kind)
        self.int32(len(value))
        self._reals(value[np.tril_indices(len(value))], kind)

    def _reals(self, value: np.ndarray, kind: str) -> None:
        self.parts.append(np.ascontiguousarray(value, "<f4" if kind[0] == "F" else "<f8").tobytes())

    def save(self, path: str | Path) -> None:
        with atomic(path) as temporary:
            temporary.write_bytes(b"".join(self.parts))
