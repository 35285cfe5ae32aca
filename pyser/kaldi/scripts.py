"""Kaldi's lists of `key value` lines: scp files, utt2spk, text, … (ReadScriptFile in util/kaldi-table.cc)."""

from __future__ import annotations

import re
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_lines

_WHITE = " \t\r\n\f\v"
_GAP = re.compile(r"[ \t\r\f\v]+")


def read_table(path: str | Path) -> dict[str, str]:
    """First word of each line -> the rest, of any of Kaldi's `key value` lists."""
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        key, value = split_line(line)
        if not key:
            raise PyserError(f"{path}:{number}: empty line; take it out")
        if key in table:
            raise PyserError(f"{path}:{number}: {key} occurs twice; make the keys unique")
        table[key] = value
    return table


def split_line(line: str) -> tuple[str, str]:
    """The first word and the rest."""
    key, *value = _GAP.split(line.strip(_WHITE), maxsplit=1)
    return key, "".join(value)


def read_scp(path: str | Path) -> dict[str, str]:
    """Key -> rxfilename (`file:offset` or `file:offset[first:last]`) of an scp file, in the file's order."""
    table = read_table(path)
    for number, (key, rxfilename) in enumerate(table.items(), start=1):  # (no line is passed over, so these are lines)
        if not rxfilename:
            raise PyserError(f"{path}:{number}: expected 'key file:offset', found '{key[:80]}'")
    return table
