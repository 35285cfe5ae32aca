"""Input frames a second of whole training steps at run_tdnn_1g.sh's size, on one thread.

    OMP_NUM_THREADS=1 python tests/bench/bench_training.py [--steps 12] [--precision bfloat16]

TDNN-F of 9.1 million parameters with 2396 pdfs, 32 sequences of 150 frames with i-vectors, dropout on; LF-MMI with a leak of
0.1 on a denominator of 3288 states and 29592 arcs; the optimiser with its limit of the change; the semi-orthogonal constraint
in one of four steps. Kaldi's nnet3-chain-train took 1365 input frames a second at this size. Means over steps, since ng-sgd
updates its estimates in one of four, and the fastest of four groups of steps.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator

import pyser  # noqa: F401  (before torch: see pyser.native)

# isort: split
import numpy as np
import torch
from bench_lfmmi import random_graph, transcript
from torch import Tensor

from pyser.chain import LfMmi, LfMmiConfig
from pyser.chain.train import constrain_sometimes
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.training.loop import TrainConfig, train

SEQUENCES, FRAMES, PDFS, KALDI = 32, 150, 2396, 1365
RATES = {"adam": 1e-4, "ng-sgd": 2.5e-4}
SHARES = ("network, forward", "LF-MMI", "rest of the step")


class Clock:
    """Seconds of each step's parts: from one batch to the next, less what the loss function takes for itself."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def batches(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(steps):
            feats = torch.randn(SEQUENCES, FRAMES + 56, 40, generator=generator)
            ivectors = torch.randn(SEQUENCES, 100, generator=generator)
            self.rows.append([])
            start = time.perf_counter()
            yield feats, ivectors
            self.rows[-1].append(time.perf_counter() - start - sum(self.rows[-1]))


def measure(optimizer: str, precision: str, steps: int) -> None:
    torch.manual_seed(0)
    random.seed(0)
    rng = np.random.default_rng(0)
    model = TdnnF(TdnnfConfig(num_pdfs=PDFS))
    model.set_dropout(0.2)
    lfmmi = LfMmi(random_graph(3288, 9, PDFS), "native", LfMmiConfig(0.1))
    graphs = [transcript(FRAMES // 15, PDFS, rng) for _ in range(SEQUENCES)]
    lengths, clock = torch.full((SEQUENCES,), FRAMES // 3), Clock()

    def loss_fn(model: TdnnF, batch: tuple[Tensor, Tensor], progress: float) -> tuple[Tensor, dict[str, float]]:
        start = time.perf_counter()
        output, xent = model(*batch, subsampling=3)
        between = time.perf_counter()
        found = lfmmi(output, xent, lengths, graphs, penalize=False)
        clock.rows[-1] += [between - start, time.perf_counter() - between]
        return found

    rate = RATES[optimizer]
    config = TrainConfig(1, rate, rate, optimizer=optimizer, max_param_change=2.0, precision=precision)
    with tempfile.TemporaryDirectory() as directory:
        train(model, lambda epoch: clock.batches(12 + steps), 12 + steps, loss_fn, directory, config,
              after_step=constrain_sometimes, components=model.components())
    rows = np.array(clock.rows[12:])  # ng-sgd's first estimates are behind
    groups = [group.mean(axis=0) for group in np.array_split(rows, 4)]
    best = min(groups, key=lambda group: float(group.sum()))
    rate = SEQUENCES * FRAMES / best.sum()
    shares = ", ".join(f"{name} {1e3 * part:.0f} ms" for name, part in zip(SHARES, best, strict=True))
    print(f"{optimizer}, {precision}: {rate:.0f} input frames/s, {rate / KALDI:.2f} times Kaldi's ({shares})")


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16, help="a multiple of 16")
    parser.add_argument("--precision", default="float32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for optimizer in RATES:
        measure(optimizer, args.precision, args.steps)


if __name__ == "__main__":
    main()
