"""Time derivatives beside the features (feat/feature-functions.cc, DeltaFeatures)."""

from __future__ import annotations

import numpy as np


@np.errstate(over="ignore", invalid="ignore")
def add_deltas(feats: np.ndarray, order: int = 2, window: int = 2) -> np.ndarray:
    """(T, D) -> (T, (order + 1) D) float32: features, their slopes over 2 * window + 1 frames, the slopes of these, …

    The first and last frame repeat at the edges, and a higher order is one longer filter, not the slope of a slope.
    """
    slope = np.arange(-window, window + 1) / sum(j * j for j in range(-window, window + 1))
    scales, parts = np.ones(1), [np.asarray(feats, np.float64)]
    for _ in range(order):
        scales = np.convolve(scales, slope)
        reach = len(scales) // 2
        padded = np.pad(parts[0], ((reach, reach), (0, 0)), mode="edge")
        parts.append(sum((scale * padded[j : j + len(feats)] for j, scale in enumerate(scales)), np.zeros_like(parts[0])))
    return np.concatenate(parts, axis=1).astype(np.float32)
