"""The n best word sequences of a lattice, each with the score of its best path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_TOKENS = 4_000  # alive at a frame; bounds the time


@dataclass(frozen=True)
class Lattice:
    """Acyclic, state 0 the start, the last one final; all paths to a state have the same number of arcs (frames).

    arcs : (A, 2) source and target, sorted by source. scores : (A,) float64. words : of each arc, none for most
    """

    arcs: NDArray[np.int64]
    scores: NDArray[np.float64]
    words: Sequence[tuple[int, ...]]

    def frames(self) -> list[NDArray[np.int64]]:
        """The arcs of each frame in turn."""
        splits = np.searchsorted(self.arcs[:, 0], np.arange(self.arcs.max() + 2))
        frames: list[NDArray[np.int64]] = []
        states = np.array([0])
        while True:
            counts = splits[states + 1] - splits[states]
            if not counts.sum():
                return frames
            frames.append(_ranges(splits[states], counts))
            states = np.unique(self.arcs[frames[-1], 1])


def nbest(lattice: Lattice, num: int, beam: float) -> list[tuple[list[int], float, NDArray[np.int64]]]:
    """Up to `num` word sequences, the best first, with the score and the arcs of their best path.

    beam : nats below the best path's score that are left out. Exact, unless more than MAX_TOKENS pairs of a state and the
    words on the way to it are alive at a frame.
    """
    frames = lattice.frames()
    source, target = lattice.arcs.T
    after = np.full(int(lattice.arcs.max()) + 1, -np.inf)  # score of the best way from a state to the end
    after[-1] = 0
    for arcs in reversed(frames):
        np.maximum.at(after, source[arcs], lattice.scores[arcs] + after[target[arcs]])
    said = {words: number for number, words in enumerate(dict.fromkeys([(), *lattice.words]))}
    names = list(said)
    spoken = np.array([said[words] for words in lattice.words])  # by number; 0: nothing
    splits = np.searchsorted(source, np.arange(len(after) + 1))
    past: list[tuple[int, ...]] = [()]  # the words so far, of each history
    histories: dict[tuple[int, ...], int] = {(): 0}
    state, history, score = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1)
    back = []  # of each frame: the arc of each token, and the token that it comes from
    for _ in frames:
        counts = splits[state + 1] - splits[state]
        arc, before = _ranges(splits[state], counts), np.repeat(np.arange(len(state)), counts)
        score = score[before] + lattice.scores[arc]
        whole = score + after[target[arc]]
        alive = np.flatnonzero(whole >= after[0] - beam)
        if len(alive) > MAX_TOKENS:
            alive = np.sort(alive[np.argpartition(-whole[alive], MAX_TOKENS)[:MAX_TOKENS]])
        arc, before, score = arc[alive], before[alive], score[alive]
        history = history[before]
        more = np.flatnonzero(spoken[arc])
        pairs, place = np.unique(np.column_stack([history[more], spoken[arc[more]]]), axis=0, return_inverse=True)
        longer = [past[earlier] + names[words] for earlier, words in pairs.tolist()]
        past += (words for words in dict.fromkeys(longer) if words not in histories)
        histories |= {words: number for number, words in enumerate(past[len(histories) :], len(histories))}
        history[more] = np.array([histories[words] for words in longer], np.int64)[place.ravel()]
        order = np.lexsort((-score, history, target[arc]))  # the best of each state and history comes first
        state, history = target[arc[order]], history[order]
        first = np.flatnonzero(np.diff(state, prepend=-1) | np.diff(history, prepend=-1))
        state, history, kept = state[first], history[first], order[first]
        score = score[kept]
        back.append((arc[kept], before[kept]))
    found = []
    for token in np.argsort(-score, kind="stable")[:num]:
        path = np.empty(len(frames), np.int64)
        now = token
        for frame in range(len(frames) - 1, -1, -1):
            path[frame], now = back[frame][0][now], back[frame][1][now]
        words = [word for arc in path.tolist() for word in lattice.words[arc]]
        found.append((words, float(score[token]), path))
    return found


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """start, start + 1 … of each, one behind the other."""
    ends = np.cumsum(counts)
    return np.arange(int(counts.sum()), dtype=np.int64) + np.repeat(starts - ends + counts, counts)
