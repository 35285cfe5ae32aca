"""Denominators of LF-MMI: a phone LM expanded to the topology's pdfs and made small (src/chain/chain-den-graph.cc)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.files import read_lines
from pyser.lang.acceptor import Acceptor, connect, from_text, minimize, push_special, remove_epsilons, reverse, spread
from pyser.lang.openfst import Fst, write_fst
from pyser.lang.topology import SELF_LOOP, Topology, load_topology


def expand(phones: Acceptor, topology: Topology, scale: float = 1.0) -> Acceptor:
    """An acceptor of phones (no epsilons) as one of pdf + 1, no epsilons.

    scale : of the transition probabilities; 0 leaves them out, as numerators need it (the denominator has them already).
    """
    if len(phones.arcs) and (phones.arcs[:, 2].min() < 1 or phones.arcs[:, 2].max() > topology.num_phones):
        raise PyserError(f"a graph of phones {phones.arcs[:, 2].min()} … {phones.arcs[:, 2].max()}, "
                         f"the topology has 1 … {topology.num_phones}; make both from one lang directory")
    if topology.ctc:
        return _expand_ctc(phones)
    source, target, phone = phones.arcs[np.argsort(phones.arcs[:, 0], kind="stable")].T.astype(np.int64)
    weight = phones.weights[np.argsort(phones.arcs[:, 0], kind="stable")]
    first = np.searchsorted(source, np.arange(phones.num_states + 1))
    # Nodes: a state of `phones` and the phone before it. States: a node and the pdfs it was entered by.
    known, node = np.unique(target * (topology.num_phones + 1) + phone, return_inverse=True)
    place, left = (np.concatenate([[0], part]) for part in divmod(known, topology.num_phones + 1))
    origin, which = spread(place, first)
    entry, loop = topology.of(left[origin], phone[which]).T.astype(np.int64)
    size = topology.num_pdfs
    known, state = np.unique(((node.reshape(-1)[which] + 1) * size + entry) * size + loop, return_inverse=True)
    of = np.concatenate([[0], known // size**2])  # node of each state
    leave = np.where(np.arange(len(of)) > 0, scale * math.log(1 - SELF_LOOP), 0.0)
    source, arc = spread(of, np.searchsorted(origin, np.arange(len(place) + 1)))
    own = np.arange(1, len(of))
    arcs = np.concatenate([np.column_stack([source, state.reshape(-1)[arc] + 1, entry[arc] + 1]),
                           np.column_stack([own, own, known % size + 1])]).astype(np.int32)
    weights = np.concatenate([weight[which[arc]] + leave[source], np.full(len(own), scale * math.log(SELF_LOOP))])
    return Acceptor(arcs, weights, phones.finals[place[of]] + leave)


def _expand_ctc(phones: Acceptor) -> Acceptor:
    """State q of `phones` stays q, with blanks; behind each phone that enters q there is a state more."""
    source, target, phone = phones.arcs.T.astype(np.int64)
    size = int(phone.max(initial=0)) + 1
    known, node = np.unique(target * size + phone, return_inverse=True)
    place, left = divmod(known, size)
    number, node = phones.num_states, node.reshape(-1) + phones.num_states
    order = np.argsort(source, kind="stable")
    behind, arc = spread(place, np.searchsorted(source[order], np.arange(number + 1)))
    arc = order[arc]
    behind, arc = behind[left[behind] != phone[arc]], arc[left[behind] != phone[arc]]
    blanks, own = np.arange(number), np.arange(len(place)) + number
    silent = np.zeros(number + 2 * len(place))
    arcs = [np.column_stack(columns) for columns in (
        (source, node, phone + 1), (own[behind], node[arc], phone[arc] + 1), (blanks, blanks, np.ones_like(blanks)),
        (own, own, left + 1), (own, place, np.ones_like(own)))]
    return Acceptor(np.concatenate(arcs).astype(np.int32), np.concatenate([phones.weights, phones.weights[arc], silent]),
                    np.concatenate([phones.finals, phones.finals[place]]))


def denominator(phone_lm: Acceptor, topology: Topology) -> Graph:
    """What `chain-make-den-fst` makes of a phone LM: expanded, and made small by pushing and merging states forwards and
    backwards three times (weights are rounded to about 0.01 each time, as in Kaldi); busy states first."""
    acceptor = connect(expand(phone_lm, topology))
    if not len(acceptor.arcs):
        raise PyserError("the phone LM has no path from start to end; check the transcripts it was trained on")
    for _ in range(3):
        acceptor = reverse(minimize(push_special(reverse(acceptor))))
        acceptor = minimize(push_special(acceptor))
    acceptor = push_special(remove_epsilons(acceptor))
    busy = np.bincount(acceptor.arcs[:, :2].ravel(), minlength=acceptor.num_states)
    busy[0] = np.iinfo(np.int64).max  # the start stays state 0
    number = np.empty(acceptor.num_states, np.int32)
    order = np.argsort(-busy, kind="stable")
    number[order] = np.arange(acceptor.num_states)
    arcs = acceptor.arcs.copy()
    arcs[:, :2] = number[arcs[:, :2]]
    rank = np.lexsort((arcs[:, 2], arcs[:, 1], arcs[:, 0]))
    return Acceptor(arcs[rank], acceptor.weights[rank], acceptor.finals[order]).graph()


def load_denominator(lang_dir: str | Path) -> Graph:
    """Of the phone LM and the topology of a lang directory."""
    path = Path(lang_dir) / "P.fst.txt"
    return denominator(from_text("\n".join(read_lines(path)), str(path)), load_topology(lang_dir))


def write_denominator(lang_dir: str | Path, out_dir: str | Path) -> str:
    """out_dir/den.fst and normalization.fst, as chain-make-den-fst writes them; returns a line about their size."""
    graph, num_pdfs = load_denominator(lang_dir), load_topology(lang_dir).num_pdfs
    write_fst(Path(out_dir) / "den.fst", Fst.of(Acceptor.of_graph(graph)))
    write_fst(Path(out_dir) / "normalization.fst", Fst.of(Acceptor.of_graph(normalization(graph))))
    return f"denominator: {graph.num_states} states, {len(graph.arcs)} arcs, {num_pdfs} pdfs -> {out_dir}"


def normalization(graph: Graph) -> Graph:
    """The denominator as numerators are composed with it: it may start in any state, with Kaldi's initial probabilities,
    and end in any (DenominatorGraph::GetNormalizationFst). Of parallel arcs from the start the best is kept."""
    initial = np.log(graph.probabilities().astype(np.float32)).astype(np.float64)
    states = np.flatnonzero(initial > -np.inf).astype(np.int32)
    zeros = np.zeros_like(states)
    arcs = np.concatenate([np.column_stack([zeros, states + 1, zeros]), graph.arcs + 1]).astype(np.int32)
    finals = np.concatenate([[-np.inf], np.zeros(graph.num_states)])
    weights = np.concatenate([initial[states], graph.weights])
    return connect(remove_epsilons(Acceptor(arcs, weights, finals))).graph()
