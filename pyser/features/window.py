"""Frames of a waveform, windowed (feat/feature-window.{h,cc}), and the options that MFCC and filterbanks share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from math import isfinite

import numpy as np

from pyser.errors import PyserError

EPSILON = np.finfo(np.float32).eps  # the floor of energies before a logarithm
WINDOW_TYPES = ("povey", "hamming", "hanning", "sine", "rectangular", "blackman")


@dataclass(frozen=True)
class FrameConfig:
    """The options that Kaldi's compute-mfcc-feats and compute-fbank-feats share, by their names there.

    frame_length and frame_shift in ms, frequencies in Hz (high_freq <= 0 and vtln_high < 0: below the Nyquist frequency
    by that much), min_duration in s. The defaults are Kaldi's but for dither, which is 0 (there 1.0), so that numbers repeat.
    channel -1 is the first one. max_feature_vectors and debug_mel change nothing in what is computed from whole recordings.
    """

    sample_frequency: int = 16000
    frame_length: float = 25.0
    frame_shift: float = 10.0
    preemphasis_coefficient: float = 0.97
    remove_dc_offset: bool = True
    dither: float = 0.0
    window_type: str = "povey"
    blackman_coeff: float = 0.42
    round_to_power_of_two: bool = True
    snip_edges: bool = True
    allow_downsample: bool = False
    allow_upsample: bool = False
    num_mel_bins: int = 23
    low_freq: float = 20.0
    high_freq: float = 0.0
    vtln_low: float = 100.0
    vtln_high: float = -500.0
    vtln_warp: float = 1.0
    use_energy: bool = True
    raw_energy: bool = True
    energy_floor: float = 0.0
    htk_compat: bool = False
    subtract_mean: bool = False
    channel: int = -1
    min_duration: float = 0.0
    output_format: str = "kaldi"
    max_feature_vectors: int = -1
    debug_mel: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not isfinite(value):
                raise PyserError(f"--{field.name.replace('_', '-')}={value}: expected a finite number")
        if self.output_format != "kaldi":
            raise PyserError(f"--output-format={self.output_format}: only Kaldi's archives are written here; leave it out")
        nyquist, low, high = self.sample_frequency / 2, self.low_freq, self.mel_high
        if self.window_type not in WINDOW_TYPES:
            raise PyserError(f"--window-type={self.window_type}: expected one of {' '.join(WINDOW_TYPES)}")
        if self.shift < 1 or self.size < 2 or self.padded_size % 2:
            raise PyserError(f"--frame-length={self.frame_length:g} --frame-shift={self.frame_shift:g}: {self.size} and "
                             f"{self.shift} samples; the frame must have an even number of samples, the shift one at least")
        if not 0 <= self.preemphasis_coefficient <= 1:
            raise PyserError(f"--preemphasis-coefficient={self.preemphasis_coefficient:g} is not between 0 and 1")
        if not (0 <= low < high <= nyquist):
            raise PyserError(f"--low-freq={low:g} --high-freq={self.high_freq:g} is no band below the Nyquist frequency, "
                             f"{nyquist:g} Hz")
        if self.num_mel_bins < 3:
            raise PyserError(f"--num-mel-bins={self.num_mel_bins}: there must be 3 at least")
        vtln_high = self.vtln_high + (nyquist if self.vtln_high < 0 else 0)
        if self.vtln_warp != 1 and not (self.vtln_warp > 0 and low < self.vtln_low < vtln_high < high):
            raise PyserError(f"--vtln-warp={self.vtln_warp:g} --vtln-low={self.vtln_low:g} --vtln-high={self.vtln_high:g}: "
                             f"the warp must be positive, the limits between {low:g} and {high:g} Hz")

    @property
    def shift(self) -> int:
        """Samples from one frame to the next."""
        return int(self.sample_frequency * 0.001 * float(np.float32(self.frame_shift)))  # (ms are a float in Kaldi)

    @property
    def size(self) -> int:
        """Samples of a frame."""
        return int(self.sample_frequency * 0.001 * float(np.float32(self.frame_length)))

    @property
    def padded_size(self) -> int:
        """Points of the Fourier transform."""
        return 1 << (self.size - 1).bit_length() if self.round_to_power_of_two else self.size

    @property
    def mel_high(self) -> float:
        """Upper edge of the last mel bin in Hz."""
        return self.high_freq if self.high_freq > 0 else self.sample_frequency / 2 + self.high_freq


def num_frames(samples: int, config: FrameConfig) -> int:
    """Frames of a waveform of that many samples: those that fit whole, or without snip_edges one per shift (rounded)."""
    if config.snip_edges:
        return 0 if samples < config.size else 1 + (samples - config.size) // config.shift
    return (samples + config.shift // 2) // config.shift


def frames_of(samples: np.ndarray, config: FrameConfig) -> np.ndarray:
    """Samples (T,) -> (frames, size), a view: frame t is shift * t further on; without snip_edges frames are centred on
    the middles of the shifts and the waveform is reflected at its ends."""
    count, first = num_frames(len(samples), config), 0
    if not count:
        return np.empty((0, config.size), samples.dtype)
    if not config.snip_edges:
        first = config.shift // 2 - config.size // 2
        after = first + (count - 1) * config.shift + config.size - len(samples)
        samples = np.pad(samples, (max(0, -first), max(0, after)), mode="symmetric")
        first = max(0, first)
    windows = np.lib.stride_tricks.sliding_window_view(samples, config.size)[first :: config.shift]
    return windows[:count]


@lru_cache(maxsize=8)
def window_function(config: FrameConfig) -> np.ndarray:
    """(size,) float32."""
    angle = 2 * np.pi / (config.size - 1) * np.arange(config.size)
    blackman = config.blackman_coeff - 0.5 * np.cos(angle) + (0.5 - config.blackman_coeff) * np.cos(2 * angle)
    hanning = 0.5 - 0.5 * np.cos(angle)
    window = {"povey": hanning**0.85, "hanning": hanning, "hamming": 0.54 - 0.46 * np.cos(angle), "blackman": blackman,
              "sine": np.sin(0.5 * angle), "rectangular": np.ones(config.size)}[config.window_type]
    return window.astype(np.float32)


def window_frames(
    frames: np.ndarray, config: FrameConfig, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (n, size) -> windowed (n, padded_size) float32, ready to be transformed, and their log-energies (n,)."""
    frames = frames.astype(np.float32)  # a copy, 1.6 kB a frame
    if config.dither:
        frames += np.float32(config.dither) * random.standard_normal(frames.shape, np.float32)
    if config.remove_dc_offset:
        frames -= frames.mean(axis=1, keepdims=True)
    energies = np.einsum("ts,ts->t", frames, frames) if config.raw_energy else None
    padded = np.zeros((len(frames), config.padded_size), np.float32)
    windowed = padded[:, : config.size]
    coefficient = np.float32(config.preemphasis_coefficient)
    np.multiply(frames[:, :-1], -coefficient, out=windowed[:, 1:])
    windowed[:, 0] = -coefficient * frames[:, 0]  # a frame's first sample precedes itself
    windowed += frames
    windowed *= window_function(config)
    if energies is None:
        energies = np.einsum("ts,ts->t", windowed, windowed)
    log_energies = np.log(np.maximum(energies, EPSILON))
    if config.energy_floor > 0:
        log_energies = np.maximum(log_energies, np.float32(np.log(config.energy_floor)))
    return padded, log_energies
