"""Kaldi's conf files: a line `--name=value` for each option, `#` comments; read into a frozen dataclass.

As in Kaldi (util/parse-options.cc) dashes, underscores and case make no difference in names, `--name` alone is true, and
every file may hold the options that all of Kaldi's programs have, --verbose and --print-args; here these do nothing.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pyser.errors import PyserError
from pyser.files import read_lines

Config = TypeVar("Config")
BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
COMMON: dict[str, type] = {"verbose": int, "print-args": bool}  # the options of every program of Kaldi's


def read_conf(path: str | Path | None, kind: type[Config], **overrides: Any) -> Config:
    """An instance of the dataclass `kind` from the conf file `path` (None: all defaults), `overrides` on top.

    Dashes and underscores are the same in names. Values are int, float, bool, str or, for tuples, numbers with commas.
    PyserError names the file, the line and what was expected.
    """
    values = read_options(path, kind) if path else {}
    return kind(**{**values, **{k: v for k, v in overrides.items() if v is not None}})


def read_options(path: str | Path, kind: type) -> dict[str, Any]:
    """What a conf file sets of the dataclass `kind`: field -> value."""
    types = {option_name(field): kind for field, kind in typing.get_type_hints(kind).items()}
    values: dict[str, Any] = {}
    for where, name, text in conf_lines(path):
        if name not in types and name not in COMMON:
            raise PyserError(f"{where}: unknown option --{name}; known: {' '.join(sorted(types))}")
        expected = types.get(name) or COMMON[name]
        try:
            value = parse_value("true" if text is None and expected is bool else text or "", expected)
        except ValueError:
            raise PyserError(f"{where}: --{name} is '{text or ''}', expected {type_name(expected)}") from None
        if name in types:
            values[name.replace("-", "_")] = value
    return values


def conf_lines(path: str | Path) -> Iterator[tuple[str, str, str | None]]:
    """(file:line, name of the option, its value or None where it stands alone) of each line of a conf file."""
    for number, line in enumerate(read_lines(path), start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        if not text.startswith("--"):
            raise PyserError(f"{path}:{number}: '{text}' is not of the form --name=value")
        name, equals, value = text[2:].partition("=")
        yield f"{path}:{number}", option_name(name), value.strip() if equals else None


def option_name(text: str) -> str:
    """The name of an option as Kaldi knows it: `Left_Context` is left-context."""
    return text.strip().lower().replace("_", "-")


def write_conf(config: Any) -> str:
    """The text of a conf file that `read_conf` turns back into `config`."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, tuple):
            value = ",".join(str(item) for item in value)
        lines.append(f"--{field.name.replace('_', '-')}={value}\n")
    return "".join(lines)


def parse_value(text: str, kind: Any) -> Any:
    """`text` as a value of the type `kind`; ValueError when it is none."""
    if kind is bool:
        if text.lower() not in BOOLEANS:
            raise ValueError(text)
        return BOOLEANS[text.lower()]
    if typing.get_origin(kind) is tuple:
        return tuple(parse_value(item.strip(), typing.get_args(kind)[0]) for item in text.split(",") if item.strip())
    if kind not in (int, float, str):
        raise TypeError(f"a conf file cannot hold a {kind}")
    if kind is int and "." in text and float(text).is_integer():  # Kaldi's rates are floats: 16000.0 is fine
        return int(float(text))
    return kind(text)


def type_name(kind: Any) -> str:
    """What a user calls a value of the type `kind`."""
    if typing.get_origin(kind) is tuple:
        return f"a comma-separated list of {type_name(typing.get_args(kind)[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, str(kind))
