"""Berlin EmoDB: ten speakers, German. Names are SSTTTEV: speaker, text, emotion, version."""

from __future__ import annotations

import re
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, audio_files, existing
from pyser.errors import PyserError

EMOTIONS = {"W": "angry", "F": "happy", "N": "neutral", "T": "sad", "L": "bored", "E": "disgust", "A": "fearful"}
GENDERS = {"03": "m", "08": "f", "09": "f", "10": "m", "11": "m", "12": "m", "13": "f", "14": "f", "15": "m", "16": "f"}
TEXTS = {
    "a01": "DER LAPPEN LIEGT AUF DEM EISSCHRANK",
    "a02": "DAS WILL SIE AM MITTWOCH ABGEBEN",
    "a04": "HEUTE ABEND KÖNNTE ICH ES IHM SAGEN",
    "a05": "DAS SCHWARZE STÜCK PAPIER BEFINDET SICH DA OBEN NEBEN DEM HOLZSTÜCK",
    "a07": "IN SIEBEN STUNDEN WIRD ES SOWEIT SEIN",
    "b01": "WAS SIND DENN DAS FÜR TÜTEN DIE DA UNTER DEM TISCH STEHEN",
    "b02": "SIE HABEN ES GERADE HOCHGETRAGEN UND JETZT GEHEN SIE WIEDER RUNTER",
    "b03": "AN DEN WOCHENENDEN BIN ICH JETZT IMMER NACH HAUSE GEFAHREN UND HABE AGNES BESUCHT",
    "b09": "ICH WILL DAS EBEN WEGBRINGEN UND DANN MIT KARL WAS TRINKEN GEHEN",
    "b10": "DIE WIRD AUF DEM PLATZ SEIN WO WIR SIE IMMER HINLEGEN",
}
# Five folds, a man and a woman each.
FOLDS = (("03", "08"), ("10", "09"), ("11", "13"), ("12", "14"), ("15", "16"))
ABOUT = ("EmoDB: CC0 1.0. Cite: F. Burkhardt, A. Paeschke, M. Rolfes, W. Sendlmeier and B. Weiss, A database of German "
         "emotional speech, Interspeech 2005.")
_NAME = re.compile(r"^(\d\d)([ab]\d\d)([WFNTLEA])[a-z]$")
SIZE = {"angry": 127, "happy": 71, "neutral": 79, "sad": 62, "bored": 81, "disgust": 46, "fearful": 69}


def prepare_emodb(corpus_dir: str | Path) -> Corpus:
    """All utterances below `corpus_dir` that bear EmoDB's names, in whatever subfolders."""
    folder = existing(corpus_dir, "EmoDB's files, 03a01Fa.wav …")
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name:
            continue
        speaker, text, emotion = name.groups()
        if speaker not in GENDERS or text not in TEXTS:
            raise PyserError(f"{path}: EmoDB has no speaker {speaker} or text {text}; take it out")
        utterances.append(Utterance(path.stem, path, speaker, GENDERS[speaker], TEXTS[text], EMOTIONS[emotion]))
    if not utterances:
        raise PyserError(f"{folder}: no file is named like 03a01Fa.wav; give the folder of EmoDB")
    notes = []
    for emotion, size in SIZE.items():
        here = sum(one.emotion == emotion for one in utterances)
        if here != size:
            notes.append(f"emodb: {here} of {size} {emotion} utterances are here")
    label_set = f"{len({one.emotion for one in utterances})} emotions"
    return Corpus("emodb", utterances, FOLDS, ABOUT, notes, {"label_set": label_set, "subset": "all"})
