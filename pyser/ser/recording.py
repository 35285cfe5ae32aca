"""A recording as the networks hear it: one channel, at their sampling rate."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.resample import resample
from pyser.kaldi.wav import INT16, read_counted, read_file

Audio = str | os.PathLike[str] | tuple[np.ndarray, int]


@dataclass(frozen=True)
class Recording:
    """samples (T,) float32 in int16 scale at `rate` Hz; `converted` says what they were made from, '' if from the like."""

    name: str
    samples: np.ndarray
    rate: int
    converted: str = ""

    @classmethod
    def of(cls, name: str, samples: np.ndarray, given: int, rate: int, channels: int = 1) -> Recording:
        """At `rate` Hz, of samples (T,) at `given` Hz that are the mean of so many channels."""
        several = f", {channels} channels" if channels > 1 else ""
        converted = f"{given} Hz{several} -> {rate} Hz mono" if several or given != rate else ""
        return cls(name, resample(samples, Fraction(rate, given).limit_denominator(5000)), rate, converted)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def read_recording(audio: Audio, rate: int) -> Recording:
    """`audio` at `rate` Hz, its channels averaged; PyserError says what is wrong with it.

    audio : a path (any format, and whatever wav.scp may hold without --allow-pipes), or (samples, rate), samples (T,) or
        (T, channels), floats between -1 and 1 or int16
    """
    if not isinstance(audio, tuple):
        entry = os.fspath(audio)
        samples, given, channels = read_counted(entry)
        return Recording.of(entry, samples, given, rate, channels)
    samples, given = np.asarray(audio[0]), int(audio[1])
    if samples.ndim not in (1, 2) or not samples.size or given < 1:
        raise PyserError(f"samples of shape {samples.shape} at {given} Hz; expected (T,) or (T, channels)")
    if samples.dtype.kind != "f" and samples.dtype != np.int16:
        raise PyserError(f"samples of type {samples.dtype}; give floats between -1 and 1, or int16")
    scale = np.float32(INT16 if samples.dtype.kind == "f" else 1)
    columns = samples.reshape(len(samples), -1).astype(np.float32) * scale
    if not np.isfinite(columns).all():
        raise PyserError("not a number or infinite among the samples; mend them")
    return Recording.of("samples", columns.mean(axis=1), given, rate, columns.shape[1])


def decode_recording(data: bytes, name: str, rate: int) -> Recording:
    """The recording in the bytes of an audio file, as `read_recording`; messages call it `name`."""
    samples, given, channels = read_file(io.BytesIO(data), name)
    return Recording.of(name, samples, given, rate, channels)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put `name` in front of what is wrong inside the block."""
    try:
        yield
    except PyserError as error:
        raise PyserError(f"{name}: {error}") from None
