"""Copying tables and single objects between forms, as Kaldi's copy-feats, copy-vector, copy-int-vector and copy-post do.

Matrices and vectors say in binary what they are. Of the rest the bytes, or in text the words of the first objects, leave
but one kind in most tables; where they do not, the caller has to say it.
"""

from __future__ import annotations

import contextlib
import io
import itertools
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
_UNMARKED = ("integers", "posterior", "integer-lists", "integer-pairs", "float-pairs", "int32", "float", "double", "bool")
# what one object of text may be, the kind that says more before the kind that says less
_TEXT = ("sparse", "posterior", "packed", "matrix", "vector", "integer-lists", "float-pairs", "integer-pairs", "double",
         "integers", "bool")
_MARKS = {"float": b"\4", "double": b"\10"}
_FILE_INTEGERS = Kind("integers", Reader.integers, Writer.integers)
_LOOK = (PIECE, 16 * PIECE)  # bytes that are looked at ahead, at first and at most
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
    names: list[str] = []
    for size in _LOOK:
        ahead = reader.stream.peek(size)
        whole = len(ahead) < size
        if whole:
            ahead += b"".join(others)
        names = _binary_kinds(ahead, whole) if reader.binary else _text_kinds(ahead, whole)
        if len(names) == 1:
            return names[0]
        if whole:
            break
    either = f" ({' or '.join(names)}?)" if names else ""
    raise PyserError(f"{reader.path}: the kind of object cannot be seen from it{either}; say it with --type")


def _binary_kinds(ahead: bytes, whole: bool) -> list[str]:
    names = [name for name in _UNMARKED if _reads_as(name, b"\0B" + ahead, whole)]
    return ["integers", "int32"] if names[:1] == ["integers"] and "int32" in names else names[:1]  # (empty: the bytes of 0)


def _reads_as(name: str, ahead: bytes, whole: bool) -> bool:
    """Whether objects of this kind, with keys between them, make up what is there."""
    stream, count = Stream(_Ahead(ahead, whole), name), 0
    try:
        while count < _OBJECTS:
            reader = Reader.of(stream, name)
            marked = stream.peek(1) in _MARKS.get(name, stream.peek(1))
            if not reader.binary or not marked or not _likely(name, KINDS[name].read(reader)):
                return False
            if not read_key(stream):
                return True
            count += 1
    except PyserError:
        return False
    except _RanOut:
        pass
    return count > 0


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


def _text_kinds(ahead: bytes, whole: bool) -> list[str]:
    stream = Stream(io.BytesIO(ahead), "text")
    seen: list[str] = []
    try:
        for _ in range(_OBJECTS):
            # (an object that the part looked at does not hold to its end says nothing, unless it is the only one)
            if (name := _text_kind(stream)) and (whole or not seen or stream.peek(1)):
                seen.append(name)
            if not read_key(stream):
                break
    except PyserError:
        pass
    for name in _TEXT:
        if name in seen:
            return [name]
    if "int32" in seen:
        return ["int32", "integers"]
    return ["matrix"] if "[]" in seen else [] if "?" in seen else ["integers"]


def _text_kind(stream: Stream) -> str:
    """What the next object looks like: a kind, `[]` for empty brackets, `?` for nothing known, or empty for a bare line."""
    while stream.peek(1) in (b" ", b"\t"):
        stream.take(1)
    if stream.peek(1) == b"[":
        inside = stream.until(b"]")
        inside = stream.rest()[1:] if inside is None else inside[1:]
        after = (stream.line() or b"]")[1:].strip()
        if after:
            return "posterior" if after.startswith(b"[") else "?"
        rows = [row.split() for row in inside.replace(b";", b"\n").split(b"\n") if row.strip()]
        if len(rows) > 1 and [len(row) for row in rows] == list(range(1, len(rows) + 1)):
            return "packed"
        return "[]" if not rows else "matrix" if len(rows) > 1 or b"\n" in inside or b";" in inside else "vector"
    line = (stream.line() or b"").strip()
    if line.startswith(b"rows="):
        return "sparse"
    if line in (b"T", b"F"):
        return "bool"
    parts = [part.split() for part in line.split(b";")]
    words = [word for part in parts for word in part]
    whole = all(word.lstrip(b"+-").isdigit() for word in words)
    if not whole and not all(_is_number(word) for word in words):
        return "?"
    if line.endswith(b";"):
        return "integer-lists" if whole else "?"
    if len(parts) > 1 or (len(words) == 2 and not whole):
        return "?" if any(len(part) != 2 for part in parts) else "integer-pairs" if whole else "float-pairs"
    if len(words) == 1:
        return "int32" if whole else "double"
    return "" if not words else "integers" if whole else "?"


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


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
    ahead = reader.stream.peek(_LOOK[1])
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
