"""Kaldi's phone LM: by hand, and against chain-est-phone-lm."""

import math

import numpy as np
import pytest
from graph_paths import GOLDEN, score, text_of

from pyser.errors import PyserError
from pyser.lang.acceptor import from_text
from pyser.lang.phone_lm import PhoneLm, PhoneLmConfig, estimate


def walk(one, other):
    """States of `other` by those of `one`, both deterministic, and the largest difference of weights; they must have the
    same arcs."""
    tables = [{(source, label): (target, weight) for (source, target, label), weight in
               zip(a.arcs.tolist(), a.weights.tolist(), strict=True)} for a in (one, other)]
    same, todo, worst = {0: 0}, [0], 0.0
    while todo:
        state = todo.pop()
        labels = [{label for source, label in table if source == s}
                  for table, s in zip(tables, (state, same[state]), strict=True)]
        assert labels[0] == labels[1]
        finals = one.finals[state], other.finals[same[state]]
        worst = max(worst, 0.0 if finals[0] == finals[1] else abs(finals[0] - finals[1]))
        for label in labels[0]:
            (target, weight), (twin, its_weight) = tables[0][state, label], tables[1][same[state], label]
            worst = max(worst, abs(weight - its_weight))
            if target not in same:
                same[target] = twin
                todo.append(target)
            assert same[target] == twin
    return same, worst


def test_as_chain_est_phone_lm():
    """--num-extra-lm-states=100 --ngram-order=3 --no-prune-ngram-order=2 on 857 sequences."""
    sequences = [[int(phone) for phone in line.split()[1:]] for line in text_of(GOLDEN / "phone_seqs.txt.gz").splitlines()]
    ours, theirs = estimate(sequences, PhoneLmConfig(3, 2, 100)), from_text(text_of(GOLDEN / "phone_lm.txt.gz"))
    assert (ours.num_states, len(ours.arcs)) == (141, 2486) == (theirs.num_states, len(theirs.arcs))
    same, worst = walk(ours, theirs)
    assert len(same) == 141 and worst < 1e-6
    other = estimate(sequences, PhoneLmConfig(3, 2, 99))
    assert other.num_states == 140


def test_unpruned_by_hand():
    # histories: start, 1, 1 2, 2 1; 1 2 is followed by 1 and by the end
    acceptor = estimate([[1, 2, 1], [1, 2]], PhoneLmConfig(3, 2, 10))
    assert score(acceptor, [1, 2]) == pytest.approx(math.log(0.5))
    assert score(acceptor, [1, 2, 1]) == pytest.approx(math.log(0.5))
    assert score(acceptor, [1]) == score(acceptor, [2]) == score(acceptor, [1, 2, 1, 2]) == -np.inf
    assert acceptor.num_states == 4 and acceptor.arcs[0].tolist() == [0, 1, 1]


def test_pruned_to_bigrams_by_hand():
    acceptor = estimate([[1, 2, 1], [1, 2]], PhoneLmConfig(3, 2, 0))
    # start -> 1; behind 1: 2 twice, end once; behind 2: 1 once, end once
    assert score(acceptor, [1]) == pytest.approx(math.log(1 / 3))
    assert score(acceptor, [1, 2]) == pytest.approx(math.log(2 / 3 * 1 / 2))
    assert score(acceptor, [1, 2, 1, 2]) == pytest.approx(math.log((2 / 3 * 1 / 2) * 2 / 3 * 1 / 2))
    assert acceptor.num_states == 3


@pytest.mark.parametrize("order", [2, 3, 4])
def test_sums_to_one_and_has_every_sentence(order):
    rng = np.random.default_rng(order)
    sentences = [rng.integers(1, 6, rng.integers(1, 12)).tolist() for _ in range(40)]
    model = PhoneLm(PhoneLmConfig(order, 2, 7))
    for sentence in sentences:
        model.add(sentence)
    acceptor = model.estimate()
    total = np.bincount(acceptor.arcs[:, 0], np.exp(acceptor.weights), acceptor.num_states) + np.exp(acceptor.finals)
    assert total == pytest.approx(np.ones(acceptor.num_states), abs=1e-6)
    scores = [score(acceptor, sentence) for sentence in sentences]
    assert np.isfinite(scores).all()
    tokens = sum(len(sentence) + 1 for sentence in sentences)
    assert model.perplexity() == pytest.approx(math.exp(-sum(scores) / tokens), rel=1e-6)


def test_wrong_options():
    for order, unpruned in ((1, 1), (3, 4), (2, 0)):
        with pytest.raises(PyserError, match="must be at least 2"):
            PhoneLm(PhoneLmConfig(order, unpruned))
    with pytest.raises(PyserError, match="no phone sequences"):
        estimate([], PhoneLmConfig())
