"""Segments of recordings, as featbin/extract-segments.cc takes them: lines `utterance recording start end [channel]`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.scripts import GAP, decode, keyed
from pyser.kaldi.stream import open_input

SHORTEST = float(np.float32(0.1))  # seconds; extract-segments' --min-segment-length, in single precision as there
OVERSHOOT = 0.5  # seconds by which a segment may end after its recording; it is cut back then


class BadSegment(PyserError):
    """Why extract-segments leaves a segment out."""


@dataclass(frozen=True)
class Segment:
    """Times in seconds, end -1 for the end of the recording; channel -1: not said, the recording has but one."""

    recording: str
    start: float = 0.0
    end: float = -1.0
    channel: int = -1

    @classmethod
    def parse(cls, value: str) -> Segment:
        """Of what follows the utterance in a line; BadSegment where it is none."""
        fields = GAP.split(value)
        if len(fields) not in (3, 4):
            raise BadSegment(f"expected 'recording start end' and at most a channel, found '{value[:60]}'")
        start, end = _number(fields[1]), _number(fields[2])
        if not (start >= 0 and (end > start or end == -1)):
            raise BadSegment(f"from {fields[1]} to {fields[2]} is no segment; its end must be after its start")
        if len(fields) == 4 and not (fields[3].isascii() and fields[3].isdigit()):
            raise BadSegment(f"'{fields[3]}' is no channel; the first is 0")
        return cls(fields[0], start, end, int(fields[3]) if len(fields) == 4 else -1)

    def within(self, length: int, rate: float) -> tuple[float, float]:
        """Start and end in a recording of `length` samples; BadSegment where it does not fit or is too short."""
        single = np.float32(length) / np.float32(rate)
        duration, latest = float(single), float(single + np.float32(OVERSHOOT))
        end = duration if self.end == -1 else self.end
        if self.start > duration or end > latest:
            raise BadSegment(f"segment {self.start:g}-{self.end:g} s does not fit into {duration:.2f} s of recording")
        end = min(end, duration)
        if end - self.start < SHORTEST:
            raise BadSegment(f"segment {self.start:g}-{self.end:g} s is shorter than {SHORTEST:g} s; Kaldi leaves such "
                             "segments out too")
        return self.start, end

    def cut(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Its samples of those of the recording (T,), times rounded to the nearest one."""
        start, end = self.within(len(samples), rate)
        return samples[int(start * rate + 0.5) : int(end * rate + 0.5)]


def _number(text: str) -> float:
    """nan if it is no finite number (which no comparison holds for)."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) and "_" not in text else math.nan


def read_segments(rxfilename: str, allow_pipes: bool = False) -> Iterator[tuple[str, Segment | BadSegment]]:
    """(utterance, its segment or what is wrong with it) of each line of a segments file."""
    with open_input(rxfilename, allow_pipes) as stream:
        text = decode(stream.rest(), stream.name)
    seen = set()
    for number, (utt, value) in enumerate(keyed(text), start=1):
        if utt and utt in seen:
            raise PyserError(f"{stream.name}:{number}: {utt} occurs twice; make the keys unique")
        seen.add(utt)
        try:
            yield utt or f"line {number}", Segment.parse(value)
        except BadSegment as error:
            yield utt or f"line {number}", error
