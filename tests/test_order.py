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
    """As RAVDESS: all speakers have the same blocks. Each block's first is wrong by the one before, not by its place."""
    found = order_of(*corpus(list))
    assert found.most_frequent == 0.25 and found.tells
    assert (found.by_previous, found.by_position) == (pytest.approx(37 / 40), 1.0)


def test_turns_tell():
    """As EmoDB, whose names have each sentence in every emotion, one after the other."""
    assert order_of(*corpus(lambda emotions: list(EMOTIONS) * (len(emotions) // 4))).by_previous == 1.0


def test_one_random_order_for_all_speakers_tells():
    """By its places alone."""
    order = random.Random(3).sample(range(40), 40)
    found = order_of(*corpus(lambda emotions: [emotions[number] for number in order]))
    assert found.by_position == 1.0 and found.by_previous < 0.5 and found.tells


def test_a_lone_speaker_tells_nothing():
    found = order_of(*corpus(lambda emotions: [emotions[13 * number % 40] for number in range(40)], speakers=1))
    assert found == (0.0, 0.0, 0.0, 40)  # nobody else to know it from


def test_random_orders_do_not_tell():
    for seed in range(30):
        generator = random.Random(seed)
        for speakers, each in ((20, 10), (10, 8), (6, 20)):
            emotions, speaker_of = corpus(lambda row, random=generator: random.sample(row, len(row)), speakers, each)
            assert not order_of(emotions, speaker_of).tells


def test_an_order_known_to_nobody_is_guessing():
    """Names that go by emotion and only then by speaker: no speaker has two utterances."""
    emotions = {f"{emotion}-{number:03d}": emotion for emotion in EMOTIONS for number in range(30)}
    assert not order_of(emotions, {utt: utt for utt in emotions}).tells


def test_said_where_ivectors_carry_over():
    told = {"by_previous": 0.883, "by_position": 0.2, "most_frequent": 0.133, "utterances": 1440}
    assert "tells 88.3 % of the emotions (guessing 13.3 %)" in order_warning({"ivector_mode": "carry-over", "order": told})
    assert order_warning({"ivector_mode": "per-utterance", "order": told}) == ""
    assert order_warning({"ivector_mode": "carry-over", "order": told | {"by_previous": 0.2}}) == ""
    assert order_warning({"ivector_mode": "carry-over"}) == ""  # of an older results.json
