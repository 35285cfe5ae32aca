"""Lists of `key value` lines wherever Kaldi reads them: a file, `ark:FILE`, `-` or a pipe (util/kaldi-table.h)."""

from __future__ import annotations

from pyser.errors import PyserError
from pyser.kaldi.scripts import read_table, split_line
from pyser.kaldi.stream import open_input


def read_map(source: str, allow_pipes: bool = False) -> dict[str, str]:
    """First word of each line -> the rest; `source` is a filename, `-`, `command |` or one of these after `ark:`."""
    kind, colon, path = source.partition(":")
    rxfilename = path if colon and kind in ("ark", "ark,t") else source
    if rxfilename != "-" and not rxfilename.rstrip().endswith("|"):
        return read_table(rxfilename)
    with open_input(rxfilename, allow_pipes) as stream:
        lines = [split_line(line) for line in stream.rest().decode("utf-8", "replace").splitlines()]
    table = dict(lines)
    if len(table) < len(lines) or "" in table:
        raise PyserError(f"{rxfilename}: an empty line or a key twice; every line needs a key of its own")
    return table
