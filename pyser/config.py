"""Kaldi's conf files: a line `--name=value` for each option, `#` comments; read into a frozen dataclass."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

from pyser.errors import PyserError
from pyser.files import read_lines

Config = TypeVar("Config")
BOOLEANS = {"true": True, "t": True, "1": True, "": True, "false": False, "f": False, "0": False}  # `--flag` alone is true


def read_conf(path: str | Path | None, kind: type[Config], **overrides: Any) -> Config:
    """An instance of the dataclass `kind` from the conf file `path` (None: all defaults), `overrides` on top.

    Dashes and underscores are the same in names. Values are int, float, bool, str or, for tuples, numbers with commas.
    PyserError names the file, the line and what was expected.
    """
    values = read_options(path, kind) if path else {}
    return kind(**{**values, **{k: v for k, v in overrides.items() if v is not None}})


def read_options(path: str | Path, kind: type) -> dict[str, Any]:
    """What a conf file sets of the dataclass `kind`: field -> value."""
    types = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for number, line in enumerate(read_lines(path), start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        where = f"{path}:{number}"
        if not text.startswith("--"):
            raise PyserError(f"{where}: '{text}' is not of the form --name=value")
        name, _, value = text[2:].partition("=")
        name = name.strip().lower().replace("-", "_")
        if name not in types:
            raise PyserError(f"{where}: unknown option --{name}; known: {' '.join(sorted(types))}")
        try:
            values[name] = parse_value(value.strip(), types[name])
        except ValueError:
            raise PyserError(f"{where}: --{name} is '{value.strip()}', expected {type_name(types[name])}") from None
    return values


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
