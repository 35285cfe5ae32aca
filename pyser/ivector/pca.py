"""The transform of spliced features in front of the UBM: PCA (bin/est-pca.cc, --normalize-mean --normalize-variance) or,
where there are alignments, LDA (transform/lda-estimate.cc)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer

if TYPE_CHECKING:  # whoever only reads a final.mat does without torch
    from torch import Tensor


def estimate_pca(count: float, first: Tensor, second: Tensor, dim: int) -> np.ndarray:
    """Affine transform (dim, D + 1) to zero mean and unit variance along the `dim` strongest directions.

    count, first (D,), second (D, D) float64: number, sum and sum of outer products of the spliced frames.
    """
    import torch

    if count <= len(first):
        raise PyserError(f"{count:.0f} frames cannot estimate a PCA of {len(first)} dimensions; add speech")
    mean = first / count
    values, vectors = torch.linalg.eigh(second / count - torch.outer(mean, mean))
    values, vectors = values.flip(0), vectors.flip(1)[:, :dim]  # strongest first
    if len(values) < dim or values[dim - 1] <= 1e-10 * values[0]:
        raise PyserError(f"the features span fewer than {dim} dimensions; are they of silence or repeated frames?")
    transform = vectors.t() / values[:dim].sqrt()[:, None]
    return torch.cat([transform, -(transform @ mean)[:, None]], dim=1).cpu().numpy()


def estimate_lda(counts: Tensor, first: Tensor, second: Tensor, dim: int) -> np.ndarray:
    """Linear transform (dim, D) that makes the within-class covariance I and the between-class one diagonal, the classes'
    means farthest apart along its first rows.

    counts (C,), first (C, D): frames and their sum, by class; second (D, D): sum of outer products of all of them; float64.
    """
    import torch

    counts, first, total = counts[counts > 0], first[counts > 0], float(counts.sum())
    if len(counts) <= dim or total <= first.shape[1]:
        raise PyserError(f"{len(counts)} classes and {total:.0f} frames cannot estimate an LDA to {dim} dimensions; give "
                         "finer alignments or more speech")
    mean = first.sum(0) / total
    between = (first / counts[:, None]).t() @ first / total - torch.outer(mean, mean)
    within = second / total - torch.outer(mean, mean) - between
    root, failed = torch.linalg.cholesky_ex(within)
    if failed:
        root = torch.linalg.cholesky(within + torch.eye(len(within)).to(within) * 1e-3 * within.trace() / len(within))
    half = torch.linalg.solve_triangular(root, between, upper=False)
    _, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.t(), upper=False))
    lda = torch.linalg.solve_triangular(root.t(), vectors.flip(1)[:, :dim], upper=True)  # largest first
    return lda.t().cpu().numpy()


def read_transform(path: str | Path) -> np.ndarray:
    """A final.mat, binary or text."""
    reader = Reader(path)
    matrix = reader.matrix()
    if not matrix.size or not np.isfinite(matrix).all():
        raise reader.fail("a matrix of finite numbers")
    return matrix


def write_transform(matrix: np.ndarray, path: str | Path) -> None:
    """Write a binary final.mat (float32)."""
    writer = Writer()
    writer.matrix(matrix, "FM")
    writer.save(path)
