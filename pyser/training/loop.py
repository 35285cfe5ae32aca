"""The training loop that every system uses: Adam, exponential learning rate, one checkpoint per epoch, exact resume."""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.files import write_json
from pyser.training import checkpoints

Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=nn.Module)
Stats = dict[str, float]
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train. `weight_decay` > 0 means AdamW; `keep_checkpoints` 0 keeps every epoch's."""

    num_epochs: int
    lr_initial: float
    lr_final: float
    max_grad_norm: float = 5.0
    weight_decay: float = 0.0
    seed: int = 0
    keep_checkpoints: int = 0

    def __post_init__(self) -> None:
        if self.num_epochs < 1:
            raise PyserError(f"num_epochs is {self.num_epochs}; it must be at least 1")
        if not (self.lr_initial > 0 and self.lr_final > 0):
            raise PyserError(f"learning rates {self.lr_initial:g} -> {self.lr_final:g}; both must be above 0")

    def learning_rate(self, progress: float) -> float:
        """Exponential decay; `progress` in [0, 1]."""
        return float(self.lr_initial * (self.lr_final / self.lr_initial) ** progress)


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's (CPU and GPU) generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def train(
    model: Model,
    batches: Callable[[int], Iterable[Batch]],
    steps_per_epoch: int,
    loss_fn: Callable[[Model, Batch, float], tuple[Tensor, Stats]],
    out_dir: str | Path,
    config: TrainConfig,
    *,
    valid_fn: Callable[[Model], Stats] | None = None,
    after_step: Callable[[Model], None] | None = None,
    describe: Callable[[Batch], str] = str,
) -> list[dict[str, float]]:
    """Train `model` in place and return one row of figures per epoch.

    `batches(epoch)` (epochs count from 1) must depend on nothing but the epoch. `loss_fn(model, batch, progress)`
    returns the mean loss and sums: stats["weight"] is the denominator (frames, utterances) of all the others; a
    batch of weight 0 is passed over. `progress` runs from 0 to 1 over the whole training. `valid_fn` sees the model
    in eval mode and without gradients; its figures appear as valid_<name>. `describe` names a batch in errors.

    Writes out_dir/checkpoints/epoch-N.pt and out_dir/history.json. A second call goes on after the newest whole
    checkpoint and gives the same numbers as a run without a break: the random generators are seeded per epoch.
    Raises PyserError on a loss or gradient that is not finite, and on a checkpoint of other settings.
    """
    out_dir = Path(out_dir)
    folder = out_dir / "checkpoints"
    parameters = [p for p in model.parameters() if p.requires_grad]
    make = torch.optim.AdamW if config.weight_decay else torch.optim.Adam
    optimizer = make(parameters, lr=config.lr_initial, weight_decay=config.weight_decay)
    history = _resume(folder, model, optimizer, config)
    for epoch in range(len(history) + 1, config.num_epochs + 1):
        set_seed(config.seed * 100_003 + epoch)
        started = time.monotonic()
        row: dict[str, float] = {"epoch": epoch}
        row |= _train_epoch(
            model, optimizer, parameters, batches(epoch), steps_per_epoch, loss_fn, epoch, config, after_step, describe
        )
        if valid_fn is not None:
            model.eval()
            with torch.no_grad():
                row |= {f"valid_{name}": float(value) for name, value in valid_fn(model).items()}
        row["seconds"] = time.monotonic() - started
        history.append(row)
        print(f"epoch {epoch}/{config.num_epochs}: {_line(row)}", flush=True)
        state = {
            "epoch": epoch,
            "model": {name: value.detach().cpu() for name, value in model.state_dict().items()},
            "optimizer": optimizer.state_dict()["state"],
            "history": history,
            "config": asdict(config),
        }
        checkpoints.save(checkpoints.path_of(folder, epoch), state)
        write_json(out_dir / "history.json", history)
        if config.keep_checkpoints:
            for old in checkpoints.numbers(folder):
                if old <= epoch - config.keep_checkpoints:
                    checkpoints.path_of(folder, old).unlink()
    return history


def _train_epoch(
    model: Model,
    optimizer: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    batches: Iterable[Batch],
    steps_per_epoch: int,
    loss_fn: Callable[[Model, Batch, float], tuple[Tensor, Stats]],
    epoch: int,
    config: TrainConfig,
    after_step: Callable[[Model], None] | None,
    describe: Callable[[Batch], str],
) -> dict[str, float]:
    """One pass over `batches`; returns averages and the learning rate at its end."""
    model.train()
    sums: defaultdict[str, float] = defaultdict(float)
    reported, lr, step = time.monotonic(), 0.0, -1
    for step, batch in enumerate(batches):
        # An epoch may hold a few batches more or less than foreseen; its share of the schedule stays the same.
        progress = (epoch - 1 + min(step / max(steps_per_epoch, 1), 1.0)) / config.num_epochs
        lr = config.learning_rate(progress)
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss, stats = loss_fn(model, batch, progress)
        if not math.isfinite(loss.item()):
            raise PyserError(f"epoch {epoch} step {step + 1}: loss is {loss.item()} on {describe(batch)}; "
                             "check these features, or lower --lr-initial")
        if stats["weight"] <= 0:
            continue
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        if not math.isfinite(float(norm)):
            raise PyserError(f"epoch {epoch} step {step + 1}: gradient is not finite on {describe(batch)}; "
                             "check these features, or lower --lr-initial")
        optimizer.step()
        if after_step is not None:
            after_step(model)
        for name, value in ({"loss": loss.item() * stats["weight"]} | stats).items():
            sums[name] += value
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            print(f"  epoch {epoch} step {step + 1}/{steps_per_epoch}: {_line(_means(sums))} lr {lr:.3g}", flush=True)
    if step < 0:
        raise PyserError(f"epoch {epoch}: no batches; check the training data")
    if not sums["weight"]:
        raise PyserError(f"epoch {epoch}: no batch has anything to learn from; check the training data")
    return _means(sums) | {"lr": lr}


def _resume(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig) -> list[Any]:
    """Load the newest whole checkpoint into `model` and `optimizer`; return its history ([] when there is none)."""
    path = checkpoints.latest(folder)
    if path is None:
        return []
    state = checkpoints.load(path)
    now, then = asdict(config), state["config"]
    changed = [f"{k} {then.get(k)} -> {v}" for k, v in now.items() if then.get(k) != v and k != "keep_checkpoints"]
    if changed:
        raise PyserError(f"{path}: trained with other settings ({', '.join(changed)}); use a new directory")
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizer"]})
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise PyserError(f"{path}: belongs to another model ({reason}); use a new directory") from error
    print(f"going on after {path}", flush=True)
    return list(state["history"])


def _means(sums: dict[str, float]) -> dict[str, float]:
    weight = sums["weight"]
    return {name: value / weight for name, value in sums.items() if name != "weight"} | {"weight": weight}


def _line(row: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.5g}" for name, value in row.items() if name not in ("epoch", "weight"))
