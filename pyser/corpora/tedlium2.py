"""TED-LIUM release 2: three Kaldi data directories, the corpus's dictionary and its text for language models."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from pyser.corpora.corpus import audio_files, differences, existing, save
from pyser.errors import Dropped, PyserError
from pyser.files import atomic, read_lines
from pyser.kaldi.manifests import recording
from pyser.lang.lexicon import SILENCE, SILENCE_WORD, UNKNOWN_PHONE, UNKNOWN_WORD, Lexicon, write_lexicon

PARTS = {"train": 92973, "dev": 507, "test": 1157}  # utterances of the release, those to be ignored in scoring left out
SUFFIXES = (".sph", ".wav", ".flac")
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
    closing, found = [ABOUT], []
    for part in PARTS:
        dropped = Dropped(f"corpus tedlium2 {part}", max_dropped)
        recordings, supervisions, count = _manifests(root / part, lexicon, dropped)
        found += count * [part]
        closing.append(dropped.finish(count))
        save(part, recordings, supervisions, data_dir)
    closing[1:1] = differences("tedlium2", found, PARTS)
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
    sources = sorted(path for path in (root / "LM").glob("*.en.gz") if not path.name.startswith("._"))
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


def _manifests(folder: Path, lexicon: Container[str], dropped: Dropped) -> tuple[Any, Any, int]:
    """Lhotse's recordings and supervisions of one part, and how many utterances its stm files have. What ends after its
    recording ends with it."""
    from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

    stm, audio = _talks(folder)
    recordings = {talk: recording(audio[talk], talk) for talk in stm}
    kept: dict[str, SupervisionSegment] = {}
    count = 0
    for talk, path in stm.items():
        length = recordings[talk].duration
        for line_id, begin, end, gender, text in _stm_lines(path):
            count += 1
            utt = f"{talk}-{round(100 * begin):07d}-{round(100 * min(end, length)):07d}"
            if begin >= length:
                dropped.add(line_id, "outside its recording")
            elif not (said := clean(text, lexicon)):
                dropped.add(utt, "without words")
            elif utt in kept:
                dropped.add(utt, "twice in the stm file")
            else:
                kept[utt] = SupervisionSegment(utt, talk, begin, round(min(end, length) - begin, ndigits=8), text=said,
                                               language="English", speaker=talk, gender=gender)
    return RecordingSet.from_recordings(recordings.values()), SupervisionSet.from_segments(kept.values()), count


def _talks(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Talk -> its stm file, and its audio: NIST sphere as released, or a .wav or .flac copy of that."""
    stm = {path.stem: path for path in sorted((folder / "stm").glob("*.stm")) if not path.name.startswith("._")}
    audio = {path.stem: path for path in audio_files(folder / "sph", SUFFIXES)}
    for kind, found in (("sph", audio), ("stm", stm)):
        if not found:
            raise PyserError(f"{folder / kind}: no .{kind} files; TED-LIUM 2 has them there, copy it whole")
    odd = stm.keys() ^ audio.keys()
    if odd:
        raise PyserError(f"{folder}: {min(odd)} has only one of its two files, sph and stm ({len(odd)} such talks); copy the "
                         "corpus whole")
    return stm, audio


def _stm_lines(path: Path) -> Iterator[tuple[str, float, float, str | None, str]]:
    """Of each utterance talk-line, begin and end in seconds, gender and what was said."""
    talk = path.stem
    for number, line in enumerate(read_lines(path)):
        try:
            _, _, _, start, end, label, *words = line.split()
            begin, until = float(start), float(end)
            if not 0 <= begin < until:
                raise ValueError
        except ValueError:
            raise PyserError(f"{path}:{number + 1}: expected '{talk} channel speaker start end <label> words'; "
                             "mend or delete the line") from None
        if IGNORED not in words:
            gender = _GENDER.search(label)
            yield (f"{talk}-{number}", begin, until, (gender[1] or gender[2])[0].lower() if gender else None, " ".join(words))
