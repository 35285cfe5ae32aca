"""The fixed transform at the network's input: decorrelates the spliced features and scales them to unit variance.

Kaldi estimates an LDA there from alignments (steps/nnet3/chain/train.py, stage -2); a flat start has none, so this is a
whitening: the same decorrelation, without the classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

FLOOR = 1e-4  # of the largest variance; directions below it hold nothing but rounding


def estimate_whitening(spliced: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Matrix (D, D) and offset (D,), float32, from tensors (N, T, D) of spliced input; the rows are sorted by
    falling variance of the input along them."""
    count = 0
    total, square = torch.zeros(1).double(), torch.zeros(1).double()
    for value in spliced:
        frames = value.flatten(0, 1).double()  # (N T, D)
        count, total, square = count + len(frames), total + frames.sum(0), square + frames.t() @ frames
    mean = total / count
    variance, axes = torch.linalg.eigh(square / count - torch.outer(mean, mean))
    variance = variance.clamp_min(FLOOR * float(variance.max()))
    matrix = (axes / variance.sqrt()).t().flip(0)
    return matrix.float(), (-matrix @ mean).float()
