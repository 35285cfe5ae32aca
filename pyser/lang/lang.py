"""A lang directory in icefall's files: tokens.txt words.txt lexicon.txt lexicon_disambig.txt L.pt L_disambig.pt."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

from pyser.errors import PyserError
from pyser.files import read_lines, write_text, write_torch
from pyser.lang.lexicon import SILENCE, UNKNOWN_WORD, Lexicon, read_lexicon

EPSILON = "<eps>"
SILENCE_PROB = 0.5


def import_k2() -> Any:
    """k2, or one line that says how to get it."""
    try:
        import k2
    except ImportError:
        raise PyserError("needs k2: run local/install.sh (default stack)") from None
    return k2


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


def prepare(dict_dir: str | Path, lang_dir: str | Path) -> str:
    """Write the lang directory of dict_dir/lexicon.txt; return a line about its size."""
    k2 = import_k2()

    lang_dir = Path(lang_dir)
    lexicon = read_lexicon(Path(dict_dir) / "lexicon.txt")
    plain = [(word, phones) for word in sorted(lexicon) for phones in lexicon[word]]
    entries, largest = add_disambig(lexicon)
    phones = sorted({phone for _, sequence in plain for phone in sequence} | {SILENCE})
    if any(phone.startswith("#") or phone == EPSILON for phone in phones):
        raise PyserError(f"{dict_dir}/lexicon.txt: phones may not begin with # or be {EPSILON}; rename them")
    if UNKNOWN_WORD not in lexicon:
        raise PyserError(f"{dict_dir}/lexicon.txt: {UNKNOWN_WORD} is missing; make it with: pyser lang lexicon")
    silence_disambig = f"#{largest + 1}"
    tokens = [EPSILON, *phones, *(f"#{i}" for i in range(largest + 2))]
    words = [EPSILON, *sorted(lexicon), "#0", "<s>", "</s>"]
    token_ids = {symbol: number for number, symbol in enumerate(tokens)}
    word_ids = {symbol: number for number, symbol in enumerate(words)}
    for name, pairs, disambig in (("L.pt", plain, None), ("L_disambig.pt", entries, silence_disambig)):
        text = lexicon_fst(pairs, token_ids, word_ids, disambig)
        write_torch(lang_dir / name, k2.arc_sort(k2.Fsa.from_str(text, acceptor=False)).as_dict())
    write_text(lang_dir / "lexicon.txt", "".join(f"{w} {' '.join(p)}\n" for w, p in plain))
    write_text(lang_dir / "lexicon_disambig.txt", "".join(f"{w} {' '.join(p)}\n" for w, p in entries))
    write_text(lang_dir / "words.txt", "".join(f"{symbol} {number}\n" for symbol, number in word_ids.items()))
    write_text(lang_dir / "tokens.txt", "".join(f"{symbol} {number}\n" for symbol, number in token_ids.items()))
    return f"lang: {len(lexicon)} words, {len(plain)} pronunciations, {len(phones)} phones -> {lang_dir}"


def lexicon_fst(
    entries: list[tuple[str, tuple[str, ...]]], tokens: dict[str, int], words: dict[str, int], silence_disambig: str | None
) -> str:
    """The lexicon transducer, phones to words, in k2's text form; silence before the first and after every word with
    probability SILENCE_PROB. With `silence_disambig` that symbol follows each silence, and #0 loops where words begin.

    States: 0 start, 1 between words, 2 before a silence (3 behind it, before its disambiguation symbol).
    """
    silence, none = math.log(SILENCE_PROB), math.log(1 - SILENCE_PROB)
    between, before = 1, 2
    arcs: list[tuple[int, int, int, int, float]] = [(0, between, 0, 0, none), (0, before, 0, 0, silence)]
    state = 3
    if silence_disambig is None:
        arcs.append((before, between, tokens[SILENCE], 0, 0.0))
    else:
        arcs += [(before, state, tokens[SILENCE], 0, 0.0), (state, between, tokens[silence_disambig], 0, 0.0)]
        arcs.append((between, between, tokens["#0"], words["#0"], 0.0))
        state += 1
    for word, phones in entries:
        source = between
        for i, phone in enumerate(phones):
            output = words[word] if i == 0 else 0
            if i + 1 < len(phones):
                arcs.append((source, state, tokens[phone], output, 0.0))
                source, state = state, state + 1
            else:
                arcs.append((source, between, tokens[phone], output, none))
                arcs.append((source, before, tokens[phone], output, silence))
    arcs.append((between, state, -1, -1, 0.0))
    arcs.sort()
    return "\n".join([*(f"{a} {b} {i} {o} {w:.7g}" for a, b, i, o, w in arcs), str(state)])
