"""CREMA-D: 91 actors, twelve sentences, six emotions. Names are actor_sentence_emotion_intensity.

The label is the emotion that the actor was asked for; sentence IEO (but for neutral) has it at three intensities.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, audio_files, chosen, differences, existing, only
from pyser.errors import PyserError

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = {
    "IEO": "IT'S ELEVEN O'CLOCK",
    "TIE": "THAT IS EXACTLY WHAT HAPPENED",
    "IOM": "I'M ON MY WAY TO THE MEETING",
    "IWW": "I WONDER WHAT THIS IS ABOUT",
    "TAI": "THE AIRPLANE IS ALMOST FULL",
    "MTI": "MAYBE TOMORROW IT WILL BE COLD",
    "IWL": "I WOULD LIKE A NEW ALARM CLOCK",
    "ITH": "I THINK I HAVE A DOCTOR'S APPOINTMENT",
    "DFA": "DON'T FORGET A JACKET",
    "ITS": "I THINK I'VE SEEN THIS BEFORE",
    "TSI": "THE SURFACE IS SLICK",
    "WSI": "WE'LL STOP IN A COUPLE OF MINUTES",
}
ACTORS = range(1001, 1092)
WOMEN = frozenset((  # VideoDemographics.csv
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028, 1029, 1030, 1037, 1043,
    1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078, 1079, 1082,
    1084, 1089, 1091))
NEVER_MADE = ("1008_WSI", "1009_MTI", "1019_ITH", "1002_TIE_NEU", "1076_ITS_NEU")  # beginnings of 20 names
SIZES = {emotion: 1087 if emotion == "neutral" else 1271 for emotion in EMOTIONS.values()}
LABEL_SETS = {"6": SIZES, "4": only(SIZES)}
ABOUT = ("CREMA-D: Open Database License 1.0. Cite: H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova and R. "
         "Verma, CREMA-D: crowd-sourced emotional multimodal actors dataset, IEEE Transactions on Affective Computing 5(4), "
         "2014.")
_NAME = re.compile(r"^(\d{4})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX?)$")  # one file is called 1040_ITH_SAD_X
# Five folds: every fifth woman and every fifth man.
FOLDS = tuple(
    tuple(str(actor) for sex in (True, False) for actor in [a for a in ACTORS if (a in WOMEN) == sex][k::5]) for k in range(5)
)


def prepare_cremad(corpus_dir: str | Path, label_set: str = "6") -> Corpus:
    """The utterances of `label_set` (6 or 4) below `corpus_dir` (AudioWAV); files with other names are left alone."""
    sizes = chosen("cremad", "label set", label_set, LABEL_SETS)
    folder = existing(corpus_dir, "AudioWAV")
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name:
            continue
        actor, sentence, emotion, intensity = name.groups()
        if int(actor) not in ACTORS or sentence not in SENTENCES or emotion not in EMOTIONS:
            raise PyserError(f"{path}: CREMA-D has no actor {actor}, sentence {sentence} or emotion {emotion}; take it out")
        if EMOTIONS[emotion] in sizes:
            utt = f"{actor}_{sentence}_{emotion}_{'XX' if intensity == 'X' else intensity}"
            utterances.append(Utterance(utt, path, actor, "f" if int(actor) in WOMEN else "m", SENTENCES[sentence],
                                        EMOTIONS[emotion]))
    if not utterances:
        raise PyserError(f"{folder}: no file is named like 1001_DFA_ANG_XX.wav; give the folder with AudioWAV")
    with utterances[0].path.open("rb") as file:
        if file.read(7) == b"version":
            raise PyserError(f"{utterances[0].path}: a pointer of Git LFS and no audio; run `git lfs pull` in the corpus")
    missing = {name for name in _names() if EMOTIONS[name[9:12]] in sizes} - {one.id for one in utterances}
    notes = differences("cremad", (str(one.emotion) for one in utterances), sizes, missing)
    return Corpus("cremad", utterances, FOLDS, ABOUT, notes, {"label_set": f"{len(sizes)} emotions", "subset": "all"},
                  missing=missing)


def _names() -> list[str]:
    """The 7442 names of the full corpus."""
    every = ("_".join((str(actor), *rest)) for actor, *rest in product(ACTORS, SENTENCES, EMOTIONS, ("LO", "MD", "HI", "XX")))
    return [name for name in every
            if ("IEO" in name and "NEU" not in name) != name.endswith("XX") and not name.startswith(NEVER_MADE)]
