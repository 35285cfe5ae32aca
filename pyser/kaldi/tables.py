"""Kaldi's tables: archives (ark) and the scp files that point into them (util/kaldi-table-inl.h).

Everything is read here in numpy. kaldi_native_io 1.23.0 gets the numbers right, but it runs the commands that an scp file
names unasked, allocates what a header claims (14 GB for a file of 20 bytes), takes an archive that was cut short for a whole
one, and reads neither gzip files nor sparse matrices.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader
from pyser.kaldi.objects import KINDS, Kind
from pyser.kaldi.scripts import read_scp, read_table, split_line
from pyser.kaldi.specifier import Range, Rspecifier, split_range
from pyser.kaldi.stream import Stream, open_input, split_offset
from pyser.kaldi.table_writer import MatrixWriter, TableWriter

__all__ = [
    "INTEGERS", "MATRIX", "POSTERIOR", "VECTOR", "MatrixTable", "MatrixWriter", "Table", "TableWriter", "VectorTable",
    "load_mat", "load_vec", "read_ints", "read_mats", "read_objects", "read_posts", "read_scp",
    "read_script", "read_table", "read_vecs",
]

MATRIX, VECTOR, INTEGERS, POSTERIOR = (KINDS[name] for name in ("matrix", "vector", "integers", "posterior"))
MAX_KEY = 10_000


def read_script(specifier: Rspecifier, allow_pipes: bool) -> Iterator[tuple[str, str]]:
    """(key, rxfilename) of an scp file, which may be a pipe or standard input too."""
    before = ""
    with open_input(specifier.path, allow_pipes) as stream:
        number = 0
        while (line := stream.line()) is not None:
            number += 1
            try:
                key, rxfilename = split_line(os.fsdecode(line))
                key.encode("utf-8")
            except UnicodeError:
                raise PyserError(f"{stream.name}:{number}: a key that is not UTF-8; is it an scp file?") from None
            if not rxfilename:
                raise PyserError(f"{stream.name}:{number}: expected 'key file:offset', found '{key[:80]}'")
            _check_order(specifier, stream.name, before, key)
            before = key
            yield key, rxfilename


def _check_order(specifier: Rspecifier, name: str, before: str, key: str) -> None:
    if specifier.sorted and before and not before.encode() < key.encode():
        raise PyserError(f"{name}: {key} comes after {before} in spite of ',s'; sort it with LC_ALL=C, or leave out ',s'")


class _Loader:
    """Reads what single rxfilenames lead to. The file last used stays open, and the object with a range stays in memory."""

    def __init__(self, kind: Kind, allow_pipes: bool = False):
        self.kind, self.allow_pipes = kind, allow_pipes
        self._stream: Stream | None = None
        self._path = ""
        self._last: tuple[str, Any] = ("", None)

    def load(self, entry: str) -> Any:
        rxfilename, part = split_range(entry)
        if part is None:
            return self._read(rxfilename)
        if self._last[0] != rxfilename:
            self._last = (rxfilename, self._read(rxfilename))
        return take_range(self._last[1], part).copy()

    def _read(self, rxfilename: str) -> Any:
        path, offset = split_offset(rxfilename)
        if self._stream is None or path != self._path or offset is None:
            self.close()
            self._stream, self._path = open_input(rxfilename, self.allow_pipes), path
        elif self._stream.size is None or offset > self._stream.size:
            raise PyserError(f"{rxfilename}: the file has no such place; run the stage that wrote it again")
        else:
            self._stream.seek(offset)
        with np.errstate(over="ignore", invalid="ignore"):
            value = self.kind.read(Reader.of(self._stream, rxfilename))
        if offset is None:
            self.close()  # (here a command that failed is noticed)
        return value

    def close(self) -> None:
        if self._stream:
            stream, self._stream = self._stream, None
            stream.close()

    def __enter__(self) -> _Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def take_range(value: Any, part: Range) -> np.ndarray:
    """The part of a matrix or a vector."""
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise PyserError("a range of what is no matrix or vector; take it out of the scp file")
    return value[part.slices(value.shape)]


def _load(kind: Kind, rxfilename: str, allow_pipes: bool) -> np.ndarray:
    with _Loader(kind, allow_pipes) as loader:
        try:
            return _cast(loader.load(rxfilename), np.float32)
        except PyserError as error:
            raise PyserError(str(error) if str(error).startswith(rxfilename) else f"{rxfilename}: {error}") from None


def load_mat(rxfilename: str, allow_pipes: bool = False) -> np.ndarray:
    """The matrix (rows, columns) behind one scp entry, compressed or not, as float32."""
    return _load(MATRIX, rxfilename, allow_pipes)


def load_vec(rxfilename: str, allow_pipes: bool = False) -> np.ndarray:
    """The vector behind one scp entry, as float32."""
    return _load(VECTOR, rxfilename, allow_pipes)


def read_key(stream: Stream) -> str:
    """The key of an archive's next object, which begins thereafter; empty at the end."""
    word = stream.word(MAX_KEY)
    if not word:
        return ""
    after = stream.peek(1)
    if not after or min(word) < 32 or len(word) > MAX_KEY:
        place = stream.place - len(word)
        raise PyserError(f"{stream.name}: byte {place}: expected a key and an object; it is damaged or no archive")
    if after != b"\n":
        stream.take(1)
    try:
        return word.decode("utf-8")
    except UnicodeDecodeError:
        raise PyserError(f"{stream.name}: byte {stream.place}: a key that is not UTF-8; is it an archive?") from None


def read_objects(rspecifier: str, kind: Kind, allow_pipes: bool = False) -> Iterator[tuple[str, Any]]:
    """(key, object) of any table, in its order. With `,p` what cannot be read is passed over."""
    specifier = replace(Rspecifier.parse(rspecifier), sorted=False)  # (Kaldi, too, looks at the order only for random access)
    if specifier.kind == "ark":
        yield from _read_archive(specifier, kind, allow_pipes)
        return
    with _Loader(kind, allow_pipes) as loader:
        for key, rxfilename in read_script(specifier, allow_pipes):
            try:
                value = loader.load(rxfilename)
            except PyserError as error:
                if specifier.permissive:
                    continue
                raise PyserError(f"{specifier.path}: {key}: {error}") from None
            yield key, value


def _read_archive(specifier: Rspecifier, kind: Kind, allow_pipes: bool) -> Iterator[tuple[str, Any]]:
    before = ""
    with open_input(specifier.path, allow_pipes) as stream:
        try:
            while key := read_key(stream):
                _check_order(specifier, stream.name, before, key)
                before = key
                yield key, _read_at(stream, key, kind)
        except PyserError:
            if not specifier.permissive:
                raise


def _read_at(stream: Stream, key: str, kind: Kind) -> Any:
    """The object after `key` in an archive; whatever is wrong with it, the message names the key."""
    name = f"{stream.name}: {key}"
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # (numbers of text that single precision does not hold)
            return kind.read(Reader.of(stream, name))
    except PyserError as error:
        if str(error).startswith(f"{name}: "):
            raise
        raise PyserError(f"{name}: {str(error).removeprefix(f'{stream.name}: ')}") from None


def read_mats(
    rspecifier: str, allow_pipes: bool = False, dtype: type[np.floating] = np.float32
) -> Iterator[tuple[str, np.ndarray]]:
    """(key, matrix (rows, columns)) of `scp:FILE`, `ark:FILE` or any other rspecifier, in the file's order."""
    for key, value in read_objects(rspecifier, MATRIX, allow_pipes):
        yield key, _cast(value, dtype)


def read_vecs(
    rspecifier: str, allow_pipes: bool = False, dtype: type[np.floating] = np.float32
) -> Iterator[tuple[str, np.ndarray]]:
    """(key, vector (dim,)) of any table of vectors."""
    for key, value in read_objects(rspecifier, VECTOR, allow_pipes):
        yield key, _cast(value, dtype)


def _cast(value: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return value.astype(dtype, copy=False)


def read_ints(rspecifier: str, allow_pipes: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    """(key, int32 (dim,)) of a table of integer vectors, such as alignments."""
    return read_objects(rspecifier, INTEGERS, allow_pipes)


def read_posts(rspecifier: str, allow_pipes: bool = False) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """(key, per frame (indices int32, weights float32)) of a table of posteriors."""
    return read_objects(rspecifier, POSTERIOR, allow_pipes)


class Table(Mapping[str, Any]):
    """Random access to a table by key.

    `scp:` is read lazily. `ark:` is loaded whole, except with `,s,cs`, where it is read alongside: keys must then be asked
    for in ascending order. Keys that occur twice are refused. With `,p` what cannot be read counts as not there.
    """

    def __init__(self, rspecifier: str, kind: Kind, allow_pipes: bool = False):
        self.specifier, self._name = Rspecifier.parse(rspecifier), rspecifier
        self._loader = _Loader(kind, allow_pipes)
        weakref.finalize(self, self._loader.close)
        self._entries: dict[str, Any] = {}
        self._current: tuple[str, Any] | None = ("", None)
        self._asked = b""
        self._alongside = self.specifier.kind == "ark" and self.specifier.sorted and self.specifier.called_sorted
        if self.specifier.kind == "scp":
            pairs: Iterator[tuple[str, Any]] = read_script(self.specifier, allow_pipes)
        else:
            pairs = _read_archive(self.specifier, kind, allow_pipes)
        if self._alongside:
            self._pairs = pairs
            return
        for key, value in pairs:
            if key in self._entries:
                raise PyserError(f"{self.specifier.path}: {key} occurs twice; make the keys unique")
            self._entries[key] = value

    def __getitem__(self, key: str) -> Any:
        if self._alongside:
            return self._advance(key)
        value = self._entries[key]
        if self.specifier.kind == "ark":
            return value
        try:
            return self._loader.load(value)
        except PyserError as error:
            if self.specifier.permissive:
                raise KeyError(key) from None
            raise PyserError(f"{self.specifier.path}: {key}: {error}") from None

    def _advance(self, key: str) -> Any:
        wanted = key.encode()
        if self._asked > wanted:
            after = self._asked.decode()
            raise PyserError(f"{self._name}: asked for {key} after {after}; sort with LC_ALL=C, or leave out ',cs'")
        self._asked = wanted
        while self._current and self._current[0].encode() < wanted:
            self._current = next(self._pairs, None)
        if self._current is None or self._current[0] != key:
            raise KeyError(key)
        return self._current[1]

    def __contains__(self, key: object) -> bool:
        if not self._alongside and not self.specifier.permissive:
            return key in self._entries
        return super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        self._needs_all()
        return iter(self._entries)

    def __len__(self) -> int:
        self._needs_all()
        return len(self._entries)

    def _needs_all(self) -> None:
        if self._alongside:
            raise PyserError(f"{self._name}: can only be looked up with ',s,cs'; leave these out")


class MatrixTable(Table):
    """Key -> matrix (rows, columns) of any rspecifier."""

    def __init__(self, rspecifier: str, allow_pipes: bool = False, dtype: type[np.floating] = np.float32):
        super().__init__(rspecifier, MATRIX, allow_pipes)
        self.dtype = dtype

    def __getitem__(self, key: str) -> np.ndarray:
        return _cast(super().__getitem__(key), self.dtype)


class VectorTable(Table):
    """Key -> vector (dim,) of any rspecifier."""

    def __init__(self, rspecifier: str, allow_pipes: bool = False, dtype: type[np.floating] = np.float32):
        super().__init__(rspecifier, VECTOR, allow_pipes)
        self.dtype = dtype

    def __getitem__(self, key: str) -> np.ndarray:
        return _cast(super().__getitem__(key), self.dtype)
