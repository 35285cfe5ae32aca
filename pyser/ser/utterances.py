"""What is to be predicted: audio files, standard input, the utterances of Kaldi data directories."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.lists import read_dir, spk2utts
from pyser.kaldi.segments import Segment
from pyser.kaldi.wav import read_counted
from pyser.ser.recording import Recording, decode_recording, naming, read_recording


@dataclass(frozen=True)
class Utterance:
    """`read` gives its recording at so many Hz. source: the file or directory that it is of. speaker: '' where nothing is
    known of other utterances of his."""

    name: str
    source: str
    speaker: str
    read: Callable[[int], Recording]


def utterances(source: str, allow_pipes: bool = False) -> list[Utterance]:
    """The one of an audio file or of standard input (`-`), or all of a Kaldi data directory, in the order of its spk2utt;
    `allow_pipes` runs the commands in its wav.scp."""
    if source == "-":
        return [Utterance(source, "standard input", "", _standard_input)]
    if not Path(source).is_dir():
        return [Utterance(source, source, "", partial(read_recording, source))]
    lists = read_dir(source)
    wavs, segments = lists["wav.scp"], lists.get("segments")

    @lru_cache(maxsize=1)  # (the segments of a recording follow each other)
    def whole(name: str, channel: int) -> tuple[np.ndarray, int, int]:
        if name not in wavs:
            raise PyserError(f"no recording {name} in {source}/wav.scp; run `pyser data fix`")
        samples, rate, channels = read_counted(wavs[name], channel, allow_pipes)
        return samples, rate, channels if channel == -1 else 1

    def read(utt: str, rate: int) -> Recording:
        with naming(utt):
            if segments is not None and utt not in segments:
                raise PyserError(f"not in {source}/segments; run `pyser data fix`")
            part = Segment(utt) if segments is None else Segment.parse(segments[utt])
            samples, given, channels = whole(part.recording, part.channel)
            return Recording.of(utt, samples if segments is None else part.cut(samples, given), given, rate, channels)

    return [Utterance(utt, source, speaker, partial(read, utt))
            for speaker, utts in spk2utts(lists["utt2spk"]).items() for utt in utts]


def _standard_input(rate: int) -> Recording:
    data = sys.stdin.buffer.read()
    if not data:
        raise PyserError("standard input: empty; send it the bytes of one audio file")
    return decode_recording(data, "standard input", rate)
