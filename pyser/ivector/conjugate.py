"""Systems (A + prior I) x = b of many speakers at once, in torch; all float64: A (N, S, S), prior (N,), b, x (N, S)."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 2.2250738585072014e-308


def solve_exactly(a: Tensor, prior: Tensor, b: Tensor) -> Tensor:
    """x by Cholesky."""
    eye = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    return torch.cholesky_solve(b[:, :, None], torch.linalg.cholesky(a + prior[:, None, None] * eye))[:, :, 0]


def conjugate_gradient(a: Tensor, prior: Tensor, b: Tensor, x: Tensor, max_iters: int) -> tuple[Tensor, Tensor]:
    """x (N, S) after at most `max_iters` steps from `x`; and (N,) where the residual grew instead.

    The early stop is part of the result: Kaldi's i-vectors are not converged, so its rules are followed exactly
    (matrix/optimization.cc, LinearCgd): the residual is computed anew whenever its norm has changed a hundredfold since
    that was last done. One that has come to its end waits for the others; nothing is asked of the device on the way.
    """
    scale = prior[:, None]
    residual = (a @ x[:, :, None])[:, :, 0] + scale * x - b
    direction = -residual
    norm = residual.square().sum(1)
    first_norm = fresh_norm = norm
    active = torch.ones_like(norm, dtype=torch.bool)
    for _ in range(min(max_iters, x.shape[1] + 5)):
        # Whether A x is needed shows later; with A direction it costs no second reading of A.
        both = a @ torch.stack([direction, x], dim=2)
        moved, at = both[:, :, 0] + scale * direction, both[:, :, 1] + scale * x
        curvature, slope = (direction * moved).sum(1), (direction * residual).sum(1)
        active = active & (curvature != 0)
        step = torch.where(active, -slope / curvature, torch.zeros_like(slope))[:, None]
        x = x + step * direction
        residual = residual + step * moved
        next_norm = residual.square().sum(1)
        anew = (next_norm < 1e-4 * fresh_norm) | (next_norm > 1e4 * fresh_norm)
        residual = torch.where(anew[:, None], at + step * moved - b, residual)
        next_norm = torch.where(anew, residual.square().sum(1), next_norm)
        fresh_norm = torch.where(anew, next_norm, fresh_norm)
        active = active & (next_norm > TINY)
        ratio = torch.where(active, next_norm / norm, torch.zeros_like(norm))
        direction = torch.where(active[:, None], ratio[:, None] * direction - residual, torch.zeros_like(residual))
        norm = torch.where(active, next_norm, norm)
    return x, (norm > first_norm) & (norm > first_norm + 1e-10 * b.square().sum(1))
