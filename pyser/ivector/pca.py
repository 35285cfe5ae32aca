"""PCA of spliced features, the transform in front of the UBM (bin/est-pca.cc, --normalize-mean --normalize-variance)."""

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


def transform(matrix: np.ndarray, feats: np.ndarray) -> np.ndarray:
    """Linear (D', D) or affine (D', D + 1) transform of (T, D) -> (T, D')."""
    if matrix.shape[1] == feats.shape[1]:
        return feats @ matrix.T
    if matrix.shape[1] == feats.shape[1] + 1:
        return feats @ matrix[:, :-1].T + matrix[:, -1]
    raise PyserError(f"final.mat takes {matrix.shape[1]} dimensions, the spliced features have {feats.shape[1]}")


def read_transform(path: str | Path) -> np.ndarray:
    """A final.mat, binary or text."""
    return Reader(path).matrix()


def write_transform(matrix: np.ndarray, path: str | Path) -> None:
    """Write a binary final.mat (float32)."""
    writer = Writer()
    writer.matrix(matrix, "FM")
    writer.save(path)
