"""Phone and word language models of a lang directory, and its decoding graph HLG = H o det(L o G) (H: pyser.lang.hlg)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pyser.errors import PyserError
from pyser.files import atomic, read_lines, silent_stderr, text_lines, unpacked, write_text, write_torch
from pyser.kaldi.tables import read_table
from pyser.lang.hlg import hmm
from pyser.lang.lang import EPSILON, read_symbols, read_tokens
from pyser.lang.lexicon import SILENCE, SILENCE_WORD, UNKNOWN_WORD, read_lexicon
from pyser.lang.ngram import BOS, EOS, Gram, Ngram, estimate, perplexity
from pyser.lang.phone_lm import PhoneLm, PhoneLmConfig
from pyser.lang.topology import load_topology
from pyser.libraries import import_k2

if TYPE_CHECKING:
    from torch import Tensor


def transcripts(source: str | Path) -> Iterator[list[str]]:
    """Sentences of a data directory's text, or of a text file (may be .gz) with one sentence a line, without <s> and </s>."""
    source = Path(source)
    for line in read_table(source / "text").values() if source.is_dir() else text_lines(source):
        if words := [word for word in line.split() if word not in (BOS, EOS)]:
            yield words


def phone_lm(
    lang_dir: str | Path, source: str | Path, order: int = 2, smoothing: str = "kneser-ney",
    no_prune_order: int = 3, num_extra_lm_states: int = 2000,
) -> str:
    """Write P.fst.txt (OpenFst text form, and P.arpa where it is smoothed); return a line about it.

    source : phone sequences (see phone_sequences). smoothing : kneser-ney (every phone sequence has a probability), or
    none: Kaldi's phone LM, unseen n-grams have no path. no_prune_order, num_extra_lm_states : of the latter, see
    PhoneLmConfig.
    """
    lang_dir = Path(lang_dir)
    tokens = read_tokens(lang_dir)
    phones = [symbol for symbol, number in tokens.items() if number > 0]
    sentences = phone_sequences(lang_dir, source)
    if smoothing == "none":
        model = PhoneLm(PhoneLmConfig(order, min(no_prune_order, order), num_extra_lm_states))
        for sentence in sentences:
            model.add([tokens[phone] for phone in sentence])
        acceptor = model.estimate()
        write_text(lang_dir / "P.fst.txt", acceptor.text())
        (lang_dir / "P.arpa").unlink(missing_ok=True)
        size, perplexity = f", {acceptor.num_states} states, {len(acceptor.arcs)} arcs", model.perplexity()
    elif smoothing == "kneser-ney":
        smoothed = estimate(sentences, order, phones)
        write_text(lang_dir / "P.arpa", smoothed.arpa())
        write_text(lang_dir / "P.fst.txt", phone_lm_fst(smoothed, tokens))
        size, perplexity = "", smoothed.perplexity(sentences)
    else:
        raise PyserError(f"phone LM smoothing '{smoothing}': kneser-ney or none")
    return f"phone LM: order {order}, {len(phones)} phones{size}, perplexity {perplexity:.2f}"


def phone_sequences(lang_dir: str | Path, source: str | Path) -> list[list[str]]:
    """Of a file of phone numbers (`utterance 1 2 3` a line, as chain-est-phone-lm reads them), or of a data directory's
    transcripts: first pronunciations, silence at the ends and, in every second sentence, between the words."""
    lang_dir, source = Path(lang_dir), Path(source)
    tokens = read_tokens(lang_dir)
    if source.is_file():
        names = {str(number): symbol for symbol, number in tokens.items() if number > 0}
        lines = [line.split()[1:] for line in read_lines(source) if line.strip()]
        wrong = next((number for line in lines for number in line if number not in names), None)
        if wrong is not None:
            raise PyserError(f"{source}: '{wrong}' is no phone of {lang_dir}/tokens.txt")
        return [[names[number] for number in line] for line in lines]
    lexicon = read_lexicon(lang_dir / "lexicon.txt")
    sentences = []
    for number, words in enumerate(transcripts(source)):
        spoken = [list(lexicon.get(word, lexicon[UNKNOWN_WORD])[0]) for word in words]
        if number % 2:  # the lexicon's silence probability is one half
            spoken = [phones + [SILENCE] for phones in spoken]
        flat = [SILENCE, *(phone for phones in spoken for phone in phones)]
        sentences.append(flat if flat[-1] == SILENCE else [*flat, SILENCE])
    return sentences


def biphone_counts(lang_dir: str | Path, source: str | Path) -> NDArray[np.int64]:
    """(phones + 1, phones + 1) how often [left, phone] is in the phone sequences of `source`; left 0 at their beginning."""
    tokens = read_tokens(lang_dir)
    counts = np.zeros((max(tokens.values()) + 1,) * 2, np.int64)
    for sentence in phone_sequences(lang_dir, source):
        numbers = [0, *(tokens[phone] for phone in sentence)]
        np.add.at(counts, (numbers[:-1], numbers[1:]), 1)
    return counts


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


def word_lm(
    lang_dir: str | Path, sources: list[str], order: int = 3, arpa: str | Path | None = None, min_counts: Sequence[int] = (),
    dev: str | Path | None = None, out: str | Path | None = None,
) -> str:
    """Train the word LM on transcripts, or take the file `arpa` up to `order`; write G.arpa and G.fst.txt, or the file `out`
    alone (a larger model, to rescore with). Return a line about it.

    All words of words.txt are in the model, those outside count as <UNK>. min_counts : see estimate. dev : held-out
    transcripts whose perplexity is told.
    """
    lang_dir = Path(lang_dir)
    if arpa is not None:
        _copy_text(arpa, lang_dir / "G.arpa")
        line = f"word LM: order {order} of {arpa}"
    else:
        known = set(read_symbols(lang_dir / "words.txt")) - {EPSILON, "#0", BOS, EOS}
        sentences = ([word if word in known else UNKNOWN_WORD for word in sentence]
                     for source in sources for sentence in transcripts(source))
        model = estimate(sentences, order, known - {SILENCE_WORD, UNKNOWN_WORD}, min_counts)
        model.write_arpa(out or lang_dir / "G.arpa")
        sizes = " + ".join(str(len(keys)) for keys in model.keys)
        line = f"word LM: order {order}, {len(model.vocab)} words, {sizes} n-grams"
        if dev is not None:
            log_probs = model.log_probs(transcripts(dev))
            line += f"; perplexity of {dev} {perplexity(log_probs):.1f}, {np.isnan(log_probs).mean():.2%} unknown words"
    if out is not None:
        return line
    try:
        import kaldilm
    except ImportError:
        raise PyserError("needs kaldilm: run local/install.sh") from None
    with silent_stderr():
        fst = kaldilm.arpa2fst(input_arpa=str(lang_dir / "G.arpa"), disambig_symbol="#0",
                               read_symbol_table=str(lang_dir / "words.txt"), max_order=order)
    write_text(lang_dir / "G.fst.txt", fst)
    return line


def _copy_text(source: str | Path, target: Path) -> None:
    """Unpacked if it is gzip."""
    with atomic(target) as temporary, unpacked(source) as stream, open(temporary, "wb") as copy:
        shutil.copyfileobj(stream, copy)


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
    hlg = k2.compose(hmm(load_topology(lang_dir)), graph, inner_labels="tokens")
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


def load_hlg(lang_dir: str | Path) -> dict[str, Tensor]:
    """The decoding graph (pyser.chain.search): arcs (A, 4) int32, as in k2: source, target, column of the output or -1, the
    score's bits; and the words of each, row_splits (A + 1,) and words."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(lang_dir) / "HLG.safetensors"
    if not path.exists():
        raise PyserError(f"{path}: no decoding graph; make it with: pyser lang graph {lang_dir}")
    try:
        tensors = load_file(str(path))
    except SafetensorError as error:
        raise PyserError(f"{path}: not a whole graph ({str(error).splitlines()[0][:80]}); make it again") from None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes.keys() != {"arcs", "row_splits", "words"} or shapes["arcs"][1:] != (4,) \
            or shapes["row_splits"] != (shapes["arcs"][0] + 1,):
        raise PyserError(f"{path}: not a decoding graph; make it again")
    return tensors


def read_words(lang_dir: str | Path) -> dict[int, str]:
    """Integer -> word."""
    return {number: symbol for symbol, number in read_symbols(Path(lang_dir) / "words.txt").items()}
