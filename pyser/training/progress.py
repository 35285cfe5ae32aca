"""What a training shows while it runs: a bar in a terminal, lines elsewhere, and TensorBoard's event files."""

from __future__ import annotations

import datetime
import sys
import time
from pathlib import Path
from typing import Any

from pyser.training import distributed

REPORT_SECONDS = 10.0


def line(row: dict[str, float]) -> str:
    """`name value` of all figures but the epoch and the weight."""
    return " ".join(f"{name} {value:.5g}" for name, value in row.items() if name not in ("epoch", "weight"))


class Progress:
    """One epoch's: a bar on stderr if that is a terminal, else a line on stdout every REPORT_SECONDS. Only of process 0.

    counted: what the losses of batches are weighted by; the time left is that of the whole training.
    """

    def __init__(self, epoch: int, num_epochs: int, steps: int, counted: str):
        self.epoch, self.steps, self.left, self.counted = epoch, steps, (num_epochs - epoch) * steps, counted
        self.started = self.reported = time.monotonic()
        self.bar: Any = None
        if distributed.rank() == 0 and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=steps, desc=f"epoch {epoch}/{num_epochs}", unit="step", dynamic_ncols=True, leave=False)

    def step(self, step: int, means: dict[str, float], lr: float) -> None:
        """`step` batches are done; `means`: figures since the epoch began."""
        now = time.monotonic()
        if self.bar is not None:
            self.bar.update(1)
        if distributed.rank() or (self.bar is None and now - self.reported < REPORT_SECONDS):
            return
        self.reported, seconds = now, max(now - self.started, 1e-6)
        left = datetime.timedelta(seconds=round((self.left + max(self.steps - step, 0)) * seconds / step))
        rate = f"{means['weight'] * distributed.world_size() / seconds:.0f} {self.counted}/s"
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {means['loss']:.4f} {rate} all in {left}", refresh=False)
        else:
            print(f"  epoch {self.epoch} step {step}/{self.steps}: {line(means)} lr {lr:.3g} {rate} eta {left}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


class Events:
    """out_dir/tensorboard, if TensorBoard is installed; only of process 0."""

    def __init__(self, out_dir: Path, first_step: int):
        self.writer: Any = None
        if distributed.rank() == 0:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            self.writer = SummaryWriter(str(out_dir / "tensorboard"), purge_step=first_step)

    def add(self, group: str, row: dict[str, float], step: int) -> None:
        """Figures as `group/name` at a step, counted from 0 over the whole training."""
        if self.writer is not None:
            for name, value in row.items():
                self.writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
