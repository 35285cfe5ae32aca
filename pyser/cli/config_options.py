"""Commands that take Kaldi's options: on the command line, from conf files, and out of a config dataclass."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from pyser.config import BOOLEANS, COMMON, conf_lines, option_name, parse_value, type_name
from pyser.errors import PyserError

Command = TypeVar("Command", bound=Callable[..., Any])


class Value(click.ParamType):
    """A value as a conf file writes it: `--snip-edges=false`, `--frame-shift=12.5`."""

    def __init__(self, kind: Any):
        self.kind, self.name = kind, {bool: "bool", int: "int", float: "float"}.get(kind, "text")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse_value(value, self.kind)
        except ValueError:
            self.fail(f"'{value}', expected {type_name(self.kind)}", param, ctx)


class KaldiCommand(click.Command):
    """A command whose options are read as Kaldi's programs read theirs (util/parse-options.cc).

    Dashes, underscores and case make no difference in their names, and `--norm-vars` alone means `--norm-vars=true`; a
    value may follow after `=` or a space. --config files hold any of the options that have values, and the command line
    overrides them. --verbose, --print-args and --num-threads (of Kaldi's programs with threads) are taken and do nothing.
    """

    def __init__(self, *args: Any, **attributes: Any):
        super().__init__(*args, **attributes)
        known = {name for option in self.params for name in option.opts}
        if "--config" not in known:
            conf = click.Option(["--config"], multiple=True, metavar="FILE", is_eager=True, expose_value=False,
                                callback=_read_config, help="Kaldi conf file; options given here override it")
            self.params.insert(0, conf)
        for name, kind in {**COMMON, "num-threads": int}.items():
            if f"--{name}" not in known:
                self.params.append(_ignored(name, kind))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = {name for option in self.params if isinstance(option.type, Value) and option.type.kind is bool
                 for name in option.opts}
        end = args.index("--") if "--" in args else len(args)
        words = [_normal(word) for word in args[:end]] + args[end:]
        following = [*words, ""][1:]
        return super().parse_args(ctx, [
            f"{word}=true" if word in flags and after.lower() not in BOOLEANS else word
            for word, after in zip(words, following, strict=True)
        ])


def _normal(word: str) -> str:
    """`--Left_Context=3` as `--left-context=3`; what is no option as it is."""
    name, equals, value = word.partition("=")
    return f"--{option_name(name[2:])}{equals}{value}" if name.startswith("--") else word


def _read_config(ctx: click.Context, param: click.Parameter, paths: tuple[str, ...]) -> None:
    """What the conf files say becomes the options' defaults."""
    options = {name[2:]: option for option in ctx.command.params if isinstance(option, click.Option)
               for name in option.opts if not option.is_flag and option is not param}
    values: dict[str, Any] = {}
    for path in paths:
        for where, name, text in conf_lines(path):
            if name not in options:
                raise PyserError(f"{where}: unknown option --{name}; known: {' '.join(sorted(options))}")
            option = options[name]
            alone = text is None and isinstance(option.type, Value) and option.type.kind is bool
            try:
                value = option.type.convert("true" if alone else text or "", option, ctx)
            except click.BadParameter as error:
                expected = error.message if isinstance(option.type, Value) else f"'{text or ''}': {error.message}"
                raise PyserError(f"{where}: --{name} is {expected}") from None
            if option.name and option.expose_value:
                values[option.name] = value
    ctx.default_map = {**(ctx.default_map or {}), **values}


def _ignored(name: str, kind: type) -> click.Option:
    return click.Option([f"--{name}"], type=Value(kind), expose_value=False, hidden=True)


def without_effect(kind: type, names: Sequence[str]) -> Callable[[Command], Command]:
    """Options of the Kaldi program that are taken, and make no difference here; `kind` is the type of their values."""
    def decorate(command: Command) -> Command:
        for name in names:
            command = click.option(f"--{name}", type=Value(kind), expose_value=False, hidden=True)(command)
        return command

    return decorate


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
