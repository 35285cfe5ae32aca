"""Mel-frequency cepstra with Kaldi's options and Kaldi's numbers (feat/feature-mfcc.{h,cc})."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pyser.errors import PyserError
from pyser.features.mel import mel_energies
from pyser.features.window import EPSILON, FrameConfig, num_frames


@dataclass(frozen=True)
class MfccConfig(FrameConfig):
    """Options of Kaldi's compute-mfcc-feats; use_energy puts the log-energy in the place of C0."""

    num_ceps: int = 13
    cepstral_lifter: float = 22.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_ceps <= self.num_mel_bins:
            raise PyserError(f"--num-ceps={self.num_ceps} is more than --num-mel-bins={self.num_mel_bins} or less than 1")


@lru_cache(maxsize=8)
def dct_matrix(config: MfccConfig) -> np.ndarray:
    """(num_mel_bins, num_ceps) float32: the orthonormal cosine transform (transposed), its columns liftered."""
    bins, cepstrum = np.arange(config.num_mel_bins), np.arange(config.num_ceps)
    matrix = np.sqrt(2 / config.num_mel_bins) * np.cos(np.pi / config.num_mel_bins * np.outer(bins + 0.5, cepstrum))
    matrix[:, 0] = np.sqrt(1 / config.num_mel_bins)
    if config.cepstral_lifter:
        matrix *= 1 + 0.5 * config.cepstral_lifter * np.sin(np.pi * cepstrum / config.cepstral_lifter)
    return matrix.astype(np.float32)


@np.errstate(over="ignore", invalid="ignore")  # (callers look whether the result is finite)
def mfcc(samples: np.ndarray, config: MfccConfig) -> np.ndarray:
    """Cepstra (frames, num_ceps) float32 of samples (T,) in int16 scale at config.sample_frequency.

    With snip_edges the number of frames is 1 + (T - window) // shift, 0 when T is below one window.
    """
    feats = np.empty((num_frames(len(samples), config), config.num_ceps), np.float32)
    for block, mel, log_energies in mel_energies(samples, config):
        np.matmul(np.log(np.maximum(mel, EPSILON)), dct_matrix(config), out=feats[block])
        if config.use_energy:
            feats[block, 0] = log_energies
    if config.htk_compat:
        feats = np.roll(feats, -1, axis=1)
        if not config.use_energy:
            feats[:, -1] *= np.sqrt(2)
    return feats - feats.mean(axis=0) if config.subtract_mean and len(feats) else feats
