"""The transform of spliced features in front of the UBM: PCA (bin/est-pca.cc, --normalize-mean --normalize-variance) or,
where there are alignments, LDA (transform/lda-estimate.cc)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer


def estimate_pca(count: float, first: np.ndarray, second: np.ndarray, dim: int) -> np.ndarray:
    """Affine transform (dim, D + 1) to zero mean and unit variance along the `dim` strongest directions.

    count, first (D,), second (D, D): number, sum and sum of outer products of the spliced frames.
    """
    if count <= len(first):
        raise PyserError(f"{count:.0f} frames cannot estimate a PCA of {len(first)} dimensions; add speech")
    mean = first / count
    values, vectors = np.linalg.eigh(second / count - np.outer(mean, mean))
    strongest = np.argsort(-values)[:dim]
    if values[strongest[-1]] <= 1e-10 * values.max():
        raise PyserError(f"the features span fewer than {dim} dimensions; are they of silence or repeated frames?")
    transform = vectors[:, strongest].T / np.sqrt(values[strongest])[:, None]
    return np.concatenate([transform, -(transform @ mean)[:, None]], axis=1)


def estimate_lda(counts: np.ndarray, first: np.ndarray, second: np.ndarray, dim: int) -> np.ndarray:
    """Linear transform (dim, D) that makes the within-class covariance I and the between-class one diagonal, the classes'
    means farthest apart along its first rows.

    counts (C,), first (C, D): frames and their sum, by class; second (D, D): sum of outer products of all of them.
    """
    seen = counts > 0
    counts, first, total = counts[seen], first[seen], counts.sum()
    if len(counts) <= dim or total <= first.shape[1]:
        raise PyserError(f"{len(counts)} classes and {total:.0f} frames cannot estimate an LDA to {dim} dimensions; give "
                         "finer alignments or more speech")
    mean = first.sum(0) / total
    between = (first / counts[:, None]).T @ first / total - np.outer(mean, mean)
    within = second / total - np.outer(mean, mean) - between
    try:
        root = np.linalg.cholesky(within)
    except np.linalg.LinAlgError:
        root = np.linalg.cholesky(within + np.eye(len(within)) * 1e-3 * np.trace(within) / len(within))
    whitening = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(whitening @ between @ whitening.T)
    return vectors[:, np.argsort(-values)[:dim]].T @ whitening


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
