"""Copying tables between forms, as Kaldi's copy-feats, copy-vector, copy-int-vector and copy-post do."""

from __future__ import annotations

import itertools
from typing import Any

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer
from pyser.kaldi.objects import KINDS, Kind
from pyser.kaldi.tables import MatrixWriter, TableWriter, read_objects

_TOKENS = {"FM": "matrix", "DM": "matrix", "CM": "matrix", "CM2": "matrix", "CM3": "matrix", "FV": "vector", "DV": "vector",
           "FP": "packed", "DP": "packed", "SM": "sparse"}


class _Found:
    """The kind of a table's objects, seen at the first of them."""

    def __init__(self) -> None:
        self.kind: Kind | None = None

    def read(self, reader: Reader) -> Any:
        self.kind = self.kind or KINDS[kind_of(reader)]
        return self.kind.read(reader)


def kind_of(reader: Reader) -> str:
    """The name of the kind that comes next: binary matrices and vectors say it, and text that can be nothing else."""
    token = reader.peek()
    if reader.binary:
        name = _TOKENS.get(token, "")
    elif token.startswith("rows="):
        name = "sparse"
    else:
        ahead = reader.stream.peek(100).lstrip(b" \t")  # (of text only a matrix has its first bracket at the end of a line)
        name = "matrix" if token == "[" and ahead[1:].lstrip(b" \t\r")[:1] == b"\n" else ""
    if not name:
        raise PyserError(f"{reader.path}: the kind of object cannot be seen from it; say it with --type")
    return name


def copy_table(
    rspecifier: str, wspecifier: str, kind: str | None = None, compression_method: int = 0, allow_pipes: bool = False
) -> int:
    """Copy one table into another; returns the number of objects.

    `kind` is a name in KINDS, or None to find it from the first object. `compression_method` is Kaldi's 1 to 7, 0 for none.
    Matrices and vectors keep their precision (Kaldi's own programs write single precision always).
    """
    found = _Found()
    objects = read_objects(rspecifier, KINDS[kind] if kind else Kind("any", found.read, _never), allow_pipes)
    first = list(itertools.islice(objects, 1))
    known = KINDS[kind] if kind else found.kind or KINDS["matrix"]
    if compression_method and known.name != "matrix":
        raise PyserError(f"{rspecifier}: --compression-method is for matrices, and there is a table of kind '{known.name}'")
    if compression_method:
        writer: TableWriter = MatrixWriter(wspecifier, compression_method, allow_pipes=allow_pipes)
    else:
        writer = TableWriter(wspecifier, known, allow_pipes)
    with writer:
        for key, value in itertools.chain(first, objects):
            writer.write(key, value)
    return writer.count


def _never(writer: Writer, value: Any) -> None:
    raise AssertionError("objects of no kind are not written")
