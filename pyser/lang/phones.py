"""The phones of a lang directory: Kaldi's phones.txt and phones/ (utils/prepare_lang.sh, position-independent phones)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_lines, write_text
from pyser.lang.lexicon import SILENCE, SILENCE_WORD, UNKNOWN_WORD, Lexicon

Groups = list[list[str]]


def phone_groups(dict_dir: str | Path, lexicon: Lexicon) -> tuple[Groups, Groups]:
    """Silence phones and the others; phones of a group have the same pdfs. From silence_phones.txt and
    nonsilence_phones.txt, a group on each line; without these files those of !SIL and <UNK>, and all others."""
    used = {phone for pronunciations in lexicon.values() for phones in pronunciations for phone in phones} | {SILENCE}
    dict_dir = Path(dict_dir)
    found = []
    for name in ("silence_phones.txt", "nonsilence_phones.txt"):
        lines = read_lines(dict_dir / name) if (dict_dir / name).exists() else []
        found.append([line.split() for line in lines if line.strip()])
    silence, speech = found
    if not silence:
        phones = {phone for word in (SILENCE_WORD, UNKNOWN_WORD) for spoken in lexicon.get(word, []) for phone in spoken}
        silence = [[phone] for phone in (SILENCE, *sorted(phones - {SILENCE}))]
    if not speech:
        speech = [[phone] for phone in sorted(used - {phone for group in silence for phone in group})]
    listed = [phone for group in (*silence, *speech) for phone in group]
    if used - set(listed) or len(set(listed)) < len(listed):
        lacking = " ".join(sorted(used - set(listed))) or "none lacks, some come twice"
        raise PyserError(f"{dict_dir}: silence_phones.txt and nonsilence_phones.txt must hold each phone of lexicon.txt "
                         f"and {SILENCE} once: {lacking}")
    return silence, speech


def write_phones(
    lang_dir: str | Path, silence_groups: Groups, speech_groups: Groups, ids: dict[str, int], words: dict[str, int],
    entries: Sequence[tuple[str, tuple[str, ...]]], share_silence: bool,
) -> None:
    """phones.txt, oov.txt, oov.int and phones/.

    silence_groups, speech_groups : see phone_groups. ids, words : symbol tables, #0 … among them. entries : (word, phones).
    share_silence : whether the silence phones have one pdf, as --share-silence-phones
    """
    lang_dir = Path(lang_dir)
    silence = [phone for group in silence_groups for phone in group]
    speech = [phone for group in speech_groups for phone in group]
    disambig = [symbol for symbol in ids if symbol.startswith("#")]
    sets = [silence, *speech_groups] if share_silence else [*silence_groups, *speech_groups]
    roots = ["not-shared not-split" if share_silence and group == silence else "shared split" for group in sets]
    write_text(lang_dir / "phones.txt", "".join(f"{symbol} {number}\n" for symbol, number in ids.items()))
    for name, listed in (("silence", silence), ("nonsilence", speech), ("context_indep", silence),
                         ("optional_silence", [SILENCE]), ("disambig", disambig)):
        numbers = [str(ids[symbol]) for symbol in listed]
        for ending, line in (("txt", "\n".join(listed)), ("int", "\n".join(numbers)), ("csl", ":".join(numbers))):
            write_text(lang_dir / f"phones/{name}.{ending}", line + "\n")
    numbered = [[str(ids[phone]) for phone in group] for group in sets]
    for ending, groups in (("txt", sets), ("int", numbered)):
        lines = [" ".join(group) for group in groups]
        write_text(lang_dir / f"phones/sets.{ending}", "\n".join([*lines, ""]))
        rooted = [f"{root} {line}" for root, line in zip(roots, lines, strict=True)]
        write_text(lang_dir / f"phones/roots.{ending}", "\n".join([*rooted, ""]))
        write_text(lang_dir / f"phones/extra_questions.{ending}", "")
    pronounced = sorted({*entries, ("<eps>", (SILENCE,))},
                        key=lambda entry: (entry[0], " ".join(entry[1])))
    write_text(lang_dir / "phones/align_lexicon.txt",
               "".join(f"{word} {word} {' '.join(sequence)}\n" for word, sequence in pronounced))
    write_text(lang_dir / "phones/align_lexicon.int", "".join(
        f"{words[word]} {words[word]} {' '.join(str(ids[phone]) for phone in sequence)}\n" for word, sequence in pronounced))
    for name, text in (("wdisambig.txt", "#0"), ("wdisambig_phones.int", ids["#0"]), ("wdisambig_words.int", words["#0"])):
        write_text(lang_dir / "phones" / name, f"{text}\n")
    write_text(lang_dir / "oov.txt", f"{UNKNOWN_WORD}\n")
    write_text(lang_dir / "oov.int", f"{words[UNKNOWN_WORD]}\n")


def read_sets(path: str | Path) -> list[list[int]]:
    """Lists of phone numbers, one a line: phones/sets.int, phones/silence.int."""
    try:
        return [[int(field) for field in line.split()] for line in read_lines(path) if line.strip()]
    except ValueError:
        raise PyserError(f"{path}: not lists of phone numbers; make the lang directory again") from None
