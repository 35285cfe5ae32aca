"""EM for the i-vector extractor (ivector/ivector-extractor.cc, IvectorExtractorStats).

The posteriors come from the UBM and never change, so an utterance is its zeroth and first order statistics, and the
scatter of the frames around each Gaussian is summed once for all utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.sparse import csr_matrix

from pyser.errors import PyserError
from pyser.ivector import kernels
from pyser.ivector.extractor import IvectorExtractor
from pyser.ivector.ubm import DiagGmm, Posteriors


@dataclass(frozen=True)
class UtteranceStats:
    """Of one utterance, for the Gaussians it has posteriors of: gauss (n,), weight (n,), first (n, D) = sum of post x.

    About 40 kB (an utterance of five seconds, 512 Gaussians), so that hundreds of hours stay in memory.
    """

    gauss: np.ndarray
    weight: np.ndarray
    first: np.ndarray


def utterance_stats(feats: np.ndarray, posteriors: Posteriors, edges: np.ndarray, num_gauss: int) -> list[UtteranceStats]:
    """feats (T, D) float32 of several utterances, one from each of `edges` to the next; posteriors of all the frames."""
    gaussians, post, count = posteriors
    room = int(count.sum())
    starts = np.empty(len(edges), np.int64)
    gauss, weight, first = np.empty(room, np.int32), np.empty(room), np.empty((room, feats.shape[1]))
    kernels.sum_blocks(edges[:-1], edges[1:], gaussians, post, count, feats, starts, gauss, weight, first, num_gauss)
    return [UtteranceStats(gauss[a:b].copy(), weight[a:b].copy(), first[a:b].astype(np.float32))
            for a, b in zip(starts, starts[1:], strict=False)]


def _together(part: Sequence[UtteranceStats], num_gauss: int, dim: int) -> tuple[np.ndarray, csr_matrix]:
    """counts (B, G), first (B, G * D) sparse."""
    counts = np.zeros((len(part), num_gauss))
    for row, one in enumerate(part):
        counts[row, one.gauss] = one.weight
    columns = [(one.gauss[:, None] * dim + np.arange(dim)).ravel() for one in part]
    ends = np.cumsum([0, *(len(one) for one in columns)])
    values = np.concatenate([one.first.ravel() for one in part])
    return counts, csr_matrix((values, np.concatenate(columns), ends), shape=(len(part), num_gauss * dim))


@dataclass
class Accumulators:
    """What one pass of EM collects; names as in the Kaldi class, shapes (G,), (G * D, S), (G, packed), (S,), (S, S)."""

    gamma: np.ndarray
    y: np.ndarray
    r: np.ndarray
    ivector_sum: np.ndarray
    ivector_scatter: np.ndarray
    num_ivectors: int = 0
    auxf: float = 0.0


@dataclass(frozen=True)
class ExtractorConfig:
    """Kaldi's defaults (IvectorExtractorOptions, IvectorExtractorStatsOptions, IvectorExtractorEstimationOptions)."""

    ivector_dim: int = 100
    update_variances: bool = True
    gaussian_min_count: float = 100.0
    variance_floor_factor: float = 0.1
    seed: int = 0


def add_scatter(total: np.ndarray, feats: np.ndarray, posteriors: Posteriors) -> None:
    """Add the sum over frames of post x x' for each Gaussian to `total` (G, D, D) float64."""
    gaussians, post, count = posteriors
    frame, place = np.nonzero(np.arange(gaussians.shape[1]) < count[:, None])
    gauss, weight = gaussians[frame, place], post[frame, place]
    order = np.argsort(gauss, kind="stable")
    frame, weight = frame[order], weight[order].astype(np.float64)
    seen, starts = np.unique(gauss[order], return_index=True)
    for gaussian, start, end in zip(seen, starts, [*starts[1:], len(order)], strict=True):
        x = feats[frame[start:end]].astype(np.float64)
        total[gaussian] += (x * weight[start:end, None]).T @ x


def initialise(ubm: DiagGmm, config: ExtractorConfig) -> IvectorExtractor:
    """Random projections whose first column puts the prior's mean on the UBM's means; the UBM's variances."""
    random = np.random.default_rng(config.seed)
    offset = 100.0
    projections = random.standard_normal((*ubm.means.shape, config.ivector_dim))
    projections[:, :, 0] = ubm.means / offset
    sigma_inv = np.stack([np.diag(1 / variance) for variance in ubm.vars])
    return IvectorExtractor(projections, sigma_inv, ubm.weights, offset)


def accumulate(
    extractor: IvectorExtractor, utterances: Sequence[UtteranceStats], scatters: np.ndarray, batch: int = 64
) -> Accumulators:
    """The E step: posterior mean and covariance of every utterance's i-vector, summed into statistics."""
    num_gauss, dim, size = extractor.projections.shape
    rows, cols = np.tril_indices(size)
    sums = Accumulators(np.zeros(num_gauss), np.zeros((num_gauss * dim, size)), np.zeros((num_gauss, len(rows))),
                        np.zeros(size), np.zeros((size, size)))
    sigma_inv_m = extractor.sigma_inv_m.reshape(num_gauss * dim, size)
    # log w_g + the constant of Gaussian g, for the auxiliary function
    constants = np.log(extractor.weights) + 0.5 * (np.linalg.slogdet(extractor.sigma_inv)[1] - dim * np.log(2 * np.pi))
    prior = extractor.prior_offset * np.eye(size)[0]
    for start in range(0, len(utterances), batch):
        part = utterances[start : start + batch]
        counts, first = _together(part, num_gauss, dim)
        linear = first @ sigma_inv_m
        quadratic = (counts @ extractor.quadratics)[:, extractor.unpack]
        covariance = np.linalg.inv(quadratic + np.eye(size))
        mean = np.einsum("bij,bj->bi", covariance, linear + prior)
        second = covariance + mean[:, :, None] * mean[:, None]
        sums.gamma += counts.sum(0)
        sums.y += first.T @ mean
        sums.r += counts.T @ second[:, rows, cols]
        sums.ivector_sum += mean.sum(0)
        sums.ivector_scatter += second.sum(0)
        sums.num_ivectors += len(part)
        sums.auxf += (counts @ constants).sum() + (linear * mean).sum() - 0.5 * (quadratic * second).sum()
        sums.auxf += -0.5 * (((mean - prior) ** 2).sum() + np.trace(covariance, axis1=1, axis2=2).sum())
        sums.auxf += 0.5 * (np.linalg.slogdet(covariance)[1].sum() + len(part) * size)
    sums.auxf -= 0.5 * (extractor.sigma_inv * scatters).sum()
    return sums


def update(
    extractor: IvectorExtractor, sums: Accumulators, scatters: np.ndarray, config: ExtractorConfig
) -> IvectorExtractor:
    """The M step: projections, variances, then a change of basis that makes the i-vectors' prior standard again."""
    projections, sigma_inv = extractor.projections.copy(), extractor.sigma_inv.copy()
    num_gauss, dim, size = projections.shape
    y, r = sums.y.reshape(num_gauss, dim, size), sums.r[:, extractor.unpack]
    seen = np.flatnonzero(sums.gamma >= config.gaussian_min_count)
    if not len(seen):
        raise PyserError(f"no Gaussian has {config.gaussian_min_count:g} (scaled) frames: too little speech for an "
                         f"extractor of {num_gauss} Gaussians; lower --num-gauss or add speech")
    projections[seen] = np.linalg.solve(r[seen], y[seen].transpose(0, 2, 1)).transpose(0, 2, 1)
    if config.update_variances:
        sigma_inv[seen] = _variances(projections[seen], y[seen], r[seen], sums.gamma[seen], scatters[seen], config)
    return _renormalise(IvectorExtractor(projections, sigma_inv, extractor.weights, extractor.prior_offset), sums)


def _variances(
    m: np.ndarray, y: np.ndarray, r: np.ndarray, gamma: np.ndarray, scatters: np.ndarray, config: ExtractorConfig
) -> np.ndarray:
    """Sigma^-1 (N, D, D) of Gaussians with the new projections m (IvectorExtractorStats::UpdateVariances)."""
    cross = m @ y.transpose(0, 2, 1)
    residual = scatters - cross - cross.transpose(0, 2, 1) + m @ r @ m.transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(config.variance_floor_factor * residual.sum(0) / gamma.sum())
    floor = vectors * np.maximum(values, 1e-4 * np.abs(values).max()) @ vectors.T  # (dependent features: not singular)
    root = cholesky(floor, lower=True)
    return np.stack([_floored_inverse(one / count, root) for one, count in zip(residual, gamma, strict=True)])


def _floored_inverse(variance: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Inverse of `variance` after no direction has less variance than root root' (SpMatrix::ApplyFloor)."""
    half = solve_triangular(root, variance, lower=True)
    values, vectors = np.linalg.eigh(solve_triangular(root, half.T, lower=True))
    projected = solve_triangular(root, vectors, lower=True, trans="T")
    return projected / np.maximum(values, 1.0) @ projected.T


def explained_variance(extractor: IvectorExtractor, gamma: np.ndarray) -> float:
    """The share of the within-Gaussian variance that i-vectors explain (IvectorExtractorStats::IvectorVarianceDiagnostic).

    gamma (G,): counts of the Gaussians. As in Kaldi no direction's variance is taken to be above 1, which the features'
    is where the front end whitens them.
    """
    weights = gamma / gamma.sum()
    within = weights @ (1 / np.maximum(np.linalg.eigvalsh(extractor.sigma_inv), 1.0)).sum(1)
    between = weights @ (extractor.projections**2).sum((1, 2))
    return float(between / (between + within))


def _renormalise(extractor: IvectorExtractor, sums: Accumulators) -> IvectorExtractor:
    """New basis A x: unit covariance, mean along e_0 (the new prior offset), average quadratic term diagonal elsewhere."""
    size = extractor.dim
    mean = sums.ivector_sum / sums.num_ivectors
    covariance = sums.ivector_scatter / sums.num_ivectors - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 1e-7 * values.max())
    whiten = vectors.T / np.sqrt(values)[:, None]
    whitened = whiten @ mean
    offset = float(np.linalg.norm(whitened))
    # The reflection that takes the mean's direction to e_0.
    mirror = whitened / offset - np.eye(size)[0]
    length = mirror @ mirror
    reflect = np.eye(size) - (2 / length) * np.outer(mirror, mirror) if length > 1e-12 else np.eye(size)
    basis = reflect @ whiten
    inverse = np.linalg.inv(basis)
    average = (extractor.weights @ extractor.quadratics)[extractor.unpack]
    _, directions = np.linalg.eigh((inverse.T @ average @ inverse)[1:, 1:])
    rotate = np.eye(size)
    rotate[1:, 1:] = directions.T[::-1]  # most important first
    inverse = inverse @ rotate.T
    return IvectorExtractor(extractor.projections @ inverse, extractor.sigma_inv, extractor.weights, offset)
