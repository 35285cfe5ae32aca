"""Time-constrained numerators against nnet3-chain-get-egs, and by hand."""

import numpy as np
import pytest
from graph_paths import DENOMINATORS, GOLDEN, draw, score, text_of

from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.lang.denominator import normalization
from pyser.lang.supervision import SupervisionCompiler, SupervisionConfig, allowed_phones
from pyser.lang.topology import ctc, monophone, read_tree

TOPOLOGY = monophone([[1], [2], [3]])  # entry pdfs 0 2 4, loop pdfs 1 3 5
EXACT = SupervisionConfig(0, 0, 1)


def test_as_kaldi():
    """Output frames 5 to 55 of two utterances, one behind the other; tolerance 5, weighed by the normalization."""
    weights = normalization(Graph.from_text(text_of(DENOMINATORS / "den_mono.txt.gz")))
    compiler = SupervisionCompiler(read_tree(GOLDEN / "tree.txt"), weights, SupervisionConfig(5, 5, 3))
    theirs = Graph.read(GOLDEN / "num_fst_merged.txt")
    ours = []
    for line in (GOLDEN / "phone_durations.txt").read_text().splitlines():
        pairs = [pair.split() for pair in line.split(None, 1)[1].split(";") if pair.strip()]
        ours.append(compiler.compile(*zip(*[map(int, pair) for pair in pairs], strict=True), begin=5, end=55))
    rng = np.random.default_rng(0)
    for _ in range(20):
        for labels in (draw(theirs, rng, 1.0), draw(ours[0], rng, 1.0) + draw(ours[1], rng, 1.0)):
            assert len(labels) == 100
            weight = score(ours[0], labels[:50]) + score(ours[1], labels[50:])
            assert score(theirs, labels) == pytest.approx(weight, abs=2e-3)  # their minimization rounds to 1/1024


def test_exact_alignment_is_one_path():
    graph = SupervisionCompiler(TOPOLOGY, None, EXACT).compile([2, 1, 3], [2, 1, 3])
    assert graph.arcs.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 4, 4], [4, 5, 5], [5, 6, 5]]
    assert np.isfinite(graph.finals).tolist() == [False] * 6 + [True] and not graph.weights.any()


def test_tolerance_by_hand():
    graph = SupervisionCompiler(TOPOLOGY, None, SupervisionConfig(1, 1, 1)).compile([1, 2], [2, 2])
    paths = {tuple(labels) for labels in (draw(graph, np.random.default_rng(seed)) for seed in range(40))}
    assert paths == {(0, 2, 3, 3), (0, 1, 2, 3), (0, 1, 1, 2)}
    assert all(score(graph, labels) == 0 for labels in paths)


def test_allowed_phones_by_hand():
    # frames 0-3 phone 1, 4-5 phone 2, 6 phone 3; every third frame, tolerances 1 and 2
    allowed = allowed_phones([1, 2, 3], [4, 2, 1], 3, SupervisionConfig(1, 2, 3))
    assert [np.flatnonzero(row).tolist() for row in allowed] == [[1], [1, 2], [2, 3]]


def test_part_of_an_utterance():
    """It may begin inside of a phone and end inside of one; equal sequences of pdfs count once."""
    compiler = SupervisionCompiler(TOPOLOGY, None, SupervisionConfig(1, 1, 1))
    graph = compiler.compile([1, 2, 1, 2], [3, 3, 3, 3], begin=2, end=5)
    paths = {tuple(labels) for labels in (draw(graph, np.random.default_rng(seed)) for seed in range(60))}
    assert paths == {(1, 1, 2), (1, 2, 3), (2, 3, 3)}
    assert all(score(graph, labels) == 0 for labels in paths)
    whole = compiler.compile([1, 2, 1, 2], [3, 3, 3, 3])
    assert score(whole, [0, 1, 1, 2, 3, 3, 0, 1, 1, 2, 3, 3]) == 0 and whole.finals[-1] == 0


def test_nothing_fits():
    compiler = SupervisionCompiler(TOPOLOGY, None, SupervisionConfig(1, 1, 3))
    assert compiler.compile([1, 2, 3], [1, 1, 1]) is None  # three phones, one frame
    lacks = Graph(np.array([[0, 0, 0], [0, 0, 1]]), np.zeros(2), np.zeros(1))  # knows phone 1 only
    assert SupervisionCompiler(TOPOLOGY, lacks, EXACT).compile([1, 2], [2, 2]) is None
    assert SupervisionCompiler(TOPOLOGY, lacks, EXACT).compile([1], [3]) is not None


def test_wrong_input():
    compiler = SupervisionCompiler(TOPOLOGY, None)
    for phones, durations in (([], []), ([1, 2], [3]), ([4], [3]), ([0], [3]), ([1], [0])):
        with pytest.raises(PyserError, match="an alignment needs phones from 1 to 3"):
            compiler.compile(phones, durations)
    with pytest.raises(PyserError, match="frames 1 to 9 of an utterance of 3 frames"):
        compiler.compile([1], [9], 1, 9)
    for wrong in ((0, 0, 3), (-1, 5, 3), (1, 1, 0)):
        with pytest.raises(PyserError, match="tolerances"):
            SupervisionConfig(*wrong)
    with pytest.raises(PyserError, match="chain topology"):
        SupervisionCompiler(ctc(3), None)
