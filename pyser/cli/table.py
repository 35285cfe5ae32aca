"""pyser table: Kaldi's archives and scp files."""

from __future__ import annotations

import click


@click.group()
def group() -> None:
    """Kaldi tables: copy between archives, scp files, text and compression methods."""


@group.command()
@click.option("--compression-method", type=click.IntRange(0, 7), default=0, help="of matrices, Kaldi's 1 to 7")
@click.option("--text", is_flag=True, help="write text (as ark,t: does)")
@click.option("--type", "kind", help="matrix, vector, packed, sparse, integers, integer-lists, integer-pairs, float-pairs, "
              "posterior, int32, float, double or bool; needed where the first objects do not tell it")
@click.option("--allow-pipes", is_flag=True, help="run the commands in 'ark:command |', 'ark:| command' and in scp files")
@click.argument("rspecifier")
@click.argument("wspecifier")
def copy(compression_method: int, text: bool, kind: str | None, allow_pipes: bool, rspecifier: str, wspecifier: str) -> None:
    """Copy a table, e.g. scp:feats.scp ark,t:-, or a single object from file to file, e.g. final.mat -
    (copy-feats, copy-matrix, copy-vector, copy-int-vector and copy-post in one)."""
    from pyser.errors import PyserError
    from pyser.kaldi.objects import KINDS
    from pyser.kaldi.specifier import is_specifier
    from pyser.kaldi.table_copy import copy_object, copy_table

    if kind is not None and kind not in KINDS:
        raise PyserError(f"--type {kind}: expected one of {', '.join(KINDS)}")
    if not is_specifier(rspecifier) and not is_specifier(wspecifier):
        copy_object(rspecifier, wspecifier, kind, compression_method, text, allow_pipes)
        return
    if text and is_specifier(wspecifier):
        before, _, path = wspecifier.partition(":")
        wspecifier = f"{before},t:{path}"
    count = copy_table(rspecifier, wspecifier, kind, compression_method, allow_pipes)
    if not count:
        raise PyserError(f"table copy: no objects in {rspecifier}")
    click.echo(f"table copy: {count} objects", err=True)
