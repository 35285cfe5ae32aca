"""Kaldi's lists of `key value` lines: scp files, utt2spk, text, … (ReadScriptFile in util/kaldi-table.cc).

Text is UTF-8. Names of files may be any bytes: where `paths` says that the values are names, what is no UTF-8 in them is
kept as Python keeps it in the names of files (surrogateescape), and is written back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pyser.errors import PyserError

_BLANK = " \t\r\f\v"
GAP = re.compile(f"[{_BLANK}]+")
_NO_UTF8 = re.compile("[\udc80-\udcff]")


def decode(data: bytes, name: str | Path, paths: bool = False) -> str:
    """The bytes of a list as text; PyserError where they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        text = data.decode(errors="surrogateescape")
        if paths and not any(_NO_UTF8.search(key) for key, _ in keyed(text)):
            return text
        raise PyserError(f"{name}: not UTF-8 ({error.reason} at byte {error.start}); convert it with iconv") from None


def read_text(path: str | Path, paths: bool = False) -> str:
    """The file as text, line ends as they are."""
    try:
        return decode(Path(path).read_bytes(), path, paths)
    except FileNotFoundError:
        raise PyserError(f"{path}: no such file; run the stage that writes it") from None


def keyed(text: str) -> Iterator[tuple[str, str]]:
    """(first word, rest) of each line, ('', '') of a blank one. Only \\n ends a line, only ASCII blanks end a word."""
    lines = text.split("\n")
    for line in lines[: len(lines) - (not lines[-1])]:
        yield split_line(line)


def read_keyed(path: str | Path, paths: bool = False) -> Iterator[tuple[str, str]]:
    """(first word, rest) of each line of a file."""
    return keyed(read_text(path, paths))


def table_of(text: str, name: str | Path, mend: bool = False) -> dict[str, str]:
    """First word of each line -> the rest; `name` is what messages call it. Blank lines and repeated keys are errors;
    with `mend` they are passed over (the first line of a key stays, as with `sort -u -k1,1`)."""
    table: dict[str, str] = {}
    for number, (key, value) in enumerate(keyed(text), start=1):
        if mend and (not key or key in table):
            continue
        if not key:
            raise PyserError(f"{name}:{number}: empty line; take it out")
        if key in table:
            raise PyserError(f"{name}:{number}: {key} occurs twice; make the keys unique")
        table[key] = value
    return table


def read_table(path: str | Path, mend: bool = False, paths: bool = False) -> dict[str, str]:
    """First word of each line -> the rest, of any of Kaldi's `key value` lists, as `table_of`."""
    return table_of(read_text(path, paths), path, mend)


def split_line(line: str) -> tuple[str, str]:
    """The first word and the rest."""
    key, *value = GAP.split(line.strip(_BLANK + "\n"), maxsplit=1)
    return key, "".join(value)


def read_scp(path: str | Path) -> dict[str, str]:
    """Key -> rxfilename (`file:offset` or `file:offset[first:last]`) of an scp file, in the file's order."""
    table = read_table(path, paths=True)
    for number, (key, rxfilename) in enumerate(table.items(), start=1):  # (no line is passed over, so these are lines)
        if not rxfilename:
            raise PyserError(f"{path}:{number}: expected 'key file:offset', found '{key[:80]}'")
    return table
