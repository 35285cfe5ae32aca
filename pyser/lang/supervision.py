"""Numerators of LF-MMI from alignments: each phone near its time, a graph of one arc for each frame
(src/chain/chain-supervision.cc)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.lang.acceptor import Acceptor, Index, determinize, intersect
from pyser.lang.denominator import expand
from pyser.lang.topology import Topology


@dataclass(frozen=True)
class SupervisionConfig:
    """left_tolerance, right_tolerance : frames of the input that a phone may begin before, and end behind, its place in the
    alignment. frame_subsampling_factor : frames of the input for one of the output."""

    left_tolerance: int = 5
    right_tolerance: int = 5
    frame_subsampling_factor: int = 3

    def __post_init__(self) -> None:
        left, right, factor = self.left_tolerance, self.right_tolerance, self.frame_subsampling_factor
        if min(left, right, factor - 1) < 0 or left + right + 1 < factor:
            raise PyserError(f"tolerances {left} and {right}, subsampling {factor}: tolerances may not be negative, "
                             "and all frames must stay allowed to some phone (left + right + 1 >= subsampling)")


class SupervisionCompiler:
    """(phone, duration) lists to time-constrained graphs; weights: the normalization of the denominator, or None."""

    def __init__(self, topology: Topology, weights: Graph | None, config: SupervisionConfig | None = None):
        if topology.ctc:
            raise PyserError("alignments need the chain topology; make it with: pyser lang topo")
        self.config = config or SupervisionConfig()
        self.transitions, self.table = topology.transitions()
        self.weights = None if weights is None else Index(Acceptor.of_graph(weights))

    def compile(
        self, phones: Sequence[int], durations: Sequence[int], begin: int = 0, end: int | None = None
    ) -> Graph | None:
        """The graph of output frames begin to end (all by default) of an utterance.

        phones : numbers from 1. durations : frames of the input.
        None where nothing fits: more phones than frames, or an n-gram that the phone LM lacks.
        """
        allowed = allowed_phones(phones, durations, self.transitions.num_phones, self.config)
        end = len(allowed) if end is None else end
        if not 0 <= begin < end <= len(allowed):
            raise PyserError(f"frames {begin} to {end} of an utterance of {len(allowed)} frames")
        linear = Acceptor.of([(n, n + 1, phone) for n, phone in enumerate(phones)], [0.0] * len(phones), {len(phones): 0.0})
        acceptor = expand(linear, self.transitions, scale=0)
        source, target, label = acceptor.arcs.T
        phone, pdf = self.table[label - 1].T
        active = _active(acceptor, allowed[:, phone])
        number = np.zeros((end - begin + 1, acceptor.num_states), np.int32)  # 0: before the first frame all states are one
        inner = active[begin + 1 : end]
        number[1:-1][inner] = np.arange(1, inner.sum() + 1)
        number[-1] = inner.sum() + 1  # so they are behind the last
        usable = allowed[begin:end, phone] & active[begin:end, source] & active[begin + 1 : end + 1, target]
        time, arc = np.nonzero(usable)
        if not len(time):
            return None
        arcs = np.column_stack([number[time, source[arc]], number[time + 1, target[arc]], pdf[arc] + 1]).astype(np.int32)
        finals = np.full(number[-1, 0] + 1, -np.inf)
        finals[-1] = 0
        graph = determinize(Acceptor(arcs, np.zeros(len(arcs)), finals))
        if self.weights is not None:
            graph = determinize(intersect(graph, self.weights))
        return graph.graph() if len(graph.arcs) else None


def allowed_phones(
    phones: Sequence[int], durations: Sequence[int], num_phones: int, config: SupervisionConfig
) -> NDArray[np.bool_]:
    """(T, phones + 1): whether the phone may be at the output frame, T the input's frames by the factor, rounded up."""
    whole = len(phones) == len(durations) > 0 and min(durations) > 0
    if not whole or not 1 <= min(phones) <= max(phones) <= num_phones:
        raise PyserError(f"an alignment needs phones from 1 to {num_phones}, each of at least one frame")
    factor, total = config.frame_subsampling_factor, sum(durations)
    allowed = np.zeros((-(-total // factor), num_phones + 1), bool)
    now = 0
    for phone, duration in zip(phones, durations, strict=True):
        first = max(0, now - config.left_tolerance)
        last = min(total, now + duration + config.right_tolerance)
        allowed[-(-first // factor) : -(-last // factor), phone] = True
        now += duration
    return allowed


def _active(acceptor: Acceptor, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(T + 1, states): whether some path of T arcs is in the state before frame t; usable (T, arcs)."""
    source, target, _ = acceptor.arcs.T
    frames = len(usable)
    forward = np.zeros((frames + 1, acceptor.num_states), bool)
    backward = np.zeros_like(forward)
    forward[0, 0], backward[frames] = True, acceptor.finals > -np.inf
    for t in range(frames):
        forward[t + 1, target[usable[t] & forward[t, source]]] = True
    for t in range(frames - 1, -1, -1):
        backward[t, source[usable[t] & backward[t + 1, target]]] = True
    return forward & backward
