"""Diagonal-covariance Gaussian mixture: the universal background model (gmm/diag-gmm.cc)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pyser.ivector import kernels
from pyser.kaldi.binary import Reader, Writer


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
        """(2 D + 1, G padded to a multiple of 16) float32: (x, x^2, 1) times it are the log-likelihoods."""
        gconsts, linear, quadratic = self.linear_form
        return kernels.padded(np.concatenate([linear, quadratic, gconsts[None]]), 16, np.float32)


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
    kernels.posteriors(feats, ubm.likes_matrix, len(ubm.weights), least, scales, gaussians, post, count)
    return gaussians, post, count


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
