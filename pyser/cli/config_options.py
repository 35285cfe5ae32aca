"""Click options out of a config dataclass: what a conf file may hold, the command line may override."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import click

from pyser.config import parse_value, type_name

Command = TypeVar("Command", bound=Callable[..., Any])


class Value(click.ParamType):
    """A value as a conf file writes it: `--snip-edges=false`, `--frame-shift=12.5`."""

    def __init__(self, kind: Any):
        self.kind, self.name = kind, {bool: "bool", int: "int", float: "float"}.get(kind, "text")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return parse_value(value, self.kind)
        except ValueError:
            self.fail(f"'{value}', expected {type_name(self.kind)}", param, ctx)


class KaldiCommand(click.Command):
    """A command where `--norm-vars` alone means `--norm-vars=true`, as in Kaldi; a value may follow after `=` or a space."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {name for option in self.params if isinstance(option.type, Value) and option.type.kind is bool
                 for name in option.opts}
        following = [*args, ""][1:]
        return super().parse_args(ctx, [
            f"{word}=true" if word in flags and after.lower() not in ("true", "false", "t", "f", "1", "0") else word
            for word, after in zip(args, following, strict=True)
        ])


def config_options(kind: type) -> Callable[[Command], Command]:
    """One option per field of the dataclass `kind`, by Kaldi's names; a field that is not given comes as None."""
    types = typing.get_type_hints(kind)

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(kind)):
            name = "--" + field.name.replace("_", "-")
            default = str(field.default).lower() if isinstance(field.default, bool) else field.default
            command = click.option(name, field.name, type=Value(types[field.name]), help=f"[{default}]")(command)
        return command

    return decorate
