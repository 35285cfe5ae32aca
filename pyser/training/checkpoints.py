"""Checkpoints: one file per epoch, written whole, read without running any pickled code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.files import write_torch

PLAIN = ("history", "config")  # plain Python; "epoch" is an integer, "model" and "optimizer" hold tensors
KEYS = {"epoch", "model", "optimizer", *PLAIN}


def path_of(directory: str | Path, epoch: int) -> Path:
    """Where the checkpoint of `epoch` (from 1) lives in `directory`."""
    return Path(directory) / f"epoch-{epoch}.pt"


def numbers(directory: str | Path) -> list[int]:
    """Epochs that have a checkpoint file in `directory`, ascending; the files may be damaged."""
    found = (re.fullmatch(r"epoch-(\d+)\.pt", p.name) for p in Path(directory).glob("epoch-*.pt"))
    return sorted(int(match[1]) for match in found if match)


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` (see KEYS) to `path`, whole or not at all."""
    # The weights-only reader of torch 1.13 knows tensors, integers and strings, but no floats: those go as JSON.
    write_torch(path, state | {name: json.dumps(state[name]) for name in PLAIN})


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; PyserError if it is missing, damaged or not a training checkpoint."""
    path = Path(path)
    if not path.is_file():
        raise PyserError(f"{path}: no such checkpoint; run training first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a truncated zip raises RuntimeError, EOFError, UnpicklingError… by torch version
        raise PyserError(f"{path}: not a whole checkpoint ({type(error).__name__}); delete it") from error
    if not isinstance(state, dict) or not KEYS <= state.keys():
        raise PyserError(f"{path}: not a training checkpoint of pyser; delete it")
    return state | {name: json.loads(state[name]) for name in PLAIN}


def latest(directory: str | Path) -> Path | None:
    """The newest checkpoint in `directory` that can be read; damaged ones are passed over with a line on stdout."""
    for epoch in reversed(numbers(directory)):
        path = path_of(directory, epoch)
        try:
            load(path)
        except PyserError as error:
            print(f"ignored: {error}", flush=True)
        else:
            return path
    return None


def average(paths: Sequence[str | Path]) -> dict[str, Tensor]:
    """Mean of the models of several checkpoints, as a state dict.

    Floating-point entries, batch-norm statistics included, are averaged in double precision and keep their type;
    integer entries (counters) come from the last path.
    """
    if not paths:
        raise PyserError("no checkpoints to average; run training first")
    states = [load(path)["model"] for path in paths]
    mean: dict[str, Tensor] = {}
    for name, last in states[-1].items():
        if any(name not in state or state[name].shape != last.shape for state in states):
            raise PyserError(f"{paths[-1]}: {name} differs in shape from {paths[0]}; average checkpoints of one run")
        if last.is_floating_point():
            mean[name] = (sum(state[name].double() for state in states) / len(states)).to(last.dtype)
        else:
            mean[name] = last
    return mean
