"""Numerators of LF-MMI from transcripts: every pronunciation, silence allowed between words, weighed by the phone LM."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.lang.acceptor import DELTA, Acceptor, Index, intersect
from pyser.lang.denominator import expand
from pyser.lang.lang import SILENCE_PROB, read_tokens
from pyser.lang.lexicon import SILENCE, UNKNOWN_WORD, Lexicon, read_lexicon
from pyser.lang.topology import Topology, load_topology


class NumeratorCompiler:
    """Transcripts to numerator graphs; words without pronunciation are <UNK>.

    weights : what each graph is intersected with: the normalization of the denominator for Kaldi's end-to-end numerators,
        or the denominator itself where paths begin at its start and end at its final states
    max_arcs : of the graphs kept for the epochs to come, 20 bytes each
    """

    def __init__(self, lexicon: Lexicon, tokens: dict[str, int], topology: Topology, weights: Graph,
                 max_arcs: int = 20_000_000):
        self.lexicon, self.tokens, self.topology = lexicon, tokens, topology
        self.weights = Index(Acceptor.of_graph(weights))
        self.room = max_arcs
        self._cache: dict[str, Graph | None] = {}

    @classmethod
    def load(cls, lang_dir: str | Path, weights: Graph) -> NumeratorCompiler:
        """With the lexicon and the topology of a lang directory."""
        lexicon = read_lexicon(Path(lang_dir) / "lexicon.txt")
        return cls(lexicon, read_tokens(lang_dir), load_topology(lang_dir), weights)

    def compile(self, text: str) -> Graph | None:
        """The graph of a transcript; None if it has no words, or needs a phone n-gram that the phone LM does not have."""
        if text in self._cache:
            return self._cache[text]
        graph = None
        if text.split():
            phones = phone_acceptor(text.split(), self.lexicon, self.tokens)
            found = intersect(expand(phones, self.topology, scale=0), self.weights)
            graph = found.graph() if len(found.arcs) else None
        size = 1 if graph is None else len(graph.arcs)
        if size <= self.room:
            self.room -= size
            self._cache[text] = graph
        return graph

    def graphs(self, ids: Iterable[str], texts: Iterable[str]) -> list[Graph]:
        """One for each utterance; PyserError names the first that has none."""
        graphs = []
        for utterance, text in zip(ids, texts, strict=True):
            graph = self.compile(text)
            if graph is None:
                why = "its phones have an n-gram that the phone LM lacks" if text.split() else "it has no words"
                raise PyserError(f"{utterance}: the transcript has no numerator graph, {why}; drop the utterance")
            graphs.append(graph)
        return graphs

    def min_frames(self, text: str) -> int | None:
        """Frames of the shortest way to say `text`, None when there is no graph."""
        graph = self.compile(text)
        if graph is None:
            return None
        return int(graph.distances()[graph.finals > float("-inf")].min())


def phone_acceptor(words: Sequence[str], lexicon: Lexicon, tokens: dict[str, int]) -> Acceptor:
    """Every pronunciation of every word in turn, a silence allowed around each, with the lexicon transducer's weights,
    rounded as compile-train-graphs rounds them (MinimizeEncoded).

    Before word i stand state 2i (a silence may come) and 2i + 1 (it has come).
    """
    silence, none = (round(math.log(p) / DELTA) * DELTA for p in (SILENCE_PROB, 1 - SILENCE_PROB))
    arcs: list[tuple[int, int, int]] = []
    weights: list[float] = []
    state = 2 * len(words) + 2
    for i, word in enumerate(words):
        arcs.append((2 * i, 2 * i + 1, tokens[SILENCE]))
        weights.append(silence)
        for phones in lexicon.get(word) or lexicon[UNKNOWN_WORD]:
            labels = [tokens[phone] for phone in phones]
            inner = list(range(state, state + len(labels) - 1))
            state += len(inner)
            chain = [*inner, 2 * i + 2]
            arcs += [(2 * i, chain[0], labels[0]), (2 * i + 1, chain[0], labels[0])]
            weights += [none, 0.0]
            arcs += zip(chain, chain[1:], labels[1:], strict=False)
            weights += [0.0] * len(inner)
    end = 2 * len(words)
    arcs.append((end, end + 1, tokens[SILENCE]))
    return Acceptor.of(arcs, [*weights, silence], {end: none, end + 1: 0.0})
