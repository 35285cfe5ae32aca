"""Does the order of a speaker's utterances tell their emotions? i-vectors that carry over between them then do too."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import NamedTuple

TELLS = 0.1  # what the order must add to guessing before one is told


class Order(NamedTuple):
    """Shares of the utterances, 0 to 1."""

    by_previous: float  # guessed right by the emotion of the speaker's utterance before
    most_frequent: float  # of the most frequent emotion: guessed right by nothing

    @property
    def tells(self) -> bool:
        return self.by_previous - self.most_frequent > TELLS


def order_of(emotions: Mapping[str, str], speakers: Mapping[str, str]) -> Order:
    """utterance -> emotion, utterance -> speaker; a speaker's utterances come in the C order of their names, as spk2utt has
    them. The guess is the emotion that most often follows the one before, counted over the other utterances.

    >>> order_of({"a1": "sad", "a2": "joy", "b1": "sad", "b2": "joy"}, {"a1": "a", "a2": "a", "b1": "b", "b2": "b"})
    Order(by_previous=1.0, most_frequent=0.5)
    """
    before: dict[str, str] = {}  # utterance -> the emotion before it, nothing for a speaker's first
    last: dict[str, str] = {}
    for utt in sorted(emotions, key=str.encode):
        before[utt] = last.get(speakers[utt], "")
        last[speakers[utt]] = emotions[utt]
    follow: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for utt, previous in before.items():
        follow[previous][emotions[utt]] += 1
    right = 0
    for utt, previous in before.items():
        others = follow[previous].copy()
        others[emotions[utt]] -= 1
        right += emotions[utt] == max(sorted(others), key=others.__getitem__) and others[emotions[utt]] > 0
    return Order(right / len(emotions), max(Counter(emotions.values()).values()) / len(emotions))
