"""Splicing: every frame with its neighbours side by side (feat/feature-functions.cc, SpliceFrames)."""

from __future__ import annotations

import numpy as np


def splice(feats: np.ndarray, left: int, right: int) -> np.ndarray:
    """(T, D) -> (T, (left + 1 + right) D), frames t - left … t + right; the first and last frame repeat at the edges."""
    frames = np.arange(len(feats))[:, None] + np.arange(-left, right + 1)
    return feats[frames.clip(0, len(feats) - 1)].reshape(len(feats), -1)
