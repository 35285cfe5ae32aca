"""Alignments: the best path by brute force, and phones and words of outputs that say them."""

import itertools

import numpy as np
import pytest

from pyser.chain.align import Aligner, Span, viterbi, words_of
from pyser.chain.graph import Graph
from pyser.lang.topology import biphone, monophone

LEXICON = {"a": [("A",)], "ab": [("A", "B")], "bs": [("B", "SIL")], "<UNK>": [("SPN",)]}
TOKENS = {"<eps>": 0, "SIL": 1, "SPN": 2, "A": 3, "B": 4}
SETS = [[1, 2], [3], [4]]


@pytest.mark.parametrize("seed", range(20))
def test_best_path_by_brute_force(seed):
    random = np.random.default_rng(seed)
    arcs = random.integers(0, 4, (9, 3)).astype(np.int32)
    graph = Graph(arcs, random.normal(size=9), np.where(random.random(4) < 0.6, random.normal(size=4), -np.inf))
    output = random.normal(size=(4, 4)).astype(np.float32)
    best, expected = -np.inf, None
    for path in itertools.product(range(9), repeat=4):
        joined = arcs[path[0], 0] == 0 and all(arcs[a, 1] == arcs[b, 0] for a, b in zip(path, path[1:], strict=False))
        taken = list(path)
        score = graph.weights[taken].sum() + output[range(4), arcs[taken, 2]].sum() + graph.finals[arcs[taken[-1], 1]]
        if joined and score > best:
            best, expected = score, list(path)
    found = viterbi(graph, output)
    assert (None if found is None else found.tolist()) == expected


@pytest.mark.parametrize("topology", [monophone(SETS), biphone(SETS)], ids=["mono", "biphone"])
def test_phones_of_outputs_that_say_them(topology):
    spoken = [("SIL", 3), ("A", 1), ("B", 2), ("SIL", 2), ("A", 4)]
    output, left = np.full((12, topology.num_pdfs), -20.0, np.float32), 0
    pdfs = []
    for symbol, length in spoken:
        entry, loop = topology.of(np.array([left]), np.array([TOKENS[symbol]]))[0]
        pdfs += [entry, *[loop] * (length - 1)]
        left = TOKENS[symbol]
    output[np.arange(12), pdfs] = 0
    found = Aligner(LEXICON, TOKENS, topology).align(["ab", "a"], output)
    assert found.pdfs.tolist() == pdfs
    assert found.phones == [Span("SIL", 0, 3), Span("A", 3, 1), Span("B", 4, 2), Span("SIL", 6, 2), Span("A", 8, 4)]
    assert words_of(found.phones, ["ab", "a"], LEXICON) == [Span("ab", 3, 3), Span("a", 8, 4)]
    assert Aligner(LEXICON, TOKENS, topology).align(["ab", "a"], output[:2]) is None


def test_words_of_phones():
    def of(phones, words):
        spans = [Span(phone, n, 1) for n, phone in enumerate(phones.split())]
        return [(span.symbol, span.start, span.length) for span in words_of(spans, words.split(), LEXICON)]

    assert of("A B A", "ab a") == [("ab", 0, 2), ("a", 2, 1)]
    assert of("SIL A SIL A SIL", "a a") == [("a", 1, 1), ("a", 3, 1)]
    assert of("B SIL A", "bs a") == [("bs", 0, 2), ("a", 2, 1)]
    assert of("B SIL SIL A", "bs a") == [("bs", 0, 2), ("a", 3, 1)]
    assert of("A SIL SPN", "a zork") == [("a", 0, 1), ("zork", 2, 1)]
