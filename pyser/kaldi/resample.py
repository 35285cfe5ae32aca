"""Change of the sampling rate with Kaldi's numbers (feat/resample.cc: LinearResample, ResampleWaveform)."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np

CUTOFF = 0.99 * 0.5  # of the lower of the two rates
NUM_ZEROS = 6  # of the sinc function on each side
BLOCK = 16384  # output samples at once


@lru_cache(maxsize=8)
def filters(ratio: Fraction) -> tuple[np.ndarray, np.ndarray]:
    """For each of the `ratio.numerator` places an output sample can have between input samples: the first input sample
    under the filter, (P,) int, and the filter, (P, L) float32; a Hann-windowed sinc."""
    rate_in, rate_out = ratio.denominator, ratio.numerator
    cutoff = CUTOFF * min(rate_in, rate_out)
    half = NUM_ZEROS / (2 * cutoff)  # in units of time in which rate_in samples come in
    times = np.arange(rate_out) / rate_out
    first = np.ceil((times - half) * rate_in).astype(int)
    length = int((np.floor((times + half) * rate_in).astype(int) - first).max()) + 1
    distance = (first[:, None] + np.arange(length)) / rate_in - times[:, None]
    window = np.where(np.abs(distance) < half, 0.5 + 0.5 * np.cos(2 * np.pi * cutoff / NUM_ZEROS * distance), 0)
    return first, (2 * cutoff / rate_in * np.sinc(2 * cutoff * distance) * window).astype(np.float32)


def resample(samples: np.ndarray, ratio: Fraction) -> np.ndarray:
    """Samples (T,) at `ratio` times their rate: (ceil(T * ratio),) float32. Beyond both ends the signal is 0."""
    samples = np.asarray(samples, np.float32)
    if ratio == 1 or not len(samples):
        return samples
    first, weights = filters(ratio)
    rate_in, rate_out, length = ratio.denominator, ratio.numerator, weights.shape[1]
    total = -(-len(samples) * rate_out // rate_in)
    before = max(0, -int(first.min()))
    padded = np.concatenate([np.zeros(before, np.float32), samples, np.zeros(length + rate_in, np.float32)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, length)
    output = np.empty(total, np.float32)
    periods = max(1, BLOCK // rate_out)
    for period in range(0, -(-total // rate_out), periods):  # in a period of rate_out outputs, the filters take turns
        block = output[period * rate_out : (period + periods) * rate_out]
        for place in range(min(rate_out, len(block))):
            start = before + int(first[place]) + period * rate_in
            count = len(block[place::rate_out])
            block[place::rate_out] = np.ascontiguousarray(windows[start::rate_in][:count]) @ weights[place]
    return output
