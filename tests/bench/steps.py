"""Seconds and memory of steps of a system of pyser.ser.experiment, for other files here."""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyser.training.loop import train


class Finished(Exception):
    """All steps are done, before the checkpoint behind an epoch."""


def options(about: str | None, batch: int, seconds: float, steps: int) -> argparse.ArgumentParser:
    """What all of them ask for, with these defaults."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--precision", default="float32")
    return parser


def measure(system: Any, model: torch.nn.Module, examples: Any, steps: int, exp_dir: Path) -> str:
    """Train so many steps; say what each took, on a GPU if the model is on one."""
    cuda = next(model.parameters()).is_cuda
    times = [time.monotonic()]

    def after(_: torch.nn.Module) -> None:
        if cuda:
            torch.cuda.synchronize()
        times.append(time.monotonic())
        if len(times) > steps:
            raise Finished

    try:
        train(model, lambda epoch: system.batches(examples, epoch), steps,
              lambda model, batch, _: system.loss(model, examples, batch, torch.ones(4)), exp_dir, system.training,
              after_step=after)
    except Finished:
        pass
    peak = torch.cuda.max_memory_allocated() / 2**10 if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    return (f"{parameters:.1f} M parameters, torch {torch.__version__}, "
            f"{'GPU' if cuda else f'{torch.get_num_threads()} threads'}: "
            f"{' '.join(f'{s:.2f}' for s in np.diff(times))} s a step, peak {peak / 2**20:.1f} GiB")
