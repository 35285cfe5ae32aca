"""Lists of `key value` lines wherever Kaldi reads them: a file, `ark:FILE`, `-` or a pipe (util/kaldi-table.h)."""

from __future__ import annotations

from pyser.errors import PyserError
from pyser.kaldi.scripts import decode, table_of
from pyser.kaldi.specifier import Rspecifier, is_specifier
from pyser.kaldi.stream import open_input


def read_map(source: str, allow_pipes: bool = False, paths: bool = False) -> dict[str, str]:
    """First word of each line -> the rest; `source` is a filename, `-`, `command |` or any `ark:` rspecifier of one.
    `paths`: the values are names of files."""
    rxfilename = source
    if is_specifier(source):
        specifier = Rspecifier.parse(source)
        if specifier.kind != "ark":
            raise PyserError(f"{source}: a list of keys and values stands in a file; give its name, or ark:FILE")
        rxfilename = specifier.path
    with open_input(rxfilename, allow_pipes) as stream:
        text = decode(stream.rest(), stream.name, paths)
    return table_of(text, stream.name)
