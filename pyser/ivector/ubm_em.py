"""Training of the diagonal-covariance UBM in torch (gmm/mle-diag-gmm.cc, gmmbin/gmm-global-init-from-feats.cc)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.ivector.ubm import DiagGmm

CHUNK = {"cpu": 2048, "cuda": 65536}  # frames at a time; on a CPU such that their log-likelihoods stay in the cache
LEAST = -80.0  # of log-posteriors: e to the power of less is no longer a normal number, and slow


@dataclass(frozen=True)
class UbmConfig:
    """num_iters_init rounds of EM on a sample in memory, from half of num_gauss Gaussians, split until there are all of
    them; then num_iters rounds on all frames (train_diag_ubm.sh).

    min_occupancy, min_weight: Gaussians below either (frames, share of frames) are not updated, and are removed where
    that is asked for; variances are floored to min_variance (MleDiagGmmOptions)
    """

    num_gauss: int = 512
    num_iters_init: int = 20
    num_iters: int = 4
    min_weight: float = 1e-4
    min_occupancy: float = 10.0
    min_variance: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_gauss < 1:
            raise PyserError(f"--num-gauss={self.num_gauss}: expected a positive number")


def initialise_ubm(
    frames: Tensor, config: UbmConfig, report: Callable[[str], None] = lambda line: None
) -> DiagGmm:
    """EM from random frames (T, D) float32, where these are (gmm-global-init-from-feats)."""
    if len(frames) < 4 * config.num_gauss:
        raise PyserError(f"{len(frames)} frames cannot train {config.num_gauss} Gaussians; lower --num-gauss or add speech")
    random = np.random.default_rng(config.seed)
    wanted = max(1, config.num_gauss // 2)
    increment = max(1, (config.num_gauss - wanted) // max(1, config.num_iters_init // 2))
    spread = frames.double().var(0, unbiased=False).cpu().numpy()
    chosen = torch.as_tensor(random.choice(len(frames), wanted, replace=False), device=frames.device)
    means = frames[chosen].double().cpu().numpy()
    ubm = DiagGmm(np.full(wanted, 1 / wanted), means, np.tile(spread, (wanted, 1)))
    for iteration in range(config.num_iters_init):
        ubm, loglike = em_step(ubm, [frames], config)
        report(f"UBM initialisation {iteration}: {len(ubm.weights)} Gaussians, {loglike:.4f} per frame")
        wanted = min(config.num_gauss, wanted + increment)
        ubm = _split(ubm, wanted, random)  # also makes good for those that were removed
    return ubm


def train_ubm(
    ubm: DiagGmm, all_frames: Callable[[], Iterable[Tensor]], config: UbmConfig,
    report: Callable[[str], None] = lambda line: None,
) -> DiagGmm:
    """EM over all frames, which `all_frames` goes through once a call in parts (T, D)."""
    for iteration in range(config.num_iters):
        ubm, loglike = em_step(ubm, all_frames(), config, remove=iteration == config.num_iters - 1)
        report(f"UBM iteration {iteration}: {len(ubm.weights)} Gaussians, {loglike:.4f} per frame")
    return ubm


def em_step(
    ubm: DiagGmm, parts: Iterable[Tensor], config: UbmConfig, remove: bool = True
) -> tuple[DiagGmm, float]:
    """One round of EM over parts (T, D) float32, each where it is; returns the new model and the old one's log-likelihood
    per frame.

    Gaussians of too few frames are removed, or else keep their mean and variance (mle-diag-gmm.cc, MleDiagGmmUpdate).
    """
    num_gauss, dim = ubm.means.shape
    matrix = likelihood_matrix(ubm)
    sums, loglike = torch.zeros(2 * dim + 1, num_gauss, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    frames = 0
    for part in parts:
        matrix, sums, loglike = matrix.to(part.device), sums.to(part.device), loglike.to(part.device)
        for x in part.split(CHUNK[part.device.type]):
            terms = likelihood_terms(x)
            post = terms @ matrix
            best = post.amax(1, keepdim=True)
            total = post.sub_(best).clamp_(min=LEAST).exp_().sum(1, keepdim=True)
            loglike += (best + total.log()).sum(dtype=torch.float64)
            sums += (terms / total).t() @ post
            frames += len(x)
    first, second, count = (part.cpu().numpy().T for part in sums.split([dim, dim, 1]))
    weights = count[:, 0] / count.sum()
    enough = (count[:, 0] > config.min_occupancy) & (weights > config.min_weight)
    if not enough.any():
        raise PyserError("every Gaussian of the UBM lost its frames; the features must be damaged")
    safe = np.maximum(count, 1e-10)
    means = np.where(enough[:, None], first / safe, ubm.means)
    variances = np.maximum(second / safe - (first / safe) ** 2, config.min_variance)
    variances = np.where(enough[:, None], variances, ubm.vars)
    if remove:
        weights = weights[enough] / weights[enough].sum()
        return DiagGmm(weights, means[enough], variances[enough]), float(loglike) / frames
    weights = np.where(enough, weights, np.maximum(weights, config.min_weight))
    return DiagGmm(weights, means, variances), float(loglike) / frames


def likelihood_matrix(ubm: DiagGmm) -> Tensor:
    """(2 D + 1, G) float32: `likelihood_terms` times it are the log-likelihoods of frames and Gaussians."""
    gconsts, linear, quadratic = ubm.linear_form
    return torch.from_numpy(np.concatenate([linear, quadratic, gconsts[None]]).astype(np.float32))


def likelihood_terms(feats: Tensor) -> Tensor:
    """(T, D) -> (T, 2 D + 1): x, x^2, 1."""
    return torch.cat([feats, feats.square(), torch.ones_like(feats[:, :1])], dim=1)


def _split(ubm: DiagGmm, num_gauss: int, random: np.random.Generator, perturb: float = 0.1) -> DiagGmm:
    """Split the heaviest Gaussians, one after the other, until there are `num_gauss` (diag-gmm.cc, Split)."""
    weights, means, variances = list(ubm.weights), list(ubm.means), list(ubm.vars)
    while len(weights) < num_gauss:
        heaviest = int(np.argmax(weights))
        weights[heaviest] /= 2
        move = perturb * random.standard_normal(means[0].shape) * np.sqrt(variances[heaviest])
        weights.append(weights[heaviest])
        means.append(means[heaviest] + move)
        means[heaviest] = means[heaviest] - move
        variances.append(variances[heaviest])
    return DiagGmm(np.array(weights), np.array(means), np.array(variances))
