"""Graphs of LF-MMI: text form, k2, initial probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from pyser.chain.graph import Graph, from_k2
from pyser.errors import PyserError

TEXT = """3\t1\t5\t5\t0.5
3\t3\t2\t2\t1.25
1\t3\t1\t1
0\t2\t4\t4\t-0.25
1\t0.75
2
"""


def same(one, other):
    def rows(graph):
        return sorted((*arc, round(weight, 5)) for arc, weight in zip(graph.arcs.tolist(), graph.weights, strict=True))
    np.testing.assert_allclose(one.finals, other.finals, rtol=1e-6)
    return rows(one) == rows(other)


def test_text(tmp_path):
    graph = Graph.from_text(TEXT)
    assert graph.num_states == 4 and graph.num_pdfs == 5
    assert graph.arcs.tolist() == [[0, 1, 4], [0, 0, 1], [1, 0, 0], [3, 2, 3]]  # states 0 and 3 change places
    assert graph.weights.tolist() == [-0.5, -1.25, 0.0, 0.25]
    assert graph.finals.tolist() == [-np.inf, -0.75, 0.0, -np.inf]
    (tmp_path / "den.txt").write_text(graph.text())
    assert same(Graph.read(tmp_path / "den.txt"), graph)


@pytest.mark.parametrize("line", ["0 1 0 0 1", "0 1 x 2 1", "0 -1 2 2", "0 1 2", "0 1 2 2 3 4"])
def test_text_that_is_none(line):
    with pytest.raises(PyserError, match="den.txt: line 2 is not"):
        Graph.from_text(f"0 0 1 1\n{line}\n", "den.txt")
    with pytest.raises(PyserError, match="empty"):
        Graph.from_text("\n")


def test_arcs_outside():
    with pytest.raises(ValueError, match="outside"):
        Graph(np.array([[0, 2, 0]]), np.zeros(1), np.zeros(2))
    with pytest.raises(ValueError, match="negative pdf"):
        Graph(np.array([[0, 1, -1]]), np.zeros(1), np.zeros(2))


def test_probabilities():
    """A state's weights are scaled to one, its final one included; what ends is shared out."""
    graph = Graph(np.array([[0, 0, 0], [0, 1, 1], [1, 0, 2]]), np.log([2.0, 1.0, 0.25]), np.log([1e-300, 0.75]))
    now, mean = np.array([1.0, 0.0]), np.zeros(2)
    for _ in range(100):
        mean += now / 100
        now = np.array([now[0] * 2 / 3 + now[1] * 0.25, now[0] / 3])
        now /= now.sum()
    np.testing.assert_allclose(graph.probabilities(), mean, rtol=1e-12)
    with pytest.raises(PyserError, match="loops"):
        Graph(np.array([[0, 1, 0]]), np.zeros(1), np.zeros(2)).probabilities()


def test_distances():
    graph = Graph.from_text(TEXT)
    assert graph.distances().tolist()[:2] == [0, 1] and (graph.distances()[2:] > 10**9).all()


def test_k2():
    k2 = pytest.importorskip("k2", reason="needs k2 (default stack)")
    first = Graph.from_text(TEXT)
    second = Graph(np.array([[0, 1, 3]]), np.array([-0.5]), np.array([-np.inf, 0.0]))
    assert same(from_k2(first.to_k2())[0], first)
    together = from_k2(k2.create_fsa_vec([graph.to_k2() for graph in (first, second, first)]))
    assert all(same(*pair) for pair in zip(together, (first, second, first), strict=True))
    doubled = k2.Fsa.from_str("0 1 1 0.5\n0 2 -1 0\n1 2 -1 -1\n1 2 -1 -2\n2")  # two ways to end
    np.testing.assert_allclose(from_k2(doubled)[0].finals, [0, np.logaddexp(-1, -2)], rtol=1e-6)
