"""Linear transforms and thinning of frames (featbin/transform-feats.cc, featbin/subsample-feats.cc)."""

from __future__ import annotations

import numpy as np

from pyser.errors import PyserError


@np.errstate(over="ignore", invalid="ignore")
def transform(feats: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(T, D) -> (T, E) float32 by a linear (E, D) or affine (E, D + 1) matrix, whose last column is the offset."""
    dim = feats.shape[1]
    if matrix.shape[1] not in (dim, dim + 1):
        raise PyserError(f"a transform of {matrix.shape[1]} columns does not fit features of {dim} dimensions")
    offset = matrix[:, dim] if matrix.shape[1] > dim else 0
    return np.asarray(np.asarray(feats, np.float64) @ matrix[:, :dim].T + offset, np.float32)


def subsample(feats: np.ndarray, n: int, offset: int = 0) -> np.ndarray:
    """Every n-th frame from frame `offset` on; with a negative n every frame -n times."""
    if n == 0 or offset < 0 or (n < 0 and offset):
        raise PyserError(f"--n={n} --offset={offset}: n must not be 0, the offset not negative, and 0 with a negative n")
    return feats[offset::n] if n > 0 else np.repeat(feats, -n, axis=0)
