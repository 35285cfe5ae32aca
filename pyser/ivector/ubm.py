"""Diagonal-covariance Gaussian mixture: the universal background model (gmm/diag-gmm.cc, mle-diag-gmm.cc)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer


@dataclass(frozen=True)
class DiagGmm:
    """weights (G,), means (G, D), vars (G, D), float64."""

    weights: np.ndarray
    means: np.ndarray
    vars: np.ndarray

    @cached_property
    def _linear_form(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(gconsts (G,), means/vars (D, G), -1/(2 vars) (D, G)): a log-likelihood is linear in (1, x, x^2)."""
        constant = np.log(2 * np.pi) * self.means.shape[1] + np.log(self.vars).sum(1) + (self.means**2 / self.vars).sum(1)
        return np.log(self.weights) - 0.5 * constant, (self.means / self.vars).T, -0.5 / self.vars.T

    def loglikes(self, feats: np.ndarray) -> np.ndarray:
        """Joint log-likelihood of frame and Gaussian: (T, D) -> (T, G), in the type of `feats`."""
        gconsts, linear, quadratic = (part.astype(feats.dtype, copy=False) for part in self._linear_form)
        return gconsts + feats @ linear + feats**2 @ quadratic


def posteriors(loglikes: np.ndarray, num_gselect: int = 5, min_post: float = 0.025) -> tuple[np.ndarray, np.ndarray]:
    """The few Gaussians that matter for each frame, best first: (indices (T, K), posteriors (T, K) summing to one).

    At most `num_gselect`, each at least `min_post` of the best and of the sum; what is pruned keeps its index and has
    posterior 0 (hmm/posterior.cc, VectorToPosteriorEntry).
    """
    num_gselect = min(num_gselect, loglikes.shape[1])
    best = np.argpartition(-loglikes, num_gselect - 1, axis=1)[:, :num_gselect]
    values = np.take_along_axis(loglikes, best, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, 1), np.take_along_axis(values, order, 1)
    post = np.exp(values - values[:, :1])
    post[:, 1:][post[:, 1:] <= min_post] = 0
    total = post.sum(1)
    for k in range(num_gselect - 1, 0, -1):  # from the back: each one that goes makes the sum smaller for the next
        gone = (post[:, k] > 0) & (post[:, k] < min_post * total)
        total -= post[:, k] * gone
        post[gone, k] = 0
    return best, post / total[:, None]


@dataclass(frozen=True)
class UbmConfig:
    """num_iters rounds of EM; half of num_gauss Gaussians start, splits in the first half of the rounds make the rest.

    min_occupancy, min_weight : Gaussians below either (frames, share of frames) are removed; variances are floored
    """

    num_gauss: int = 512
    num_iters: int = 20
    min_weight: float = 1e-4
    min_occupancy: float = 10.0
    min_variance: float = 1e-3
    seed: int = 0


def train_ubm(
    frames: np.ndarray, config: UbmConfig, report: Callable[[str], None] = lambda line: None
) -> DiagGmm:
    """EM from random frames (T, D), with as many splits as it takes (gmm-global-init-from-feats)."""
    if len(frames) < 4 * config.num_gauss:
        raise PyserError(f"{len(frames)} frames cannot train {config.num_gauss} Gaussians; lower --num-gauss or add speech")
    random = np.random.default_rng(config.seed)
    start = max(1, config.num_gauss // 2)
    increment = max(1, -(-(config.num_gauss - start) // max(1, config.num_iters // 2)))
    spread = frames.var(0, dtype=np.float64)
    means = frames[random.choice(len(frames), start, replace=False)].astype(np.float64)
    ubm = DiagGmm(np.full(start, 1 / start), means, np.tile(spread, (start, 1)))
    for iteration in range(config.num_iters):
        ubm, loglike = em_step(ubm, [frames], config)
        report(f"UBM iteration {iteration}: {len(ubm.weights)} Gaussians, {loglike:.3f} nats per frame")
        if iteration <= config.num_iters // 2:
            ubm = _split(ubm, min(config.num_gauss, len(ubm.weights) + increment), random)
    return ubm


def em_step(ubm: DiagGmm, parts: Iterable[np.ndarray], config: UbmConfig, chunk: int = 8192) -> tuple[DiagGmm, float]:
    """One round of EM over parts (T, D); returns the new model and the old one's log-likelihood per frame.

    Gaussians of too few frames are removed (mle-diag-gmm.cc); splits bring the number back while they go on.
    """
    shape = ubm.means.shape
    count, first, second = np.zeros(shape[0]), np.zeros(shape), np.zeros(shape)
    loglike, frames = 0.0, 0
    for part in parts:
        for start in range(0, len(part), chunk):
            x = np.asarray(part[start : start + chunk], np.float32)
            post = ubm.loglikes(x)
            best = post.max(1, keepdims=True)
            np.exp(post - best, out=post)
            total = post.sum(1, keepdims=True)
            post /= total
            loglike += float((best + np.log(total)).sum(dtype=np.float64))
            frames += len(x)
            count += post.sum(0, dtype=np.float64)
            first += post.T @ x
            second += post.T @ x**2
    weights = count / count.sum()
    kept = (count > config.min_occupancy) & (weights > config.min_weight)
    if not kept.any():
        raise PyserError("every Gaussian of the UBM lost its frames; the features must be damaged")
    means = first[kept] / count[kept, None]
    variances = np.maximum(second[kept] / count[kept, None] - means**2, config.min_variance)
    return DiagGmm(weights[kept] / weights[kept].sum(), means, variances), loglike / frames


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


def read_diag_gmm(path: str | Path) -> DiagGmm:
    """A binary final.dubm; the stored gconsts are recomputed."""
    reader = Reader(path)
    reader.expect("<DiagGMM>")
    token = reader.token()
    if token == "<GCONSTS>":
        reader.vector()
        token = reader.token()
    if token != "<WEIGHTS>":
        raise reader.fail("<WEIGHTS>")
    weights = reader.vector()
    reader.expect("<MEANS_INVVARS>")
    scaled = reader.matrix()
    reader.expect("<INV_VARS>")
    inverse = reader.matrix()
    reader.expect("</DiagGMM>")
    if scaled.shape != inverse.shape or len(weights) != len(scaled) or not (inverse > 0).all():
        raise reader.fail("weights, means and positive variances of matching sizes")
    return DiagGmm(weights, scaled / inverse, 1 / inverse)


def write_diag_gmm(ubm: DiagGmm, path: str | Path) -> None:
    """Write `ubm` as Kaldi's binary final.dubm (float32)."""
    writer = Writer()
    writer.token("<DiagGMM>", "<GCONSTS>")
    writer.vector(ubm._linear_form[0], "FV")
    writer.token("<WEIGHTS>")
    writer.vector(ubm.weights, "FV")
    writer.token("<MEANS_INVVARS>")
    writer.matrix(ubm.means / ubm.vars, "FM")
    writer.token("<INV_VARS>")
    writer.matrix(1 / ubm.vars, "FM")
    writer.token("</DiagGMM>")
    writer.save(path)
