"""H of HLG: the transducer from the network's outputs to phones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyser.lang.acceptor import Acceptor
from pyser.lang.denominator import expand
from pyser.lang.topology import Topology
from pyser.libraries import import_k2


def transducer(topology: Topology) -> tuple[Acceptor, NDArray[np.int32]]:
    """All phone sequences as pdf + 1, one arc for each frame, and the phone that each arc puts out: with the first frame of
    a phone, 0 otherwise. Weights are the transition probabilities, as mkgraph.sh --self-loop-scale 1.0 has them."""
    phones = range(1, topology.num_phones + 1)
    transitions, table = topology.transitions()
    loop = expand(Acceptor.of([(0, 0, phone) for phone in phones], [0.0] * len(phones), {0: 0.0}), transitions)
    source, target, label = loop.arcs.T
    if topology.ctc:
        return loop, np.where(source == target, 0, label - 1).astype(np.int32)
    phone, pdf = table[label - 1].T
    first = label % 2 == 1  # transitions of a phone: entry, self-loop
    return Acceptor(np.column_stack([source, target, pdf + 1]), loop.weights, loop.finals), np.where(first, phone, 0)


def hmm(topology: Topology) -> Any:
    """The transducer as a k2.Fsa: labels are pdfs, aux_labels phones."""
    k2 = import_k2()
    import torch

    acceptor, phones = transducer(topology)
    ends = np.flatnonzero(acceptor.finals > -np.inf)
    last = np.column_stack([ends, np.full_like(ends, acceptor.num_states), np.zeros_like(ends)])
    arcs = np.concatenate([acceptor.arcs, last]) - np.array([0, 0, 1])
    weights = np.concatenate([acceptor.weights, acceptor.finals[ends]]).astype(np.float32)
    outputs = np.concatenate([phones, np.full(len(ends), -1)])
    order = np.argsort(arcs[:, 0], kind="stable")
    table = np.column_stack([arcs[order], weights[order].view(np.int32)]).astype(np.int32)
    return k2.arc_sort(k2.Fsa(torch.from_numpy(table), torch.from_numpy(outputs[order].astype(np.int32))))
