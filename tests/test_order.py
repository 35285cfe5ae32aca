"""Does the order of a speaker's utterances tell their emotions: counted, and said where i-vectors carry over."""

import doctest
import random

import pytest

from pyser.scoring import order
from pyser.scoring.order import order_of
from pyser.scoring.tables import order_warning

EMOTIONS = ("ang", "hap", "neu", "sad")


def corpus(arrange, speakers=20, each=10):
    """arrange: the emotions of one speaker -> in the order of the utterances' names."""
    emotions, speaker_of = {}, {}
    for speaker in range(speakers):
        for number, emotion in enumerate(arrange([emotion for emotion in EMOTIONS for _ in range(each)])):
            emotions[f"s{speaker:02d}-{number:03d}"] = emotion
            speaker_of[f"s{speaker:02d}-{number:03d}"] = f"s{speaker:02d}"
    return emotions, speaker_of


def test_examples():
    assert doctest.testmod(order).attempted > 0 and doctest.testmod(order).failed == 0


def test_blocks_of_one_emotion_tell():
    """As RAVDESS: wrong at the first of each block but the speaker's first, of which all speakers have the same."""
    found = order_of(*corpus(list))
    assert found.most_frequent == 0.25 and found.by_previous == pytest.approx(37 / 40) and found.tells


def test_turns_tell():
    """As EmoDB, whose names have each sentence in every emotion, one after the other."""
    found = order_of(*corpus(lambda emotions: list(EMOTIONS) * (len(emotions) // 4)))
    assert found.by_previous == 1.0 and found.tells


def test_random_order_does_not_tell():
    generator = random.Random(0)
    found = order_of(*corpus(lambda emotions: generator.sample(emotions, len(emotions))))
    assert found.by_previous == pytest.approx(0.25, abs=0.06) and not found.tells


def test_speakers_are_kept_apart():
    """Names that go by emotion and only then by speaker: no speaker has two utterances."""
    emotions = {f"{emotion}-{number:03d}": emotion for emotion in EMOTIONS for number in range(30)}
    assert not order_of(emotions, {utt: utt for utt in emotions}).tells


def test_said_where_ivectors_carry_over():
    told, not_told = {"by_previous": 0.883, "most_frequent": 0.133}, {"by_previous": 0.2, "most_frequent": 0.133}
    assert "88.3 %" in order_warning({"ivector_mode": "carry-over", "order": told})
    assert order_warning({"ivector_mode": "per-utterance", "order": told}) == ""
    assert order_warning({"ivector_mode": "carry-over", "order": not_told}) == ""
