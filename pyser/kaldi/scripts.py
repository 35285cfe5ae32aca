"""Kaldi's lists of `key value` lines: scp files, utt2spk, text, … (ReadScriptFile in util/kaldi-table.cc)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pyser.errors import PyserError

_BLANK = " \t\r\f\v"
GAP = re.compile(f"[{_BLANK}]+")


def read_text(path: str | Path) -> str:
    """The file as UTF-8, line ends as they are."""
    try:
        return Path(path).read_bytes().decode()
    except FileNotFoundError:
        raise PyserError(f"{path}: no such file; run the stage that writes it") from None
    except UnicodeDecodeError as error:
        raise PyserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it with iconv") from None


def read_keyed(path: str | Path) -> Iterator[tuple[str, str]]:
    """(first word, rest) of each line, ('', '') of a blank one. Only \\n ends a line, only ASCII blanks end a word."""
    lines = read_text(path).split("\n")
    for line in lines[: len(lines) - (not lines[-1])]:
        yield split_line(line)


def read_table(path: str | Path, mend: bool = False) -> dict[str, str]:
    """First word of each line -> the rest, of any of Kaldi's `key value` lists. Blank lines and repeated keys are errors;
    with `mend` they are passed over (the first line of a key stays, as with `sort -u -k1,1`)."""
    table: dict[str, str] = {}
    for number, (key, value) in enumerate(read_keyed(path), start=1):
        if mend and (not key or key in table):
            continue
        if not key:
            raise PyserError(f"{path}:{number}: empty line; take it out")
        if key in table:
            raise PyserError(f"{path}:{number}: {key} occurs twice; make the keys unique")
        table[key] = value
    return table


def split_line(line: str) -> tuple[str, str]:
    """The first word and the rest."""
    key, *value = GAP.split(line.strip(_BLANK + "\n"), maxsplit=1)
    return key, "".join(value)


def read_scp(path: str | Path) -> dict[str, str]:
    """Key -> rxfilename (`file:offset` or `file:offset[first:last]`) of an scp file, in the file's order."""
    table = read_table(path)
    for number, (key, rxfilename) in enumerate(table.items(), start=1):  # (no line is passed over, so these are lines)
        if not rxfilename:
            raise PyserError(f"{path}:{number}: expected 'key file:offset', found '{key[:80]}'")
    return table
