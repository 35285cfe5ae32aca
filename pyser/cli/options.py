"""Option types that several commands share."""

from __future__ import annotations

from collections.abc import Callable
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


allow_pipes = click.option("--allow-pipes", is_flag=True, help="run the commands in 'ark:command |' and in scp files")


def path_of(specifier: str, kind: str = "scp") -> str:
    """The file of an rspecifier `scp:FILE`."""
    found, _, path = specifier.partition(":")
    if found.split(",")[0] != kind or not path:
        raise PyserError(f"'{specifier}': expected {kind}:FILE")
    return path


def network_device(command: Callable[..., Any]) -> Callable[..., Any]:
    """--use-gpu, --fast and --bfloat16, of everything that computes a network."""
    command = click.option("--bfloat16", is_flag=True, help="compute in bfloat16: about 1% off, fast where the processor has "
                           "it")(command)
    command = click.option("--fast", is_flag=True, help="one i-vector, the last, for a whole utterance: not Kaldi's "
                           "numbers, but less work")(command)
    return click.option("--use-gpu", type=click.Choice(["yes", "no", "optional", "wait"]), default="no", show_default=True,
                        help="optional: if there is one")(command)
