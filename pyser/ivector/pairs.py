"""Pairs of a frame and a Gaussian that it has a posterior of, in torch: all statistics are sums over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyser.ivector.ubm import Posteriors


@dataclass(frozen=True)
class Pairs:
    """frame, gauss (N,) int64, weight (N,) float32, on one device."""

    frame: Tensor
    gauss: Tensor
    weight: Tensor

    @classmethod
    def of(cls, posteriors: Posteriors, device: torch.device | str = "cpu") -> Pairs:
        """From arrays, frame by frame."""
        gaussians, post, count = (torch.as_tensor(part, device=device) for part in posteriors)
        used = torch.arange(post.shape[1], device=device) < count[:, None]
        return cls(used.nonzero()[:, 0], gaussians[used].long(), post[used])


def sum_by(keys: Tensor, values: Tensor, size: int) -> Tensor:
    """(size, …) in the type of values (N, …): row k is the sum of the values of key k."""
    return values.new_zeros((size, *values.shape[1:])).index_add_(0, keys, values)


def sum_pairs(keys: Tensor, pairs: Pairs, feats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The keys (M,) that there are, in order, and of each the statistics weight (M,), first (M, D) float64.

    keys (N,) of the pairs; feats (T, D).
    """
    seen, inverse = torch.unique(keys, return_inverse=True)
    weights = pairs.weight.double()
    return (seen, sum_by(inverse, weights, len(seen)),
            sum_by(inverse, feats[pairs.frame].double() * weights[:, None], len(seen)))


def runs_of(keys: Tensor, size: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending keys (N,) below `size` in runs of one key, at most `length` long, for matrix products run by run.

    The key of each run (R,); where its elements lie (R, length); which of these are of the run and not padding.
    """
    counts = torch.bincount(keys, minlength=size)
    ends = counts.cumsum(0)
    number = (counts + (length - 1)).div(length, rounding_mode="floor")
    key = torch.repeat_interleave(number)
    nth = torch.arange(len(key), device=keys.device) - (number.cumsum(0) - number)[key]
    place = ((ends - counts)[key] + nth * length)[:, None] + torch.arange(length, device=keys.device)
    return key, place.clamp(max=max(0, len(keys) - 1)), place < ends[key][:, None]
