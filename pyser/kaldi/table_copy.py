"""Copying tables and single objects between forms, as Kaldi's copy-feats, copy-vector, copy-int-vector and copy-post do.

Matrices and vectors say in binary what they are. The rest, and all of text, is taken for the kind whose reader gets through
the first objects, or furthest into them; where several do, the one that says more. Tables of single integers could be tables
of vectors of one: there the caller has to say it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer
from pyser.kaldi.compressed import compress
from pyser.kaldi.objects import KINDS, Kind
from pyser.kaldi.specifier import Rspecifier, split_range
from pyser.kaldi.stream import PIECE, Stream, open_input, split_offset
from pyser.kaldi.table_writer import is_finite, write_object
from pyser.kaldi.tables import MatrixWriter, TableWriter, read_key, read_objects, read_script, take_range

_TOKENS = {"FM": "matrix", "DM": "matrix", "CM": "matrix", "CM2": "matrix", "CM3": "matrix", "FV": "vector", "DV": "vector",
           "FP": "packed", "DP": "packed", "SM": "sparse"}
# the kinds that are tried, those that say more before those that could stand for them
_BINARY = ("integers", "posterior", "integer-lists", "integer-pairs", "float-pairs", "int32", "float", "double", "bool")
_TEXT = ("int32", "integers", "integer-lists", "integer-pairs", "float-pairs", "double", "bool", "sparse", "vector", "matrix",
         "packed", "posterior")
_MARKS = {"float": b"\4", "double": b"\10"}
_FILE_INTEGERS = Kind("integers", Reader.integers, Writer.integers)
_MOST = 16 * PIECE  # bytes of a binary table that are looked at ahead
_OBJECTS = 50
_LEAST_INT, _LEAST_FLOAT = 1 << 23, 1e-30  # (integers below are denormal or no numbers when they are taken for floats)


class _RanOut(Exception):
    """The part of the table that was looked at is at its end."""


class _Ahead(io.BytesIO):
    def __init__(self, data: bytes, whole: bool):
        super().__init__(data)
        self.whole = whole

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if not piece and not self.whole:
            raise _RanOut
        return piece


class _Found:
    """The kind of a table's objects, seen when the first of them is read."""

    def __init__(self, rspecifier: str) -> None:
        self.specifier = Rspecifier.parse(rspecifier)
        self.kind: Kind | None = None
        self.error: PyserError | None = None

    def read(self, reader: Reader) -> Any:
        if self.kind is None:
            try:
                self.kind = KINDS[kind_of(reader, self._others(reader.binary))]
            except PyserError as error:
                self.error = error  # (it must not be passed over by `,p`)
                raise
        return self.kind.read(reader)

    def _others(self, binary: bool) -> Iterator[bytes]:
        """What the next lines of an scp file lead to, as it would stand in an archive."""
        script = self.specifier.path.strip()
        if self.specifier.kind == "ark" or script in ("", "-") or script.endswith("|"):
            return  # (what comes out of these can be read only once)
        with contextlib.suppress(PyserError):
            for key, rxfilename in itertools.islice(read_script(self.specifier, False), 1, _OBJECTS):
                with open_input(split_range(rxfilename)[0]) as stream:
                    yield (b"" if binary else b"\n") + key.encode() + b" " + stream.peek(PIECE)


def kind_of(reader: Reader, others: Iterable[bytes] = ()) -> str:
    """The name of the kind that comes next, found from this object and those after it; nothing is consumed.

    `others` is what stands after this object elsewhere, where its own file ends.
    """
    if reader.binary and (name := _TOKENS.get(reader.peek())):
        return name
    size, names = PIECE, list[str]()
    while True:
        ahead = reader.stream.peek(size)
        whole = len(ahead) < size
        if whole:
            ahead += b"".join(others)
        reach, cut = dict[str, float](), False
        for name in _BINARY if reader.binary else _TEXT:
            try:
                reach[name] = _reach(name, ahead, reader.binary, whole)
            except _RanOut:
                cut = True
        furthest = max(reach.values(), default=0)
        names = [name for name in reach if reach[name] == furthest > 0]
        if not {"integers", "int32"} <= set(names) or names[0] not in ("integers", "int32"):
            names = names[:1]
        sure = furthest == math.inf or not cut
        if len(names) == 1 and sure:
            return names[0]
        if whole or size >= _MOST and (names or reader.binary) or not names and not cut:
            break
        size *= 16
    names = [name for name in names if name in ("integers", "int32")]
    either = f" ({' or '.join(names)}?)" if names else ""
    raise PyserError(f"{reader.path}: the kind of object cannot be seen from it{either}; say it with --type")


def _reach(name: str, ahead: bytes, binary: bool, whole: bool) -> float:
    """How many objects of this kind, with keys between them, come first in what is there; inf if that is all of it.
    _RanOut where not even one is there to its end."""
    stream = Stream(_Ahead(b"\0B" * binary + ahead, whole), name)
    count, telling = 0, name != "vector"  # (an empty vector could be an empty matrix, which is what Kaldi's features are)
    try:
        while count < _OBJECTS:
            reader = Reader.of(stream, name)
            marked = not binary or stream.peek(1) in _MARKS.get(name, stream.peek(1))
            if reader.binary != binary or not marked:
                return count * telling
            value = KINDS[name].read(reader)
            if binary and not _likely(name, value):
                return count * telling
            telling = telling or len(value) > 0
            count += 1
            if not read_key(stream):
                break
    except PyserError:
        return count * telling
    except _RanOut:
        if not count:
            raise
    return math.inf if telling else 0


def _likely(name: str, value: Any) -> bool:
    """Whether the numbers are what they would be in this kind, where integers and floats take the same room."""
    if name in ("int32", "integer-pairs"):
        return bool((np.abs(np.asarray(value, np.int64)) < _LEAST_INT).all())
    if name == "posterior":
        return all(_likely("float", weights) for _, weights in value)
    if name in ("float", "float-pairs"):
        sizes = np.abs(np.asarray(value, np.float64))
        return bool(((sizes == 0) | (_LEAST_FLOAT < sizes) & (sizes < 1 / _LEAST_FLOAT)).all())
    return True


def copy_table(
    rspecifier: str, wspecifier: str, kind: str | None = None, compression_method: int = 0, allow_pipes: bool = False
) -> int:
    """Copy one table into another; returns the number of objects.

    `kind` is a name in KINDS, or None to find it from the first objects. `compression_method` is Kaldi's 1 to 7, 0 for none.
    Matrices and vectors keep their precision (Kaldi's own programs write single precision always).
    """
    found = _Found(rspecifier)
    objects = read_objects(rspecifier, KINDS[kind] if kind else Kind("any", found.read, _never), allow_pipes)
    first = list(itertools.islice(objects, 1))
    if found.error and not first:
        raise found.error
    known = KINDS[kind] if kind else found.kind or KINDS["matrix"]
    if compression_method and known.name != "matrix":
        raise PyserError(f"{rspecifier}: --compression-method is for matrices, and there is a table of kind '{known.name}'")
    if compression_method:
        writer: TableWriter = MatrixWriter(wspecifier, compression_method, allow_pipes=allow_pipes)
    else:
        writer = TableWriter(wspecifier, known, allow_pipes, finite=False)
    warned = False
    with writer:
        for key, value in itertools.chain(first, objects):
            if not warned and not writer.finite and not is_finite(value):
                _warn(f"{rspecifier}: {key}")
                warned = True
            writer.write(key, value)
    return writer.count


def copy_object(
    rxfilename: str, wxfilename: str, kind: str | None = None, compression_method: int = 0, text: bool = False,
    allow_pipes: bool = False,
) -> None:
    """Copy the one object in a file; the options are those of copy_table, `text` writes it as text."""
    name, part = split_range(rxfilename)
    with open_input(name, allow_pipes) as stream:
        reader = Reader.of(stream, rxfilename)
        known = _FILE_INTEGERS if kind == "integers" else KINDS[kind] if kind else _kind_of_file(reader)
        if compression_method and (known.name != "matrix" or text):
            raise PyserError(f"{rxfilename}: --compression-method is for binary matrices, and this becomes "
                             f"{'text' if text else f'an object of kind {known.name!r}'}")
        value = known.read(reader) if part is None else take_range(known.read(reader), part)
        if not is_finite(value):
            _warn(rxfilename)
        stream.skip_white()
        if stream.peek(1) and split_offset(name)[1] is None:
            raise reader.fail("the end of the file after one object")
    writer = Writer(not text)
    if compression_method:
        writer.parts = [b"\0B", compress(value.astype(np.float32), compression_method)]
    else:
        known.write(writer, value)
    write_object(wxfilename, writer.data(), allow_pipes)


def _kind_of_file(reader: Reader) -> Kind:
    """Like kind_of, for an object in a file of its own, where vectors of integers stand without a mark at each element."""
    ahead = reader.stream.peek(_MOST)
    if reader.binary and ahead[:1] == b"\4" and len(ahead) == 5 + 4 * int.from_bytes(ahead[1:5], "little", signed=True):
        return _FILE_INTEGERS
    try:
        return KINDS[kind_of(reader)]
    except PyserError as error:
        raise PyserError(f"{error}, or ark:{reader.path} if it is an archive") from None


def _warn(where: str) -> None:
    print(f"WARNING: {where}: not a number or infinite in it; it is copied as it is", file=sys.stderr)


def _never(writer: Writer, value: Any) -> None:
    raise AssertionError("objects of no kind are not written")
