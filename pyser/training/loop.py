"""The training loop that every system uses: exponential learning rate, one checkpoint per epoch, exact resume, one process
or several."""

from __future__ import annotations

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.files import write_json
from pyser.training import checkpoints, distributed
from pyser.training.ng_sgd import Component, NgSgdConfig
from pyser.training.optimizers import OPTIMIZERS, ChangeLimit, make_optimizer
from pyser.training.progress import Events, Progress, line

Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=nn.Module)
Stats = dict[str, float]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NOT_SETTINGS = ("keep_checkpoints", "keep_best", "patience", "start_epoch")  # may differ when a run goes on


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    optimizer: adam, adamw or ng-sgd. max_grad_norm: limit of the gradient's norm, not for ng-sgd. max_param_change: limit of
    the parameters' change in a step, 0 for none. precision: of the loss function's products (torch.autocast): float32,
    bfloat16, or float16 on a GPU. start_epoch: 0 goes on after the newest checkpoint, N after epoch-(N-1).pt, later ones
    being deleted. keep_checkpoints: how many of the last, 0 for all. keep_best: and the epoch of the highest valid_<this>, of
    equal ones that of the lowest valid_loss. patience: after so many epochs without its rising, training ends; 0: never.
    accumulate: batches whose gradients make one step. learning_rate_factors: of parameters whose names begin so, 1 for all
    others; not for ng-sgd. counted: what the weight of a batch is a number of, for the eyes.
    """

    num_epochs: int
    lr_initial: float
    lr_final: float
    max_grad_norm: float = 5.0
    weight_decay: float = 0.0
    seed: int = 0
    keep_checkpoints: int = 0
    keep_best: str = ""
    patience: int = 0
    optimizer: str = "adamw"
    max_param_change: float = 0.0
    precision: str = "float32"
    start_epoch: int = 0
    accumulate: int = 1
    learning_rate_factors: tuple[tuple[str, float], ...] = ()
    counted: str = "frames"

    def __post_init__(self) -> None:
        if self.num_epochs < 1:
            raise PyserError(f"num_epochs is {self.num_epochs}; it must be at least 1")
        if not (self.lr_initial > 0 and self.lr_final > 0):
            raise PyserError(f"learning rates {self.lr_initial:g} -> {self.lr_final:g}; both must be above 0")
        if self.optimizer not in OPTIMIZERS:
            raise PyserError(f"optimizer is {self.optimizer}; it must be one of {', '.join(OPTIMIZERS)}")
        if self.precision not in DTYPES:
            raise PyserError(f"precision is {self.precision}; it must be one of {', '.join(DTYPES)}")
        if self.precision == "float16" and (self.optimizer == "ng-sgd" or not torch.cuda.is_available()):
            raise PyserError("precision float16 needs a GPU, and adam or adamw; take bfloat16")
        if self.patience < 0 or (self.patience and not self.keep_best):
            raise PyserError(f"patience is {self.patience}; it must be at least 0, and needs a figure to look at")
        if not 0 <= self.start_epoch <= self.num_epochs:
            raise PyserError(f"start_epoch is {self.start_epoch}; it must be one of 1 to {self.num_epochs}, or 0")
        if self.accumulate < 1:
            raise PyserError(f"accumulate is {self.accumulate}; it must be at least 1")
        if self.learning_rate_factors and self.optimizer == "ng-sgd":
            raise PyserError("ng-sgd knows no learning rate factors; take adam or adamw")

    def learning_rate(self, progress: float) -> float:
        """Exponential decay; `progress` in [0, 1]."""
        return float(self.lr_initial * (self.lr_final / self.lr_initial) ** progress)


def set_seed(seed: int, rank: int = 0) -> None:
    """Seed Python's and numpy's generators, the same in every process, and torch's (CPU and GPU), each its own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed + 15_485_863 * rank)


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
    components: Sequence[Component] | None = None,
    ng_config: NgSgdConfig | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place and return one row of figures per epoch.

    `batches(epoch)` (epochs count from 1) must depend on nothing but the epoch; about `steps_per_epoch` of them make one.
    `loss_fn(model, batch, progress)`
    returns the mean loss and sums: stats["weight"] is the denominator (frames, utterances) of all the others; a
    batch of weight 0 is passed over. `progress` runs from 0 to 1 over the whole training. `valid_fn` sees the model
    in eval mode and without gradients; its figures appear as valid_<name>. `describe` names a batch in errors.
    `components` are the layers for ng-sgd, with `ng_config`, where config.max_param_change overrides.

    Writes out_dir/epoch-N.pt, history.json, best-valid-loss.pt if there is a valid_loss, and TensorBoard's files if it is
    installed. A second call goes on after the newest whole checkpoint and gives the same numbers as a run without a break:
    the random generators are seeded per epoch. In a run of several processes `batches` yields each one's part of a common
    batch, and every process calls `train`. PyserError on a loss or gradient that is not finite, and on a checkpoint of other
    settings.
    """
    out_dir = Path(out_dir)
    parameters = [p for p in model.parameters() if p.requires_grad]
    ng_values = {**vars(ng_config or NgSgdConfig()), "max_param_change": config.max_param_change}
    steps_per_epoch = -(-steps_per_epoch // config.accumulate)
    optimizer = make_optimizer(
        config.optimizer, _groups(model, config) or parameters, config.lr_initial, config.weight_decay, components,
        NgSgdConfig(**ng_values),
    )
    run = _Run(model, optimizer, parameters, loss_fn, steps_per_epoch, config, after_step, describe)
    distributed.broadcast(model)
    history = _resume(out_dir, run)
    events = Events(out_dir, len(history) * steps_per_epoch)
    for epoch in range(len(history) + 1, config.num_epochs + 1):
        if config.patience and history and epoch - 1 - _risen(history, config.keep_best) >= config.patience:
            if distributed.rank() == 0:
                print(f"{config.patience} epochs without a better valid_{config.keep_best}: finished", flush=True)
            break
        set_seed(config.seed * 100_003 + epoch, distributed.rank())
        started = time.monotonic()
        row: dict[str, float] = {"epoch": epoch, **run.epoch(epoch, batches(epoch), events)}
        if valid_fn is not None:
            model.eval()
            with torch.no_grad(), run.autocast():
                row |= {f"valid_{name}": float(value) for name, value in valid_fn(model).items()}
        row["seconds"] = time.monotonic() - started
        history.append(row)
        if distributed.rank() == 0:
            print(f"epoch {epoch}/{config.num_epochs}: {line(row)}", flush=True)
            events.add("epoch", {name: value for name, value in row.items() if name != "epoch"}, epoch * steps_per_epoch)
            _save(out_dir, epoch, run, history)
    events.close()
    return history


@dataclass
class _Run(Generic[Model, Batch]):
    """What stays the same from epoch to epoch."""

    model: Model
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    loss_fn: Callable[[Model, Batch, float], tuple[Tensor, Stats]]
    steps_per_epoch: int
    config: TrainConfig
    after_step: Callable[[Model], None] | None
    describe: Callable[[Batch], str]
    scaler: Any = field(init=False)

    def __post_init__(self) -> None:
        self.natural = self.config.optimizer == "ng-sgd"
        self.limit = ChangeLimit(self.parameters, 0.0 if self.natural else self.config.max_param_change)
        enabled = self.config.precision == "float16"  # (only on a GPU)
        amp = torch.amp if hasattr(torch.amp, "GradScaler") else torch.cuda.amp
        self.scaler = amp.GradScaler(enabled=enabled)
        self.device = self.parameters[0].device.type

    def autocast(self) -> Any:
        """The context that the loss is computed in."""
        dtype = DTYPES[self.config.precision]
        return nullcontext() if dtype == torch.float32 else torch.autocast(self.device, dtype)

    def epoch(self, epoch: int, batches: Iterable[Batch], events: Events) -> dict[str, float]:
        """One pass over `batches`; returns averages and the learning rate at its end."""
        self.model.train()
        sums: defaultdict[str, float] = defaultdict(float)
        shown = Progress(epoch, self.config.num_epochs, self.steps_per_epoch, self.config.counted)
        lr, step, waiting = 0.0, -1, iter(batches)
        for step, group in enumerate(iter(lambda: list(islice(waiting, self.config.accumulate)), [])):
            # An epoch may hold a few batches more or less than foreseen; its share of the schedule stays the same.
            progress = (epoch - 1 + min(step / max(self.steps_per_epoch, 1), 1.0)) / self.config.num_epochs
            lr = self.config.learning_rate(progress)
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = lr * parameters.get("learning_rate_factor", 1.0)
            stats = self.step(group, progress, f"epoch {epoch} step {step + 1}")
            for name, value in stats.items():
                sums[name] += value
            if stats:
                means = _means(sums)
                shown.step(step + 1, means, lr)
                events.add("train", {"loss": stats["loss"] / max(stats["weight"], 1e-30), "lr": lr},
                           (epoch - 1) * self.steps_per_epoch + step)
        shown.close()
        if step < 0:
            raise PyserError(f"epoch {epoch}: no batches; check the training data")
        sums.update(distributed.sum_stats(dict(sums)))
        if not sums["weight"]:
            raise PyserError(f"epoch {epoch}: no batch has anything to learn from; check the training data")
        return _means(sums) | {"lr": lr}

    def step(self, batches: Sequence[Batch], progress: float, where: str) -> Stats:
        """Learn from some batches at once; returns sums, none when they weigh nothing."""
        advice = "check these features, or lower --lr-initial"
        sums: defaultdict[str, float] = defaultdict(float)
        weights = first = 0.0  # of all processes: of the batches so far, and of the first
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            with self.autocast():
                loss, stats = self.loss_fn(self.model, batch, progress)
            value = loss.item()
            if not math.isfinite(value):
                raise PyserError(f"{where}: loss is {value} on {self.describe(batch)}; {advice}")
            weight = stats["weight"]
            total = float(distributed.sum_(torch.tensor(weight, dtype=torch.float64)))
            if total <= 0:
                continue
            weights, first = weights + total, first or total
            # Kaldi's objective, and with it ng-sgd's learning rate, is a sum over frames; the others take the mean.
            self.scaler.scale(loss * (weight if self.natural else weight / first)).backward()
            for name, figure in {"loss": value * weight, **stats}.items():
                sums[name] += figure
        if not weights:
            return {}
        distributed.sum_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        if weights != first and not self.natural:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(first / weights)
        if self.natural:
            norm = float(torch.stack([p.grad.norm() for p in self.parameters if p.grad is not None]).norm())
        else:
            norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not math.isfinite(norm) and not self.scaler.is_enabled():  # (the scaler leaves such a step out)
            raise PyserError(f"{where}: gradient is not finite on {self.describe(batches[-1])}; {advice}")
        self.limit.before()
        self.scaler.step(self.optimizer)
        self.limit.after()
        self.scaler.update()
        if self.after_step is not None:
            self.after_step(self.model)
        return dict(sums)


def _groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Parameters that learn, by their learning rate factors; none where all have the same."""
    if not config.learning_rate_factors:
        return []
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = next((factor for start, factor in config.learning_rate_factors if name.startswith(start)), 1.0)
        if parameter.requires_grad:
            groups.setdefault(factor, []).append(parameter)
    return [{"params": parameters, "learning_rate_factor": factor} for factor, parameters in groups.items()]


def _save(out_dir: Path, epoch: int, run: _Run[Any, Any], history: list[dict[str, float]]) -> None:
    """epoch-N.pt and what goes with it."""
    best = {
        f"best_{name}": function(history, key=lambda row: row[key])
        for name, key, function in (("train", "loss", min), ("valid", "valid_loss", min)) if key in history[-1]
    }
    state = {
        "epoch": epoch,
        "model": {name: value.detach().cpu() for name, value in run.model.state_dict().items()},
        "optimizer": run.optimizer.state_dict(),
        "grad_scaler": run.scaler.state_dict() or None,
        "history": history,
        "config": asdict(run.config),
    }
    for name, row in best.items():
        state[f"{name}_loss"], state[f"{name}_epoch"] = row["loss" if name == "best_train" else "valid_loss"], row["epoch"]
    path = checkpoints.path_of(out_dir, epoch)
    checkpoints.save(path, state)
    if "best_valid" in best and best["best_valid"]["epoch"] == epoch:
        checkpoints.save_best(path)
    write_json(out_dir / "history.json", history)
    if run.config.keep_checkpoints:
        chosen = int(best_epoch(history, run.config.keep_best)["epoch"]) if run.config.keep_best else 0
        for old in checkpoints.numbers(out_dir):
            if old <= epoch - run.config.keep_checkpoints and old != chosen:
                checkpoints.path_of(out_dir, old).unlink()


def best_epoch(history: Sequence[dict[str, float]], figure: str) -> dict[str, float]:
    """The row of the highest valid_<figure>, of equal ones that of the lowest valid_loss."""
    return max(history, key=lambda row: (row[f"valid_{figure}"], -row["valid_loss"]))


def _risen(history: Sequence[dict[str, float]], figure: str) -> float:
    """The epoch since which valid_<figure> has not risen."""
    return max(history, key=lambda row: row[f"valid_{figure}"])["epoch"]


def starting_point(out_dir: str | Path, config: TrainConfig) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint that a training in `out_dir` goes on from, and its path; None where it begins. PyserError if there is
    none where there must be one, and on other settings."""
    start, last = config.start_epoch, None
    if start != 1:
        last = checkpoints.path_of(out_dir, start - 1) if start else checkpoints.latest(out_dir)
    if last is None:
        return None
    state = checkpoints.load(last)
    earlier = {field.name: field.default for field in fields(config)}  # (settings that came later had their defaults then)
    now, then = (json.loads(json.dumps(settings)) for settings in (asdict(config), {**earlier, **state["config"]}))
    changed = [f"{k} {then.get(k)} -> {v}" for k, v in now.items() if then.get(k) != v and k not in NOT_SETTINGS]
    if changed:
        why = ": the learning rate falls over all epochs, a longer training differs from its first epoch on" \
            if then.get("num_epochs") != now["num_epochs"] else ""
        raise PyserError(f"{last}: trained with other settings ({', '.join(changed)}){why}; use a new directory")
    return last, state


def _resume(out_dir: Path, run: _Run[Any, Any]) -> list[dict[str, float]]:
    """Load the checkpoint to go on from into the run; return its history ([] when there is none). With a start_epoch what
    comes after it is deleted then."""
    found, history = starting_point(out_dir, run.config), []
    if found is not None:
        path, state = found
        try:
            run.model.load_state_dict(state["model"])
            run.optimizer.load_state_dict(state["optimizer"])
            if state["grad_scaler"]:
                run.scaler.load_state_dict(state["grad_scaler"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise PyserError(f"{path}: belongs to another model ({reason}); use a new directory") from error
        history = list(state["history"])
    if distributed.rank() == 0:
        if run.config.start_epoch:
            _forget(out_dir, run.config.start_epoch, history)
        if found is not None:
            print(f"going on after {found[0]}", flush=True)
            write_json(out_dir / "history.json", history)  # (its last row, if we were stopped before it was written)
    return history


def _forget(out_dir: Path, start: int, history: list[dict[str, float]]) -> None:
    """Delete the epochs from `start` on, the last one first; best-valid-loss.pt becomes the best one's before them, whose
    figures are `history`."""
    best = out_dir / checkpoints.BEST
    if best.exists() and checkpoints.load(best)["epoch"] >= start:
        best.unlink()
        if history:
            kept = checkpoints.path_of(out_dir, int(min(history, key=lambda row: row["valid_loss"])["epoch"]))
            if kept.exists():
                checkpoints.save_best(kept)
    for epoch in reversed(checkpoints.numbers(out_dir)):
        if epoch >= start:
            print(f"--start-epoch {start}: {checkpoints.path_of(out_dir, epoch)} deleted", flush=True)
            checkpoints.path_of(out_dir, epoch).unlink()


def _means(sums: dict[str, float]) -> dict[str, float]:
    weight = sums["weight"]
    return {name: value / weight for name, value in sums.items() if name != "weight"} | {"weight": weight}
