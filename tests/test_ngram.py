"""Modified Kneser-Ney models against probabilities worked out by hand."""

import math
import random
from collections import Counter

import pytest

from pyser.errors import PyserError
from pyser.lang import ngram
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


def test_rare_ngrams_leave_their_share_to_shorter_histories():
    # of test_bigram_by_hand ac is left out: a gives it no 2/3 of 3, but its unigram's share of what b leaves, 1 - 5/9
    model = estimate(TEXT, 2, min_counts=(1, 2))
    full = estimate(TEXT, 2)
    assert ("a", "c") not in model.prob and ("c", EOS) not in model.prob and ("c",) not in model.backoff
    assert model.backoff == pytest.approx({(BOS,): 1 / 9, ("a",): 4 / 9, ("b",): 1 / 6})
    assert model.p(["a"], "b") == pytest.approx(5 / 9 + 4 / 9 * 0.2) and model.p(["a"], "c") == pytest.approx(4 / 9 * 0.2)
    assert model.p(["c"], EOS) == pytest.approx(0.4)  # nothing is known after c: its weight is 1
    assert [model.p([], word) for word in "abc"] == [full.p([], word) for word in "abc"]  # from the counts of all


@pytest.mark.parametrize("min_counts", [(1, 1, 2), (1, 2, 2), (1, 2, 3, 9), (1, 1, 1, 99), (1, 3, 3, 3, 4)])
def test_probabilities_sum_to_one_without_rare_ngrams(min_counts):
    rng = random.Random(7)
    text = [[rng.choice("aaaabbbccdefg") for _ in range(rng.randint(0, 9))] for _ in range(150)]
    model, full = estimate(text, len(min_counts), ["unseen"], min_counts), estimate(text, len(min_counts), ["unseen"])
    seen = Counter(gram for words in text for n in range(2, len(min_counts) + 1)
                   for gram in zip(*([BOS, *words, EOS][i:] for i in range(n)), strict=False))
    kept = {gram for gram, count in seen.items() if count >= min_counts[len(gram) - 1]}
    assert kept == {gram for gram in model.prob if len(gram) > 1} and kept < set(full.backoff) | set(full.prob)
    for history in [(), (BOS,), *full.backoff]:
        assert sum(model.p(history, word) for word in (*model.vocab, EOS)) == pytest.approx(1, abs=1e-9), history


@pytest.mark.parametrize("min_counts", [(1, 1, 1), (1, 2, 3)])
def test_log_probs_are_those_of_p(min_counts):
    rng = random.Random(3)
    text, other = ([[rng.choice(letters) for _ in range(rng.randint(0, 9))] for _ in range(50)]
                   for letters in ("aaaabbbccdefg", "abcdefgz"))
    model, expected = estimate(text, 3, min_counts=min_counts), []
    for words in other:
        padded = [BOS, *words, EOS]
        expected += [model.p(padded[:i], padded[i]) for i in range(1, len(padded))]
    log_probs = model.log_probs(other)
    assert [0 if math.isnan(x) else math.exp(x) for x in log_probs] == pytest.approx(expected, rel=1e-9)
    known = [math.log(p) for p in expected if p]
    assert len(known) < len(expected) and model.perplexity(other) == pytest.approx(math.exp(-sum(known) / len(known)))


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


def test_arpa_in_blocks(tmp_path, monkeypatch):
    text = [list("abcab"), list("bca"), list("cc")]
    whole = estimate(text, 3).arpa()
    monkeypatch.setattr(ngram, "BLOCK", 2)
    model = estimate(text, 3)
    model.write_arpa(tmp_path / "G.arpa")
    assert (tmp_path / "G.arpa").read_text() == whole
    _, grams = read_arpa(whole)
    assert {gram: p for gram, (p, _) in grams.items() if gram != (BOS,)} == pytest.approx(
        {gram: math.log10(p) for gram, p in model.prob.items()}, abs=1e-5)


def test_rare_ngrams_are_announced_and_written():
    sizes, grams = read_arpa(estimate(TEXT, 2, min_counts=(1, 2)).arpa())
    assert sizes == {1: 5, 2: 3} and grams[("c",)][1] is None
    assert grams[("a",)] == pytest.approx((math.log10(0.2), math.log10(4 / 9)), abs=1e-6)


def test_wrong_input():
    for counts in ((1, 1), (2, 2, 2), (1, 3, 2)):
        with pytest.raises(PyserError, match="one for each of 3 orders, the first 1, none less than the one before"):
            estimate(TEXT, 3, min_counts=counts)
    for order in (0, 6):
        with pytest.raises(PyserError, match="between 1 and 5"):
            estimate(TEXT, order)
    with pytest.raises(PyserError, match="no text"):
        estimate([], 2)
    for words in (["a", "</s>"], ["</s>", "a"], ["<s>", "a"], ["a", "<s>"]):
        with pytest.raises(PyserError, match="<s> or </s>"):
            estimate([["b"], words, ["c"]], 2)
