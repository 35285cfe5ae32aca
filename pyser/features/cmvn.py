"""Cepstral mean and variance: statistics, and their application to whole utterances, in a sliding window and online
(transform/cmvn.cc, feat/feature-functions.cc: SlidingWindowCmn, feat/online-feature.cc: OnlineCmvn).

Statistics are Kaldi's, (2, D + 1) float64: sums and frame count; sums of squares and 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.files import write_text
from pyser.kaldi.binary import Reader, Writer
from pyser.kaldi.stream import open_input

VARIANCE_FLOOR = 1e-20
SLIDING_VARIANCE_FLOOR = 1e-10


@dataclass(frozen=True)
class CmvnConfig:
    """Options of apply-cmvn; `reverse` gives features of mean 0 and variance 1 the mean (and variance) of the statistics;
    skip_dims, as in `13:14:15`, are left alone."""

    norm_means: bool = True
    norm_vars: bool = False
    reverse: bool = False
    skip_dims: str = ""

    def __post_init__(self) -> None:
        _check_norms(self.norm_means, self.norm_vars)
        parse_dims(self.skip_dims)


@dataclass(frozen=True)
class OnlineCmvnConfig:
    """Frames are normalised by the cmn_window frames up to and including them. A window not yet full is topped up with
    at most speaker_frames of the speaker's earlier statistics, then with at most global_frames of the global ones.
    skip_dims, as in `13:14:15`, are left alone."""

    cmn_window: int = 600
    speaker_frames: int = 600
    global_frames: int = 200
    norm_means: bool = True
    norm_vars: bool = False
    skip_dims: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.global_frames <= self.speaker_frames <= self.cmn_window or self.cmn_window < 1:
            raise PyserError(f"--global-frames={self.global_frames} --speaker-frames={self.speaker_frames} "
                             f"--cmn-window={self.cmn_window}: must not decrease in this order")
        _check_norms(self.norm_means, self.norm_vars)
        parse_dims(self.skip_dims)


@dataclass(frozen=True)
class SlidingCmvnConfig:
    """Options of apply-cmvn-sliding: the window is the cmn_window frames around a frame (center) or before it; at the
    start of an utterance it reaches ahead, without center to at least min_cmn_window frames. max_warnings: nothing is said
    of windows of one frame here."""

    cmn_window: int = 600
    min_cmn_window: int = 100
    norm_vars: bool = False
    center: bool = False
    max_warnings: int = 5

    def __post_init__(self) -> None:
        if self.cmn_window < 1:
            raise PyserError(f"--cmn-window={self.cmn_window}: expected a positive number of frames")


def _check_norms(norm_means: bool, norm_vars: bool) -> None:
    if norm_vars and not norm_means:
        raise PyserError("--norm-vars=true: the variance is not normalised without the mean; leave --norm-means=true")


def parse_dims(text: str) -> list[int]:
    """`13:14:15` as numbers."""
    if text and not all(word.isascii() and word.isdigit() for word in text.split(":")):
        raise PyserError(f"--skip-dims={text}: expected dimensions with colons between them, such as 13:14:15")
    return [int(word) for word in text.split(":")] if text else []


def cmvn_stats(feats: np.ndarray) -> np.ndarray:
    """Statistics (2, D + 1) of features (T, D)."""
    feats = np.asarray(feats, np.float64)
    stats = np.zeros((2, feats.shape[1] + 1))
    stats[0, :-1], stats[0, -1], stats[1, :-1] = feats.sum(0), len(feats), (feats**2).sum(0)
    return stats


def mean_and_deviation(stats: np.ndarray, need_variance: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Means (D,) and, with need_variance, standard deviations (D,), else ones."""
    count = stats[0, -1]
    if not count >= 1:
        raise PyserError(f"CMVN statistics of {count:g} frames; compute them again")
    mean = stats[0, :-1] / count
    if not need_variance:
        return mean, np.ones_like(mean)
    if len(stats) < 2:
        raise PyserError("CMVN statistics without sums of squares; leave out --norm-vars or compute them again")
    return mean, np.sqrt(np.maximum(stats[1, :-1] / count - mean**2, VARIANCE_FLOOR))


@np.errstate(over="ignore", invalid="ignore")  # (whoever writes the result says so when it is not finite)
def apply_cmvn(feats: np.ndarray, stats: np.ndarray, config: CmvnConfig = CmvnConfig()) -> np.ndarray:  # noqa: B008 (frozen)
    """(T, D) -> (T, D) float32, normalised by `stats` (2, D + 1)."""
    if feats.shape[1] != stats.shape[1] - 1:
        raise PyserError(f"CMVN statistics of {stats.shape[1] - 1} dimensions, but features of {feats.shape[1]}")
    if not config.norm_means:
        return np.asarray(feats, np.float32)
    mean, deviation = mean_and_deviation(stats, config.norm_vars)
    skip = _dims(parse_dims(config.skip_dims), len(mean))
    mean[skip], deviation[skip] = 0, 1
    return np.asarray(feats * deviation + mean if config.reverse else (feats - mean) / deviation, np.float32)


def _dims(dims: list[int], size: int) -> list[int]:
    if any(dim >= size for dim in dims):
        raise PyserError(f"--skip-dims: {max(dims)} is not below the {size} dimensions there are")
    return dims


@np.errstate(over="ignore", invalid="ignore")
def apply_sliding_cmvn(feats: np.ndarray, config: SlidingCmvnConfig) -> np.ndarray:
    """(T, D) -> (T, D) float32, every frame normalised by the window around or before it."""
    feats = np.asarray(feats, np.float64)
    frames = np.arange(len(feats))
    start = frames - (config.cmn_window // 2 if config.center else config.cmn_window)
    if config.center:
        end = np.maximum(start, 0) + config.cmn_window
    else:
        end = np.maximum(frames + 1, config.min_cmn_window)
    start = np.maximum(start, 0) - np.maximum(end - len(feats), 0)
    start, end = np.maximum(start, 0), np.minimum(end, len(feats))
    count = (end - start)[:, None]
    total = _running_sums(feats)
    mean = (total[end] - total[start]) / count
    if not config.norm_vars:
        return np.asarray(feats - mean, np.float32)
    total = _running_sums(feats**2)
    variance = np.maximum((total[end] - total[start]) / count - mean**2, SLIDING_VARIANCE_FLOOR)
    return np.asarray(np.where(count > 1, (feats - mean) / np.sqrt(variance), 0), np.float32)


def _running_sums(values: np.ndarray) -> np.ndarray:
    """(T, D) -> (T + 1, D): row t is the sum of the rows before t."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])


def apply_online_cmvn(
    feats: np.ndarray, global_stats: np.ndarray, speaker_stats: np.ndarray | None = None,
    config: OnlineCmvnConfig = OnlineCmvnConfig(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """(T, D) -> (T, D) float64. speaker_stats: `cmvn_stats` summed over the speaker's earlier utterances, or None."""
    feats = np.asarray(feats, np.float64)
    frames, dim = feats.shape
    if global_stats.shape != (2, dim + 1):
        raise PyserError(f"global CMVN statistics of {global_stats.shape[1] - 1} dimensions, but features of {dim}")
    raw = np.concatenate([feats, np.ones((frames, 1)), feats**2], axis=1)  # a row: sums, count, sums of squares
    total = _running_sums(raw)
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
    if not config.norm_means:
        return feats
    mean = stats[:, :dim] / stats[:, dim : dim + 1]
    variance = np.ones_like(mean)
    if config.norm_vars:
        variance = np.maximum(stats[:, dim + 1 :] / stats[:, dim : dim + 1] - mean**2, VARIANCE_FLOOR)
    skip = _dims(parse_dims(config.skip_dims), dim)
    mean[:, skip], variance[:, skip] = 0, 1
    return (feats - mean) / np.sqrt(variance)


def read_stats(path: str | Path, allow_pipes: bool = False) -> np.ndarray:
    """Statistics (2, D + 1) float64 from a file of their own (global_cmvn.stats), text or binary, or from a pipe."""
    with open_input(str(path), allow_pipes) as stream:
        stats = Reader.of(stream, str(path)).matrix()
    if stats.ndim != 2 or len(stats) != 2 or stats.shape[1] < 2 or not np.isfinite(stats).all():
        raise PyserError(f"{path}: not a matrix of two rows of statistics; write it with `pyser cmvn compute` or matrix-sum")
    if stats[0, -1] <= 0:
        raise PyserError(f"{path}: CMVN statistics of no frames; compute them again")
    return stats


def write_stats(path: str | Path, stats: np.ndarray, binary: bool = False) -> None:
    """Write statistics (2, D + 1) as a Kaldi matrix, in text with 10 digits."""
    if binary:
        writer = Writer()
        writer.matrix(stats, "DM")
        writer.save(path)
    else:
        rows = "\n".join("  " + " ".join(f"{value:.10g}" for value in row) + " " for row in stats)
        write_text(path, f" [\n{rows}]\n")
