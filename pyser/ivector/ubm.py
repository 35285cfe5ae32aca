"""Diagonal-covariance Gaussian mixture: the universal background model (gmm/diag-gmm.cc, mle-diag-gmm.cc)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.ivector import kernels
from pyser.kaldi.binary import Reader, Writer

CHUNK = 960  # frames at a time (a multiple of the front end's TILE), so that their log-likelihoods stay in the cache


@dataclass(frozen=True)
class DiagGmm:
    """weights (G,), means (G, D), vars (G, D), float64."""

    weights: np.ndarray
    means: np.ndarray
    vars: np.ndarray

    @cached_property
    def linear_form(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(gconsts (G,), means/vars (D, G), -1/(2 vars) (D, G)): a log-likelihood is linear in (1, x, x^2)."""
        constant = np.log(2 * np.pi) * self.means.shape[1] + np.log(self.vars).sum(1) + (self.means**2 / self.vars).sum(1)
        return np.log(self.weights) - 0.5 * constant, (self.means / self.vars).T, -0.5 / self.vars.T

    @cached_property
    def likes_matrix(self) -> np.ndarray:
        """(2 D + 1, G) float32: (x, x^2, 1) times it are the log-likelihoods."""
        gconsts, linear, quadratic = self.linear_form
        return np.concatenate([linear, quadratic, gconsts[None]]).astype(np.float32)

    def loglikes(self, feats: np.ndarray) -> np.ndarray:
        """Joint log-likelihood of frame and Gaussian: (T, D) -> (T, G), in the type of `feats`."""
        gconsts, linear, quadratic = (part.astype(feats.dtype, copy=False) for part in self.linear_form)
        return gconsts + feats @ linear + feats**2 @ quadratic


Posteriors = tuple[np.ndarray, np.ndarray, np.ndarray]


def posteriors(
    ubm: DiagGmm, feats: np.ndarray, weights: np.ndarray, num_gselect: int = 5, min_post: float = 0.025, scale: float = 1.0
) -> Posteriors:
    """The few Gaussians that matter for each frame: gaussians (T, K) int32, post (T, K) float32, how many of K (T,).

    feats (T, D) float32; best first, at most `num_gselect`, each at least `min_post` of the best and of the sum, made to
    sum to scale x weight; of light frames fewer are kept, of frames of weight 0 none. What lies beyond `how many` is
    undefined (hmm/posterior.cc, VectorToPosteriorEntry; OnlineIvectorFeature::GetMinPost).
    """
    frames, dim = feats.shape
    keep = min(num_gselect, len(ubm.weights))
    gaussians, post = np.zeros((frames, keep), np.int32), np.zeros((frames, keep), np.float32)
    count = np.zeros(frames, np.int32)
    least = np.full(frames, min_post, np.float32)
    light = (weights != 1) & (weights != 0)
    least[light] = np.minimum(least[light] / np.abs(weights[light]), np.float32(0.99))
    scales = (weights * np.float32(scale)).astype(np.float32)
    terms = np.ones((min(CHUNK, frames), 2 * dim + 1), np.float32)
    likes = np.empty((len(terms), len(ubm.weights)), np.float32)
    for start in range(0, frames, CHUNK):
        part = slice(start, min(frames, start + CHUNK))
        size = part.stop - start
        terms[:size, :dim] = feats[part]
        np.square(feats[part], out=terms[:size, dim:-1])
        np.matmul(terms[:size], ubm.likes_matrix, out=likes[:size])
        kernels.select_posteriors(likes[:size], least[part], scales[part], gaussians[part], post[part], count[part])
    return gaussians, post, count


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


def initialise_ubm(
    frames: np.ndarray, config: UbmConfig, report: Callable[[str], None] = lambda line: None
) -> DiagGmm:
    """EM from random frames (T, D) (gmm-global-init-from-feats)."""
    if len(frames) < 4 * config.num_gauss:
        raise PyserError(f"{len(frames)} frames cannot train {config.num_gauss} Gaussians; lower --num-gauss or add speech")
    random = np.random.default_rng(config.seed)
    wanted = max(1, config.num_gauss // 2)
    increment = max(1, (config.num_gauss - wanted) // max(1, config.num_iters_init // 2))
    spread = frames.var(0, dtype=np.float64)
    means = frames[random.choice(len(frames), wanted, replace=False)].astype(np.float64)
    ubm = DiagGmm(np.full(wanted, 1 / wanted), means, np.tile(spread, (wanted, 1)))
    for iteration in range(config.num_iters_init):
        ubm, loglike = em_step(ubm, [frames], config)
        report(f"UBM initialisation {iteration}: {len(ubm.weights)} Gaussians, {loglike:.4f} per frame")
        wanted = min(config.num_gauss, wanted + increment)
        ubm = _split(ubm, wanted, random)  # also makes good for those that were removed
    return ubm


def train_ubm(
    ubm: DiagGmm, all_frames: Callable[[], Iterable[np.ndarray]], config: UbmConfig,
    report: Callable[[str], None] = lambda line: None,
) -> DiagGmm:
    """EM over all frames, which `all_frames` goes through once a call in parts (T, D)."""
    for iteration in range(config.num_iters):
        ubm, loglike = em_step(ubm, all_frames(), config, remove=iteration == config.num_iters - 1)
        report(f"UBM iteration {iteration}: {len(ubm.weights)} Gaussians, {loglike:.4f} per frame")
    return ubm


def em_step(
    ubm: DiagGmm, parts: Iterable[np.ndarray], config: UbmConfig, remove: bool = True, chunk: int = 2048
) -> tuple[DiagGmm, float]:
    """One round of EM over parts (T, D); returns the new model and the old one's log-likelihood per frame.

    Gaussians of too few frames are removed, or else keep their mean and variance (mle-diag-gmm.cc, MleDiagGmmUpdate).
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
    enough = (count > config.min_occupancy) & (weights > config.min_weight)
    if not enough.any():
        raise PyserError("every Gaussian of the UBM lost its frames; the features must be damaged")
    safe = np.maximum(count, 1e-10)[:, None]
    means = np.where(enough[:, None], first / safe, ubm.means)
    variances = np.maximum(second / safe - (first / safe) ** 2, config.min_variance)
    variances = np.where(enough[:, None], variances, ubm.vars)
    if remove:
        weights = weights[enough] / weights[enough].sum()
        return DiagGmm(weights, means[enough], variances[enough]), loglike / frames
    weights = np.where(enough, weights, np.maximum(weights, config.min_weight))
    return DiagGmm(weights, means, variances), loglike / frames


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
    """A final.dubm, binary or text; the stored gconsts are recomputed."""
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
    fits = scaled.shape == inverse.shape and len(weights) == len(scaled)
    if not fits or not all(np.isfinite(part).all() for part in (weights, scaled, inverse)) or not (inverse > 0).all() \
            or not (weights > 0).all():
        raise reader.fail("positive weights, means and positive variances of matching sizes")
    return DiagGmm(weights, scaled / inverse, 1 / inverse)


def write_diag_gmm(ubm: DiagGmm, path: str | Path, binary: bool = True) -> None:
    """Write `ubm` as Kaldi's final.dubm (float32)."""
    writer = Writer(binary)
    writer.token("<DiagGMM>", "<GCONSTS>")
    writer.vector(ubm.linear_form[0], "FV")
    writer.token("<WEIGHTS>")
    writer.vector(ubm.weights, "FV")
    writer.token("<MEANS_INVVARS>")
    writer.matrix(ubm.means / ubm.vars, "FM")
    writer.token("<INV_VARS>")
    writer.matrix(1 / ubm.vars, "FM")
    writer.token("</DiagGMM>")
    writer.save(path)
