"""Kaldi's tables of matrices: archives (ark) and the scp files that point into them, over kaldi_native_io."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.files import read_lines, silent_stderr


def read_table(path: str | Path) -> dict[str, str]:
    """First word of each line -> the rest, of any of Kaldi's `key value` lists."""
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, _, value = line.strip().partition(" ")
        if not key:
            raise PyserError(f"{path}:{number}: empty line; take it out")
        if key in table:
            raise PyserError(f"{path}:{number}: {key} occurs twice; make the keys unique")
        table[key] = value.strip()
    return table


def read_scp(path: str | Path) -> dict[str, str]:
    """Key -> rxfilename (`file:offset` or `file:offset[first:last]`) of an scp file, in the file's order."""
    table = read_table(path)
    for number, (key, rxfilename) in enumerate(table.items(), start=1):  # (no line is passed over, so these are lines)
        if not rxfilename:
            raise PyserError(f"{path}:{number}: expected 'key file:offset', found '{key[:80]}'")
    return table


def load_matrix(rxfilename: str) -> np.ndarray:
    """The matrix (rows, columns) behind one scp entry, compressed or not, as float32."""
    import kaldi_native_io

    return _load(kaldi_native_io.FloatMatrix, rxfilename)


def load_vector(rxfilename: str) -> np.ndarray:
    """The vector behind one scp entry, as float32."""
    import kaldi_native_io

    return _load(kaldi_native_io.FloatVector, rxfilename)


def _load(kind: Any, rxfilename: str) -> np.ndarray:
    if rxfilename.rstrip().endswith("|"):
        raise PyserError(f"{rxfilename}: a pipe, and pipes are not run here; write the features to an archive first")
    try:
        with silent_stderr():
            return np.array(kind.read(rxfilename).numpy(), dtype=np.float32)
    except RuntimeError:
        missing = not os.path.exists(rxfilename.split(":")[0])
        what = "no such archive" if missing else "not a whole Kaldi archive at that place"
        raise PyserError(f"{rxfilename}: {what}; run the stage that wrote it again") from None


def read_matrices(rspecifier: str) -> Iterator[tuple[str, np.ndarray]]:
    """(key, matrix) of `scp:FILE` or `ark:FILE`, in the file's order."""
    kind, _, path = rspecifier.partition(":")
    if kind.split(",")[0] == "scp":
        for key, rxfilename in read_scp(path).items():
            try:
                yield key, load_matrix(rxfilename)
            except PyserError as error:
                raise PyserError(f"{path}: {key}: {error}") from None
    elif kind.split(",")[0] == "ark":
        import kaldi_native_io

        if not os.path.exists(path):
            raise PyserError(f"{path}: no such archive; run the stage that writes it")
        with kaldi_native_io.SequentialFloatMatrixReader(rspecifier) as reader:
            for key, matrix in reader:
                yield key, np.array(matrix, dtype=np.float32)
    else:
        raise PyserError(f"'{rspecifier}': expected scp:FILE or ark:FILE")


class MatrixWriter:
    """Writes matrices to `ark,scp:FILE.ark,FILE.scp`. Both appear under their names only when the block ends well.

    >>> with MatrixWriter("ark,scp:a.ark,a.scp") as writer:      # doctest: +SKIP
    ...     writer.write("utt1", features)
    """

    def __init__(self, wspecifier: str, compress: bool = True):
        kind, _, paths = wspecifier.partition(":")
        if kind != "ark,scp" or paths.count(",") != 1:
            raise PyserError(f"'{wspecifier}': expected ark,scp:FILE.ark,FILE.scp")
        self.ark, self.scp = (Path(path).absolute() for path in paths.split(","))
        self.compress = compress
        self.count = 0

    def __enter__(self) -> MatrixWriter:
        import kaldi_native_io

        self.ark.parent.mkdir(parents=True, exist_ok=True)
        self.scp.parent.mkdir(parents=True, exist_ok=True)
        self._ark = self.ark.with_name(f".{self.ark.name}.{os.getpid()}.tmp")
        self._scp = self.scp.with_name(f".{self.scp.name}.{os.getpid()}.tmp")
        make = kaldi_native_io.CompressedMatrixWriter if self.compress else kaldi_native_io.FloatMatrixWriter
        try:
            self._writer = make(f"ark,scp:{self._ark},{self._scp}")
        except RuntimeError:
            raise PyserError(f"cannot write {self.ark}; check space and permissions") from None
        self._method = (kaldi_native_io.CompressionMethod.kAutomaticMethod,) if self.compress else ()
        return self

    def write(self, key: str, matrix: np.ndarray) -> None:
        """Append `matrix` (rows, columns), stored as float32 or, with compress, in Kaldi's lossy 8-bit form."""
        if not np.isfinite(matrix).all():
            raise PyserError(f"{key}: not a number or infinite in what goes to {self.ark}; check the input")
        try:
            with silent_stderr():
                self._writer.write(key, np.ascontiguousarray(matrix, dtype=np.float32), *self._method)
        except RuntimeError:
            raise PyserError(f"{key}: cannot write {self.ark}; check space and permissions") from None
        self.count += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with silent_stderr():
                self._writer.close()
            if kind is None:
                text = self._scp.read_text() if self._scp.exists() else ""
                self._scp.write_text(text.replace(f" {self._ark}:", f" {self.ark}:"))
                os.replace(self._ark, self.ark)
                os.replace(self._scp, self.scp)
        except (OSError, RuntimeError) as problem:
            raise PyserError(f"cannot write {self.ark}; check space and permissions ({problem})") from None
        finally:
            self._ark.unlink(missing_ok=True)
            self._scp.unlink(missing_ok=True)
