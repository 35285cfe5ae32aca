"""Speed perturbation while training: features and i-vectors computed anew from the audio (Ko et al., "Audio augmentation for
speech recognition", Interspeech 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.features.compute import features
from pyser.features.mfcc import MfccConfig
from pyser.ivector.directory import OnlineExtractor
from pyser.ivector.online import extract_utterance
from pyser.kaldi.datadir import read_dir
from pyser.kaldi.manifests import segment
from pyser.kaldi.resample import resample
from pyser.kaldi.segments import Segment
from pyser.kaldi.wav import parse_entry, read_audio, read_part

EDGE = 3  # frames: what windows at the ends add to a duration, and rounding


@dataclass(frozen=True)
class SpeedPerturber:
    """Utterances of a data directory played at one of `factors` times their speed.

    mfcc : as the directory's features were made. extractor : of the i-vectors, None for none; each utterance's own,
    without those before it.
    """

    data_dir: Path
    factors: tuple[float, ...]
    mfcc: MfccConfig
    extractor: OnlineExtractor | None = None
    sources: dict[str, tuple[str, Segment]] = field(init=False)  # utterance -> entry of wav.scp, part of it

    def __post_init__(self) -> None:
        if not self.factors or not all(0.1 <= factor <= 10 for factor in self.factors):
            raise PyserError(f"speeds {self.factors}: give factors such as 0.9,1.0,1.1")
        lists = read_dir(self.data_dir)
        sources = {}
        for utt in lists["utt2spk"]:
            part = segment(lists, utt, self.data_dir)
            entry = lists["wav.scp"].get(part.recording)
            if entry is None or parse_entry(entry) is None:
                what = "no recording" if entry is None else "a command, which could not be run in every epoch,"
                raise PyserError(f"{self.data_dir}/wav.scp: {what} for {utt}; speeds are perturbed from audio files")
            sources[utt] = entry, part
        object.__setattr__(self, "sources", sources)

    def most_frames(self, frames: int, factor: float) -> int:
        """At least as many as an utterance of so many frames will have."""
        return int(np.ceil((frames + EDGE) / factor))

    def __call__(self, utterance: str, factor: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Features (T, D) and i-vectors (rows, D) at that speed; PyserError names the utterance."""
        try:
            samples, rate = self._audio(utterance)
            # Played `factor` times as fast; as in pyser.kaldi.wav.
            samples = resample(samples, (1 / Fraction(factor).limit_denominator(100)).limit_denominator(5000))
            feats = features(samples, rate, self.mfcc)
        except PyserError as error:
            raise PyserError(f"{utterance} at speed {factor:g}: {error}") from None
        return feats, None if self.extractor is None else extract_utterance(self.extractor, feats)

    def _audio(self, utterance: str) -> tuple[np.ndarray, int]:
        entry, part = self.sources[utterance]
        channel = max(part.channel if part.channel >= 0 else self.mfcc.channel, 0)
        return read_audio(entry, channel) if part == Segment(part.recording) else read_part(entry, part, channel)
