"""Mel filterbanks with Kaldi's options and Kaldi's numbers (feat/feature-fbank.{h,cc})."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyser.features.mel import mel_energies
from pyser.features.window import EPSILON, FrameConfig, num_frames


@dataclass(frozen=True)
class FbankConfig(FrameConfig):
    """Options of Kaldi's compute-fbank-feats; use_energy adds a column in front (with htk_compat: behind)."""

    use_energy: bool = False
    use_log_fbank: bool = True
    use_power: bool = True


@np.errstate(over="ignore", invalid="ignore")
def fbank(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
    """Filterbanks (frames, num_mel_bins, + 1 with use_energy) float32 of samples (T,) in int16 scale at
    config.sample_frequency; 0 frames when T is below one window."""
    energy = int(config.use_energy)
    first = 0 if config.htk_compat else energy
    feats = np.empty((num_frames(len(samples), config), config.num_mel_bins + energy), np.float32)
    for block, mel, log_energies in mel_energies(samples, config, config.use_power):
        bins = np.log(np.maximum(mel, EPSILON)) if config.use_log_fbank else mel
        feats[block, first : first + config.num_mel_bins] = bins
        if config.use_energy:
            feats[block, -1 if config.htk_compat else 0] = log_energies
    return feats - feats.mean(axis=0) if config.subtract_mean and len(feats) else feats
