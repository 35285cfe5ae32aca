"""Metrics and paired tests against numbers worked out by hand."""

import doctest
import math

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.scoring import metrics, significance
from pyser.scoring.figures import plot_confusion
from pyser.scoring.significance import mcnemar, paired_bootstrap

COUNTS = np.array([[3, 1, 0], [0, 1, 1], [1, 0, 1]])  # recalls 3/4, 1/2, 1/2


def test_doctests():
    for module in (metrics, significance):
        assert doctest.testmod(module).failed == 0


def test_confusion_counts():
    refs = list("aaaabbcc")
    hyps = list("aaabbcca")
    assert metrics.confusion(refs, hyps, "abc").tolist() == COUNTS.tolist()
    with pytest.raises(PyserError, match="label 'd' is not in the label set"):
        metrics.confusion(["a"], ["d"], "abc")
    with pytest.raises(PyserError, match="2 references but 1 hypotheses"):
        metrics.confusion(["a", "b"], ["a"], "abc")


def test_figures_by_hand():
    figures = metrics.figures(COUNTS)
    assert figures["ua"] == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    assert figures["wa"] == pytest.approx(5 / 8)
    # F1 = 2 tp / (references + hypotheses): a 6/8, b 2/4, c 2/4
    assert figures["macro_f1"] == pytest.approx((6 / 8 + 2 / 4 + 2 / 4) / 3)


def test_absent_class_does_not_count():
    counts = np.array([[2, 0, 0], [1, 1, 0], [0, 0, 0]])  # the third class has neither references nor hypotheses
    assert metrics.unweighted_accuracy(counts) == pytest.approx(0.75)
    assert metrics.macro_f1(counts) == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert math.isnan(metrics.recalls(counts)[2])
    counts[0] = [1, 0, 1]  # now it was recognised once: no recall, but an F1 of 0
    assert metrics.unweighted_accuracy(counts) == pytest.approx(0.5)
    assert metrics.macro_f1(counts) == pytest.approx((2 / 4 + 2 / 3 + 0) / 3)


def test_chance_and_one_class_answers():
    counts = np.array([[90, 0], [10, 0]])  # everything recognised as the frequent class
    assert metrics.weighted_accuracy(counts) == pytest.approx(0.9)
    assert metrics.unweighted_accuracy(counts) == pytest.approx(0.5)


def test_mcnemar_exact():
    a = [True] * 9 + [False] * 1 + [True] * 50
    b = [False] * 9 + [True] * 1 + [True] * 50
    only_a, only_b, p = mcnemar(a, b)
    assert (only_a, only_b) == (9, 1)
    assert p == pytest.approx(2 * (1 + 10) / 2**10)  # two-sided binomial: 0 or 1 of 10
    assert mcnemar([True] * 5, [True] * 5) == (0, 0, 1.0)
    assert mcnemar(list(np.ones(100, bool)), list(np.zeros(100, bool)))[2] == pytest.approx(2.0**-99)
    only_a, only_b, p = mcnemar([True] * 4000, [False] * 4000)
    assert only_a == 4000 and p == 0.0 or p < 1e-300  # no overflow


def test_bootstrap_observed_values_and_interval():
    refs = ["a"] * 60 + ["b"] * 40
    a = np.array([1] * 30 + [0] * 30 + [1] * 20 + [0] * 20)
    b = np.array([1] * 45 + [0] * 15 + [1] * 20 + [0] * 20)
    found = paired_bootstrap(refs, a, b)
    assert found["wa"].value == pytest.approx(0.15)
    assert found["ua"].value == pytest.approx((15 / 60 + 0) / 2)
    # of 100 utterances 15 gain: the standard error is sqrt(.15 * .85 / 100)
    width = 2 * 1.96 * math.sqrt(0.15 * 0.85 / 100)
    assert found["wa"].high - found["wa"].low == pytest.approx(width, rel=0.08)
    assert found["wa"].low > 0 and found["wa"].p < 0.001
    assert found == paired_bootstrap(refs, a, b)  # seeded


def test_bootstrap_equal_systems():
    right = np.array([1, 0, 1, 1, 0, 1])
    same = paired_bootstrap(list("aabbcc"), right, right)
    assert same["ua"].value == 0 and same["ua"].p == 1.0


def test_bootstrap_matches_drawing_utterances():
    rng = np.random.default_rng(1)
    refs = rng.choice(list("abc"), 200, p=[0.6, 0.3, 0.1])
    a, b = rng.random(200) < 0.6, rng.random(200) < 0.66
    found = paired_bootstrap(list(refs), a, b)
    draws = []
    for _ in range(3000):
        at = rng.integers(0, 200, 200)
        gain = b[at].astype(float) - a[at]
        draws.append(np.mean([gain[refs[at] == c].mean() for c in "abc"]))
    assert found["ua"].low == pytest.approx(np.percentile(draws, 2.5), abs=0.02)
    assert found["ua"].high == pytest.approx(np.percentile(draws, 97.5), abs=0.02)


def test_figure_is_a_png(tmp_path):
    path = tmp_path / "confusion.png"
    plot_confusion(COUNTS, ["ang", "neu", "sad"], path, "a system")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(PyserError, match="confusion counts of shape"):
        plot_confusion(COUNTS, ["ang", "neu"], path)
