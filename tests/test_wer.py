"""Word errors against Kaldi's compute-wer and against a textbook edit distance."""

from __future__ import annotations

import doctest
import random
from pathlib import Path

import pytest

from pyser.errors import PyserError
from pyser.scoring import wer
from pyser.scoring.wer import Errors, format_wer, score, word_errors

GOLDEN = Path(__file__).parent / "golden/wer"


def read(name):
    return {line.split()[0]: " ".join(line.split()[1:]) for line in (GOLDEN / name).read_text().splitlines()}


@pytest.mark.parametrize("hyp,report", [("hyp", "compute_wer_strict"), ("hyp_missing", "compute_wer_missing_all")])
def test_report_is_kaldis(hyp, report):
    errors, text = score(read("ref.txt"), read(f"{hyp}.txt"))
    expected = (GOLDEN / f"{report}.txt").read_text()
    assert text == expected
    assert format_wer(errors) in expected


def distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_total_is_the_edit_distance():
    rng = random.Random(1)
    for _ in range(100):
        ref, hyp = ([rng.choice("abc") for _ in range(rng.randrange(6))] for _ in range(2))
        errors = word_errors(ref, hyp)
        assert errors.total == distance(ref, hyp)
        assert errors.ins - errors.dels == len(hyp) - len(ref)


def test_empty_sides():
    assert word_errors([], []) == Errors() and Errors().rate == 0
    assert word_errors(["a", "b"], []) == Errors(dels=2, n=2)
    assert word_errors([], ["a"]) == Errors(ins=1) and Errors(ins=1).rate == float("inf")
    assert score({}, {})[0] == Errors()


def test_stranger_is_an_error():
    with pytest.raises(PyserError, match="utt2"):
        score({"utt1": "A"}, {"utt1": "A", "utt2": "B"})


def test_examples():
    assert doctest.testmod(wer).failed == 0
