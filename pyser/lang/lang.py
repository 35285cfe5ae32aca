"""A lang directory in icefall's files: tokens.txt words.txt lexicon.txt lexicon_disambig.txt L.pt L_disambig.pt; and in
Kaldi's: phones.txt words.txt L.fst L_disambig.fst oov.txt phones/ topo."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyser.errors import PyserError
from pyser.files import read_lines, write_text, write_torch
from pyser.lang.lexicon import SILENCE, UNKNOWN_WORD, Lexicon, read_lexicon
from pyser.lang.openfst import Fst, write_fst
from pyser.lang.phones import phone_groups, read_sets, write_phones
from pyser.lang.topology import biphone, ctc, monophone
from pyser.libraries import import_k2

EPSILON = "<eps>"
SILENCE_PROB = 0.5


def read_symbols(path: str | Path) -> dict[str, int]:
    """Symbol -> integer."""
    table = {}
    for line in read_lines(path):
        symbol, number = line.split()
        table[symbol] = int(number)
    return table


def read_tokens(lang_dir: str | Path) -> dict[str, int]:
    """Phones and <eps> (the blank, 0) without the disambiguation symbols: the columns of the network's output."""
    tokens = read_symbols(Path(lang_dir) / "tokens.txt")
    return {symbol: number for symbol, number in tokens.items() if not symbol.startswith("#")}


def add_disambig(lexicon: Lexicon) -> tuple[list[tuple[str, tuple[str, ...]]], int]:
    """(word, phones) with #1, #2 … behind pronunciations that several words share or that begin another one; and the
    largest number used."""
    count = Counter(phones for pronunciations in lexicon.values() for phones in pronunciations)
    prefixes = {phones[:n] for phones in count for n in range(1, len(phones))}
    used: Counter[tuple[str, ...]] = Counter()
    entries = []
    for word in sorted(lexicon):
        for phones in lexicon[word]:
            if count[phones] > 1 or phones in prefixes:
                used[phones] += 1
                entries.append((word, (*phones, f"#{used[phones]}")))
            else:
                entries.append((word, phones))
    return entries, max(used.values(), default=0)


def prepare(dict_dir: str | Path, lang_dir: str | Path, share_silence_phones: bool = False) -> str:
    """Write the lang directory of dict_dir/lexicon.txt, with the CTC topology; return a line about its size.

    Icefall's files, those that are k2 graphs where k2 is installed, and Kaldi's, without topo (see `topo`).
    """
    lang_dir = Path(lang_dir)
    lexicon = read_lexicon(Path(dict_dir) / "lexicon.txt")
    plain = [(word, phones) for word in sorted(lexicon) for phones in lexicon[word]]
    entries, largest = add_disambig(lexicon)
    silence, speech = phone_groups(dict_dir, lexicon)
    phones = [phone for group in (*silence, *speech) for phone in group]
    if any(phone.startswith("#") or phone == EPSILON for phone in phones):
        raise PyserError(f"{dict_dir}/lexicon.txt: phones may not begin with # or be {EPSILON}; rename them")
    if UNKNOWN_WORD not in lexicon:
        raise PyserError(f"{dict_dir}/lexicon.txt: {UNKNOWN_WORD} is missing; make it with: pyser lang lexicon")
    silence_disambig = f"#{largest + 1}"
    tokens = [EPSILON, *phones, *(f"#{i}" for i in range(largest + 2))]
    words = [EPSILON, *sorted(lexicon), "#0", "<s>", "</s>"]
    token_ids = {symbol: number for number, symbol in enumerate(tokens)}
    word_ids = {symbol: number for number, symbol in enumerate(words)}
    lines = []
    for name, pairs, disambig in (("L", plain, None), ("L_disambig", entries, silence_disambig)):
        arcs = lexicon_arcs(pairs, token_ids, word_ids, disambig)
        write_fst(lang_dir / f"{name}.fst", _kaldi(arcs))
        try:
            k2 = import_k2()
        except PyserError as error:
            lines = [f"; no L.pt and L_disambig.pt: {error}"]
            continue
        write_torch(lang_dir / f"{name}.pt", k2.arc_sort(k2.Fsa.from_str(k2_text(arcs), acceptor=False)).as_dict())
    write_text(lang_dir / "lexicon.txt", "".join(f"{w} {' '.join(p)}\n" for w, p in plain))
    write_text(lang_dir / "lexicon_disambig.txt", "".join(f"{w} {' '.join(p)}\n" for w, p in entries))
    write_text(lang_dir / "words.txt", "".join(f"{symbol} {number}\n" for symbol, number in word_ids.items()))
    write_text(lang_dir / "tokens.txt", "".join(f"{symbol} {number}\n" for symbol, number in token_ids.items()))
    write_phones(lang_dir, silence, speech, token_ids, word_ids, plain, share_silence_phones)
    ctc(len(phones)).save(lang_dir)
    return f"lang: {len(lexicon)} words, {len(plain)} pronunciations, {len(phones)} phones -> {lang_dir}{''.join(lines)}"


def topo(lang_dir: str | Path, kind: str = "chain", context: str = "mono", ci_silence: bool = False,
         counts: NDArray[np.int64] | None = None, min_biphone_count: int = 100) -> str:
    """Give a prepared lang directory its topology; return a line about it.

    kind : chain or ctc. context : mono, or biphone: all left biphones, each with pdfs of its own (Kaldi's
    steps/nnet3/chain/e2e/prepare_e2e.sh --type). ci_silence : no context for silence phones. counts, min_biphone_count : of
    biphone's; rare pairs of phones share pdfs.
    """
    lang_dir = Path(lang_dir)
    sets = read_sets(lang_dir / "phones/sets.int")
    silence = [phone for line in read_sets(lang_dir / "phones/silence.int") for phone in line]
    if kind == "ctc" and context == "mono":
        topology = ctc(sum(map(len, sets)))
    elif kind == "chain" and context == "mono":
        topology = monophone(sets)
    elif kind == "chain" and context == "biphone":
        topology = biphone(sets, silence if ci_silence else (), counts, min_biphone_count)
    else:
        raise PyserError(f"topology {kind}, context {context}: chain with mono or biphone, or ctc with mono")
    topology.save(lang_dir)
    return f"topology: {kind}, {context}, {topology.num_phones} phones, {topology.num_pdfs} pdfs -> {lang_dir}"


Arc = tuple[int, int, int, int, float]  # source, target, phone, word, log weight
BETWEEN = 1  # the state between words, which is final


def lexicon_arcs(
    entries: list[tuple[str, tuple[str, ...]]], tokens: dict[str, int], words: dict[str, int], silence_disambig: str | None
) -> list[Arc]:
    """The lexicon transducer, phones to words; silence before the first and after every word with probability
    SILENCE_PROB. With `silence_disambig` that symbol follows each silence, and #0 loops where words begin.

    States: 0 start, 1 between words, 2 before a silence (3 behind it, before its disambiguation symbol).
    """
    silence, none = math.log(SILENCE_PROB), math.log(1 - SILENCE_PROB)
    before = 2
    arcs: list[Arc] = [(0, BETWEEN, 0, 0, none), (0, before, 0, 0, silence)]
    state = 3
    if silence_disambig is None:
        arcs.append((before, BETWEEN, tokens[SILENCE], 0, 0.0))
    else:
        arcs += [(before, state, tokens[SILENCE], 0, 0.0), (state, BETWEEN, tokens[silence_disambig], 0, 0.0)]
        arcs.append((BETWEEN, BETWEEN, tokens["#0"], words["#0"], 0.0))
        state += 1
    for word, phones in entries:
        source = BETWEEN
        for i, phone in enumerate(phones):
            output = words[word] if i == 0 else 0
            if i + 1 < len(phones):
                arcs.append((source, state, tokens[phone], output, 0.0))
                source, state = state, state + 1
            else:
                arcs.append((source, BETWEEN, tokens[phone], output, none))
                arcs.append((source, before, tokens[phone], output, silence))
    return arcs


def k2_text(arcs: list[Arc]) -> str:
    """In k2's text form, which has one final state and labels -1 on the arcs to it."""
    end = max(max(a, b) for a, b, *_ in arcs) + 1
    lines = (f"{a} {b} {i} {o} {w:.7g}" for a, b, i, o, w in sorted([*arcs, (BETWEEN, end, -1, -1, 0.0)]))
    return "\n".join([*lines, str(end)])


def _kaldi(arcs: list[Arc]) -> Fst:
    """Sorted by output label, as prepare_lang.sh leaves it."""
    arcs = sorted(arcs, key=lambda arc: (arc[0], arc[3]))
    table = np.array([arc[:4] for arc in arcs], np.int32)
    finals = np.full(table[:, :2].max() + 1, np.inf, np.float32)
    finals[BETWEEN] = 0
    return Fst(0, table, np.array([-arc[4] for arc in arcs], np.float32), finals)
