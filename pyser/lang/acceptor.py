"""Weighted acceptors with epsilons, and the operations on them that Kaldi's chain graphs are made by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyser.chain.graph import Graph
from pyser.errors import PyserError

DELTA = 1.0 / 1024  # OpenFst's kDelta
LARGEST = 10_000_000  # state or label; a file with more is a damaged one
PUSH_DELTA, MINIMIZE_DELTA = DELTA * 0.01, DELTA * 10  # as chain-den-graph.cc has them


@dataclass(frozen=True, eq=False)
class Acceptor:
    """State 0 starts.

    arcs : (A, 3) int32: source, destination, label; label 0 is epsilon
    weights : (A,) float64, log
    finals : (states,) float64, log; -inf: not final
    """

    arcs: NDArray[np.int32]
    weights: NDArray[np.float64]
    finals: NDArray[np.float64]

    @property
    def num_states(self) -> int:
        return len(self.finals)

    @classmethod
    def of(cls, arcs: list[tuple[int, int, int]], weights: list[float], finals: dict[int, float]) -> Acceptor:
        """From lists; `finals` by state."""
        table = np.array(arcs, np.int32).reshape(-1, 3)
        final = np.full(max(int(table[:, :2].max(initial=0)), max(finals, default=0)) + 1, -np.inf)
        final[list(finals)] = list(finals.values())
        return cls(table, np.array(weights, np.float64), final)

    def graph(self) -> Graph:
        """Labels less one as pdfs; there may be no epsilons."""
        return Graph(self.arcs - np.array([0, 0, 1], np.int32), self.weights, self.finals)

    @classmethod
    def of_graph(cls, graph: Graph) -> Acceptor:
        """See graph."""
        return cls(graph.arcs + np.array([0, 0, 1], np.int32), graph.weights, graph.finals)

    def text(self) -> str:
        """OpenFst's text form; the start comes first."""
        order = np.argsort(self.arcs[:, 0], kind="stable")
        lines = [f"{source}\t{target}\t{label}\t{label}\t{-weight + 0.0:.9g}"
                 for (source, target, label), weight in zip(self.arcs[order].tolist(), self.weights[order], strict=True)]
        lines += [f"{state}\t{-weight + 0.0:.9g}" for state, weight in enumerate(self.finals) if weight > -np.inf]
        return "\n".join([*lines, ""])


def from_text(text: str, name: str = "acceptor") -> Acceptor:
    """OpenFst's text form, input labels; the state of the first line starts, and changes its number with state 0."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines:
        raise PyserError(f"{name}: no states in it")
    arcs, weights, finals = [], [], {}
    for number, fields in enumerate(lines, 1):
        try:
            if len(fields) in (4, 5):
                arcs.append((int(fields[0]), int(fields[1]), int(fields[2])))
                if not 0 <= min(arcs[-1]) <= max(arcs[-1]) <= LARGEST:
                    raise ValueError
                weights.append(-float(fields[4]) if len(fields) == 5 else 0.0)
            elif len(fields) <= 2:
                finals[int(fields[0])] = -float(fields[1]) if len(fields) == 2 else 0.0
            if not 0 <= int(fields[0]) <= LARGEST or len(fields) not in (1, 2, 4, 5):
                raise ValueError
        except ValueError:
            raise PyserError(f"{name}: line {number} is neither an arc nor a final state: {' '.join(fields)!r}") from None
    start = int(lines[0][0])
    acceptor = Acceptor.of(arcs, weights, finals)
    order = np.arange(max(acceptor.num_states, start + 1))
    order[[0, start]] = start, 0
    final = np.full(len(order), -np.inf)
    final[: acceptor.num_states] = acceptor.finals
    table = acceptor.arcs.copy()
    table[:, :2] = order[table[:, :2]]
    return Acceptor(table, acceptor.weights, final[order])


def reachable(sources: NDArray[np.int32], targets: NDArray[np.int32], start: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """States that arcs lead to from those of `start`, and these."""
    seen = start.copy()
    while True:
        new = targets[seen[sources]]
        if seen[new].all():
            return seen
        seen[new] = True


def connect(acceptor: Acceptor) -> Acceptor:
    """Without states that are on no path; a lone state 0 where there is none."""
    source, target, _ = acceptor.arcs.T
    start = np.zeros(acceptor.num_states, bool)
    start[0] = True
    keep = reachable(source, target, start) & reachable(target, source, acceptor.finals > -np.inf)
    if not keep[0]:
        return Acceptor(np.zeros((0, 3), np.int32), np.zeros(0), np.full(1, -np.inf))
    number = (np.cumsum(keep) - 1).astype(np.int32)
    kept = keep[source] & keep[target]
    arcs = acceptor.arcs[kept]
    arcs[:, :2] = number[arcs[:, :2]]
    return Acceptor(arcs, acceptor.weights[kept], acceptor.finals[keep])


def remove_epsilons(acceptor: Acceptor) -> Acceptor:
    """The same paths' weights in the tropical semiring, as OpenFst's RmEpsilon: of parallel arcs and of parallel paths of
    epsilons the best is kept."""
    silent = acceptor.arcs[:, 2] == 0
    arcs, weights, finals = acceptor.arcs[~silent], acceptor.weights[~silent], acceptor.finals.copy()
    order = np.argsort(arcs[:, 0], kind="stable")
    arcs, weights = arcs[order], weights[order]
    first = np.searchsorted(arcs[:, 0], np.arange(acceptor.num_states + 1))
    jumps, jump_weights = acceptor.arcs[silent][:, :2], acceptor.weights[silent]
    pairs, pair_weights = jumps, jump_weights
    added, added_weights = [arcs], [weights]
    best: dict[tuple[int, int], float] = {}
    while len(pairs):
        better = [n for n, (pair, weight) in enumerate(zip(map(tuple, pairs.tolist()), pair_weights.tolist(), strict=True))
                  if weight > best.get(pair, -np.inf) and not best.update({pair: weight})]
        pairs, pair_weights = pairs[better], pair_weights[better]
        np.maximum.at(finals, pairs[:, 0], pair_weights + acceptor.finals[pairs[:, 1]])
        through, which = spread(pairs[:, 1], first)
        added.append(np.column_stack([pairs[through, 0], arcs[which, 1:]]).astype(np.int32))
        added_weights.append(pair_weights[through] + weights[which])
        after, following = spread(pairs[:, 1], np.searchsorted(np.sort(jumps[:, 0]), np.arange(acceptor.num_states + 1)))
        following = np.argsort(jumps[:, 0], kind="stable")[following]
        pairs, pair_weights = (np.column_stack([pairs[after, 0], jumps[following, 1]]),
                               pair_weights[after] + jump_weights[following])
    arcs, weights = np.concatenate(added), np.concatenate(added_weights)
    order = np.lexsort((-weights, arcs[:, 2], arcs[:, 1], arcs[:, 0]))
    arcs, weights = arcs[order], weights[order]
    best_one = np.ones(len(arcs), bool)
    best_one[1:] = (arcs[1:] != arcs[:-1]).any(axis=1)
    return connect(Acceptor(arcs[best_one], weights[best_one], finals))


def spread(states: NDArray[Any], first: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each arc of each state: the place in `states`, and the arc's (arcs lie by state, `first` says where)."""
    counts = first[states + 1] - first[states]
    places = np.repeat(np.arange(len(states)), counts)
    offsets = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    return places, first[states][places] + offsets


def intersect(one: Acceptor, other: Index) -> Acceptor:
    """Paths that both have, with the sum of their log weights; neither may have epsilons. States come in the order of their
    distance from the start; a lone state 0 when there is no path."""
    source, target, label = one.arcs[np.argsort(one.arcs[:, 0], kind="stable")].T.astype(np.int64)
    weight = one.weights[np.argsort(one.arcs[:, 0], kind="stable")]
    first = np.searchsorted(source, np.arange(one.num_states + 1))
    width = other.num_states
    number = np.zeros(one.num_states * width, np.int32)  # of pairs of states, from 1
    front, pairs, arcs, weights = np.zeros(1, np.int64), [np.zeros(1, np.int64)], [], []
    number[0] = count = 1
    while len(front):
        place, mine = spread(front // width, first)
        origin, hers = other.arcs(front[place] % width, label[mine])
        place, mine = place[origin], mine[origin]
        reached = target[mine] * width + other.targets[hers]
        new = reached[number[reached] == 0]
        new = new[np.sort(np.unique(new, return_index=True)[1])]
        number[new] = np.arange(count + 1, count + 1 + len(new))
        count += len(new)
        arcs.append(np.column_stack([number[front[place]] - 1, number[reached] - 1, label[mine]]))
        weights.append(weight[mine] + other.weights[hers])
        pairs.append(new)
        front = new
    states = np.concatenate(pairs)
    return connect(Acceptor(np.concatenate(arcs).astype(np.int32), np.concatenate(weights),
                            one.finals[states // width] + other.finals[states % width]))


class Index:
    """An acceptor ready to be intersected with many others."""

    def __init__(self, acceptor: Acceptor):
        source, target, label = acceptor.arcs.T.astype(np.int64)
        self.num_states, self.finals, self.size = acceptor.num_states, acceptor.finals, int(label.max(initial=0)) + 1
        order = np.argsort(source * self.size + label, kind="stable")
        self.keys, self.targets, self.weights = (source * self.size + label)[order], target[order], acceptor.weights[order]

    def arcs(self, states: NDArray[np.int64], labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each arc that leaves states[i] with labels[i]: i, and the arc's place."""
        keys = np.where(labels < self.size, states * self.size + labels, -1)
        low, high = np.searchsorted(self.keys, keys, "left"), np.searchsorted(self.keys, keys, "right")
        places = np.repeat(np.arange(len(keys)), high - low)
        return places, np.arange(len(places)) + np.repeat(low - (np.cumsum(high - low) - (high - low)), high - low)


def determinize(acceptor: Acceptor) -> Acceptor:
    """Of all paths with the same labels the best one's weight (fst::Determinize in the tropical semiring). For acceptors
    without epsilons and cycles; states come in the order of their distance from the start."""
    leaving: list[list[tuple[int, int, float]]] = [[] for _ in range(acceptor.num_states)]
    for (source, target, label), weight in zip(acceptor.arcs.tolist(), acceptor.weights.tolist(), strict=True):
        leaving[source].append((label, target, weight))
    final = acceptor.finals.tolist()
    subsets: list[dict[int, float]] = [{0: 0.0}]  # states and how far behind the best they are
    number: dict[tuple[tuple[int, int], ...], int] = {}
    arcs, weights, finals = [], [], {}
    for source, subset in enumerate(subsets):
        end = max(final[state] + behind for state, behind in subset.items())
        if end > -np.inf:
            finals[source] = end
        reached: dict[int, dict[int, float]] = {}
        for state, behind in subset.items():
            for label, target, weight in leaving[state]:
                ways = reached.setdefault(label, {})
                ways[target] = max(ways.get(target, -np.inf), behind + weight)
        for label, ways in sorted(reached.items()):
            best = max(ways.values())
            key = tuple(sorted((state, round((weight - best) / DELTA)) for state, weight in ways.items()))
            if key not in number:
                number[key] = len(subsets)
                subsets.append({state: weight - best for state, weight in ways.items()})
            arcs.append((source, number[key], label))
            weights.append(best)
    return Acceptor.of(arcs, weights, finals)


def reverse(acceptor: Acceptor) -> Acceptor:
    """Every path backwards, from a new start with epsilons to what was final (fst::Reverse)."""
    ends = np.flatnonzero(acceptor.finals > -np.inf).astype(np.int32)
    zeros = np.zeros_like(ends)
    arcs = np.concatenate([np.column_stack([zeros, ends + 1, zeros]),
                           acceptor.arcs[:, [1, 0, 2]] + np.array([1, 1, 0], np.int32)]).astype(np.int32)
    finals = np.full(acceptor.num_states + 1, -np.inf)
    finals[1] = 0
    return Acceptor(arcs, np.concatenate([acceptor.finals[ends], acceptor.weights]), finals)


def push_special(acceptor: Acceptor, delta: float = PUSH_DELTA) -> Acceptor:
    """Weights moved along the paths until all states' arcs and final weight add up to the same (fstext/push-special.cc):
    the potentials are the dominant eigenvector of the transition matrix, with an arc from each final state to the start."""
    source, target, _ = acceptor.arcs.T
    p, final = np.exp(acceptor.weights), np.exp(acceptor.finals)
    number = acceptor.num_states
    occ = np.full(number, 1 / np.sqrt(number))
    for iteration in range(200):
        new = 0.1 * occ + np.bincount(source, p * occ[target], number) + final * occ[0]
        occ = new / np.sqrt(np.square(new).sum())
        if iteration % 5 == 0 and iteration:
            sums = (np.bincount(source, p * occ[target], number) + final * occ[0]) / occ
            if np.log(sums.max() / sums.min()) <= delta:
                break
    potential = np.log(occ)
    weights = acceptor.weights + potential[target] - potential[source]
    return Acceptor(acceptor.arcs, weights, acceptor.finals + potential[0] - potential)


def minimize(acceptor: Acceptor, delta: float = MINIMIZE_DELTA) -> Acceptor:
    """States merged that go on alike, weights rounded to multiples of delta: MinimizeAcceptorNoPush of chain-den-graph.cc.
    Parallel arcs with the same rounded weight become one."""
    acceptor = connect(acceptor)
    steps = np.floor(-acceptor.weights.astype(np.float32) / np.float32(delta) + np.float32(0.5))
    final_steps = np.floor(-acceptor.finals.astype(np.float32) / np.float32(delta) + np.float32(0.5))
    source, target, label = acceptor.arcs.T.astype(np.int64)
    symbols = np.unique(np.column_stack([label, steps]), axis=0, return_inverse=True)[1].reshape(-1)
    classes = np.unique(final_steps, return_inverse=True)[1].reshape(-1)
    count = 0
    while count < classes.max() + 1:
        count = int(classes.max()) + 1
        keys = np.unique((source * (symbols.max(initial=0) + 1) + symbols) * count + classes[target])
        owner, what = keys // ((symbols.max(initial=0) + 1) * count), keys % ((symbols.max(initial=0) + 1) * count)
        sums = np.zeros(acceptor.num_states, np.uint64)
        np.add.at(sums, owner, _mix(what.astype(np.uint64)))
        sums += _mix(classes.astype(np.uint64)) * np.uint64(3)
        classes = np.unique(sums, return_inverse=True)[1].reshape(-1)
    order = np.full(count, acceptor.num_states)
    np.minimum.at(order, classes, np.arange(acceptor.num_states))  # classes in the order of their first states
    number = np.argsort(np.argsort(order, kind="stable"), kind="stable")[classes]
    finals = np.full(count, -np.inf)
    finals[number] = -final_steps * np.float32(delta)
    rows = np.unique(np.column_stack([number[source], number[target], label, steps.astype(np.int64)]), axis=0)
    return Acceptor(rows[:, :3].astype(np.int32), -(rows[:, 3] * np.float64(np.float32(delta))), finals)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64: sums of it tell sets of numbers apart."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
