"""SpecAugment of MFCCs: bands of mel bins and stretches of time are put to the utterance's mean (D. Park et al.,
"SpecAugment", Interspeech 2019). Sizes and how they are drawn are those of Kaldi's spec-augment-layer in mini_librispeech's
run_tdnn_1j.sh (nnet3/nnet-general-component.cc), whose mean is that of its batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig, dct_matrix


@dataclass(frozen=True)
class SpecAugmentConfig:
    """freq_max_proportion: of the mel bins, at most so many neighbours are masked. time_zeroed_proportion: of the frames, so
    many are masked on average, never more than time_mask_max_frames in a row."""

    freq_max_proportion: float = 0.5
    time_zeroed_proportion: float = 0.2
    time_mask_max_frames: int = 20


DEFAULTS = SpecAugmentConfig()


def spec_augment(feats: np.ndarray, rng: np.random.Generator, config: SpecAugmentConfig = DEFAULTS) -> np.ndarray:
    """MFCCs (T, D) of D mel bins, without energy, of Kaldi's lifter (conf/mfcc_hires.conf); returns masked ones."""
    frames, dim = feats.shape
    to_mfcc, to_mel = _transforms(dim)
    mean = feats.mean(axis=0, dtype=np.float64).astype(np.float32)
    mel = (feats - mean) @ to_mel
    mel[:, frequency_mask(dim, config.freq_max_proportion, rng)] = 0
    mel[time_mask(frames, config.time_zeroed_proportion, config.time_mask_max_frames, rng)] = 0
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
        raise PyserError(f"MFCCs of {dim} dimensions: their mel energies cannot be computed back; do without spec_augment")
    return matrix.astype(np.float32), np.linalg.inv(matrix).astype(np.float32)
