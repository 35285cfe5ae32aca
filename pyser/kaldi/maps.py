"""Lists of `key value` lines wherever Kaldi reads them: a file, `ark:FILE`, `-` or a pipe (util/kaldi-table.h)."""

from __future__ import annotations

from pyser.errors import PyserError
from pyser.kaldi.scripts import read_table, split_line
from pyser.kaldi.specifier import Rspecifier, is_specifier
from pyser.kaldi.stream import open_input


def read_map(source: str, allow_pipes: bool = False) -> dict[str, str]:
    """First word of each line -> the rest; `source` is a filename, `-`, `command |` or any `ark:` rspecifier of one."""
    rxfilename = source
    if is_specifier(source):
        specifier = Rspecifier.parse(source)
        if specifier.kind != "ark":
            raise PyserError(f"{source}: a list of keys and values stands in a file; give its name, or ark:FILE")
        rxfilename = specifier.path
    if rxfilename not in ("", "-") and not rxfilename.rstrip().endswith("|"):
        return read_table(rxfilename)
    with open_input(rxfilename, allow_pipes) as stream:
        lines = [split_line(line) for line in stream.rest().decode("utf-8", "replace").splitlines()]
    table = dict(lines)
    if len(table) < len(lines) or "" in table:
        raise PyserError(f"{rxfilename}: an empty line or a key twice; every line needs a key of its own")
    return table
