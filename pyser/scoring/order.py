"""Does the order of a speaker's utterances tell their emotions? Then i-vectors that carry over between them do too."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

TELLS = 0.1  # what the order must add to guessing before it is worth a word; and five times what chance would


class Order(NamedTuple):
    """Shares of the utterances, 0 to 1, whose emotion is guessed right: by the emotion of the speaker's utterance before, by
    how many the speaker has said before, and always guessing the most frequent one. All three know other speakers only."""

    by_previous: float
    by_position: float
    most_frequent: float
    utterances: int

    @property
    def best(self) -> float:
        return max(self.by_previous, self.by_position)

    @property
    def tells(self) -> bool:
        chance = math.sqrt(self.most_frequent * (1 - self.most_frequent) / self.utterances)
        return self.best - self.most_frequent > max(TELLS, 5 * chance)


def order_of(emotions: Mapping[str, str], speakers: Mapping[str, str]) -> Order:
    """utterance -> emotion, utterance -> speaker. A speaker's utterances come in the C order of their names, as in spk2utt.
    Guessed is what most often follows, or stands there, with other speakers: their most frequent emotion, if nothing does.

    >>> emotions = {"a1": "sad", "a2": "joy", "b1": "sad", "b2": "joy"}
    >>> order_of(emotions, {utt: utt[0] for utt in emotions})
    Order(by_previous=1.0, by_position=1.0, most_frequent=0.5, utterances=4)
    """
    said: defaultdict[str, list[str]] = defaultdict(list)  # speaker -> emotions in order
    for utt in sorted(emotions, key=str.encode):
        said[speakers[utt]].append(emotions[utt])
    previous = {speaker: list(zip(["", *row], row, strict=False)) for speaker, row in said.items()}
    position = {speaker: [(str(number), emotion) for number, emotion in enumerate(row)] for speaker, row in said.items()}
    nothing = {speaker: [("", emotion) for emotion in row] for speaker, row in said.items()}
    guessed = [_guessed(pairs) / len(emotions) for pairs in (previous, position, nothing)]
    return Order(guessed[0], guessed[1], guessed[2], len(emotions))


def _guessed(pairs: Mapping[str, list[tuple[str, str]]]) -> int:
    """pairs: speaker -> what is known of an utterance, and its emotion. How many emotions the other speakers' pairs tell."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in pairs.values():
        for known, emotion in row:
            counts[known][emotion] += 1
    total = sum(counts.values(), Counter())
    right = 0
    for row in pairs.values():
        own: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for known, emotion in row:
            own[known][emotion] += 1
        fallback = total - sum(own.values(), Counter())
        guess = {known: _most(counts[known] - own[known]) or _most(fallback) for known in own}
        right += sum(guess[known] == emotion for known, emotion in row)
    return right


def _most(counts: Counter[str]) -> str:
    """The most frequent one; of equal ones the first by name; "" of none."""
    return min(counts, key=lambda one: (-counts[one], one), default="")
