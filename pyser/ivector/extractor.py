"""The i-vector extractor: Gaussian g's mean for i-vector x is M_g x (ivector/ivector-extractor.cc).

The prior of x is N(prior_offset e_0, I). An utterance's statistics make x the solution of `quadratic x = linear`:

    linear    = prior_offset e_0 + sum_t sum_g post_tg (M_g' Sigma_g^-1 x_t)
    quadratic =        I         + sum_t sum_g post_tg (M_g' Sigma_g^-1 M_g)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pyser.kaldi.binary import Reader, Writer


@dataclass(frozen=True)
class IvectorExtractor:
    """projections M (G, D, S), sigma_inv (G, D, D), weights (G,), all float64; S is the i-vector's dimension."""

    projections: np.ndarray
    sigma_inv: np.ndarray
    weights: np.ndarray
    prior_offset: float

    @property
    def dim(self) -> int:
        return int(self.projections.shape[2])

    @cached_property
    def sigma_inv_m(self) -> np.ndarray:
        """Sigma_g^-1 M_g, (G, D, S)."""
        return self.sigma_inv @ self.projections

    @cached_property
    def quadratics(self) -> np.ndarray:
        """M_g' Sigma_g^-1 M_g as packed lower triangles, (G, S (S + 1) / 2)."""
        rows, cols = np.tril_indices(self.dim)
        return np.stack([(m.T @ sm)[rows, cols] for m, sm in zip(self.projections, self.sigma_inv_m, strict=True)])

    @cached_property
    def unpack(self) -> np.ndarray:
        """(S, S): where each element of a symmetric matrix lies in its packed form."""
        rows, cols = np.indices((self.dim, self.dim))
        high, low = np.maximum(rows, cols), np.minimum(rows, cols)
        return high * (high + 1) // 2 + low


def read_extractor(path: str | Path) -> IvectorExtractor:
    """A final.ie, binary or text. Extractors with i-vector dependent weights (<w> not empty) are refused."""
    reader = Reader(path)
    reader.expect("<IvectorExtractor>", "<w>")
    if reader.matrix().size:
        raise reader.fail("an extractor trained with --use-weights=false (as the online recipes do)")
    reader.expect("<w_vec>")
    weights = reader.vector()
    reader.expect("<M>")
    matrices = [reader.matrix() for _ in range(reader.size("a number of Gaussians"))]
    reader.expect("<SigmaInv>")
    inverses = [reader.symmetric() for _ in matrices]
    if len({matrix.shape for matrix in matrices}) != 1 or not matrices[0].size or len(weights) != len(matrices) \
            or {len(inverse) for inverse in inverses} != {len(matrices[0])}:
        raise reader.fail("one matrix and one variance for each Gaussian, all of one size")
    projections, sigma_inv = np.stack(matrices), np.stack(inverses)
    if not np.isfinite(projections).all() or not np.isfinite(sigma_inv).all():
        raise reader.fail("finite numbers")
    reader.expect("<IvectorOffset>")
    offset = reader.real()
    reader.expect("</IvectorExtractor>")
    return IvectorExtractor(projections, sigma_inv, weights, offset)


def write_extractor(extractor: IvectorExtractor, path: str | Path, binary: bool = True) -> None:
    """Write Kaldi's final.ie (float64)."""
    writer = Writer(binary)
    writer.token("<IvectorExtractor>", "<w>")
    writer.matrix(np.zeros((0, 0)))
    writer.token("<w_vec>")
    writer.vector(extractor.weights)
    writer.token("<M>")
    writer.int32(len(extractor.projections))
    for projection in extractor.projections:
        writer.matrix(projection)
    writer.token("<SigmaInv>")
    for sigma_inv in extractor.sigma_inv:
        writer.symmetric(sigma_inv)
    writer.token("<IvectorOffset>")
    writer.double(extractor.prior_offset)
    writer.token("</IvectorExtractor>")
    writer.save(path)
