"""Data directories to batches of waves and of CTC labels; the same for the same seed and epoch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pyser.encoders.speech import SpeechEncoder
from pyser.encoders.waves import RATE, Waves
from pyser.errors import Dropped, PyserError

LOOKAHEAD = 3  # batches read in the background while the network computes
JITTER = 0.1  # lengths are this uncertain when utterances are sorted by them: other ones meet in each epoch


@dataclass(frozen=True)
class Transcript:
    """What CTC learns from one utterance: its text, normalised, the labels of that, and how long it takes."""

    text: str
    labels: list[int]
    seconds: float


@dataclass(frozen=True)
class Batch:
    """Utterances of one step, samples (T,) of each in `waves`."""

    ids: list[str]
    waves: list[np.ndarray]
    transcripts: list[Transcript]

    def __str__(self) -> str:
        return f"utterances {self.ids[0]} … {self.ids[-1]}" if len(self.ids) > 1 else f"utterance {self.ids[0]}"


def read_transcripts(
    waves: Waves, encoder: SpeechEncoder, max_utt_duration: float, max_dropped: float = 0.05
) -> tuple[dict[str, Transcript], str]:
    """Those of the utterances that CTC can learn from, and the line that says how many were dropped and why. PyserError if
    more than the share `max_dropped` goes."""
    vocabulary, texts = encoder.vocabulary, waves.lists.get("text", {})
    assert vocabulary is not None
    if not texts:
        raise PyserError(f"{waves.data_dir}/text: missing or empty; CTC learns from transcripts")
    dropped, found = Dropped(f"CTC data of {waves.data_dir}", max_dropped), {}
    for name in waves.utterances:
        text, seconds = vocabulary.normalise(texts.get(name, "")), waves.seconds(name)
        labels = vocabulary.encode(text)
        # Between equal labels there is a blank. One frame more than needed, for utt2dur is rounded.
        needed = len(labels) + sum(a == b for a, b in pairwise(labels)) + 1
        if not labels:
            dropped.add(name, "without words")
        elif seconds > max_utt_duration:
            dropped.add(name, f"longer than {max_utt_duration:g} s (--max-utt-duration)")
        elif encoder.num_frames(int(seconds * RATE)) < needed:
            dropped.add(name, "too short for their characters")
        else:
            found[name] = Transcript(text, labels, seconds)
    return found, dropped.finish(len(waves))


@dataclass(frozen=True)
class CtcData:
    """Batches of the utterances that have a transcript.

    max_duration : seconds for each of `world_size` processes, padding included; they share every batch, of which this one
        takes the utterances number `rank`, `rank` + world_size …
    In training utterances of similar length meet in a batch, and batches come in another order in each epoch; else all are
    sorted by length.
    """

    waves: Waves
    transcripts: Mapping[str, Transcript]
    max_duration: float
    seed: int
    training: bool
    rank: int = 0
    world_size: int = 1

    def groups(self, epoch: int) -> list[list[str]]:
        """Utterances of each batch, of all processes."""
        rng = np.random.default_rng([self.seed, epoch])
        names = list(self.transcripts)
        length = np.array([self.transcripts[name].seconds for name in names])
        order = np.argsort(length * rng.uniform(1, 1 + JITTER * self.training, len(names)), kind="stable")
        groups: list[list[str]] = []
        longest = 0.0
        for number in order:
            longest = max(longest, length[number])
            if not groups or longest * (len(groups[-1]) + 1) > self.max_duration * self.world_size:
                groups.append([])
                longest = length[number]
            groups[-1].append(names[number])
        if self.training:
            groups = [groups[place] for place in rng.permutation(len(groups))]
        return [group for group in groups if len(group) >= self.world_size]

    def batches(self, epoch: int) -> Iterator[Batch]:
        """All utterances once (of this process)."""
        with ThreadPoolExecutor(1) as pool:
            pending: deque[Future[Batch]] = deque()
            for group in self.groups(epoch):
                pending.append(pool.submit(self._load, group[self.rank :: self.world_size]))
                if len(pending) > LOOKAHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _load(self, ids: list[str]) -> Batch:
        return Batch(ids, [self.waves[name] for name in ids], [self.transcripts[name] for name in ids])
