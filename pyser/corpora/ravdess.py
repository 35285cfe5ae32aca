"""RAVDESS: 24 actors, eight emotions. Names are modality-channel-emotion-intensity-statement-repetition-actor."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, audio_files, chosen, differences, existing, only
from pyser.errors import PyserError

EMOTIONS = {"01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful", "07": "disgust",
            "08": "surprised"}
STATEMENTS = {"01": "KIDS ARE TALKING BY THE DOOR", "02": "DOGS ARE SITTING BY THE DOOR"}
SIZES = {emotion: 96 if emotion == "neutral" else 192 for emotion in EMOTIONS.values()}  # neutral has one intensity
LABEL_SETS = {"8": SIZES, "4": only(SIZES)}  # 4: as Zhou and Beigi
ABOUT = ("RAVDESS: CC BY-NC-SA 4.0. Cite: S. R. Livingstone and F. A. Russo, The Ryerson Audio-Visual Database of "
         "Emotional Speech and Song, PLoS ONE 13(5): e0196391, 2018.")
_NAME = re.compile(r"^03-01-(\d\d)-\d\d-(\d\d)-\d\d-(\d\d)$")  # 03: audio only, 01: speech (not song)
# Six folds of four actors, two women and two men each.
FOLDS = tuple(tuple(f"Actor_{actor:02d}" for actor in range(4 * k + 1, 4 * k + 5)) for k in range(6))


def prepare_ravdess(corpus_dir: str | Path, label_set: str = "8") -> Corpus:
    """The utterances of `label_set` (8 or 4) below `corpus_dir`, .wav or .flac; files with other names are left alone."""
    sizes = chosen("ravdess", "label set", label_set, LABEL_SETS)
    folder = existing(corpus_dir, "Actor_01 … Actor_24")
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name:
            continue
        emotion, statement, actor = name.groups()
        if emotion not in EMOTIONS or statement not in STATEMENTS or not 1 <= int(actor) <= 24:
            raise PyserError(f"{path}: RAVDESS has no emotion {emotion}, statement {statement} or actor {actor}; take it out")
        if EMOTIONS[emotion] in sizes:
            speaker = f"Actor_{actor}"
            utterances.append(Utterance(f"{speaker}-{path.stem}", path, speaker, "m" if int(actor) % 2 else "f",
                                        STATEMENTS[statement], EMOTIONS[emotion]))
    if not utterances:
        raise PyserError(f"{folder}: no file is named like 03-01-05-01-02-01-12.wav; give the folder with Actor_01 …")
    missing = {name for name in _names() if EMOTIONS[name[6:8]] in sizes} - {one.path.stem for one in utterances}
    notes = differences("ravdess", (str(one.emotion) for one in utterances), sizes, missing)
    return Corpus("ravdess", utterances, FOLDS, ABOUT, notes, {"label_set": f"{len(sizes)} emotions", "subset": "all"},
                  missing=missing)


def _names() -> list[str]:
    """The 1440 names of the full corpus: two intensities (neutral has one), statements and repetitions."""
    every = product(EMOTIONS, ("01", "02"), STATEMENTS, ("01", "02"), (f"{actor:02d}" for actor in range(1, 25)))
    return ["-".join(("03", "01", *rest)) for rest in every if rest[:2] != ("01", "02")]
