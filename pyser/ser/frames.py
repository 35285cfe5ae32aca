"""The frames of a list of utterances in memory, as float16: a corpus of bottlenecks fits, and batches are any rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pyser.errors import PyserError
from pyser.features.cmvn import CmvnConfig, apply_cmvn
from pyser.kaldi.datadir import num_rows
from pyser.kaldi.tables import load_mat, load_vec

FLOAT16_MAX = 65504.0
BY_SPEAKER = CmvnConfig(norm_vars=True)


@dataclass(frozen=True)
class Frames:
    """feats (N, D) float16; utt (N,) is the index of the frame's utterance, label (U,) each utterance's class."""

    feats: np.ndarray
    utt: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.feats)


def load_frames(
    utts: Sequence[str], feats: Mapping[str, str], classes: Mapping[str, int], subsample: int, what: str,
    vad: Mapping[str, str] | None = None, cmvn: Mapping[str, np.ndarray] | None = None,
) -> Frames:
    """Every `subsample`-th frame of `utts` (of those that are speech where rxfilenames of `vad` are given), from the
    rxfilenames `feats`, normalised by the statistics (2, D + 1) of each utterance in `cmvn`; says beforehand how much memory
    it takes."""
    masks = None if vad is None else [speech(load_vec(vad[utt]), num_rows(feats[utt]), utt) for utt in utts]
    counts = [num_rows(feats[utt]) for utt in utts] if masks is None else [int(mask.sum()) for mask in masks]
    rows = [-(-count // subsample) for count in counts]
    dim = load_mat(feats[utts[0]]).shape[1] if utts else 0
    size, free = 2 * sum(rows) * dim, available_memory()
    print(f"{what}: {len(utts)} utterances, {sum(rows)} frames x {dim}: {size / 2**20:.0f} MiB of memory "
          f"({free / 2**20:.0f} MiB available)", flush=True)
    if size > free:
        raise PyserError(f"{what}: {size / 2**30:.1f} GiB of frames do not fit into {free / 2**30:.1f} GiB; "
                         "raise --subsample, or write the bottlenecks with --subsampling 3")
    out, at = np.empty((sum(rows), dim), np.float16), 0
    for number, (utt, count) in enumerate(zip(utts, rows, strict=True)):
        matrix = load_mat(feats[utt])
        matrix = (matrix if masks is None else matrix[masks[number]])[::subsample]
        if cmvn is not None:
            matrix = apply_cmvn(matrix, cmvn[utt], BY_SPEAKER)
        if matrix.shape != (count, dim):
            raise PyserError(f"{utt}: features {matrix.shape}, expected ({count}, {dim}); write them again")
        if not np.abs(matrix).max(initial=0.0) <= FLOAT16_MAX:  # also true for NaN
            raise PyserError(f"{utt}: features that are not finite or above {FLOAT16_MAX:g}; write them again")
        out[at : at + count] = matrix
        at += count
    return Frames(out, np.repeat(np.arange(len(utts)), rows), np.array([classes[utt] for utt in utts], dtype=np.int64))


def speech(vad: np.ndarray, frames: int, utt: str) -> np.ndarray:
    """(frames,) bool: which frames of a node are speech, by the ones and zeros (T,) of the features that it was computed
    from, every n-th of which it has. All are where none is: something must be decided of every utterance."""
    step = -(-len(vad) // max(frames, 1))
    mask = vad[:: max(step, 1)] > 0
    if len(mask) != frames:
        raise PyserError(f"{utt}: {len(vad)} frames of vad, {frames} of features; compute both from the same features")
    return mask if mask.any() else np.ones(frames, bool)


def mean_and_std(feats: np.ndarray, chunk: int = 65536) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column (D,), summed in float64; a constant column gets 1."""
    parts = [feats[i : i + chunk].astype(np.float64) for i in range(0, min(len(feats), chunk), chunk)]
    shift = parts[0].mean(axis=0)  # about the right place, so that the squares do not cancel
    total, square = np.zeros(feats.shape[1]), np.zeros(feats.shape[1])
    for i in range(0, len(feats), chunk):
        part = feats[i : i + chunk].astype(np.float64) - shift
        total += part.sum(axis=0)
        square += (part**2).sum(axis=0)
    mean = total / len(feats)
    std = np.sqrt(np.maximum(square / len(feats) - mean**2, 0.0))
    return mean + shift, np.where(std > 1e-5, std, 1.0)


def available_memory() -> int:
    """Bytes that can be taken without swapping (Linux's estimate, else what is physically there)."""
    try:
        with open("/proc/meminfo") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
