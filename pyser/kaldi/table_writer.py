"""Writing Kaldi's tables (util/kaldi-table-inl.h)."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Writer
from pyser.kaldi.compressed import compress as compress_matrix
from pyser.kaldi.maps import read_map
from pyser.kaldi.objects import KINDS, Kind, SparseMatrix
from pyser.kaldi.output import Output
from pyser.kaldi.specifier import Wspecifier

_SINGLE = ("float", "float-pairs", "posterior", "sparse")  # (what is written in single precision always)
_MOST = float(np.finfo(np.float32).max)


class TableWriter:
    """Writes objects of one kind to `ark:FILE`, `ark,t:FILE`, `ark:-`, `ark:| command` or `ark,scp:FILE.ark,FILE.scp`.

    Files appear under their names only when the block ends well; the scp file names the archive with its whole path.
    `scp:FILE` looks the keys up in an scp file that is there already and writes each object to the file it names.
    """

    def __init__(self, wspecifier: str, kind: Kind, allow_pipes: bool = False, finite: bool = True):
        self.specifier, self.kind, self.allow_pipes = Wspecifier.parse(wspecifier), kind, allow_pipes
        self.finite = finite
        self.count = 0

    def __enter__(self) -> TableWriter:
        self._ark = self._scp = None
        if self.specifier.ark:
            name = self.specifier.ark
            seekable = name != "-" and not name.lstrip().startswith("|") and not name.endswith(".gz")
            if self.specifier.scp and not seekable:
                raise PyserError(f"{name}: an scp file cannot point into it; name an archive file")
            self._place = str(Path(name).absolute()) if self.specifier.scp else ""
            self._ark = Output(name, self.allow_pipes)
            try:
                self._scp = Output(self.specifier.scp, self.allow_pipes) if self.specifier.scp else None
            except PyserError:
                self._ark.abandon()
                raise
        else:
            self._targets = read_map(self.specifier.scp, self.allow_pipes, paths=True)
            for name, wxfilename in self._targets.items():
                if not wxfilename:
                    raise PyserError(f"{self.specifier.scp}: {name}: no file after the key; write 'key file' on each line")
        return self

    def write(self, key: str, value: Any) -> None:
        """Append `value` under `key`."""
        if not key or any(letter.isspace() for letter in key):
            raise PyserError(f"{key!r}: not a key (empty, or with white space); rename the utterance")
        target = self.specifier.ark or self.specifier.scp
        if self.finite and not is_finite(value):
            raise PyserError(f"{key}: not a number or infinite in what goes to {target}; check the input")
        if self.finite and self.kind.name in _SINGLE and not is_finite(value, _MOST):
            raise PyserError(f"{key}: numbers too large for {target}; check the input")
        try:
            data = self.encode(value)
        except PyserError as error:
            raise PyserError(f"{key}: {error}") from None
        if self._ark:
            start = key.encode("utf-8") + b" "
            if self._scp:
                self._scp.write(b"%s%s:%d\n" % (start, os.fsencode(self._place), self._ark.place + len(start)))
            self._ark.write(start + data, self.specifier.flush)
        elif key in self._targets:
            try:
                write_object(self._targets[key], data, self.allow_pipes)
            except PyserError as error:
                raise PyserError(f"{self.specifier.scp}: {key}: {error}") from None
        elif self.specifier.permissive:
            return
        else:
            raise PyserError(f"{self.specifier.scp}: has no {key}; add it, or use scp,p:")
        self.count += 1

    def encode(self, value: Any) -> bytes:
        """The object as it stands after its key."""
        writer = Writer(self.specifier.binary)
        self.kind.write(writer, value)
        return writer.data()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outputs = [output for output in (self._ark, self._scp) if output]
        try:
            if kind is None:
                for output in outputs:
                    output.finish()
        finally:
            for output in outputs:
                output.abandon()


def write_object(wxfilename: str, data: bytes, allow_pipes: bool = False) -> None:
    """The bytes of one object, as the whole of an output."""
    output = Output(wxfilename, allow_pipes)
    try:
        output.write(data)
        output.finish()
    finally:
        output.abandon()


def is_finite(value: Any, most: float = np.inf) -> bool:
    """Whether all numbers in an object are finite and, without their sign, not above `most`."""
    if isinstance(value, SparseMatrix):
        return all(is_finite(values, most) for _, _, values in value.rows)
    if isinstance(value, list | tuple):
        return all(is_finite(part, most) for part in value)
    numbers = np.asarray(value)
    return numbers.dtype.kind != "f" or bool((np.isfinite(numbers) & (np.abs(numbers) <= most)).all())


class MatrixWriter(TableWriter):
    """Writes matrices. `compress`: False, True (method 1, automatic) or one of Kaldi's --compression-method 1 to 7 (lossy).

    >>> with MatrixWriter("ark,scp:a.ark,a.scp") as writer:      # doctest: +SKIP
    ...     writer.write("utt1", features)
    """

    def __init__(
        self, wspecifier: str, compress: bool | int = True, dtype: type[np.floating] = np.float32, allow_pipes: bool = False
    ):
        super().__init__(wspecifier, KINDS["matrix"], allow_pipes)
        self.method, self.dtype = int(compress), dtype
        if not 0 <= self.method <= 7:
            raise PyserError(f"{compress} is no compression method; they are 1 to 7")
        if not self.specifier.binary:
            self.method = 0  # (text is never compressed)

    def __enter__(self) -> MatrixWriter:
        super().__enter__()
        return self

    def encode(self, value: np.ndarray) -> bytes:
        value = np.asarray(value)
        if value.ndim != 2 or value.dtype.kind not in "fiub":
            raise PyserError(f"an array of shape {value.shape} and type {value.dtype} is no matrix of real numbers")
        with np.errstate(over="ignore"):
            matrix = value.astype(np.float32 if self.method else self.dtype, copy=False)
        if not np.isfinite(matrix).all():
            raise PyserError(f"numbers too large for {self.specifier.ark or self.specifier.scp}; check the input")
        return b"\0B" + compress_matrix(matrix, self.method) if self.method else super().encode(matrix)
