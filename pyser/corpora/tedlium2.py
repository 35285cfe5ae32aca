"""TED-LIUM release 2, by Lhotse's own recipe: three Kaldi data directories, the corpus's dictionary and its text for language
models."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import re
import zlib
from collections.abc import Container, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyser.corpora.corpus import existing, save
from pyser.errors import Dropped, PyserError
from pyser.files import atomic, read_lines
from pyser.kaldi.manifests import recording
from pyser.lang.lexicon import SILENCE, SILENCE_WORD, UNKNOWN_PHONE, UNKNOWN_WORD, Lexicon, write_lexicon

PARTS = ("train", "dev", "test")
ABOUT = ("TED-LIUM 2: CC BY-NC-ND 3.0. Cite: A. Rousseau, P. Deleglise and Y. Esteve, Enhancing the TED-LIUM corpus with "
         "selected data for language modeling and more TED talks, LREC 2014.")
IGNORED = "ignore_time_segment_in_scoring"
_NOT_WORDS = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]|\(\d+\)|\([^ ]*\)$")
_PHONE = re.compile(r"[A-Z]+\d?$")
_GENDER = re.compile(r"\b(male|female)\b|_([MF])>")  # <o,f0,male> in train, <F0_M> in dev


def prepare_tedlium2(corpus_dir: str | Path, data_dir: str | Path, max_dropped: float = 0.05) -> str:
    """Write data_dir/{train,dev,test}, data_dir/manifests, data_dir/local/dict/lexicon.txt and, of the texts in the release's
    LM folder, data_dir/local/lm/text.gz; return the closing lines.

    Utterances get Kaldi's ids, talk-begin-end in hundredths of a second; a talk is a speaker.
    """
    root, data_dir = existing(corpus_dir, "train, dev, test and TEDLIUM.152k.dic"), Path(data_dir)
    lexicon, about_lexicon = _dictionary(root)
    closing = [ABOUT]
    for part in PARTS:
        lines = _stm_lines(root / part)
        recordings, supervisions = _manifests(root, part)
        found = {one.id: one for one in supervisions}
        dropped, kept = Dropped(f"corpus tedlium2 {part}", max_dropped), {}
        for line_id, gender in lines.items():
            if line_id not in found:
                dropped.add(line_id, "outside its recording")
                continue
            one = found[line_id]
            begin, end = (round(100 * seconds) for seconds in (one.start, one.end))
            utt = f"{one.recording_id}-{begin:07d}-{end:07d}"
            text = clean(one.text, lexicon)
            if not text:
                dropped.add(utt, "without words")
            elif utt in kept:
                dropped.add(utt, "twice in the stm file")
            else:
                kept[utt] = replace(one, id=utt, text=text, gender=gender)
        closing.append(dropped.finish(len(lines)))
        save(part, recordings, type(supervisions).from_segments(kept.values()), data_dir)
    marks: Lexicon = {SILENCE_WORD: [(SILENCE,)], UNKNOWN_WORD: [(UNKNOWN_PHONE,)]}
    write_lexicon(data_dir / "local/dict/lexicon.txt", lexicon | marks)
    closing.append(f"{data_dir}/local/dict/lexicon.txt: {about_lexicon}")
    return "\n".join([*closing, _lm_text(root, data_dir / "local/lm/text.gz", lexicon)])


def clean(text: str, known: Container[str]) -> str:
    """Words alone: no <unk>, {NOISE}, pronunciation numbers or the utterance's name at the end.

    A suffix is joined to its word (they 're -> they're) where the dictionary `known` has the two as one word, as in
    Kaldi's recipe; a lone apostrophe likewise to the word after it (' cause -> 'cause).
    """
    return " ".join(_words(text, known))


def _words(text: str, known: Container[str]) -> list[str]:
    found = _NOT_WORDS.sub(" ", text).split()
    if "'" not in text:
        return found
    words: list[str] = []
    for word in found:
        if words and (word.startswith("'") or words[-1] == "'") and words[-1] + word in known:
            words[-1] += word
        else:
            words.append(word)
    return [word for word in words if word != "'"]


def _dictionary(root: Path) -> tuple[Lexicon, str]:
    """The words of the release's dictionary, not its marks (<s>, [NOISE] …), and what to say about them. Lines that are no
    pronunciation, such as messages of the program that made it, are left out."""
    found = sorted(root.glob("TEDLIUM*.dic"))
    if not found:
        raise PyserError(f"{root}: no TEDLIUM.152k.dic; the dictionary is part of the release, copy it whole")
    lexicon: Lexicon = {}
    left_out = []
    for line in read_lines(found[0]):
        word, *phones = line.split() or ["<>"]
        word = re.sub(r"\(\d+\)$", "", word)
        if word[0] in "<[{":
            continue
        if "#" in word or not phones or not all(_PHONE.match(phone) for phone in phones):
            left_out.append(line)
        elif tuple(phones) not in lexicon.setdefault(word, []):
            lexicon[word].append(tuple(phones))
    if not lexicon:
        raise PyserError(f"{found[0]}: no words in it; the dictionary is part of the release, copy it whole")
    about = f"{len(lexicon)} words"
    if left_out:
        about += f"; {len(left_out)} lines that are no pronunciation left out (e.g. '{left_out[0][:60]}')"
    return lexicon, about


def _lm_text(root: Path, target: Path, known: Container[str]) -> str:
    """Write the sentences of LM/*.en.gz, cleaned like the transcripts, to `target` (gzip); return a line about them."""
    target.unlink(missing_ok=True)
    sources = sorted((root / "LM").glob("*.en.gz"))
    if not sources:
        return f"{root}/LM: no *.en.gz there; the transcripts are the only text for the language model"
    sentences = count = unknown = 0
    with atomic(target) as temporary, gzip.open(temporary, "wt", compresslevel=2, encoding="utf-8", newline="\n") as out:
        for path in sources:
            for line in _text(path):
                if words := _words(line, known):
                    out.write(" ".join(words) + "\n")
                    sentences, count = sentences + 1, count + len(words)
                    unknown += sum(word not in known for word in words)
    return (f"{target}: {len(sources)} texts, {sentences} sentences, {count} words, "
            f"{unknown / max(count, 1):.2%} of them outside the dictionary")


def _text(path: Path) -> Iterator[str]:
    """Lines of a packed text; what is not UTF-8 becomes a word outside the dictionary."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="\n") as stream:
            yield from stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PyserError(f"{path}: not a whole gzip file ({error}); copy the corpus whole") from None


def _stm_lines(folder: Path) -> dict[str, str | None]:
    """Lhotse's id (talk-line) -> gender of each line with speech, having checked all that Lhotse's recipe relies on:
    the stm and sph files belong together and can be read."""
    for kind in ("sph", "stm"):
        if not any((folder / kind).glob(f"*.{kind}")):
            raise PyserError(f"{folder / kind}: no .{kind} files; TED-LIUM 2 has them there, copy it whole")
    stm, sph = ({path.stem: path for path in sorted((folder / kind).glob(f"*.{kind}"))} for kind in ("stm", "sph"))
    if stm.keys() != sph.keys():
        odd = min(stm.keys() ^ sph.keys())
        raise PyserError(f"{folder}: {odd} has only one of its two files, sph and stm; copy the corpus whole")
    lines: dict[str, str | None] = {}
    for talk, path in stm.items():
        recording(sph[talk], talk)  # says which file is bad; Lhotse's recipe would not
        for number, line in enumerate(read_lines(path)):
            try:
                _, _, _, start, end, label, *words = line.split()
                if not 0 <= float(start) < float(end):
                    raise ValueError
            except ValueError:
                raise PyserError(f"{path}:{number + 1}: expected '{talk} channel speaker start end <label> words'; "
                                 "mend or delete the line") from None
            if IGNORED not in words:
                gender = _GENDER.search(label)
                lines[f"{talk}-{number}"] = (gender[1] or gender[2])[0].lower() if gender else None
    return lines


def _manifests(root: Path, part: str) -> tuple[Any, Any]:
    """Lhotse's recordings and supervisions of one part; utterances that begin after their recording's end are left out."""
    from lhotse.audio.backend import get_current_audio_backend, set_current_audio_backend
    from lhotse.recipes import prepare_tedlium2 as lhotse_recipe

    root_logger, backend = logging.getLogger(), get_current_audio_backend()
    level = root_logger.level
    root_logger.setLevel(logging.ERROR)  # Lhotse says there what it trims, and the closing line says it too
    # libsndfile reads NIST sphere; Lhotse's first choice would be an sph2pipe that few have.
    set_current_audio_backend("LibsndfileBackend")
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            manifests = lhotse_recipe(root, dataset_parts=[part])[part]
    except (AssertionError, ValueError, OSError, RuntimeError) as error:
        raise PyserError(f"{root / part}: {' '.join(str(error).split())[:200]}; mend or replace that file") from None
    finally:
        root_logger.setLevel(level)
        set_current_audio_backend(backend)
    return manifests["recordings"], manifests["supervisions"]
