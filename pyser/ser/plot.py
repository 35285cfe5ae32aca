"""Posteriors over the time of a recording, as PNG or SVG."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.scoring.figures import new_figure, save
from pyser.ser.predict import Predictor, UtterancePredictor
from pyser.ser.recording import Audio, Recording, read_recording
from pyser.ser.utterances import utterances

SMOOTHING = 0.2  # seconds; of long recordings a 150th of what they last
COLUMNS = 2400  # of pixels that there are, or a little more
WINDOW = 0.025  # seconds of a column of the spectrogram
RANGE = 70.0  # dB below the loudest


def plot_posteriors(predictor: Predictor | UtterancePredictor[Any], audio: Audio, path: str | Path) -> str:
    """Spectrogram and posteriors (stacked, a running mean, of all folds) of `audio`; the decision on the whole in the title.
    Returns what was converted, '' if nothing.

    audio : as `read_recording` takes it, or DATA_DIR:UTTERANCE, which is heard alone: its i-vectors begin anew
    """
    if isinstance(predictor, UtterancePredictor):
        raise PyserError("this system decides of utterances, not of their frames: there is nothing to draw over time")
    recording = _utterance(audio, predictor.rate) or read_recording(audio, predictor.rate)
    feats = predictor.features(recording)
    found = predictor.decide(recording, feats)
    posteriors = predictor.frame_posteriors(feats)
    frames = len(posteriors)
    seconds = predictor.frontend.seconds(frames)
    window = max(SMOOTHING, recording.seconds / 150)
    posteriors = running_mean(posteriors, round(window * frames / recording.seconds))
    some = slice(None, None, ceil(frames / COLUMNS))
    figure = new_figure(10, 5.5)
    above, below = figure.subplots(2, sharex=True, height_ratios=(2, 3))
    above.imshow(spectrogram(recording), origin="lower", aspect="auto", cmap="magma", interpolation="nearest",
                 extent=(0, recording.seconds, 0, recording.rate / 2000))
    above.set_ylabel("kHz")
    colours = [f"C{number}" for number in range(len(predictor.labels))]
    below.stackplot(seconds[some], posteriors[some].T, labels=predictor.labels, colors=colours, linewidth=0)
    below.set(xlim=(0, recording.seconds), ylim=(0, 1), xlabel="seconds", ylabel=f"posterior, mean over {window:.2g} s")
    handles, labels = below.get_legend_handles_labels()
    below.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    ranking = sorted(found.posteriors.items(), key=lambda item: -item[1])
    others = ", ".join(f"{label} {p:.2f}" for label, p in ranking[1:3])
    name = os.fsencode(Path(recording.name).name).decode(errors="replace")
    figure.suptitle(f"{name}: {found.emotion} {found.posteriors[found.emotion]:.2f}   ({others})", parse_math=False)
    save(figure, path)
    return recording.converted


def _utterance(audio: Audio, rate: int) -> Recording | None:
    """The recording of DATA_DIR:UTTERANCE; None of anything else."""
    if isinstance(audio, tuple) or Path(audio).exists():
        return None
    directory, _, name = os.fspath(audio).rpartition(":")
    if not directory or not Path(directory).is_dir():
        return None
    for one in utterances(directory):
        if one.name == name:
            return one.read(rate)
    raise PyserError(f"{directory}: no utterance {name}; its utt2spk has them all")


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """(T, K): row t is the mean of the rows within width // 2 of it, of those that there are."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    at = np.arange(len(values))
    first, last = np.maximum(at - width // 2, 0), np.minimum(at + width // 2 + 1, len(values))
    return np.asarray((sums[last] - sums[first]) / (last - first)[:, None])


def spectrogram(recording: Recording) -> np.ndarray:
    """Power in dB (frequencies, columns), from -RANGE to 0 at the loudest; a column every 5 ms, fewer of long recordings."""
    size = int(WINDOW * recording.rate)
    samples = np.pad(recording.samples, (size // 2, size - size // 2))
    columns = min(COLUMNS, ceil(recording.seconds / 0.005))
    starts = np.linspace(0, len(recording.samples), columns, endpoint=False).astype(int)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[starts] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    floor = max(power.max(), 1e-10) * 10 ** (-RANGE / 10)
    return np.asarray(10 * np.log10(np.maximum(power, floor) / floor) - RANGE).T
