"""Numerators of utterances whose phones have times: phones.ctm of `pyser chain align`, or of Kaldi's ali-to-phones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.files import read_lines
from pyser.kaldi.manifests import FRAME_SHIFT
from pyser.lang.supervision import SupervisionCompiler

MAX_ARCS = 20_000_000  # of the graphs kept for the epochs to come, 20 bytes each


@dataclass(frozen=True)
class PhoneTimes:
    """phones : their numbers. ends : of each, in frames of the input from the utterance's beginning."""

    phones: tuple[int, ...]
    ends: tuple[int, ...]

    def durations(self, frames: int, speed: float = 1.0) -> list[int] | None:
        """Frames of each phone, played `speed` times as fast, such that their sum is `frames`: the last ones make room or
        fill up. None where there are fewer frames than phones."""
        later = range(len(self.ends) - 1, -1, -1)
        played = (round(end / speed) for end in self.ends[:-1])
        ends = [0, *(min(end, frames - phones) for end, phones in zip(played, later, strict=False)), frames]
        durations = [end - start for start, end in zip(ends[:-1], ends[1:], strict=True)]
        return durations if min(durations) > 0 else None


def read_phones(path: str | Path, tokens: dict[str, int]) -> dict[str, PhoneTimes]:
    """Utterance -> its phones, from lines `utterance channel start length phone` in seconds. The phones of an utterance
    stand together, in order, silence among them, each beginning where the one before ends."""
    phones: dict[str, list[int]] = {}
    ends: dict[str, list[int]] = {}
    for number, line in enumerate(read_lines(path), 1):
        try:
            utterance, _, start, length, phone, *_ = line.split()
            begin = float(start)
            end = begin + float(length)
            if not 0 <= begin < end < math.inf:
                raise ValueError
        except ValueError:
            raise PyserError(f"{path}, line {number}: not `utterance channel start length phone`") from None
        if phone not in tokens:
            raise PyserError(f"{path}, line {number}: '{phone}' is no phone of tokens.txt; align with that lang directory")
        before = ends.setdefault(utterance, [])
        if abs(round(begin / FRAME_SHIFT) - (before[-1] if before else 0)) > 1:
            end_before = (before[-1] if before else 0) * FRAME_SHIFT
            raise PyserError(f"{path}, line {number}: {utterance}: phone {phone} begins at {begin:.2f} s, the one before "
                             f"ends at {end_before:.2f} s; silence must have lines too")
        before.append(round(end / FRAME_SHIFT))
        phones.setdefault(utterance, []).append(tokens[phone])
    return {utterance: PhoneTimes(tuple(phones[utterance]), tuple(ends[utterance])) for utterance in phones}


class AlignedNumerators:
    """Numerator graphs with each phone near its time (see SupervisionCompiler).

    otherwise : gives the graph of an utterance (and its transcript) without an alignment, or whose alignment has no path
    """

    def __init__(self, times: dict[str, PhoneTimes], compiler: SupervisionCompiler, otherwise: Callable[[str, str], Graph]):
        self.times, self.compiler, self.otherwise = times, compiler, otherwise
        self.room = MAX_ARCS
        self._cache: dict[tuple[str, int, float], Graph | None] = {}

    def __call__(
        self, ids: Sequence[str], texts: Sequence[str], lengths: Sequence[int], speeds: Sequence[float]
    ) -> list[Graph]:
        """One for each utterance of so many frames of the output at that speed."""
        rows = zip(ids, texts, lengths, speeds, strict=True)
        return [self.compile(utterance, length, speed) or self.otherwise(utterance, text)
                for utterance, text, length, speed in rows]

    def compile(self, utterance: str, length: int, speed: float = 1.0) -> Graph | None:
        """Of `length` frames of the output; None where nothing fits."""
        key = utterance, length, speed
        if key in self._cache:
            return self._cache[key]
        graph = None
        if utterance in self.times:
            durations = self.times[utterance].durations(length * self.compiler.config.frame_subsampling_factor, speed)
            if durations is not None:
                graph = self.compiler.compile(self.times[utterance].phones, durations)
        size = 1 if graph is None else len(graph.arcs)
        if size <= self.room:
            self.room -= size
            self._cache[key] = graph
        return graph
