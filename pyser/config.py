"""Kaldi's conf files: a line `--name=value` for each option, `#` comments; read into a frozen dataclass."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, TypeVar

from pyser.errors import PyserError
from pyser.files import read_lines

Config = TypeVar("Config")


def read_conf(path: str | Path | None, kind: type[Config], **overrides: Any) -> Config:
    """An instance of the dataclass `kind` from the conf file `path` (None: all defaults), `overrides` on top.

    Dashes and underscores are the same in names. Values are int, float, bool, str or, for tuples, numbers with commas.
    PyserError names the file, the line and what was expected.
    """
    types = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for number, line in enumerate(read_lines(path) if path else [], start=1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        where = f"{path}:{number}"
        if not text.startswith("--"):
            raise PyserError(f"{where}: '{text}' is not of the form --name=value")
        name, _, value = text[2:].partition("=")
        name = name.strip().replace("-", "_")
        if name not in types:
            raise PyserError(f"{where}: unknown option --{name}; known: {' '.join(sorted(types))}")
        try:
            values[name] = _parse(value.strip(), types[name])
        except ValueError:
            raise PyserError(f"{where}: --{name} is '{value.strip()}', expected {_name(types[name])}") from None
    return kind(**{**values, **{k: v for k, v in overrides.items() if v is not None}})


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


def _parse(text: str, kind: Any) -> Any:
    if kind is bool:
        if text not in ("true", "false", ""):  # Kaldi reads `--flag` alone as true
            raise ValueError(text)
        return text != "false"
    if typing.get_origin(kind) is tuple:
        return tuple(_parse(item.strip(), typing.get_args(kind)[0]) for item in text.split(",") if item.strip())
    if kind not in (int, float, str):
        raise TypeError(f"a conf file cannot hold a {kind}")
    return kind(text)


def _name(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a comma-separated list of {_name(typing.get_args(kind)[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, str(kind))
