"""One system at several bottleneck nodes: what each layer of the acoustic model is worth, and which is chosen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.scoring.results import Results, by_system, statements


@dataclass(frozen=True)
class Layer:
    """UA of a node, mean over folds and seeds, and its standard deviation (fractions): over seeds where there are several,
    else over folds (None for one fold). valid_ua: on the validation speakers, None where nothing was validated."""

    node: str
    ua: float
    std: float | None
    seeds: tuple[int, ...]
    valid_ua: float | None = None


@dataclass(frozen=True)
class Choice:
    """The node of the highest UA on each fold's validation speakers, mean over seeds, and the test UA that these give: mean
    over folds and seeds, standard deviation as in Layer."""

    nodes: dict[str, str]
    ua: float
    std: float | None


def same_but_node(results: Sequence[Results]) -> list[Layer]:
    """The nodes of `results`, from the network's input to its output.

    PyserError when two systems are of one node, or when anything but the node makes a difference: seeds, test
    utterances, settings.
    """
    return [_layer(group) for group in _groups(results)]


def chosen_on_validation(results: Sequence[Results]) -> Choice | None:
    """The choice that a test speaker takes no part in, nor in the epoch; None where a fold was not validated.

    PyserError as `same_but_node`.
    """
    groups = _groups(results)
    folds = {fold["name"]: [[_fold(result, fold["name"]) for result in group] for group in groups]
             for fold in groups[0][0]["folds"]}  # of each: nodes, seeds
    if any(one.get("valid_ua") is None for nodes in folds.values() for node in nodes for one in node):
        return None
    best = {name: int(np.argmax([np.mean([one["valid_ua"] for one in node]) for node in nodes]))
            for name, nodes in folds.items()}
    ua = np.array([[one["ua"] for one in nodes[best[name]]] for name, nodes in folds.items()])  # (folds, seeds)
    spread = ua.mean(axis=0) if ua.shape[1] > 1 else ua[:, 0]
    return Choice({name: groups[i][0]["node"] for name, i in best.items()}, float(ua.mean()),
                  float(np.std(spread, ddof=1)) if len(spread) > 1 else None)


def _fold(result: Results, name: str) -> dict[str, Any]:
    return next(fold for fold in result["folds"] if fold["name"] == name)


def _groups(results: Sequence[Results]) -> list[list[Results]]:
    """The seeds of each node, in the network's order."""
    systems: dict[str, list[Results]] = {}
    for group in by_system(results):
        first = group[0]
        if first["node"] == "not stated":
            raise PyserError(f"{first['name']}: does not state its node; run `pyser ser package-frontend` and score again")
        if first["node"] in systems:
            raise PyserError(f"{systems[first['node']][0]['name']} and {first['name']} are two systems of node "
                             f"{first['node']}; give one")
        systems[first["node"]] = group
    every = [systems[node] for node in sorted(systems, key=_depth)]
    for group in every[1:]:
        _check_comparable(every[0], group)
    return every


def _check_comparable(a: Sequence[Results], b: Sequence[Results]) -> None:
    one, other = ({"seeds": " ".join(str(result["seed"]) for result in group)} | statements(group[0]) for group in (a, b))
    for name in one | other:
        if one.get(name) != other.get(name):
            raise PyserError(f"{a[0]['name']} and {b[0]['name']} differ in more than the node: {name} "
                             f"{one.get(name, 'not stated')} and {other.get(name, 'not stated')}")
    for result in (*a, *b):
        odd = a[0]["decisions"].keys() ^ result["decisions"].keys()
        if odd:
            raise PyserError(f"{a[0]['name']} and {result['name']} were not tested on the same utterances ({min(odd)}); "
                             "train both on the same lists")


def _layer(group: Sequence[Results]) -> Layer:
    uas = [result["mean"]["ua"] for result in group]
    std = float(np.std(uas, ddof=1)) if len(group) > 1 else group[0]["std"]["ua"]
    valid = [fold.get("valid_ua") for result in group for fold in result["folds"]]
    valid_ua = None if None in valid else float(np.mean(valid))
    return Layer(group[0]["node"], float(np.mean(uas)), std, tuple(result["seed"] for result in group), valid_ua)


def _depth(node: str) -> tuple[int, int, str]:
    """Sorts lda, tdnn1, tdnnf2 … tdnnf13, prefinal-l, output: layers by their number, the input's names before them."""
    number = re.search(r"\d+", node)
    if number:
        return 1, int(number[0]), node
    return 2 if node.startswith("prefinal") else 3 if node.startswith("output") else 0, 0, node
