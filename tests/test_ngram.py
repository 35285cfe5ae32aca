"""Modified Kneser-Ney models against probabilities worked out by hand."""

import math
import random

import pytest

from pyser.errors import PyserError
from pyser.lang.ngram import BOS, EOS, estimate

TEXT = [["a", "b"], ["a", "c"], ["a", "b"]]


def test_bigram_by_hand():
    # bigrams <s>a 3, ab 2, ac 1, b</s> 2, c</s> 1: D = 2 / (2 + 2 * 2) = 1/3 (no count of 4: one discount for all)
    # distinct left neighbours a 1, b 1, c 1, </s> 2: D = 3 / (3 + 2) = 0.6, share 4 * 0.6 / 5 = 0.48, 0.12 a word
    model = estimate(TEXT, 2)
    unigrams = {"a": 0.2, "b": 0.2, "c": 0.2, EOS: 0.4}
    assert {gram[0]: p for gram, p in model.prob.items() if len(gram) == 1} == pytest.approx(unigrams)
    bigrams = {(BOS, "a"): 8 / 9 + 0.2 / 9, ("a", "b"): 0.6, ("a", "c"): 4 / 15, ("b", EOS): 0.9, ("c", EOS): 0.8}
    assert {gram: p for gram, p in model.prob.items() if len(gram) == 2} == pytest.approx(bigrams)
    assert model.backoff == pytest.approx({(BOS,): 1 / 9, ("a",): 2 / 9, ("b",): 1 / 6, ("c",): 1 / 3})
    assert model.p(["a"], EOS) == pytest.approx(2 / 9 * 0.4)  # unseen: backed off
    assert model.p(["c", "b"], "a") == pytest.approx(1 / 6 * 0.2)  # a history longer than the order is cut
    assert model.p(["a"], "z") == 0.0 and model.vocab == ("a", "b", "c")


def test_three_discounts_by_hand():
    # counts: a b </s> 1, d e 2, f 3, g 4; n1..n4 = 3 2 1 1, y = 3/7, D1 = 3/7, D2 = 19/14, D3+ = 9/7, of 14 tokens
    model = estimate(["a b d d e e f f f g g g g".split()], 1)
    share = 23 / 49 / 7
    expected = {"a": 4 / 98, "b": 4 / 98, EOS: 4 / 98, "d": 9 / 196, "e": 9 / 196, "f": 12 / 98, "g": 19 / 98}
    assert model.prob == pytest.approx({(word,): p + share for word, p in expected.items()})


def test_lower_orders_count_left_neighbours():
    # </s> follows b 3 times, but after two words (a, c): 2. Bigrams <s>a 2, <s>c 1, ab 1, cb 1, b</s> 2: D = 3/7
    model = estimate([["a", "b"], ["a", "b"], ["c", "b"]], 3)
    assert model.p([], EOS) == pytest.approx(0.4 / 5 + 0.48 / 4)
    assert model.p(["b"], EOS) == pytest.approx((2 - 3 / 7) / 2 + 3 / 14 * 0.2)
    assert model.p([BOS], "a") == pytest.approx((2 - 3 / 7) / 3 + 2 * 3 / 7 / 3 * 0.2)  # <s>: as counted


def test_extra_vocabulary_gets_unseen_share():
    model = estimate(TEXT, 2, ["d", "a"])
    assert model.vocab == ("a", "b", "c", "d")
    assert model.p([], "d") == pytest.approx(0.48 / 5) and model.p([], "a") == pytest.approx(0.08 + 0.48 / 5)
    assert model.p(["a"], "d") == pytest.approx(2 / 9 * 0.48 / 5)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_probabilities_sum_to_one(order):
    rng = random.Random(order)
    text = [[rng.choice("aaaabbbccdefg") for _ in range(rng.randint(0, 9))] for _ in range(60)]
    model = estimate(text, order, ["unseen"])
    for history in [(), (BOS,), ("unseen",), *model.backoff]:
        assert sum(model.p(history, word) for word in (*model.vocab, EOS)) == pytest.approx(1, abs=1e-9), history
    assert all(0 < p <= 1 for p in model.prob.values())


def test_perplexity_by_hand():
    model = estimate(TEXT, 2)
    first = 8 / 9 + 0.2 / 9
    assert model.perplexity([["a", "c"]]) == pytest.approx((first * 4 / 15 * 0.8) ** (-1 / 3))
    assert model.perplexity([["a", "z"]]) == pytest.approx((first * 0.4) ** -0.5)  # z left out, then p(</s>)
    assert model.perplexity([["a", "c"], []]) == pytest.approx((first * 4 / 15 * 0.8 * 0.4 / 9) ** -0.25)


def read_arpa(text):
    """Announced sizes, and n-gram -> (log10 p, log10 backoff or None)."""
    sizes, grams, order = {}, {}, 0
    assert text.startswith("\\data\\\n") and text.endswith("\n\\end\\\n")
    for line in text.splitlines()[1:-1]:
        if line.startswith("ngram "):
            n, size = line[6:].split("=")
            sizes[int(n)] = int(size)
        elif line.startswith("\\"):
            order += 1
            assert line == f"\\{order}-grams:"
        elif line:
            p, words, *weight = line.split("\t")
            assert len(words.split(" ")) == order and len(weight) <= 1
            grams[tuple(words.split(" "))] = (float(p), float(weight[0]) if weight else None)
    return sizes, grams


def test_arpa():
    sizes, grams = read_arpa(estimate(TEXT, 2).arpa())
    assert sizes == {1: 5, 2: 5} and len(grams) == 10
    assert grams[(BOS,)] == pytest.approx((-99, math.log10(1 / 9)))
    assert grams[(EOS,)] == (pytest.approx(math.log10(0.4)), None)
    assert grams[("a",)] == pytest.approx((math.log10(0.2), math.log10(2 / 9)), abs=1e-6)
    assert grams[("c", EOS)] == (pytest.approx(math.log10(0.8)), None)
    sizes, grams = read_arpa(estimate([list("abcab"), list("bca"), list("cc")], 3).arpa())
    assert sizes == {n: sum(len(gram) == n for gram in grams) for n in (1, 2, 3)}
    assert all(gram[:-1] in grams and grams[gram[:-1]][1] is not None for gram in grams if len(gram) > 1)


def test_wrong_input():
    for order in (0, 6):
        with pytest.raises(PyserError, match="between 1 and 5"):
            estimate(TEXT, order)
    with pytest.raises(PyserError, match="no text"):
        estimate([], 2)
    with pytest.raises(PyserError, match="<s> or </s>"):
        estimate([["a", "</s>"]], 2)
