"""Writing Kaldi's tables (util/kaldi-table-inl.h)."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.files import atomic
from pyser.kaldi.binary import Writer
from pyser.kaldi.compressed import compress as compress_matrix
from pyser.kaldi.objects import KINDS, Kind, SparseMatrix
from pyser.kaldi.output import Output
from pyser.kaldi.scripts import read_scp
from pyser.kaldi.specifier import Wspecifier


class TableWriter:
    """Writes objects of one kind to `ark:FILE`, `ark,t:FILE`, `ark:-`, `ark:| command` or `ark,scp:FILE.ark,FILE.scp`.

    Files appear under their names only when the block ends well; the scp file names the archive with its whole path.
    `scp:FILE` looks the keys up in an scp file that is there already and writes each object to the file it names.
    """

    def __init__(self, wspecifier: str, kind: Kind, allow_pipes: bool = False):
        self.specifier, self.kind, self.allow_pipes = Wspecifier.parse(wspecifier), kind, allow_pipes
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
            self._targets = read_scp(self.specifier.scp)
        return self

    def write(self, key: str, value: Any) -> None:
        """Append `value` under `key`."""
        if not key or any(letter.isspace() for letter in key):
            raise PyserError(f"{key!r}: not a key (empty, or with white space); rename the utterance")
        if not _finite(value):
            target = self.specifier.ark or self.specifier.scp
            raise PyserError(f"{key}: not a number or infinite in what goes to {target}; check the input")
        data = self.encode(value)
        if self._ark:
            start = key.encode("utf-8") + b" "
            if self._scp:
                self._scp.write(b"%s%s:%d\n" % (start, self._place.encode(), self._ark.place + len(start)))
            self._ark.write(start + data, self.specifier.flush)
        elif key in self._targets:
            with atomic(self._targets[key]) as temporary:
                temporary.write_bytes(data)
        elif not self.specifier.permissive:
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


def _finite(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or bool(np.isfinite(value).all())
    if isinstance(value, SparseMatrix):
        return all(_finite(values) for _, _, values in value.rows)
    if isinstance(value, list):
        return all(_finite(part) for part in value)
    if isinstance(value, tuple):
        return all(_finite(part) for part in value)
    return not isinstance(value, float) or bool(np.isfinite(value))


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
        if self.method:
            return b"\0B" + compress_matrix(np.asarray(value, np.float32), self.method)
        return super().encode(np.asarray(value, self.dtype))
