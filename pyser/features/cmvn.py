"""Cepstral mean (and variance) statistics and their online application (feat/online-feature.cc, OnlineCmvn)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.files import read_lines, write_text


@dataclass(frozen=True)
class OnlineCmvnConfig:
    """Frames are normalised by the cmn_window frames up to and including them. A window not yet full is topped up with
    at most speaker_frames of the speaker's earlier statistics, then with at most global_frames of the global ones."""

    cmn_window: int = 600
    speaker_frames: int = 600
    global_frames: int = 200
    norm_means: bool = True
    norm_vars: bool = False


def cmvn_stats(feats: np.ndarray) -> np.ndarray:
    """Kaldi's statistics (2, D + 1), float64: sums and frame count; sums of squares and 0."""
    feats = np.asarray(feats, np.float64)
    stats = np.zeros((2, feats.shape[1] + 1))
    stats[0, :-1], stats[0, -1], stats[1, :-1] = feats.sum(0), len(feats), (feats**2).sum(0)
    return stats


def apply_online_cmvn(
    feats: np.ndarray, global_stats: np.ndarray, speaker_stats: np.ndarray | None = None,
    config: OnlineCmvnConfig = OnlineCmvnConfig(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """(T, D) -> (T, D) float64. speaker_stats: `cmvn_stats` summed over the speaker's earlier utterances, or None."""
    feats = np.asarray(feats, np.float64)
    frames, dim = feats.shape
    raw = np.concatenate([feats, np.ones((frames, 1)), feats**2], axis=1)  # a row: sums, count, sums of squares
    total = np.concatenate([np.zeros((1, raw.shape[1])), np.cumsum(raw, 0)])
    first = np.maximum(np.arange(frames) + 1 - config.cmn_window, 0)
    stats = total[1:] - total[first]
    sources = [(global_stats, config.global_frames)]
    if speaker_stats is not None and speaker_stats[0, -1] > 0:
        sources.insert(0, (speaker_stats, config.speaker_frames))
    for source, limit in sources:
        count = source[0, -1]
        take = np.minimum(config.cmn_window - stats[:, dim], limit)
        if source is speaker_stats:  # the global statistics may be scaled up, a speaker's never
            take = np.minimum(take, count)
        stats += np.maximum(take, 0)[:, None] / count * np.concatenate([source[0], source[1, :-1]])
    mean = stats[:, :dim] / stats[:, dim : dim + 1]
    scale = 1.0
    if config.norm_vars:
        scale = np.maximum(stats[:, dim + 1 :] / stats[:, dim : dim + 1] - mean**2, 1e-20) ** -0.5
    return (feats - mean) * scale if config.norm_means else feats * scale


def read_stats(path: str | Path) -> np.ndarray:
    """A text matrix of statistics (global_cmvn.stats), (2, D + 1) float64."""
    text = " ".join(read_lines(path)).replace("[", " ").replace("]", " ; ")
    try:
        numbers = np.array(text.split(";")[0].split(), np.float64)
        stats = numbers.reshape(2, -1)
    except ValueError:
        raise PyserError(f"{path}: not a text matrix of two rows; write it with matrix-sum --binary=false") from None
    if stats.shape[1] < 2 or stats[0, -1] <= 0:
        raise PyserError(f"{path}: CMVN statistics of no frames; compute them again")
    return stats


def write_stats(path: str | Path, stats: np.ndarray) -> None:
    """Write statistics (2, D + 1) as Kaldi's text matrix."""
    rows = "\n".join("  " + " ".join(f"{value:.10g}" for value in row) + " " for row in stats)
    write_text(path, f" [\n{rows}]\n")
