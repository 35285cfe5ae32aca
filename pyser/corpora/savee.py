"""SAVEE: four men, British English, seven emotions. Names are speaker_emotion-and-number (DC_sa03), the speaker perhaps as
the folder's name (DC/sa03). The sentences are TIMIT's; the corpus has no transcripts of them by file."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, audio_files, chosen, differences, existing, only
from pyser.errors import PyserError

EMOTIONS = {"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprised"}
SPEAKERS = ("DC", "JE", "JK", "KL")
SENTENCES = {code: 30 if code == "n" else 15 for code in EMOTIONS}  # of each speaker
SIZES = {emotion: len(SPEAKERS) * SENTENCES[code] for code, emotion in EMOTIONS.items()}
LABEL_SETS = {"7": SIZES, "4": only(SIZES)}
FOLDS = tuple((speaker,) for speaker in SPEAKERS)
ABOUT = ("SAVEE: for research, by registration at the University of Surrey. Cite: S. Haq and P. J. B. Jackson, Multimodal "
         "emotion recognition, in W. Wang (ed.), Machine Audition, IGI Global, 2010.")
_NAME = re.compile(r"^(?:([A-Z]{2})_)?(sa|su|[adfhn])(\d\d)$")


def prepare_savee(corpus_dir: str | Path, label_set: str = "7") -> Corpus:
    """The utterances of `label_set` (7 or 4) below `corpus_dir`; files with other names are left alone."""
    sizes = chosen("savee", "label set", label_set, LABEL_SETS)
    folder = existing(corpus_dir, "DC, JE, JK and KL, or DC_a01.wav …")
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name:
            continue
        speaker, code, number = name[1] or path.parent.name, name[2], name[3]
        if speaker not in SPEAKERS or not 1 <= int(number) <= SENTENCES[code]:
            raise PyserError(f"{path}: SAVEE has no speaker {speaker} or no sentence {code}{number}; take it out")
        if EMOTIONS[code] in sizes:
            utterances.append(Utterance(f"{speaker}_{code}{number}", path, speaker, "m", None, EMOTIONS[code]))
    if not utterances:
        raise PyserError(f"{folder}: no file is named like DC_a01.wav or DC/a01.wav; give the folder of SAVEE")
    names = {f"{speaker}_{code}{number:02d}" for speaker, code in product(SPEAKERS, EMOTIONS) if EMOTIONS[code] in sizes
             for number in range(1, SENTENCES[code] + 1)}
    missing = names - {one.id for one in utterances}
    notes = differences("savee", (str(one.emotion) for one in utterances), sizes, missing)
    return Corpus("savee", utterances, FOLDS, ABOUT, notes, {"label_set": f"{len(sizes)} emotions", "subset": "all"},
                  missing=missing)
