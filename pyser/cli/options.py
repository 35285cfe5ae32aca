"""Option types that several commands share."""

from __future__ import annotations

from typing import Any

import click

from pyser.errors import PyserError


class Share(click.ParamType):
    """A fraction, written 0.05 or 5%."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text = str(value)
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            self.fail(f"'{text}' is not a share such as 5% or 0.05", param, ctx)
        if not 0 <= share <= 1:
            self.fail(f"{text} is not between 0 and 100%", param, ctx)
        return share


max_dropped = click.option("--max-dropped", type=Share(), default="5%", show_default=True,
                           help="stop when more utterances than this have to be left out")


def path_of(specifier: str, kind: str = "scp") -> str:
    """The file of an rspecifier `scp:FILE`."""
    found, _, path = specifier.partition(":")
    if found.split(",")[0] != kind or not path:
        raise PyserError(f"'{specifier}': expected {kind}:FILE")
    return path
