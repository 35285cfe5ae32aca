"""Numerator, denominator and decoding graphs, as k2 FSAs whose labels are columns of the network's output (0: blank).

    denominator  T o P       T the CTC topology, P the phone LM
    numerator    T o (P * transcript), all pronunciations, optional silence between words
    decoding     HLG = T o det(L o G)
"""

from __future__ import annotations

from operator import eq
from pathlib import Path
from typing import Any

from pyser.errors import PyserError
from pyser.files import atomic, read_lines, silent_stderr, write_text, write_torch
from pyser.kaldi.tables import read_table
from pyser.lang.lang import import_k2, read_symbols, read_tokens
from pyser.lang.lexicon import SILENCE, UNKNOWN_WORD, Lexicon, read_lexicon
from pyser.lang.ngram import BOS, EOS, Gram, Ngram, estimate


def transcripts(source: str | Path) -> list[list[str]]:
    """Sentences of a data directory's text, or of a plain text file with one sentence a line."""
    source = Path(source)
    lines = list(read_table(source / "text").values()) if source.is_dir() else read_lines(source)
    return [line.split() for line in lines if line.strip()]


def phone_lm(lang_dir: str | Path, data_dir: str | Path, order: int = 2) -> str:
    """Train the phone LM on the first pronunciations of the transcripts, silence at the ends and, in every second
    sentence, between the words; write P.arpa and P.fst.txt (OpenFst text form)."""
    lang_dir = Path(lang_dir)
    lexicon, tokens = read_lexicon(lang_dir / "lexicon.txt"), read_tokens(lang_dir)
    sentences = []
    for number, words in enumerate(transcripts(data_dir)):
        spoken = [list(lexicon.get(word, lexicon[UNKNOWN_WORD])[0]) for word in words]
        if number % 2:  # the lexicon's silence probability is one half
            spoken = [phones + [SILENCE] for phones in spoken]
        flat = [SILENCE, *(phone for phones in spoken for phone in phones)]
        sentences.append(flat if flat[-1] == SILENCE else [*flat, SILENCE])
    phones = [symbol for symbol, number in tokens.items() if number > 0]
    model = estimate(sentences, order, phones)
    write_text(lang_dir / "P.arpa", model.arpa())
    write_text(lang_dir / "P.fst.txt", phone_lm_fst(model, tokens))
    return f"phone LM: order {order}, {len(phones)} phones, perplexity {model.perplexity(sentences):.2f}"


def phone_lm_fst(model: Ngram, tokens: dict[str, int]) -> str:
    """P as an acceptor without epsilons: a state for each history seen, from it an arc for every phone, to the longest
    history that is a state. Each path has the model's exact probability (a backoff arc would count paths twice)."""
    phones = [symbol for symbol, number in tokens.items() if number > 0]
    length = model.order - 1
    histories: set[Gram] = {(BOS,) if length else ()}
    histories |= {gram for gram in model.backoff if len(gram) <= length} | {()} | {(p,) for p in phones if length}
    states = {history: number for number, history in enumerate(sorted(histories, key=lambda h: (h != (BOS,), h)))}
    lines, final = [], []
    for history, state in states.items():
        for phone in phones:
            target = (*history, phone)[-length:] if length else ()
            while target not in states:
                target = target[1:]
            cost = _cost(model.p(history, phone))
            if cost is not None:
                lines.append(f"{state} {states[target]} {tokens[phone]} {tokens[phone]} {cost:.7g}")
        cost = _cost(model.p(history, EOS))
        if cost is not None:
            final.append(f"{state} {cost:.7g}")
    return "\n".join([*lines, *final, ""])


def _cost(p: float) -> float | None:
    import math

    return -math.log(p) if p > 0 else None


def word_lm(lang_dir: str | Path, sources: list[str], order: int = 3) -> str:
    """Train the word LM on transcripts (words outside words.txt count as <UNK>); write G.arpa and G.fst.txt."""
    lang_dir = Path(lang_dir)
    words = read_symbols(lang_dir / "words.txt")
    sentences = [[word if word in words else UNKNOWN_WORD for word in sentence]
                 for source in sources for sentence in transcripts(source)]
    model = estimate(sentences, order)
    write_text(lang_dir / "G.arpa", model.arpa())
    try:
        import kaldilm
    except ImportError:
        raise PyserError("needs kaldilm: run local/install.sh") from None
    with silent_stderr():
        fst = kaldilm.arpa2fst(input_arpa=str(lang_dir / "G.arpa"), disambig_symbol="#0",
                               read_symbol_table=str(lang_dir / "words.txt"), max_order=order)
    write_text(lang_dir / "G.fst.txt", fst)
    return f"word LM: order {order}, {len(model.vocab)} words, {len(model.prob)} n-grams, " \
           f"training perplexity {model.perplexity(sentences):.1f}"


def topology(lang_dir: str | Path) -> Any:
    """T: the CTC topology, output columns to phones."""
    return import_k2().ctc_topo(max(read_tokens(lang_dir).values()), modified=False)


def _load_p(lang_dir: str | Path) -> Any:
    k2 = import_k2()
    path = Path(lang_dir) / "P.fst.txt"
    fst = k2.Fsa.from_openfst("\n".join(read_lines(path)), acceptor=False)
    return k2.arc_sort(k2.Fsa(fst.arcs))  # labels and scores only: P accepts


def load_denominator(lang_dir: str | Path) -> Any:
    """T o P, an acceptor of output columns."""
    k2 = import_k2()
    graph = k2.compose(topology(lang_dir), k2.add_epsilon_self_loops(_load_p(lang_dir)), treat_epsilons_specially=False)
    return k2.arc_sort(k2.connect(k2.Fsa(graph.arcs)))


class NumeratorCompiler:
    """Transcripts to numerator graphs; words without pronunciation are <UNK>.

    max_cached : graphs kept for the epochs to come, some 30 kB each; to compile one takes 2 ms
    """

    def __init__(self, lang_dir: str | Path, max_cached: int = 20000):
        self.k2 = import_k2()
        self.lexicon: Lexicon = read_lexicon(Path(lang_dir) / "lexicon.txt")
        self.tokens = read_tokens(lang_dir)
        self.topology = topology(lang_dir)
        self.phone_lm = _load_p(lang_dir)
        self.max_cached = max_cached
        self._cache: dict[str, Any] = {}

    def pronunciations(self, word: str) -> list[tuple[str, ...]]:
        return self.lexicon.get(word) or self.lexicon[UNKNOWN_WORD]

    def min_frames(self, text: str) -> int | None:
        """Frames of the shortest way to say `text`, None when it has no words: one for each phone, and one more between
        two equal phones (CTC's blank, or silence)."""
        shortest = {"": 0}  # by last phone
        for word in text.split():
            ways = [(phones[-1], frames + len(phones) + sum(map(eq, phones, (last, *phones))))
                    for last, frames in shortest.items() for phones in self.pronunciations(word)]
            shortest = {phone: min(frames for last, frames in ways if last == phone) for phone, _ in ways}
        return min(shortest.values()) or None

    def compile(self, texts: list[str]) -> Any:
        """k2 FsaVec, a numerator graph for each text."""
        graphs = []
        for text in texts:
            graph = self._cache.get(text)
            if graph is None:
                graph = self._graph(text)
                if len(self._cache) < self.max_cached:
                    self._cache[text] = graph
            graphs.append(graph)
        return self.k2.create_fsa_vec(graphs)

    def _graph(self, text: str) -> Any:
        k2 = self.k2
        phones = k2.arc_sort(k2.Fsa.from_str(self.phone_graph(text.split())))
        scored = k2.connect(k2.intersect(self.phone_lm, phones, treat_epsilons_specially=False))
        scored = k2.add_epsilon_self_loops(k2.arc_sort(k2.Fsa(scored.arcs)))
        graph = k2.connect(k2.compose(self.topology, scored, treat_epsilons_specially=False))
        return k2.arc_sort(k2.Fsa(graph.arcs))

    def phone_graph(self, words: list[str]) -> str:
        """An acceptor in k2's text form: every pronunciation of every word in turn, a silence allowed around each.

        Before word i stand state 2i (a silence may come) and 2i + 1 (it has come).
        """
        if not words:
            raise PyserError("a transcript without words has no numerator graph; drop the utterance")
        arcs: list[tuple[int, int, int]] = []
        state = 2 * len(words) + 2
        for i, word in enumerate(words):
            arcs.append((2 * i, 2 * i + 1, self.tokens[SILENCE]))
            for phones in self.pronunciations(word):
                labels = [self.tokens[phone] for phone in phones]
                inner = list(range(state, state + len(labels) - 1))
                state += len(inner)
                chain = [*inner, 2 * i + 2]
                arcs += [(2 * i, chain[0], labels[0]), (2 * i + 1, chain[0], labels[0])]
                arcs += [(a, b, label) for a, b, label in zip(chain, chain[1:], labels[1:], strict=False)]
        end = 2 * len(words)
        arcs.append((end, end + 1, self.tokens[SILENCE]))
        arcs += [(end, state, -1), (end + 1, state, -1)]
        return "\n".join([*(f"{a} {b} {label} 0" for a, b, label in sorted(arcs)), str(state)])


def decoding_graph(lang_dir: str | Path) -> str:
    """Compose HLG from L_disambig.pt, G.fst.txt and the topology; return a line about its size.

    HLG.pt is the graph as icefall reads it, HLG.safetensors (arcs, and the words of each arc as row_splits and values)
    as `load_hlg` does.
    """
    k2 = import_k2()
    from safetensors.torch import save as to_bytes

    lang_dir = Path(lang_dir)
    tokens, words = read_symbols(lang_dir / "tokens.txt"), read_symbols(lang_dir / "words.txt")
    lexicon = _load(lang_dir / "L_disambig.pt")
    grammar = k2.arc_sort(k2.Fsa.from_openfst("\n".join(read_lines(lang_dir / "G.fst.txt")), acceptor=False))
    graph = k2.connect(k2.compose(k2.arc_sort(lexicon), grammar))
    graph = k2.connect(k2.determinize(graph))
    labels = graph.labels.clone()  # in place on graph.labels itself is not seen by k2 1.23.4
    labels[labels >= tokens["#0"]] = 0
    graph.labels = labels
    outputs = graph.aux_labels
    if isinstance(outputs, k2.RaggedTensor):
        values = outputs.values
        values[values >= words["#0"]] = 0
        graph.aux_labels = k2.RaggedTensor(outputs.shape, values)
    else:
        outputs = outputs.clone()
        outputs[outputs >= words["#0"]] = 0
        graph.aux_labels = outputs
    graph = k2.arc_sort(k2.connect(k2.remove_epsilon(graph)))
    if isinstance(graph.aux_labels, k2.RaggedTensor):
        graph.aux_labels = graph.aux_labels.remove_values_eq(0)
    hlg = k2.compose(topology(lang_dir), graph, inner_labels="tokens")
    hlg = k2.arc_sort(k2.connect(hlg))
    del hlg.tokens
    write_torch(lang_dir / "HLG.pt", hlg.as_dict())  # for icefall; its ragged labels cannot be read without unpickling
    ragged = isinstance(hlg.aux_labels, k2.RaggedTensor)
    outputs = hlg.aux_labels if ragged else k2.RaggedTensor(hlg.aux_labels[:, None])
    with atomic(lang_dir / "HLG.safetensors") as temporary:
        tensors = {"arcs": hlg.arcs.values(), "row_splits": outputs.shape.row_splits(1), "words": outputs.values}
        temporary.write_bytes(to_bytes({name: value.contiguous() for name, value in tensors.items()}))
    return f"decoding graph: {hlg.shape[0]} states, {hlg.num_arcs} arcs -> {lang_dir / 'HLG.pt'}"


def _load(path: Path) -> Any:
    """A graph saved by torch.save(fsa.as_dict()); tensors only are unpickled."""
    import pickle

    k2 = import_k2()
    import torch

    if not path.exists():
        raise PyserError(f"{path}: no such graph; run the lang stage first")
    try:
        return k2.Fsa.from_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise PyserError(f"{path}: not a whole graph ({str(error).splitlines()[0][:80]}); make it again") from None


def load_hlg(lang_dir: str | Path) -> Any:
    """The decoding graph: labels are columns of the output, aux_labels (ragged) words."""
    k2 = import_k2()
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(lang_dir) / "HLG.safetensors"
    if not path.exists():
        raise PyserError(f"{path}: no decoding graph; make it with: pyser lang graph {lang_dir}")
    try:
        tensors = load_file(str(path))
        graph = k2.Fsa(tensors["arcs"])
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise PyserError(f"{path}: not a whole graph ({str(error).splitlines()[0][:80]}); make it again") from None
    shape = k2.ragged.create_ragged_shape2(tensors["row_splits"])
    graph.aux_labels = k2.RaggedTensor(shape, tensors["words"])
    return graph


def read_words(lang_dir: str | Path) -> dict[int, str]:
    """Integer -> word."""
    return {number: symbol for symbol, number in read_symbols(Path(lang_dir) / "words.txt").items()}
