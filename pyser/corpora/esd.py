"""ESD, the emotional speech dataset: ten speakers of Mandarin (0001-0010) and ten of English (0011-0020), 350 sentences in
each of five emotions. Names are speaker_number, the emotions in steps of 350: 0011/Angry/0011_000351.wav. The folders
train, test and evaluation of some copies divide sentences, not speakers, and are not used."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from pyser.corpora.corpus import FOUR, Corpus, Utterance, audio_files, chosen, differences, existing, words
from pyser.errors import PyserError
from pyser.lang.lexicon import UNKNOWN_WORD

EMOTIONS = {"Neutral": "neutral", "Angry": "angry", "Happy": "happy", "Sad": "sad", "Surprise": "surprised"}  # in order
EACH = 350
SUBSETS = {"english": range(11, 21), "mandarin": range(1, 11), "all": range(1, 21)}
WOMEN = (1, 2, 3, 7, 9, 15, 16, 17, 18, 19)
MEN = (4, 5, 6, 8, 10, 11, 12, 13, 14, 20)
LABEL_SETS = {"5": tuple(EMOTIONS.values()), "4": FOUR}
# Five folds, a woman and a man of each language.
FOLDS = tuple(tuple(f"{group[k + first]:04d}" for first in (0, 5) for group in (WOMEN, MEN)) for k in range(5))
ABOUT = ("ESD: for research. Cite: K. Zhou, B. Sisman, R. Liu and H. Li, Seen and unseen emotional style transfer for voice "
         "conversion with a new emotional speech dataset, ICASSP 2021.")
_NAME = re.compile(r"^(\d{4})_(\d{6})$")


def prepare_esd(corpus_dir: str | Path, label_set: str = "5", subset: str = "english") -> Corpus:
    """The utterances of `label_set` (5 or 4) and of the speakers of `subset` (english, mandarin or all) below `corpus_dir`.

    An utterance that its speaker's list (0011/0011.txt) lacks has the transcript <UNK>.
    """
    labels = chosen("esd", "label set", label_set, LABEL_SETS)
    speakers = {f"{number:04d}": "f" if number in WOMEN else "m" for number in chosen("esd", "subset", subset, SUBSETS)}
    folder = existing(corpus_dir, "0001 … 0020")
    texts: dict[str, str] = {}
    for path in sorted(folder.rglob("00[0-2][0-9].txt")):
        texts |= _transcripts(path)
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name or name[1] not in speakers:
            continue
        emotion = _emotion(path, int(name[2]))
        if emotion in labels:
            text = texts.get(path.stem) or UNKNOWN_WORD
            utterances.append(Utterance(path.stem, path, name[1], speakers[name[1]], text, emotion))
    if not utterances:
        raise PyserError(f"{folder}: no file of {subset} is named like 0011_000351.wav; give the folder with 0001 … 0020")
    numbers = range(1, EACH * len(EMOTIONS) + 1)
    names = {f"{speaker}_{number:06d}" for speaker in speakers for number in numbers if _label(number) in labels}
    missing = names - {one.id for one in utterances}
    without = sum(one.text == UNKNOWN_WORD for one in utterances)
    notes = [f"esd: {without} utterances have no words in the lists, transcribed {UNKNOWN_WORD}"] if without else []
    notes += differences("esd", (str(one.emotion) for one in utterances), dict.fromkeys(labels, EACH * len(speakers)),
                         missing)
    folds = tuple(tuple(speaker for speaker in fold if speaker in speakers) for fold in FOLDS)
    return Corpus("esd", utterances, folds, ABOUT, notes, {"label_set": f"{len(labels)} emotions", "subset": subset},
                  missing=missing)


def _label(number: int) -> str:
    return LABEL_SETS["5"][(number - 1) // EACH]


def _emotion(path: Path, number: int) -> str:
    """The emotion by the number, which must be that of the folder."""
    if not 1 <= number <= EACH * len(EMOTIONS):
        raise PyserError(f"{path}: ESD's numbers end at {EACH * len(EMOTIONS)}; take it out")
    emotion, folders = _label(number), [folder for folder in path.parts[:-1] if folder in EMOTIONS]
    if folders and EMOTIONS[folders[-1]] != emotion:
        raise PyserError(f"{path}: by its number it is {emotion}, by its folder {EMOTIONS[folders[-1]]}; put it right")
    return emotion


def _transcripts(path: Path) -> dict[str, str]:
    """Utterance -> words of the lines `0011_000001<TAB>text<TAB>emotion`. The lists differ in their encoding."""
    raw = path.read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("gb18030" if int(path.stem) <= 10 else "cp1252", errors="replace")
    fields = (line.split("\t") for line in text.splitlines())
    return {row[0].strip(): words(row[1]) for row in fields if len(row) > 1}
