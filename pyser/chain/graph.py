"""Graphs of LF-MMI: weighted acceptors of pdfs without epsilons, one arc for each frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyser.errors import PyserError
from pyser.files import read_lines


@dataclass(frozen=True, eq=False)
class Graph:
    """State 0 starts. A path of T arcs scores their weights, its pdfs' outputs and the final weight of its last state.

    arcs : (A, 3) int32: source, destination, pdf (a column of the network's output, from 0)
    weights : (A,) float64, log
    finals : (states,) float64, log; -inf: not final
    """

    arcs: NDArray[np.int32]
    weights: NDArray[np.float64]
    finals: NDArray[np.float64]

    def __post_init__(self) -> None:
        arcs = np.ascontiguousarray(self.arcs, dtype=np.int32)
        weights = np.ascontiguousarray(self.weights, dtype=np.float64)
        finals = np.ascontiguousarray(self.finals, dtype=np.float64)
        if arcs.ndim != 2 or arcs.shape[1] != 3 or weights.shape != arcs.shape[:1] or finals.ndim != 1:
            raise ValueError(f"a graph of arcs {arcs.shape}, weights {weights.shape}, finals {finals.shape}")
        if len(arcs) and (arcs.min() < 0 or arcs[:, :2].max() >= len(finals)) or not len(finals):
            raise ValueError(f"a graph of {len(finals)} states with an arc outside them, or with a negative pdf")
        for name, value in (("arcs", arcs), ("weights", weights), ("finals", finals)):
            object.__setattr__(self, name, value)

    @property
    def num_states(self) -> int:
        return len(self.finals)

    @property
    def num_pdfs(self) -> int:
        """One more than the largest pdf."""
        return int(self.arcs[:, 2].max()) + 1 if len(self.arcs) else 0

    @classmethod
    def from_text(cls, text: str, name: str = "graph") -> Graph:
        """OpenFst's text form, as Kaldi's chain graphs are printed by fstprint: `from to pdf+1 pdf+1 [cost]`, and
        `state [cost]` for final states. The state of the first line starts, and changes its number with state 0."""
        arcs, weights, finals = [], [], {}
        start = None
        for number, line in enumerate(text.splitlines(), 1):
            fields = line.split()
            if not fields:
                continue
            try:
                if len(fields) in (4, 5):
                    source, target, pdf = (int(field) for field in fields[:3])
                    if pdf < 1 or min(source, target) < 0:
                        raise ValueError
                    arcs.append((source, target, pdf - 1))
                    weights.append(-float(fields[4]) if len(fields) == 5 else 0.0)
                elif len(fields) <= 2:
                    source = int(fields[0])
                    finals[source] = -float(fields[1]) if len(fields) == 2 else 0.0
                else:
                    raise ValueError
            except ValueError:
                what = "`from to pdf+1 pdf+1 cost` or `state cost`"
                raise PyserError(f"{name}: line {number} is not {what}: {line!r}") from None
            start = source if start is None else start
        if start is None:
            raise PyserError(f"{name}: an empty graph")
        table = np.array(arcs, dtype=np.int32).reshape(-1, 3)
        final = np.full(max(int(table[:, :2].max(initial=0)), *finals, start) + 1, -np.inf)
        final[list(finals)] = list(finals.values())
        order = np.arange(len(final))
        order[[0, start]] = start, 0
        table[:, :2] = order[table[:, :2]]
        return cls(table, np.array(weights), final[order])

    @classmethod
    def read(cls, path: str | Path) -> Graph:
        """See from_text."""
        return cls.from_text("\n".join(read_lines(path)), str(path))

    def text(self) -> str:
        """See from_text."""
        order = np.argsort(self.arcs[:, 0], kind="stable")
        lines = [f"{source}\t{target}\t{pdf + 1}\t{pdf + 1}\t{-weight:.9g}"
                 for (source, target, pdf), weight in zip(self.arcs[order].tolist(), self.weights[order], strict=True)]
        lines += [f"{state}\t{-weight:.9g}" for state, weight in enumerate(self.finals) if np.isfinite(weight)]
        return "\n".join([*lines, ""])

    def probabilities(self, num_iters: int = 100) -> NDArray[np.float64]:
        """(states,) initial probabilities: each state's mean share over `num_iters` frames from the start, all weights of
        a state (its final one too) scaled to sum to one (DenominatorGraph::SetInitialProbs, chain-den-graph.cc)."""
        source, target = self.arcs[:, 0], self.arcs[:, 1]
        weight = np.exp(self.weights)
        total = np.exp(self.finals) + np.bincount(source, weight, self.num_states)
        share = weight / total[source]
        now, mean = np.zeros(self.num_states), np.zeros(self.num_states)
        now[0] = 1
        for _ in range(num_iters):
            mean += now / num_iters
            after = np.bincount(target, now[source] * share, self.num_states)
            if after.sum() == 0:
                raise PyserError(f"the denominator graph has no path of {num_iters} frames: it must have loops")
            now = after / after.sum()
        return mean

    def distances(self) -> NDArray[np.int32]:
        """(states,) arcs from the start to each state, at the least; a number that no path reaches where there is none."""
        far = np.iinfo(np.int32).max
        distance = np.full(self.num_states, far, dtype=np.int32)
        front, step = np.zeros(1, dtype=np.int64), 0
        while len(front):
            distance[front] = step
            step += 1
            reached = np.unique(self.arcs[np.isin(self.arcs[:, 0], front), 1])
            front = reached[distance[reached] == far]
        return distance

    def to_k2(self) -> Any:
        """k2.Fsa: labels are pdfs."""
        import torch

        from pyser.libraries import import_k2

        k2 = import_k2()

        ends = np.flatnonzero(np.isfinite(self.finals))
        last = np.stack([ends, np.full(len(ends), self.num_states), np.full(len(ends), -1)], axis=1)
        arcs = np.concatenate([self.arcs, last])
        weights = np.concatenate([self.weights, self.finals[ends]]).astype(np.float32)
        order = np.argsort(arcs[:, 0], kind="stable")
        table = np.concatenate([arcs[order], weights[order].view(np.int32)[:, None]], axis=1).astype(np.int32)
        return k2.arc_sort(k2.Fsa(torch.from_numpy(table)))


def from_k2(fsas: Any) -> list[Graph]:
    """The graphs of a k2.Fsa (one) or of an FsaVec: acceptors whose labels are pdfs, -1 on the arcs to the last state."""
    arcs, scores = fsas.arcs.values()[:, :3].cpu().numpy(), fsas.scores.detach().double().cpu().numpy()
    if len(fsas.shape) == 2:
        state_splits = [0, int(fsas.shape[0])]
        arc_splits = [0, len(arcs)]
    else:
        state_splits = fsas.arcs.row_splits(1).tolist()
        arc_splits = fsas.arcs.row_splits(2).cpu()[fsas.arcs.row_splits(1).long().cpu()].tolist()
    graphs = []
    for n in range(len(arc_splits) - 1):
        mine, weights = arcs[arc_splits[n] : arc_splits[n + 1]], scores[arc_splits[n] : arc_splits[n + 1]]
        last = mine[:, 2] < 0
        finals = np.full(max(state_splits[n + 1] - state_splits[n] - 1, 1), -np.inf)
        np.logaddexp.at(finals, mine[last, 0], weights[last])
        graphs.append(Graph(mine[~last], weights[~last], finals))
    return graphs
