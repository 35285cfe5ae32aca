"""EM for the i-vector extractor, in torch (ivector/ivector-extractor.cc, IvectorExtractorStats).

The posteriors come from the UBM and never change, so an utterance is its zeroth and first order statistics, and the
scatter of the frames around each Gaussian is summed once for all utterances. What is as large as the corpus stays on the
host; what is computed from it is where the scatter is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.ivector.extractor import IvectorExtractor
from pyser.ivector.pairs import Pairs, runs_of, sum_pairs
from pyser.ivector.ubm import DiagGmm

BATCH = {"cpu": 64, "cuda": 512}  # utterances at a time
RUN = 16  # frames of one Gaussian whose scatter is one matrix product


@dataclass(frozen=True)
class UtteranceStats:
    """Of one utterance, for the Gaussians it has posteriors of: gauss (n,), weight (n,), first (n, D) = sum of post x.

    About 40 kB (an utterance of five seconds, 512 Gaussians), so that hundreds of hours stay in memory: in types as small
    as they can be.
    """

    gauss: np.ndarray
    weight: np.ndarray
    first: np.ndarray


def utterance_stats(feats: Tensor, pairs: Pairs, edges: np.ndarray, num_gauss: int) -> list[UtteranceStats]:
    """feats (T, D) float32 of several utterances, one from each of `edges` to the next; posteriors of all the frames."""
    utterance = torch.bucketize(pairs.frame, torch.as_tensor(edges, device=feats.device), right=True) - 1
    keys, weight, first = (one.cpu().numpy() for one in sum_pairs(utterance * num_gauss + pairs.gauss, pairs, feats))
    index = np.int16 if num_gauss <= 2**15 else np.int32
    bounds = np.searchsorted(keys, np.arange(len(edges)) * num_gauss)
    gauss, weight, first = (keys % num_gauss).astype(index), weight.astype(np.float32), first.astype(np.float32)
    return [UtteranceStats(gauss[a:b].copy(), weight[a:b].copy(), first[a:b].copy())
            for a, b in zip(bounds, bounds[1:], strict=False)]


def _together(part: Sequence[UtteranceStats], num_gauss: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """counts (B, G), first (B, G * D), float64."""
    row = torch.from_numpy(np.repeat(np.arange(len(part)), [len(one.gauss) for one in part])).to(device)
    gauss, weight, values = (
        torch.from_numpy(np.concatenate([getattr(one, name) for one in part])).to(device)
        for name in ("gauss", "weight", "first"))
    counts = torch.zeros(len(part), num_gauss, dtype=torch.float64, device=device)
    first = torch.zeros(len(part), num_gauss, dim, dtype=torch.float64, device=device)
    counts[row, gauss.long()] = weight.double()
    first[row, gauss.long()] = values.double()
    return counts, first.flatten(1)


@dataclass
class Accumulators:
    """What one pass of EM collects; names as in the Kaldi class, shapes (G,), (G * D, S), (G, packed), (S,), (S, S)."""

    gamma: Tensor
    y: Tensor
    r: Tensor
    ivector_sum: Tensor
    ivector_scatter: Tensor
    num_ivectors: int
    auxf: float


@dataclass(frozen=True)
class ExtractorConfig:
    """Kaldi's defaults (IvectorExtractorOptions, IvectorExtractorStatsOptions, IvectorExtractorEstimationOptions)."""

    ivector_dim: int = 100
    update_variances: bool = True
    gaussian_min_count: float = 100.0
    variance_floor_factor: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.ivector_dim < 1:
            raise PyserError(f"--ivector-dim={self.ivector_dim}: expected a positive number")


def add_scatter(total: Tensor, feats: Tensor, pairs: Pairs) -> None:
    """Add the sum over frames of post x x' for each Gaussian to `total` (G, D, D) float64."""
    order = torch.argsort(pairs.gauss, stable=True)
    frame, weight = pairs.frame[order], pairs.weight[order].double()
    gauss, place, valid = runs_of(pairs.gauss[order], len(total), RUN)
    x = feats[frame[place]].double()
    total.index_add_(0, gauss, (x * (weight[place] * valid)[:, :, None]).transpose(1, 2) @ x)


def initialise(ubm: DiagGmm, config: ExtractorConfig) -> IvectorExtractor:
    """Random projections whose first column puts the prior's mean on the UBM's means; the UBM's variances."""
    random = np.random.default_rng(config.seed)
    offset = 100.0
    projections = random.standard_normal((*ubm.means.shape, config.ivector_dim))
    projections[:, :, 0] = ubm.means / offset
    sigma_inv = np.stack([np.diag(1 / variance) for variance in ubm.vars])
    return IvectorExtractor(projections, sigma_inv, ubm.weights, offset)


@dataclass(frozen=True)
class _Model:
    """An extractor's tensors: m, sigma_inv_m (G, D, S), sigma_inv (G, D, D), u = M' Sigma^-1 M (G, packed), w (G,), and
    where a symmetric matrix's elements lie in its packed lower triangle, (S, S), and the other way round."""

    m: Tensor
    sigma_inv: Tensor
    sigma_inv_m: Tensor
    u: Tensor
    w: Tensor
    unpack: Tensor
    rows: Tensor
    cols: Tensor

    @classmethod
    def of(cls, extractor: IvectorExtractor, device: torch.device) -> _Model:
        m, sigma_inv, w, unpack = (
            torch.as_tensor(part, device=device)
            for part in (extractor.projections, extractor.sigma_inv, extractor.weights, extractor.unpack))
        rows, cols = torch.tril_indices(extractor.dim, extractor.dim, device=device)
        sigma_inv_m = sigma_inv @ m
        u = (m.transpose(1, 2) @ sigma_inv_m)[:, rows, cols]
        return cls(m, sigma_inv, sigma_inv_m, u, w, unpack, rows, cols)


def accumulate(
    extractor: IvectorExtractor, utterances: Sequence[UtteranceStats], scatters: Tensor, batch: int | None = None
) -> Accumulators:
    """The E step: posterior mean and covariance of every utterance's i-vector, summed into statistics."""
    device, size = scatters.device, extractor.dim
    batch = batch or BATCH[device.type]
    model = _Model.of(extractor, device)
    num_gauss, dim, _ = model.m.shape
    matrix = model.sigma_inv_m.flatten(0, 1)

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    gamma, y, r, total, scatter = zeros(num_gauss), zeros(num_gauss * dim, size), zeros(*model.u.shape), zeros(size), \
        zeros(size, size)
    # log w_g + the constant of Gaussian g, for the auxiliary function
    constants = model.w.log() + 0.5 * (torch.linalg.slogdet(model.sigma_inv)[1] - dim * np.log(2 * np.pi))
    auxf = -0.5 * (model.sigma_inv * scatters).sum()
    eye = torch.eye(size, dtype=torch.float64, device=device)
    prior = extractor.prior_offset * eye[0]
    for start in range(0, len(utterances), batch):
        part = utterances[start : start + batch]
        counts, first = _together(part, num_gauss, dim, device)
        linear = first @ matrix
        quadratic = (counts @ model.u)[:, model.unpack]
        root = torch.linalg.cholesky(quadratic + eye)
        covariance = torch.cholesky_inverse(root)
        mean = (covariance @ (linear + prior)[:, :, None])[:, :, 0]
        second = covariance + mean[:, :, None] * mean[:, None]
        gamma += counts.sum(0)
        y.addmm_(first.t(), mean)
        r.addmm_(counts.t(), second[:, model.rows, model.cols])
        total += mean.sum(0)
        scatter += second.sum(0)
        auxf += (counts @ constants).sum() + (linear * mean).sum() - 0.5 * (quadratic * second).sum()
        auxf -= 0.5 * ((mean - prior).square().sum() + covariance.diagonal(dim1=1, dim2=2).sum() - len(part) * size)
        auxf -= root.diagonal(dim1=1, dim2=2).log().sum()
    return Accumulators(gamma, y, r, total, scatter, len(utterances), float(auxf))


def update(
    extractor: IvectorExtractor, sums: Accumulators, scatters: Tensor, config: ExtractorConfig
) -> IvectorExtractor:
    """The M step: projections, variances, then a change of basis that makes the i-vectors' prior standard again."""
    unpack = torch.as_tensor(extractor.unpack, device=scatters.device)
    projections, sigma_inv = (
        torch.as_tensor(part, device=scatters.device).clone() for part in (extractor.projections, extractor.sigma_inv))
    seen = (sums.gamma >= config.gaussian_min_count).nonzero()[:, 0]
    if not len(seen):
        raise PyserError(f"no Gaussian has {config.gaussian_min_count:g} (scaled) frames: too little speech for an "
                         f"extractor of {len(projections)} Gaussians; lower --num-gauss or add speech")
    y, r = sums.y.view(projections.shape)[seen], sums.r[seen][:, unpack]
    projections[seen] = torch.linalg.solve(r, y.transpose(1, 2)).transpose(1, 2)
    if config.update_variances:
        sigma_inv[seen] = _variances(projections[seen], y, r, sums.gamma[seen], scatters[seen], config)
    del y, r  # (as large as what comes next)
    updated = IvectorExtractor(projections.cpu().numpy(), sigma_inv.cpu().numpy(), extractor.weights, extractor.prior_offset)
    return _renormalise(updated, sums)


def _variances(m: Tensor, y: Tensor, r: Tensor, gamma: Tensor, scatters: Tensor, config: ExtractorConfig) -> Tensor:
    """Sigma^-1 (N, D, D) of Gaussians with the new projections m (IvectorExtractorStats::UpdateVariances)."""
    cross = m @ y.transpose(1, 2)
    residual = scatters - cross - cross.transpose(1, 2) + m @ r @ m.transpose(1, 2)
    values, vectors = torch.linalg.eigh(config.variance_floor_factor * residual.sum(0) / gamma.sum())
    values = values.clamp(min=float(1e-4 * values.abs().max()))  # (dependent features: not singular)
    root = torch.linalg.cholesky((vectors * values) @ vectors.t())
    return _floored_inverse(residual / gamma[:, None, None], root)


def _floored_inverse(variance: Tensor, root: Tensor) -> Tensor:
    """Inverse of `variance` (N, D, D) after no direction has less variance than root root' (SpMatrix::ApplyFloor)."""
    half = torch.linalg.solve_triangular(root, variance, upper=False)
    values, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.transpose(1, 2), upper=False))
    projected = torch.linalg.solve_triangular(root.t(), vectors, upper=True)
    return (projected / values.clamp(min=1.0)[:, None]) @ projected.transpose(1, 2)


def explained_variance(extractor: IvectorExtractor, gamma: Tensor) -> float:
    """The share of the within-Gaussian variance that i-vectors explain (IvectorExtractorStats::IvectorVarianceDiagnostic).

    gamma (G,): counts of the Gaussians. As in Kaldi no direction's variance is taken to be above 1, which the features'
    is where the front end whitens them.
    """
    weights = gamma / gamma.sum()
    sigma_inv = torch.as_tensor(extractor.sigma_inv, device=gamma.device)
    within = weights @ (1 / torch.linalg.eigvalsh(sigma_inv).clamp(min=1.0)).sum(1)
    between = weights @ torch.as_tensor(extractor.projections, device=gamma.device).square().sum((1, 2))
    return float(between / (between + within))


def _renormalise(extractor: IvectorExtractor, sums: Accumulators) -> IvectorExtractor:
    """New basis A x: unit covariance, mean along e_0 (the new prior offset), average quadratic term diagonal elsewhere."""
    model, eye = _Model.of(extractor, sums.gamma.device), torch.eye(extractor.dim).to(sums.gamma)
    mean = sums.ivector_sum / sums.num_ivectors
    values, vectors = torch.linalg.eigh(sums.ivector_scatter / sums.num_ivectors - torch.outer(mean, mean))
    values = values.clamp(min=float(1e-7 * values.max()))
    whiten = vectors.t() / values.sqrt()[:, None]
    whitened = whiten @ mean
    offset = float(whitened.norm())
    # The reflection that takes the mean's direction to e_0.
    mirror = whitened / offset - eye[0]
    length = float(mirror @ mirror)
    reflect = eye - (2 / length) * torch.outer(mirror, mirror) if length > 1e-12 else eye
    inverse = torch.linalg.inv(reflect @ whiten)
    average = (model.w @ model.u)[model.unpack]
    _, directions = torch.linalg.eigh((inverse.t() @ average @ inverse)[1:, 1:])
    rotate = eye.clone()
    rotate[1:, 1:] = directions.t().flip(0)  # most important first
    projections = model.m @ (inverse @ rotate.t())
    return IvectorExtractor(projections.cpu().numpy(), extractor.sigma_inv, extractor.weights, offset)
