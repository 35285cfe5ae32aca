"""Triangular mel filters, warped for the length of the vocal tract where wanted (feat/mel-computations.{h,cc})."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from pyser.errors import PyserError
from pyser.features.window import FrameConfig, frames_of, window_frames

BLOCK = 256  # frames at once: their spectra stay in the cache of a core, and memory does not grow with the recording


def mel_scale(hertz: np.ndarray) -> np.ndarray:
    """Hz -> mel, in float32 as in Kaldi."""
    return np.float32(1127) * np.log(np.float32(1) + hertz.astype(np.float32) / np.float32(700))


def inverse_mel_scale(mel: np.ndarray) -> np.ndarray:
    """mel -> Hz, in float32 as in Kaldi."""
    return np.float32(700) * (np.exp(mel.astype(np.float32) / np.float32(1127)) - np.float32(1))


def vtln_warp_mel(mel: np.ndarray, config: FrameConfig) -> np.ndarray:
    """Warped mel frequencies: f / vtln_warp in the middle of the band, linear towards its two ends, which stay put."""
    low, high, warp = config.low_freq, config.mel_high, config.vtln_warp
    vtln_high = config.vtln_high + (config.sample_frequency / 2 if config.vtln_high < 0 else 0)
    left, right = config.vtln_low * max(1.0, warp), vtln_high * min(1.0, warp)
    hertz = inverse_mel_scale(mel).astype(np.float64)
    below = low + (left / warp - low) / (left - low) * (hertz - low)
    above = high + (high - right / warp) / (high - right) * (hertz - high)
    warped = np.where(hertz < left, below, np.where(hertz < right, hertz / warp, above))
    return mel_scale(np.where((hertz < low) | (hertz > high), hertz, warped))


@lru_cache(maxsize=256)
def mel_banks(config: FrameConfig) -> np.ndarray:
    """(padded_size / 2 + 1, num_mel_bins) float32, a filter per column; the last row (the Nyquist frequency) is 0."""
    edges = mel_scale(np.array([config.low_freq, config.mel_high]))
    steps = np.arange(config.num_mel_bins + 2, dtype=np.float32)
    corners = edges[0] + steps * ((edges[1] - edges[0]) / np.float32(config.num_mel_bins + 1))
    if config.vtln_warp != 1:
        corners = vtln_warp_mel(corners, config)
    points = config.padded_size // 2
    mel = mel_scale(np.arange(points, dtype=np.float32) * np.float32(config.sample_frequency / config.padded_size))[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    filters = np.where(mel <= centre, (mel - left) / (centre - left), (right - mel) / (right - centre))
    filters = np.where((mel > left) & (mel < right), filters, np.float32(0))
    if not filters.any(axis=0).all():
        raise PyserError(f"--num-mel-bins={config.num_mel_bins}: a bin would have no point of the {config.padded_size}-point "
                         "spectrum; take fewer bins or longer frames")
    return np.concatenate([filters, np.zeros((1, config.num_mel_bins), np.float32)])


def mel_energies(
    samples: np.ndarray, config: FrameConfig, use_power: bool = True
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of frames of samples (T,): which frames, their mel energies (n, num_mel_bins), their log-energies (n,).

    Dither is drawn from a generator seeded by the samples, so that an utterance has the same features in every job."""
    from scipy.fft import rfft

    frames, banks = frames_of(samples, config), mel_banks(config)
    random = np.random.default_rng(zlib.crc32(samples.tobytes()) if config.dither else 0)
    for first in range(0, len(frames), BLOCK):
        padded, log_energies = window_frames(frames[first : first + BLOCK], config, random)
        spectrum = rfft(padded, axis=1, overwrite_x=True)
        power = spectrum.real**2 + spectrum.imag**2
        yield slice(first, first + len(power)), (power if use_power else np.sqrt(power)) @ banks, log_energies
