"""Metrics and paired tests against numbers worked out by hand."""

import doctest
import math

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.scoring import metrics, significance
from pyser.scoring.significance import holm, mcnemar, paired_bootstrap

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


def test_bootstrap_of_seeds_is_that_of_the_mean_over_seeds():
    rng = np.random.default_rng(2)
    refs = np.repeat(list("abc"), [90, 50, 20])
    a, b = (rng.random((3, 160)) < share for share in (0.5, 0.55))  # (seeds, N)
    found = paired_bootstrap(list(refs), a.mean(axis=0), b.mean(axis=0))
    labels, uas = "abc", []
    for right in (*a, *b):  # UA of every seed by way of its own confusion matrix
        hyps = [ref if ok else labels[(labels.index(ref) + 1) % 3] for ref, ok in zip(refs, right, strict=True)]
        uas.append(metrics.unweighted_accuracy(metrics.confusion(list(refs), hyps, labels)))
    assert found["ua"].value == pytest.approx(np.mean(uas[3:]) - np.mean(uas[:3]))
    draws = []
    for _ in range(3000):
        at = rng.integers(0, 160, 160)  # the same utterances for all seeds of both
        draws.append(np.mean([(b[:, at] * 1.0 - a[:, at])[:, refs[at] == c].mean() for c in "abc"]))
    assert found["ua"].low == pytest.approx(np.percentile(draws, 2.5), abs=0.012)
    assert found["ua"].high == pytest.approx(np.percentile(draws, 97.5), abs=0.012)
    assert found["ua"].p == pytest.approx(2 * np.mean(np.array(draws) <= 0), abs=0.06)


def test_shares_of_seeds_that_cancel_are_ties():
    assert (1 - 2 / 3) + (0 - 1 / 3) != 0  # in floating point, though one seed gained is one seed lost
    found = paired_bootstrap(["a", "a"], np.array([2 / 3, 1 / 3]), np.array([1.0, 0.0]))
    assert found["wa"].value == found["ua"].value == 0 and found["wa"].p == found["ua"].p == 1.0


def test_holm_by_hand():
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and no smaller one after a larger one
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([0.04]) == [0.04]


def test_mean_of_shares_is_not_the_share_of_the_pool():
    folds = np.array([[[9, 1], [0, 2]], [[1, 1], [0, 0]]])
    assert metrics.mean_shares(folds).tolist() == [[pytest.approx(0.7), pytest.approx(0.3)], [0, 1]]  # pooled: 10/12
    assert metrics.mean_shares(np.zeros((2, 2, 2), int)).tolist() == [[0, 0], [0, 0]]
