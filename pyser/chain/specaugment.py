"""SpecAugment of MFCCs: bands of mel bins and stretches of time are put to the utterance's mean (D. Park et al.,
"SpecAugment", Interspeech 2019). Sizes and how they are drawn are those of Kaldi's spec-augment-layer in mini_librispeech's
run_tdnn_1j.sh (nnet3/nnet-general-component.cc), whose mean is that of its batch normalisation."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig, dct_matrix

TIME_SHARE = 0.4  # of frames to bands: Kaldi's recipe masks 0.2 of the frames and up to 0.5 of the bins
MAX_FRAMES = 20  # masked in a row


def spec_augment(feats: np.ndarray, rng: np.random.Generator, proportion: float = 0.5) -> np.ndarray:
    """MFCCs (T, D) of D mel bins, without energy, of Kaldi's lifter (conf/mfcc_hires.conf); returns masked ones.

    proportion : of the mel bins, at most so many neighbours are masked, and TIME_SHARE as many of the frames on average
    """
    frames, dim = feats.shape
    to_mfcc, to_mel = _transforms(dim)
    mean = feats.mean(axis=0, dtype=np.float64).astype(np.float32)
    mel = (feats - mean) @ to_mel
    mel[:, frequency_mask(dim, proportion, rng)] = 0
    mel[time_mask(frames, TIME_SHARE * proportion, MAX_FRAMES, rng)] = 0
    return mel @ to_mfcc + mean


def frequency_mask(num_bins: int, max_proportion: float, rng: np.random.Generator) -> np.ndarray:
    """(num_bins,) bool: one band, which may go round from the last bin to the first, as many bins as any other number up to
    that share."""
    width = int(rng.integers(round(num_bins * max_proportion) + 1))
    start = int(rng.integers(num_bins))
    mask = np.zeros(num_bins, bool)
    mask[np.arange(start, start + width) % num_bins] = True
    return mask


def time_mask(num_frames: int, proportion: float, max_frames: int, rng: np.random.Generator) -> np.ndarray:
    """(num_frames,) bool: stretches kept and masked by turns, of any length up to what the share asks for and up to
    max_frames."""
    mask = np.zeros(num_frames, bool)
    if proportion <= 0:
        return mask
    longest = max(int(max_frames * (1 - proportion) / proportion), 1), max_frames  # kept, masked
    masked = bool(rng.random() < proportion)
    at = 0
    while at < num_frames:
        length = int(rng.integers(1, longest[masked] + 1))
        mask[at : at + length] = masked
        at, masked = at + length, not masked
    return mask


@lru_cache(maxsize=8)
def _transforms(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """(D, D) float32 each: centred log mel energies to MFCCs, and back."""
    matrix = dct_matrix(MfccConfig(num_mel_bins=dim, num_ceps=dim)).astype(np.float64)
    if np.linalg.cond(matrix) > 1e4:
        raise PyserError(f"MFCCs of {dim} dimensions: their mel energies cannot be computed back; do without SpecAugment")
    return matrix.astype(np.float32), np.linalg.inv(matrix).astype(np.float32)
