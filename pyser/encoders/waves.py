"""Utterances of a Kaldi data directory as speech encoders hear them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.lists import read_dir
from pyser.kaldi.manifests import segment
from pyser.kaldi.resample import resample
from pyser.kaldi.segments import Segment
from pyser.kaldi.wav import INT16, read_audio, read_part

RATE = 16000  # Hz, of all the encoders


class Waves:
    """`waves[utterance]` : samples (T,) float32 between -1 and 1 at RATE, channels averaged; utterances: their names, sorted.

    PyserError names the utterance. `allow_pipes` runs the commands in wav.scp.
    """

    def __init__(self, data_dir: str | Path, allow_pipes: bool = False):
        self.data_dir, self.allow_pipes = data_dir, allow_pipes
        self.lists = read_dir(data_dir)
        self.utterances = sorted(self.lists["utt2spk"])

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, utterance: str) -> np.ndarray:
        try:
            samples, rate = self._read(utterance)
        except PyserError as error:
            raise PyserError(f"{utterance}: {error}") from None
        return resample(samples, Fraction(RATE, rate).limit_denominator(5000)) / np.float32(INT16)

    def inputs(self, utts: Sequence[str]) -> list[str]:
        """The recordings' entries in wav.scp, where there are some."""
        recordings, segments = self.lists["wav.scp"], self.lists.get("segments", {})
        names = (segments[utt].split()[0] if utt in segments else utt for utt in utts)
        return [recordings[name] for name in names if name in recordings]

    def seconds(self, utterance: str) -> float:
        """How long it is, by utt2dur, or else by reading it."""
        known = self.lists.get("utt2dur", {}).get(utterance)
        if known is None:
            return len(self[utterance]) / RATE
        try:
            return float(known)
        except ValueError:
            raise PyserError(f"{self.data_dir}/utt2dur: {utterance}: '{known[:40]}' is no number of seconds") from None

    def _read(self, utterance: str) -> tuple[np.ndarray, int]:
        part = segment(self.lists, utterance, self.data_dir)
        entry = self.lists["wav.scp"].get(part.recording)
        if entry is None:
            raise PyserError(f"no recording {part.recording} in {self.data_dir}/wav.scp; mend it with: pyser data fix")
        if part == Segment(part.recording):
            return read_audio(entry, allow_pipes=self.allow_pipes)
        if entry.rstrip().endswith("|"):
            samples, rate = read_audio(entry, part.channel, self.allow_pipes)
            return part.cut(samples, rate), rate
        return read_part(entry, part, part.channel)
