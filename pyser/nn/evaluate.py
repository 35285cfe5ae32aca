"""Descriptors evaluated at given frames, as functions of the values of the nodes they read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pyser.kaldi.nnet3 import descriptor as d

Frames = d.Frames
Values = dict[str, Tensor]  # node -> (frames, chunks, columns); "" -> an empty tensor of their kind and number of chunks
Getter = Callable[[Values], Tensor]
TEMPLATE = ""


def evaluate(tree: d.Descriptor, frames: np.ndarray, needed: Frames, width: Callable[[d.Descriptor], int]) -> Getter:
    """A function that gives the descriptor's value at `frames`: (frames, chunks, columns), or one frame for all of them.

    needed: the frames that will be there of each node; width: the columns of a descriptor.
    """
    if isinstance(tree, d.Node):
        return take_node(needed, tree.name, frames)
    if isinstance(tree, d.Const):
        return lambda values: values[TEMPLATE].new_full((1, values[TEMPLATE].shape[1], tree.dim), tree.value)
    if isinstance(tree, d.Switch):
        number = frames % len(tree.sources)
        return _merge([(source, np.flatnonzero(number == i)) for i, source in enumerate(tree.sources)], frames, needed, width)
    if isinstance(tree, d.IfDefined):
        good = d.computable(tree.source, frames, needed)
        branches = [(tree.source, np.flatnonzero(good)), (d.Const(0.0, width(tree)), np.flatnonzero(~good))]
        return _merge(branches, frames, needed, width)
    if isinstance(tree, d.Failover):
        good = d.computable(tree.first, frames, needed)
        return _merge([(tree.first, np.flatnonzero(good)), (tree.second, np.flatnonzero(~good))], frames, needed, width)
    if isinstance(tree, d.Sum):
        return _sum(tree, frames, needed, width)
    getters = [evaluate(source, d.moved(tree, frames), needed, width) for source in d.sources(tree)]
    if isinstance(tree, d.Scale):
        return lambda values: getters[0](values) * tree.scale
    if isinstance(tree, d.Append):
        return lambda values: _append([get(values) for get in getters])
    return getters[0]


def take_node(needed: Frames, name: str, frames: np.ndarray) -> Getter:
    """Frames of a node."""
    if np.array_equal(needed[name], frames):
        return lambda values: values[name]
    rows = np.searchsorted(needed[name], frames)
    return lambda values: take(values[name], rows)


def take(x: Tensor, rows: np.ndarray) -> Tensor:
    """Rows of the first dimension; a view of `x` where they are evenly spaced, and one row where they are all the same."""
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    if step > 0 and (np.diff(rows) == step).all():
        return x[int(rows[0]) : int(rows[-1]) + 1 : step]
    if step == 0 and (rows == rows[0]).all():
        return x[int(rows[0]) : int(rows[0]) + 1]
    return x[torch.from_numpy(rows).to(x.device)]


def fresh(tree: d.Descriptor) -> bool:
    """Whether the descriptor's value is a new tensor that nobody else reads."""
    return isinstance(tree, d.Scale | d.Append) or isinstance(tree, d.Sum) and len(tree.sources) > 1


def _append(parts: list[Tensor]) -> Tensor:
    frames = max(len(part) for part in parts)
    return torch.cat([part.expand(frames, -1, -1) for part in parts], dim=2)


def _sum(tree: d.Sum, frames: np.ndarray, needed: Frames, width: Callable[[d.Descriptor], int]) -> Getter:
    """Scale(a, x) + y in one pass over memory: this is a TDNN-F's bypass connection."""
    terms = sorted(((source.scale, source.source) if isinstance(source, d.Scale) else (1.0, source)
                    for source in tree.sources), key=lambda term: term[0] != 1.0)  # unscaled ones first
    scales, getters = [scale for scale, _ in terms], [evaluate(source, frames, needed, width) for _, source in terms]

    def run(values: Values) -> Tensor:
        total = getters[0](values)
        if scales[0] != 1.0:
            total = total * scales[0]
        for scale, get in zip(scales[1:], getters[1:], strict=True):
            total = torch.add(total, get(values), alpha=scale)
        return total

    return run


def _merge(
    branches: list[tuple[d.Descriptor, np.ndarray]], frames: np.ndarray, needed: Frames,
    width: Callable[[d.Descriptor], int],
) -> Getter:
    """Frames that come from several descriptors, each for its places among them, put in order."""
    used = [(evaluate(tree, frames[places], needed, width), places) for tree, places in branches if len(places)]
    if len(used) == 1:
        return used[0][0]
    order = torch.from_numpy(np.argsort(np.concatenate([places for _, places in used])))

    def run(values: Values) -> Tensor:
        parts = [get(values).expand(len(places), -1, -1) for get, places in used]
        return torch.cat(parts)[order.to(parts[0].device)]

    return run
