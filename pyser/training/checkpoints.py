"""Checkpoints: one file per epoch, written whole, read without running any pickled code.

exp_dir/epoch-N.pt is a dictionary as icefall's: icefall.checkpoint.load_checkpoint reads it into a model and an optimizer,
and pyser reads icefall's models, if by torch 2. "scheduler" and "sampler" are None: the learning rate and the batches of an
epoch follow from its number.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.files import atomic, write_torch

PLAIN = ("history", "config")  # plain Python, kept as JSON
KEYS = {"epoch", "model", "optimizer", *PLAIN}
BEST = "best-valid-loss.pt"


def path_of(directory: str | Path, epoch: int) -> Path:
    """Where the checkpoint of `epoch` (from 1) lives in `directory`."""
    return Path(directory) / f"epoch-{epoch}.pt"


def numbers(directory: str | Path) -> list[int]:
    """Epochs that have a checkpoint file in `directory`, ascending; the files may be damaged."""
    found = (re.fullmatch(r"epoch-(\d+)\.pt", p.name) for p in Path(directory).glob("epoch-*.pt"))
    return sorted(int(match[1]) for match in found if match)


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` (see KEYS) to `path`, whole or not at all."""
    # The weights-only reader of torch 1.13 knows tensors, integers and strings, but no floats: those go as tensors.
    plain = {name: json.dumps(state[name]) for name in PLAIN}
    write_torch(path, {"scheduler": None, "grad_scaler": None, "sampler": None, **_as_tensors(state), **plain})


def save_best(path: str | Path) -> None:
    """Copy the checkpoint `path` to best-valid-loss.pt beside it."""
    with atomic(Path(path).with_name(BEST)) as temporary:
        shutil.copyfile(path, temporary)


def remove(directory: str | Path) -> None:
    """Delete all checkpoints in `directory`."""
    for path in (*(path_of(directory, epoch) for epoch in numbers(directory)), Path(directory) / BEST):
        path.unlink(missing_ok=True)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; PyserError if it is missing, damaged or not a training checkpoint."""
    state = _read(path)
    if not KEYS <= state.keys():
        raise PyserError(f"{path}: not a training checkpoint of pyser; delete it")
    return _as_floats(state) | {name: json.loads(state[name]) for name in PLAIN}


def load_model(path: str | Path) -> dict[str, Tensor]:
    """The model's state dict from a checkpoint of pyser's or icefall's."""
    state = _read(path)
    if "model" not in state:
        raise PyserError(f"{path}: not a training checkpoint, it has no model")
    return {name.removeprefix("module."): value for name, value in state["model"].items()}


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise PyserError(f"{path}: no such checkpoint; run training first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a truncated zip raises RuntimeError, EOFError, UnpicklingError… by torch version
        raise PyserError(f"{path}: not a whole checkpoint ({type(error).__name__}); delete it") from error
    if not isinstance(state, dict):
        raise PyserError(f"{path}: not a training checkpoint of pyser; delete it")
    return state


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
    states = [load_model(path) for path in paths]
    mean: dict[str, Tensor] = {}
    for name, last in states[-1].items():
        if any(name not in state or state[name].shape != last.shape for state in states):
            raise PyserError(f"{paths[-1]}: {name} differs in shape from {paths[0]}; average checkpoints of one run")
        if last.is_floating_point():
            mean[name] = torch.stack([state[name].double() for state in states]).mean(0).to(last.dtype)
        else:
            mean[name] = last
    return mean


def _as_tensors(value: Any) -> Any:
    if isinstance(value, float):
        return torch.tensor(value, dtype=torch.float64)
    return _mapped(value, _as_tensors)


def _as_floats(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dim() == 0 and value.dtype == torch.float64:
        return float(value)
    return _mapped(value, _as_floats)


def _mapped(value: Any, function: Any) -> Any:
    if isinstance(value, dict):
        return {key: function(item) for key, item in value.items()}
    return type(value)(function(item) for item in value) if isinstance(value, list | tuple) else value
