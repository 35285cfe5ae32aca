"""N-best lists of lattices against all their paths."""

import numpy as np
import pytest

from pyser.chain import nbest as module
from pyser.chain.nbest import Lattice, nbest


def random_lattice(seed, frames=6, width=4):
    """Layers of states, each with several arcs into the next; a third of the arcs say a word, a few two."""
    rng = np.random.default_rng(seed)
    first = np.array([0, *(1 + width * n for n in range(frames))])  # of each layer
    arcs, words = [], []
    for n in range(frames):
        here = [0] if n == 0 else range(first[n], first[n] + width)
        there = [first[n] + width] if n == frames - 1 else range(first[n + 1], first[n + 1] + width)
        for source in here:
            for target in there:
                arcs += [(source, target)] * int(rng.integers(1, 3))
    for _ in arcs:
        words.append(tuple(rng.integers(1, 4, rng.choice(3, p=[0.6, 0.3, 0.1])).tolist()))
    return Lattice(np.array(arcs), rng.normal(size=len(arcs)), words)


def all_paths(lattice, state=0):
    if state == lattice.arcs.max():
        yield 0.0, (), []
    for arc in np.flatnonzero(lattice.arcs[:, 0] == state):
        for score, words, path in all_paths(lattice, int(lattice.arcs[arc, 1])):
            yield lattice.scores[arc] + score, lattice.words[arc] + words, [int(arc), *path]


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_all_paths(seed):
    lattice = random_lattice(seed, frames=5, width=3)
    best = {}
    for score, words, path in all_paths(lattice):
        if words not in best or score > best[words][0]:
            best[words] = score, path
    ranked = sorted(best.items(), key=lambda item: -item[1][0])
    for num in (1, 7, len(ranked) + 10):
        found = nbest(lattice, num, 1e9)
        assert [tuple(words) for words, _, _ in found] == [words for words, _ in ranked[:num]]
        assert [score for _, score, _ in found] == pytest.approx([score for _, (score, _) in ranked[:num]])
        assert [path.tolist() for _, _, path in found] == [path for _, (_, path) in ranked[:num]]
    top = ranked[0][1][0]
    inside = [words for words, (score, _) in ranked if score >= top - 2.0]
    assert 1 < len(inside) < len(ranked)
    assert [tuple(words) for words, _, _ in nbest(lattice, 10**6, 2.0)] == inside


def test_few_tokens_keep_the_best(monkeypatch):
    lattice = random_lattice(9)
    whole = nbest(lattice, 5, 1e9)
    monkeypatch.setattr(module, "MAX_TOKENS", 30)
    assert nbest(lattice, 1, 1e9)[0][:2] == whole[0][:2]
