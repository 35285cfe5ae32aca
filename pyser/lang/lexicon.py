"""Pronunciation lexicons: reading them, and making one for the words of a corpus."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_lines, write_text
from pyser.kaldi.tables import read_table

SILENCE, UNKNOWN_PHONE = "SIL", "SPN"
SILENCE_WORD, UNKNOWN_WORD = "!SIL", "<UNK>"
_VARIANT = re.compile(r"^(.+)\(\d+\)$")

Lexicon = dict[str, list[tuple[str, ...]]]


def read_lexicon(path: str | Path) -> Lexicon:
    """Word -> pronunciations, in the file's order; `word(2)` is another pronunciation of `word`."""
    lexicon: Lexicon = {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("#", 1)[0].split() if line.lstrip()[:1] != "#" else []
        if not fields or line.startswith(";;;"):
            continue
        if len(fields) < 2:
            raise PyserError(f"{path}:{number}: '{fields[0]}' has no phones; give it some or take the line out")
        variant = _VARIANT.match(fields[0])
        phones = tuple(fields[1:])
        pronunciations = lexicon.setdefault(variant[1] if variant else fields[0], [])
        if phones not in pronunciations:
            pronunciations.append(phones)
    if not lexicon:
        raise PyserError(f"{path}: no words in it")
    return lexicon


def write_lexicon(path: str | Path, lexicon: Lexicon) -> None:
    """One `word phone phone …` a line, sorted."""
    lines = [f"{word} {' '.join(phones)}\n" for word in sorted(lexicon) for phones in lexicon[word]]
    write_text(path, "".join(lines))


def cmudict() -> Path:
    """CMUdict without stress marks, as the pocketsphinx package carries it."""
    spec = importlib.util.find_spec("pocketsphinx")
    found = [p for root in (spec.submodule_search_locations or [] if spec else []) for p in Path(root).rglob("cmudict*.dict")]
    if not found:
        raise PyserError("no CMUdict: install the pocketsphinx package (local/install.sh), or give a lexicon file")
    return found[0]


def words_of(data_dirs: Iterable[str | Path]) -> Counter[str]:
    """How often each word occurs in the transcripts."""
    return Counter(word for directory in data_dirs for text in read_table(Path(directory) / "text").values()
                   for word in text.split())


def make_dict(
    source: str, data_dirs: Iterable[str | Path], out_dir: str | Path, max_oov: float = 0.05, whole: bool = False
) -> str:
    """Write out_dir/lexicon.txt: the transcripts' words with their pronunciations, !SIL and <UNK>; return a line about
    words without one, which are trained and scored as <UNK>.

    source : a lexicon file, or "cmudict". Words are looked up as they are, then regardless of case.
    whole : all other words of the source too, in capitals (small letters) where the transcripts are in such
    PyserError when the words without pronunciation are more than the share `max_oov` of all running words.
    """
    words = words_of(data_dirs)
    if not words:
        raise PyserError("the transcripts hold no words; check text in the data directories")
    full = read_lexicon(cmudict() if source == "cmudict" else source)
    folded = {word.lower(): word for word in reversed(full)}
    lexicon: Lexicon = {SILENCE_WORD: [(SILENCE,)], UNKNOWN_WORD: [(UNKNOWN_PHONE,)]}
    missing: Counter[str] = Counter()
    for word, count in words.items():
        entry = full.get(word) or full.get(folded.get(word.lower(), ""))
        if entry and word not in lexicon:
            lexicon[word] = entry
        elif word not in lexicon:
            missing[word] = count
    tokens, lost = sum(words.values()), sum(missing.values())
    line = f"lexicon: {len(words)} words, {len(missing)} without pronunciation ({lost} of {tokens} running words)"
    if missing:
        line += f" -> {UNKNOWN_WORD}: {' '.join(word for word, _ in missing.most_common(10))}"
    if lost > max_oov * tokens:
        raise PyserError(f"{line}: more than --max-oov {100 * max_oov:g}%; add them to the lexicon or raise it")
    if whole:
        case = next((case for case in (str.upper, str.lower) if all(word == case(word) for word in words)), str)
        for word, entry in full.items():
            lexicon.setdefault(case(word), entry)
        line += f"; {len(lexicon) - 2} words with the rest of {source}"
    write_lexicon(Path(out_dir) / "lexicon.txt", lexicon)
    return line
