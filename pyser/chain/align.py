"""Where phones and words are: the best path of each utterance's transcript, as Kaldi's ctm files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyser.chain.data import text_of
from pyser.chain.graph import Graph
from pyser.chain.outputs import AcousticModel
from pyser.errors import Dropped, PyserError
from pyser.files import write_text
from pyser.kaldi.manifests import FRAME_SHIFT, read_cuts
from pyser.kaldi.tables import INTEGERS, TableWriter
from pyser.lang.denominator import expand
from pyser.lang.lang import read_tokens
from pyser.lang.lexicon import SILENCE, UNKNOWN_WORD, Lexicon, read_lexicon
from pyser.lang.numerator import phone_acceptor
from pyser.lang.topology import Topology, load_topology


@dataclass(frozen=True)
class Span:
    """symbol: a phone or a word; start, length: frames of the output."""

    symbol: str
    start: int
    length: int


def viterbi(graph: Graph, output: np.ndarray) -> np.ndarray | None:
    """The arcs (T,) of the best path of T frames; None if there is none.

    output : (T, C); the graph's pdfs are its columns
    """
    order = np.argsort(graph.arcs[:, 1], kind="stable")
    source, target, pdf = graph.arcs[order].T
    weight = graph.weights[order]
    entered, first = np.unique(target, return_index=True)  # states with arcs into them, whose arcs lie together
    counts = np.diff([*first, len(order)])
    score = np.full(graph.num_states, -np.inf)
    score[0] = 0
    back = np.zeros((len(output), graph.num_states), np.int64)
    for t, y in enumerate(output):
        arcs = score[source] + weight + y[pdf]
        best = np.maximum.reduceat(arcs, first)
        place = np.flatnonzero(arcs == np.repeat(best, counts))
        score = np.full(graph.num_states, -np.inf)
        score[entered] = best
        back[t, target[place]] = place
    state = int(np.argmax(score + graph.finals))
    if not score[state] + graph.finals[state] > -np.inf:
        return None
    path = np.empty(len(output), np.int64)
    for t in range(len(output) - 1, -1, -1):
        path[t] = back[t, state]
        state = source[path[t]]
    return order[path]


def spans(starts: np.ndarray, symbols: Sequence[str]) -> list[Span]:
    """starts (T,): whether a phone begins at the frame; symbols: of each that does."""
    frames = np.flatnonzero(starts)
    lengths = np.diff([*frames, len(starts)])
    return [Span(symbol, int(start), int(length))
            for symbol, start, length in zip(symbols, frames, lengths, strict=True)]


def words_of(phones: Sequence[Span], words: Sequence[str], lexicon: Lexicon) -> list[Span]:
    """The words that an alignment of their phones, silence between them, says. Silence that could belong to a word or
    stand alone stands alone."""
    spoken = [phone.symbol for phone in phones]
    ways: list[dict[int, int]] = [{0: 0}]  # of word n, after it: number of phones -> its first phone
    for word in words:
        after: dict[int, int] = {}
        for end in ways[-1]:
            for begin in (end, end + 1) if spoken[end : end + 1] == [SILENCE] else (end,):
                for pronunciation in lexicon.get(word) or lexicon[UNKNOWN_WORD]:
                    if tuple(spoken[begin : begin + len(pronunciation)]) == tuple(pronunciation):
                        after[begin + len(pronunciation)] = max(begin, after.get(begin + len(pronunciation), 0))
        ways.append(after)
    ends = {len(spoken), len(spoken) - (spoken[-1:] == [SILENCE])}
    end = min(ends & ways[-1].keys())
    found: list[Span] = []
    for n in range(len(words), 0, -1):
        begin = ways[n][end]
        start = phones[begin].start
        found.append(Span(words[n - 1], start, phones[end - 1].start + phones[end - 1].length - start))
        end = begin if begin in ways[n - 1] else begin - 1
    return found[::-1]


@dataclass(frozen=True)
class Alignment:
    """pdfs : (T,) int32; phones, in order."""

    pdfs: np.ndarray
    phones: list[Span]


class Aligner:
    """Transcripts and outputs to alignments."""

    def __init__(self, lexicon: Lexicon, tokens: dict[str, int], topology: Topology):
        self.lexicon, self.tokens = lexicon, tokens
        self.transitions, self.table = topology.transitions()  # (transitions, 2): phone and pdf
        self.symbols = {number: symbol for symbol, number in tokens.items()}

    def align(self, words: Sequence[str], output: np.ndarray) -> Alignment | None:
        """The best path through output (T, pdfs); None if the words do not fit into the frames."""
        phones = phone_acceptor(words, self.lexicon, self.tokens)
        graph = expand(phones, self.transitions, scale=0).graph()
        path = viterbi(graph, output[:, self.table[:, 1]])
        if path is None:
            return None
        taken = graph.arcs[path, 2]
        phone, pdf = self.table[taken].T
        starts = taken % 2 == 0  # (a phone has two transitions: into it, and its self-loop)
        return Alignment(pdf, spans(starts, [self.symbols[number] for number in phone[starts]]))


def align(
    exp_dir: str | Path, lang_dir: str | Path, data_dir: str | Path, ivector_dir: str | Path | None, out_dir: str | Path,
    max_dropped: float = 0.05,
) -> str:
    """Write phones.ctm, words.ctm (utterance, channel, start and length in seconds, symbol) and ali.ark, ali.scp (a pdf for
    each frame of the output) to `out_dir`; returns a line about it."""
    if load_topology(lang_dir).ctc:
        raise PyserError(f"{lang_dir}: a CTC topology, whose outputs do not say when a phone is spoken; align with a model "
                         "of the chain topology (pyser lang topo)")
    model, out_dir = AcousticModel(Path(exp_dir), Path(lang_dir)), Path(out_dir)
    aligner = Aligner(read_lexicon(Path(lang_dir) / "lexicon.txt"), read_tokens(lang_dir), load_topology(lang_dir))
    dropped, total = Dropped(f"align {data_dir}", max_dropped), 0
    ctm: dict[str, list[str]] = {"phones": [], "words": []}
    with TableWriter(f"ark,scp:{out_dir}/ali.ark,{out_dir}/ali.scp", INTEGERS) as pdfs:
        for cut, output in model.outputs(data_dir, ivector_dir):
            total += 1
            words = text_of(cut).split()
            found = aligner.align(words, output) if words else None
            if found is None:
                dropped.add(cut.id, "whose words do not fit into their frames" if words else "without words")
                continue
            pdfs.write(cut.id, found.pdfs)
            for name, part in (("phones", found.phones), ("words", words_of(found.phones, words, aligner.lexicon))):
                ctm[name] += [f"{cut.id} 1 {span.start * model.subsampling * FRAME_SHIFT:.2f} "
                              f"{span.length * model.subsampling * FRAME_SHIFT:.2f} {span.symbol}" for span in part]
        line = dropped.finish(total)
    for name, lines in ctm.items():
        write_text(out_dir / f"{name}.ctm", "\n".join([*lines, ""]))
    return line


def align_equal(lang_dir: str | Path, data_dir: str | Path, out_dir: str | Path, max_dropped: float = 0.05) -> str:
    """Write a phones.ctm that spreads each transcript's phones evenly over its utterance, silence at both ends, for a flat
    start (Kaldi's align-equal, and first pronunciations only); returns a line about it."""
    lexicon = read_lexicon(Path(lang_dir) / "lexicon.txt")
    dropped, total, lines = Dropped(f"align equal {data_dir}", max_dropped), 0, []
    for cut in read_cuts(data_dir):
        total += 1
        words = text_of(cut).split()
        phones = [SILENCE, *(phone for word in words for phone in (lexicon.get(word) or lexicon[UNKNOWN_WORD])[0]), SILENCE]
        ends = [n * cut.num_frames // len(phones) for n in range(len(phones) + 1)]
        if not words or cut.num_frames < len(phones):
            dropped.add(cut.id, "too short for their phones" if words else "without words")
            continue
        lines += [f"{cut.id} 1 {start * FRAME_SHIFT:.2f} {(end - start) * FRAME_SHIFT:.2f} {phone}"
                  for phone, start, end in zip(phones, ends[:-1], ends[1:], strict=True)]
    line = dropped.finish(total)
    write_text(Path(out_dir) / "phones.ctm", "\n".join([*lines, ""]))
    return line
