"""TESS, the Toronto emotional speech set: two actresses, 64 (OAF) and 26 (YAF), say 200 words in seven emotions.

Names are actress_word_emotion. Two speakers make two folds, one to train on and the other to test; nobody is left to
validate on.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, audio_files, chosen, differences, existing, only
from pyser.errors import PyserError

EMOTIONS = {"angry": "angry", "disgust": "disgust", "fear": "fearful", "happy": "happy", "neutral": "neutral",
            "ps": "surprised", "sad": "sad"}  # ps: pleasantly surprised
SIZES = dict.fromkeys(EMOTIONS.values(), 400)
LABEL_SETS = {"7": SIZES, "4": only(SIZES)}
FOLDS = (("OAF",), ("YAF",))
ABOUT = ("TESS: CC BY-NC-ND 4.0. Cite: M. K. Pichora-Fuller and K. Dupuis, Toronto emotional speech set (TESS), Scholars "
         "Portal Dataverse, doi:10.5683/SP2/E8H2MF, 2020.")
FEW = ("tess: two speakers: the folds train on one and test on the other, without validation; train with --selection last. "
       "Both say the same words")
WORDS = (
    "back bar base bath bean beg bite boat bone book bought burn cab calm came cause chain chair chalk chat check cheek "
    "chief choice cool dab date dead death deep dime dip ditch dodge dog doll door fail fall far fat fit five food gap gas "
    "gaze germ get gin goal good goose gun half hall hash hate have haze hire hit hole home hurl hush jail jar join judge "
    "jug juice keen keep keg kick kill king kite knock late laud lean learn lease lid life limb live loaf long lore lose "
    "lot love luck make match merge mess met mill mob mode mood moon mop mouse nag name near neat nice note numb pad page "
    "pain pass pearl peg perch phone pick pike pole pool puff rag raid rain raise rat reach read red ring ripe road room "
    "rose rot rough rush said sail search seize sell shack shall shawl sheep shirt should shout size soap soup sour south "
    "sub such sure take talk tape team tell thin third thought thumb time tip tire ton tool tough turn vine voice void "
    "vote wag walk wash week wheat when which whip white wife wire witch yearn yes young youth"
).split()
_NAME = re.compile(rf"^(OAF?|YAF)_([a-z]+)_({'|'.join(EMOTIONS)})$", re.IGNORECASE)  # one file is called OA_bite_neutral


def prepare_tess(corpus_dir: str | Path, label_set: str = "7") -> Corpus:
    """The utterances of `label_set` (7 or 4) below `corpus_dir`; files with other names are left alone."""
    sizes = chosen("tess", "label set", label_set, LABEL_SETS)
    folder = existing(corpus_dir, "TESS's files, OAF_back_angry.wav …")
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name:
            continue
        actress, word, emotion = name[1].upper()[0] + "AF", name[2].lower(), name[3].lower()
        if EMOTIONS[emotion] in sizes:
            utterances.append(Utterance(f"{actress}_{word}_{emotion}", path, actress, "f", f"SAY THE WORD {word.upper()}",
                                        EMOTIONS[emotion]))
    if not utterances:
        raise PyserError(f"{folder}: no file is named like OAF_back_angry.wav; give the folder of TESS")
    emotions = [code for code, emotion in EMOTIONS.items() if emotion in sizes]
    missing = {"_".join(one) for one in product(("OAF", "YAF"), WORDS, emotions)} - {one.id for one in utterances}
    notes = [FEW, *differences("tess", (str(one.emotion) for one in utterances), sizes, missing)]
    return Corpus("tess", utterances, FOLDS, ABOUT, notes, {"label_set": f"{len(sizes)} emotions", "subset": "all"},
                  missing=missing)
