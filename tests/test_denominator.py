"""Denominators: the expansion to pdfs against all paths counted one by one, the rest against chain-make-den-fst."""

import gzip
import itertools
import math

import numpy as np
import pytest
from graph_paths import DENOMINATORS, GOLDEN, differences, draw, score, text_of

from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.lang.acceptor import (
    Acceptor,
    Index,
    connect,
    determinize,
    from_text,
    intersect,
    minimize,
    push_special,
    remove_epsilons,
)
from pyser.lang.denominator import denominator, expand, load_denominator, normalization, write_denominator
from pyser.lang.openfst import Fst, read_fst, write_fst
from pyser.lang.phone_lm import PhoneLmConfig, estimate
from pyser.lang.topology import biphone, ctc, monophone, read_tree

LM = estimate([[1, 2, 1, 3], [2, 2], [3, 1, 1, 2], [1]], PhoneLmConfig(3, 2, 3))


@pytest.fixture(scope="module")
def golden():
    return Graph.from_text(text_of(DENOMINATORS / "den_mono.txt.gz"))


@pytest.fixture(scope="module")
def made():
    return denominator(from_text(text_of(GOLDEN / "phone_lm.txt.gz")), read_tree(GOLDEN / "tree.txt"))


def test_as_chain_make_den_fst(golden, made):
    """The same states, arcs and weights; and so the same language."""
    assert (made.num_states, len(made.arcs), made.num_pdfs) == (141, 2626, 80) == (
        golden.num_states, len(golden.arcs), golden.num_pdfs)
    assert np.abs(np.sort(made.weights) - np.sort(golden.weights)).max() < 1e-6
    finals = [np.sort(graph.finals[np.isfinite(graph.finals)]) for graph in (made, golden)]
    assert len(finals[0]) == 61 and np.abs(finals[0] - finals[1]).max() < 1e-6
    worst = differences(golden, made)
    assert len(worst) == 40 and worst.max() < 1e-4


def test_rounding_changes_little(made):
    exact = expand(from_text(text_of(GOLDEN / "phone_lm.txt.gz")), read_tree(GOLDEN / "tree.txt")).graph()
    worst = differences(exact, made, num=10, stop=1.0)
    assert np.isfinite(worst).all() and 1e-4 < worst.max() < 0.5


def test_busy_states_first(made):
    busy = np.bincount(made.arcs[:, :2].ravel(), minlength=made.num_states)
    assert (np.diff(busy[1:]) <= 0).all()


def test_normalization_is_kaldis(golden, tmp_path):
    (tmp_path / "normalization.fst").write_bytes(gzip.decompress((GOLDEN / "normalization.fst.gz").read_bytes()))
    theirs = read_fst(tmp_path / "normalization.fst").acceptor().graph()
    ours = normalization(golden)
    assert (ours.num_states, len(ours.arcs)) == (141, 2879) == (theirs.num_states, len(theirs.arcs))
    assert np.abs(np.sort(ours.weights) - np.sort(theirs.weights)).max() < 1e-5
    assert differences(theirs, ours, stop=0.05).max() < 1e-4


def weights_of_all(topology, frames):
    """Sequence of pdfs -> log weight, all phone sequences and durations of so many frames one by one."""
    found = {}
    for num in range(1, frames + 1):
        for phones in itertools.product((1, 2, 3), repeat=num):
            weight = score(LM, phones)
            for cuts in itertools.combinations(range(1, frames), num - 1):
                ends = (*cuts, frames)
                durations = [end - start for start, end in zip((0, *cuts), ends, strict=True)]
                pdfs = []
                for left, phone, duration in zip((0, *phones), phones, durations, strict=False):
                    entry, loop = topology.of(np.array([left]), np.array([phone]))[0].tolist()
                    pdfs += [entry, *[loop] * (duration - 1)]
                found.setdefault(tuple(pdfs), []).append(weight + frames * math.log(0.5))
    return {pdfs: np.logaddexp.reduce(weights) for pdfs, weights in found.items()}


@pytest.mark.parametrize("topology", [monophone([[1, 2], [3]]), biphone([[1], [2], [3]]), biphone([[1, 2], [3]], [3])],
                         ids=["mono, shared", "biphone", "biphone, shared and independent"])
def test_expansion_by_counting(topology):
    graph = expand(LM, topology).graph()
    for frames in (1, 2, 4):
        found = weights_of_all(topology, frames)
        for pdfs, weight in found.items():
            assert score(graph, pdfs) == pytest.approx(weight, abs=1e-9)
    rng = np.random.default_rng(0)
    drawn = [draw(graph, rng, 0.5) for _ in range(40)]
    assert sum(len(pdfs) == 4 for pdfs in drawn) >= 2
    assert all(tuple(pdfs) in found for pdfs in drawn if len(pdfs) == 4)
    unscaled = expand(LM, topology, scale=0).graph()
    assert score(unscaled, drawn[0]) == pytest.approx(score(graph, drawn[0]) - len(drawn[0]) * math.log(0.5))


def test_ctc_expansion_by_counting():
    graph = expand(LM, ctc(3)).graph()
    for frames in (1, 3, 5):
        for pdfs in itertools.product(range(4), repeat=frames):
            phones = [pdf for pdf, _ in itertools.groupby(pdfs) if pdf]
            assert score(graph, pdfs) == pytest.approx(score(LM, phones), abs=1e-9), pdfs


def test_other_phones_are_an_error():
    with pytest.raises(PyserError, match="phones 1 … 3, the topology has 1 … 2"):
        expand(LM, monophone([[1], [2]]))


def test_files(tmp_path):
    (tmp_path / "P.fst.txt").write_text(LM.text())
    biphone([[1], [2], [3]]).save(tmp_path)
    graph = load_denominator(tmp_path)
    line = write_denominator(tmp_path, tmp_path / "out")
    assert line == f"denominator: {graph.num_states} states, {len(graph.arcs)} arcs, 24 pdfs -> {tmp_path}/out"
    den = read_fst(tmp_path / "out/den.fst").acceptor().graph()
    assert (den.arcs == graph.arcs).all() and den.weights == pytest.approx(graph.weights, abs=1e-6)
    weights = read_fst(tmp_path / "out/normalization.fst").acceptor().graph()
    assert (weights.arcs == normalization(graph).arcs).all()


def test_openfst_files(tmp_path):
    fst = Fst(1, np.array([[0, 1, 3, 4], [1, 0, 5, 6], [0, 0, 7, 8]], np.int32), np.array([0.5, 1, 2], np.float32),
              np.array([np.inf, 0.25], np.float32))
    write_fst(tmp_path / "a.fst", fst)
    found = read_fst(tmp_path / "a.fst")
    assert found.start == 1 and found.arcs.tolist() == [[0, 1, 3, 4], [0, 0, 7, 8], [1, 0, 5, 6]]
    assert found.costs.tolist() == [0.5, 2, 1] and found.finals.tolist() == [np.inf, 0.25]
    acceptor = found.acceptor()
    assert acceptor.arcs.tolist() == [[1, 0, 3], [1, 1, 7], [0, 1, 5]] and acceptor.finals.tolist() == [-0.25, -np.inf]
    data = (tmp_path / "a.fst").read_bytes()
    for wrong in (data[:-1], data + b"x", b"", data[:30], data.replace(b"standard", b"log64   "),
                  data[:50] + b"\xff" * 8 + data[58:]):
        (tmp_path / "b.fst").write_bytes(wrong)
        with pytest.raises(PyserError, match="b.fst: not a whole OpenFst file"):
            read_fst(tmp_path / "b.fst")
    with pytest.raises(PyserError, match="no such file"):
        read_fst(tmp_path / "c.fst")


def random_acceptor(seed, states=6, arcs=14, labels=3, acyclic=False):
    rng = np.random.default_rng(seed)
    source, target = np.concatenate([rng.integers(0, states, (2, arcs)), [range(states - 1), range(1, states)]], axis=1)
    arcs += states - 1  # none is out of reach
    if acyclic:
        source, target = np.minimum(source, target), np.maximum(source, target) + (source == target)
        states += 1
    finals = np.where(rng.random(states) < 0.4, -rng.random(states), -np.inf)
    finals[-1] = -0.5
    table = np.column_stack([source, target, rng.integers(1, labels + 1, arcs)]).astype(np.int32)
    return Acceptor(table, -rng.random(arcs) - 0.7, finals)


def sequences(longest=5, labels=3):
    return [labels_ for n in range(longest + 1) for labels_ in itertools.product(range(1, labels + 1), repeat=n)]


@pytest.mark.parametrize("seed", range(5))
def test_operations_keep_the_language(seed):
    acceptor = random_acceptor(seed)
    pushed = push_special(acceptor)
    for labels in sequences():
        assert score(pushed, labels) == pytest.approx(score(acceptor, labels), abs=1e-6)
    sums = np.bincount(pushed.arcs[:, 0], np.exp(pushed.weights), pushed.num_states) + np.exp(pushed.finals)
    assert connect(acceptor).num_states == 6 and sums == pytest.approx(np.full(len(sums), sums[0]), rel=1e-4)
    other = random_acceptor(seed + 100)
    both = intersect(acceptor, Index(other))
    for labels in sequences():
        assert score(both, labels) == pytest.approx(score(acceptor, labels) + score(other, labels), abs=1e-9)
    acyclic = random_acceptor(seed, acyclic=True)
    best = determinize(acyclic)
    starts = list(zip(best.arcs[:, 0].tolist(), best.arcs[:, 2].tolist(), strict=True))
    assert len(set(starts)) == len(starts)
    for labels in sequences():
        assert score(best, labels) == pytest.approx(best_path(acyclic, labels), abs=2e-3)


def best_path(acceptor, labels):
    alpha = np.full(acceptor.num_states, -np.inf)
    alpha[0] = 0
    for label in labels:
        arcs = acceptor.arcs[:, 2] == label
        after = np.full(acceptor.num_states, -np.inf)
        np.maximum.at(after, acceptor.arcs[arcs, 1], alpha[acceptor.arcs[arcs, 0]] + acceptor.weights[arcs])
        alpha = after
    return (alpha + acceptor.finals).max()


def test_minimize_merges_what_goes_on_alike():
    # 1 and 2 end alike, 3 does not; the last state is on no path
    acceptor = Acceptor.of([(0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 4), (2, 2, 4), (3, 3, 5), (4, 1, 1)],
                           [-0.5, -0.5, -0.5, -0.1, -0.1004, -0.1, 0.0], {1: -0.2, 2: -0.2, 3: -0.2})
    small = minimize(acceptor)
    assert small.num_states == 3 and len(small.arcs) == 5
    for labels in ((1,), (2, 4), (3, 5, 5), (1, 4, 4)):
        assert score(small, labels) == pytest.approx(score(acceptor, labels), abs=0.03)
    assert score(small, (1, 5)) == score(small, (3, 4)) == -np.inf
    steps = -small.weights / (10 / 1024)
    assert np.abs(steps - np.round(steps)).max() < 1e-6


def test_epsilons_are_removed():
    # two ways of epsilons from 0 to 2: the better one counts; epsilons to a final state
    acceptor = Acceptor.of([(0, 1, 0), (1, 2, 0), (0, 2, 0), (2, 3, 7), (3, 4, 0), (0, 3, 7)],
                           [-0.1, -0.2, -0.9, -0.4, -0.5, -2.0], {4: -1.0})
    free = remove_epsilons(acceptor)
    assert free.num_states == 2 and free.arcs.tolist() == [[0, 1, 7]]
    assert free.weights.tolist() == pytest.approx([-0.7]) and free.finals.tolist() == [-np.inf, -1.5]


def test_text_form():
    acceptor = from_text("5 1 3 3 0.5\n1 5 4 4\n0 1 2 2 1\n1 0.25\n")
    assert acceptor.arcs.tolist() == [[0, 1, 3], [1, 0, 4], [5, 1, 2]]
    assert acceptor.weights.tolist() == [-0.5, 0, -1] and np.isfinite(acceptor.finals).nonzero()[0].tolist() == [1]
    again = from_text(acceptor.text())
    assert again.arcs.tolist() == acceptor.arcs.tolist() and (again.finals == acceptor.finals).all()
    for text, message in (("", "no states"), ("0 1 2\n", "line 1 is neither"), ("0 1 a a\n", "line 1 is neither")):
        with pytest.raises(PyserError, match=message):
            from_text(text)
