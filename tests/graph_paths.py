"""Weighted languages: the weight of a sequence of labels, and sequences of a graph, drawn at random."""

import gzip
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden/numgraphs"
DENOMINATORS = Path(__file__).parent / "golden/lfmmi"


def text_of(path):
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()


def score(graph, labels):
    """Log of the summed weights of all paths with these labels, final weights included."""
    alpha = np.full(graph.num_states, -np.inf)
    alpha[0] = 0
    for label in labels:
        arcs = graph.arcs[:, 2] == label
        after = np.full(graph.num_states, -np.inf)
        np.logaddexp.at(after, graph.arcs[arcs, 1], alpha[graph.arcs[arcs, 0]] + graph.weights[arcs])
        alpha = after
    return np.logaddexp.reduce(alpha + graph.finals)


def draw(graph, rng, stop=0.2, longest=400):
    """Labels of a path from the start to a final state: all arcs of a state alike, at a final one it stops with
    probability `stop`."""
    while True:
        state, labels = 0, []
        while len(labels) < longest:
            arcs = np.flatnonzero(graph.arcs[:, 0] == state)
            if np.isfinite(graph.finals[state]) and (not len(arcs) or rng.random() < stop):
                return labels
            if not len(arcs):
                break
            arc = arcs[rng.integers(len(arcs))]
            labels.append(int(graph.arcs[arc, 2]))
            state = graph.arcs[arc, 1]


def differences(one, other, num=20, seed=0, **options):
    """|weight in one - weight in other| of sequences from both; inf where one of them has it not."""
    rng = np.random.default_rng(seed)
    sequences = [draw(graph, rng, **options) for _ in range(num) for graph in (one, other)]
    return np.array([abs(score(one, labels) - score(other, labels)) for labels in sequences])
