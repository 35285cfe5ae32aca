"""Numerators near the times of phones.ctm."""

import numpy as np
import pytest

from pyser.chain.alignment import AlignedNumerators, PhoneTimes, read_phones
from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.lang.supervision import SupervisionCompiler, SupervisionConfig
from pyser.lang.topology import monophone

TOKENS = {"<eps>": 0, "SIL": 1, "A": 2, "B": 3}
CTM = "u1 1 0.00 0.06 SIL\nu1 1 0.06 0.09 A\nu1 1 0.15 0.03 B\nu2 1 0.00 0.30 A\n"


def test_times(tmp_path):
    (tmp_path / "phones.ctm").write_text(CTM)
    assert read_phones(tmp_path / "phones.ctm", TOKENS) == {
        "u1": PhoneTimes((1, 2, 3), (6, 15, 18)), "u2": PhoneTimes((2,), (30,))}
    for wrong, message in (
        (CTM.replace("A", "Q", 1), "line 2: 'Q' is no phone"),
        (CTM.replace("0.09", "x"), "line 2: not"),
        (CTM.replace("0.15 0.03", "0.15 0.00"), "line 3: not"),
        (CTM.replace("u1 1 0.15", "u1 1 0.18"), "line 3: u1: phone B begins at 0.18 s, the one before ends at 0.15 s"),
        (CTM.replace("u2 1 0.00", "u2 1 0.50"), "line 4: u2"),
    ):
        (tmp_path / "phones.ctm").write_text(wrong)
        with pytest.raises(PyserError, match=message):
            read_phones(tmp_path / "phones.ctm", TOKENS)


@pytest.mark.parametrize("frames, durations", [
    (18, [6, 9, 3]), (21, [6, 9, 6]), (16, [6, 9, 1]), (15, [6, 8, 1]), (3, [1, 1, 1]), (2, None),
])
def test_durations_fill_the_frames(frames, durations):
    assert PhoneTimes((1, 2, 3), (6, 15, 18)).durations(frames) == durations
    doubled = None if durations is None else [2 * duration for duration in durations]
    if frames >= 15:
        assert PhoneTimes((1, 2, 3), (12, 30, 36)).durations(frames, speed=2.0) == durations
        assert sum(PhoneTimes((1, 2, 3), (6, 15, 18)).durations(2 * frames, speed=0.5)) == sum(doubled)


def paths(graph, frames):
    """All pdf sequences of `frames` frames."""
    found = {(0, ())}
    for _ in range(frames):
        found = {(t, (*said, p)) for state, said in found for s, t, p in graph.arcs.tolist() if s == state}
    return {said for state, said in found if graph.finals[state] > -np.inf}


def test_graphs_of_a_batch():
    """Two phones of ten frames, tolerance 3: the border may lie at frame 9 of the input or nine frames around it."""
    topology = monophone([[1], [2], [3]])
    compiler = SupervisionCompiler(topology, None, SupervisionConfig(3, 3, 3))
    asked = []

    def otherwise(utterance, text):
        asked.append((utterance, text))
        return Graph(np.array([[0, 0, 0]], np.int32), np.zeros(1), np.zeros(1))

    times = {"u1": PhoneTimes((2, 3), (9, 18)), "short": PhoneTimes((1, 2, 3), (3, 6, 9))}
    aligned = AlignedNumerators(times, compiler, otherwise)
    graphs = aligned(["u1", "u2", "short"], ["x", "y", "z"], [6, 5, 2], [1.0, 1.0, 1.0])
    assert asked == [("u2", "y"), ("short", "z")]
    a, b = topology.pdfs[0, 2], topology.pdfs[0, 3]
    assert paths(graphs[0], 6) == {
        tuple([a[0]] + [a[1]] * (n - 1) + [b[0]] + [b[1]] * (5 - n)) for n in (2, 3, 4)}
    assert aligned.compile("u1", 6) is graphs[0]
    assert aligned.compile("u1", 5) is not None and aligned.compile("u1", 5).num_states != graphs[0].num_states
