"""The best words through a decoding graph, by k2 or, where it is not installed, by kaldi-decoder.

Both take a graph whose labels are columns of the output and whose every arc is a frame (HLG.safetensors).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyser.chain.nbest import Lattice, nbest
from pyser.errors import PyserError
from pyser.lang.graphs import load_hlg, read_words
from pyser.lang.openfst import Fst, write_fst


@dataclass(frozen=True)
class Hypothesis:
    """words; acoustic, graph: the log-probabilities of their best path by the network (times the acoustic scale) and by the
    decoding graph, 0 where only the best words were asked for."""

    words: list[str]
    acoustic: float = 0.0
    graph: float = 0.0


Search = Callable[[np.ndarray], list[Hypothesis]]


@dataclass(frozen=True)
class DecodeConfig:
    """Beams in nats. `search_beam` prunes while searching, `output_beam` the lattice that is left (k2), `max_active` bounds
    the states alive at a frame. `acoustic_scale` multiplies the log-softmaxed outputs (1 for LF-MMI). nbest: how many word
    sequences (k2), 0 for the best alone, without scores."""

    search_beam: float = 20.0
    output_beam: float = 8.0
    min_active: int = 30
    max_active: int = 10000
    acoustic_scale: float = 1.0
    nbest: int = 0
    frames_per_chunk: int = 150
    num_threads: int = 1


def load_search(lang_dir: str | Path, config: DecodeConfig, engine: str | None = None) -> Search:
    """A function from log_probs (T, C) float32 to hypotheses, the best first; none when no path reached a final state.

    engine : k2, kaldi-decoder or None, the first of them that is installed
    """
    words = read_words(lang_dir)
    if config.nbest and engine == "kaldi-decoder":
        raise PyserError("n-best lists need k2: take --engine k2, or --nbest 0")
    for name, make in (("k2", _k2_search), ("kaldi-decoder", _kaldi_search)):
        if engine in (None, name):
            try:
                return make(load_hlg(lang_dir), words, config)
            except ImportError:
                if config.nbest:
                    break
                continue
    if config.nbest:
        raise PyserError("n-best lists need k2: run local/install.sh, or take --nbest 0")
    raise PyserError("decoding needs k2 or kaldi-decoder: run local/install.sh")


def k2_graph(graph: dict[str, Tensor]) -> Any:
    """k2.Fsa: labels are columns of the output, aux_labels (ragged) words."""
    import k2

    fsa = k2.Fsa(graph["arcs"])
    fsa.aux_labels = k2.RaggedTensor(k2.ragged.create_ragged_shape2(graph["row_splits"]), graph["words"])
    return fsa


def _k2_search(graph: dict[str, Tensor], words: dict[int, str], config: DecodeConfig) -> Search:
    import k2

    hlg = k2_graph(graph)
    hlg.lm_scores = hlg.scores.clone()

    def search(log_probs: np.ndarray) -> list[Hypothesis]:
        dense = k2.DenseFsaVec(torch.from_numpy(log_probs)[None] * config.acoustic_scale,
                               torch.tensor([[0, 0, len(log_probs)]]).int())
        lattice = k2.intersect_dense_pruned(
            hlg, dense, config.search_beam, config.output_beam, config.min_active, config.max_active)
        if lattice.num_arcs == 0:
            return []
        if config.nbest:
            graph = lattice.lm_scores.double().numpy()
            found = nbest(_lattice(lattice), config.nbest, config.output_beam)
            return [Hypothesis([words[number] for number in said], score - graph[path].sum(), graph[path].sum())
                    for said, score, path in found]
        labels = k2.shortest_path(lattice, use_double_scores=True).aux_labels
        labels = labels.values if isinstance(labels, k2.RaggedTensor) else labels
        return [Hypothesis([words[number] for number in labels.tolist() if number > 0])]

    return search


def _lattice(fsa: Any) -> Lattice:
    """k2.FsaVec of one utterance."""
    arcs = fsa.arcs.values().numpy()
    labels = fsa.aux_labels
    rows = [[word] for word in labels.tolist()] if isinstance(labels, Tensor) else labels.tolist()
    words = [tuple(word for word in row if word > 0) for row in rows]
    return Lattice(arcs[:, :2].astype(np.int64), fsa.scores.double().numpy(), words)


def _kaldi_search(graph: dict[str, Tensor], words: dict[int, str], config: DecodeConfig) -> Search:
    import kaldi_decoder
    import kaldifst

    options = kaldi_decoder.FasterDecoderOptions(
        beam=config.search_beam, max_active=config.max_active, min_active=config.min_active)
    fst = _openfst(kaldifst, graph)

    def search(log_probs: np.ndarray) -> list[Hypothesis]:
        decoder = kaldi_decoder.FasterDecoder(fst, options)
        decoder.decode(kaldi_decoder.DecodableCtc((log_probs * np.float32(config.acoustic_scale)).astype(np.float32)))
        if not decoder.reached_final():
            return []
        found, path = decoder.get_best_path()
        if not found:
            return []
        _, _, labels, _ = kaldifst.get_linear_symbol_sequence(path)
        return [Hypothesis([words[number] for number in labels if number > 0])]

    return search


def _openfst(kaldifst: Any, graph: dict[str, Tensor]) -> Any:
    """Input labels are columns + 1. Words behind an arc's first one, and those of arcs to the final state, come on arcs
    without input."""
    arcs, splits, words = (graph[name].numpy() for name in ("arcs", "row_splits", "words"))
    costs = -arcs[:, 3].copy().view(np.float32)
    table = np.column_stack([arcs[:, :2], arcs[:, 2] + 1, np.zeros(len(arcs), np.int32)])  # (-1, at the end, is epsilon)
    finals = np.full(int(arcs[:, :2].max()) + 1, np.inf, np.float32)
    finals[arcs[arcs[:, 2] < 0, 1]] = 0
    said = [words[begin:end] for begin, end in zip(splits, splits[1:], strict=False)]
    more: list[tuple[int, int, int, int]] = []
    state = len(finals)
    for arc in np.flatnonzero(np.diff(splits)).tolist():
        first, *others = said[arc][said[arc] > 0].tolist() or [0]
        table[arc, 3] = first
        goal = int(table[arc, 1])
        if others:
            table[arc, 1] = state
        for place, word in enumerate(others, 1):
            more.append((state, state + 1 if place < len(others) else goal, 0, word))
            state += 1
    table = np.concatenate([table, np.array(more, np.int32).reshape(-1, 4)]).astype(np.int32)
    costs = np.concatenate([costs, np.zeros(len(more), np.float32)])
    finals = np.concatenate([finals, np.full(state - len(finals), np.inf, np.float32)])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "HLG.fst"
        write_fst(path, Fst(0, table, costs, finals))
        return kaldifst.StdVectorFst.read(str(path))
