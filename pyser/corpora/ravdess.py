"""RAVDESS, the audio-only speech part: 24 actors, eight emotions, 1440 utterances.

File names are 03-01-EE-II-SS-RR-AA: emotion, intensity, statement, repetition, actor (odd: male).
"""

from __future__ import annotations

import re
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, audio_files, existing
from pyser.errors import PyserError

EMOTIONS = {"01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful", "07": "disgust",
            "08": "surprised"}
STATEMENTS = {"01": "KIDS ARE TALKING BY THE DOOR", "02": "DOGS ARE SITTING BY THE DOOR"}
SIZE = 1440
ABOUT = ("RAVDESS: CC BY-NC-SA 4.0. Cite: S. R. Livingstone and F. A. Russo, The Ryerson Audio-Visual Database of "
         "Emotional Speech and Song, PLoS ONE 13(5): e0196391, 2018.")
_NAME = re.compile(r"^03-01-(\d\d)-\d\d-(\d\d)-\d\d-(\d\d)$")  # 03: audio only, 01: speech (not song)
# Six folds of four actors, two women and two men each.
FOLDS = tuple(tuple(f"Actor_{actor:02d}" for actor in range(4 * k + 1, 4 * k + 5)) for k in range(6))


def prepare_ravdess(corpus_dir: str | Path) -> Corpus:
    """All utterances below `corpus_dir`, .wav or .flac; files with other names are left alone."""
    folder = existing(corpus_dir, "Actor_01 … Actor_24")
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name:
            continue
        emotion, statement, actor = name.groups()
        if emotion not in EMOTIONS or statement not in STATEMENTS or not 1 <= int(actor) <= 24:
            raise PyserError(f"{path}: RAVDESS has no emotion {emotion}, statement {statement} or actor {actor}; take it out")
        speaker = f"Actor_{actor}"
        utterances.append(Utterance(f"{speaker}-{path.stem}", path, speaker, "m" if int(actor) % 2 else "f",
                                    STATEMENTS[statement], EMOTIONS[emotion]))
    if not utterances:
        raise PyserError(f"{folder}: no file is named like 03-01-05-01-02-01-12.wav; give the folder with Actor_01 …")
    count = len({one.id for one in utterances})
    notes = [] if count == SIZE else [f"ravdess: {count} of the corpus's {SIZE} utterances are here"]
    return Corpus("ravdess", utterances, FOLDS, ABOUT, notes, {"label_set": f"{len(EMOTIONS)} emotions", "subset": "all"})
