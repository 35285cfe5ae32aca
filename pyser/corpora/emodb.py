"""Berlin EmoDB: ten speakers, German, seven emotions. Names are SSTTTEV: speaker, text, emotion, version."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, audio_files, chosen, differences, existing, only
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
# The 535 recordings that listeners recognised: speaker -> text, followed by the emotion and version of each.
RECORDINGS = {
    "03": "a01FaNcWa a02FcNcTaWbWc a04AdFdLcNcTaWc a05AaFcNdTcWaWb a07FaFbLaNcWc "
          "b01FaLbNbTdWaWc b02AaLaNaTbWb b03NbTcWc b09LaNcTcWa b10AbEcNaNcWbWc",
    "08": "a01AbFdLcNaWaWc a02AbAcFeLaNaTbWc a04FfLaNcTbWc a05FeLcNbTaWa a07FdLaNaTaTbWc "
          "b01AaFdFeLbNaWa b02FfLaNbTcWd b03FeLcNbTcWd b09AbFdLcNbTbWaWc b10AaFdLaNcTcWa",
    "09": "a01EaFaNbWb a02EaEbLaWb a04FdLaNbWa a05EdLcNbTbWbWc a07EbNaTaWbWd "
          "b01EaNaWb b02NaTbWcWd b03EdFaFdLbNbTaWb b09EaNdWa b10AaNdWa",
    "10": "a01AcNbWa a02AbFaLbNaWa a04FdNbWaWb a05AaLdTbWb a07AaAdLaTaWb "
          "b01AaEaFaLb b02AaLaNaWb b03LaTbWb b09AdLbWb b10FcLcWa",
    "11": "a01AaAbLdNdWc a02EcFbLdNcTcWc a04AcFdNdWc a05AdFbFcLcNaTdWd a07AcLdTaWc "
          "b01AbEbFcLbNcWd b02AbFdNaTdWb b03FcLcNbTdWaWb b09AdFdLdNaTdWa b10AdAeLdNcTdWa",
    "12": "a01FbLbNbWc a02AcEcNbWaWc a04Wc a05AbLbNdTaWb a07AcLaWa "
          "b01TaWa b02AdEaFbNaWaWbWd b03LaTa b09AcTdWc b10AcLdWa",
    "13": "a01AcEaEcFdLbNbWb a02AdEcFaLcNcTaWa a04AcFcLbTaWc a05AaEaLcNbTcWaWc a07FdLbNaTcWb "
          "b01AbEcFcLdNcWa b02FbLcNbWa b03AcEdFdLbNaTdWc b09AbEcFbFcLaNaWa b10EcFaLaNcWaWc",
    "14": "a01AaAcEaNaWaWc a02AbEaFdLaNcTbWaWc a04AaEdLbTbTcWbWc a05AaAcFaFbLbNaTaTcWaWb a07AaEbFdLcLdNaTcWc "
          "b01AcEbFaFcNaWc b02AaFbNaTcWbWd b03AdEdLbTaWb b09AcEaFcLbTdWaWc b10AdEbLbNbTcWc",
    "15": "a01EaFbLaNbWa a02AcEaLaNaTaWbWd a04AbAcFdNcWaWb a05EbFbLbNaWa a07AcEbFaFbLdNc "
          "b01EcLbNaWc b02AaLbNdTcWaWc b03AaLcNbTcWaWb b09AcFaLaNbTaWb b10AcLcNbNcWa",
    "16": "a01EcFcLbNcTbWb a02EaEcLbNbTcWb a04AbEaFaLaLcNcTcWbWc a05AbEaFcLaTbWbWc a07EaFaFbLaLbNbTdWa "
          "b01AaEbFaLaLcTbWaWb b02AaEbFdLbWb b03AdEaFaFdLaNbTaWb b09AbEbFbLaLbWb b10AaEbFbLbTbTdWaWb",
}
NAMES = {f"{speaker}{text[:3]}{text[k : k + 2]}" for speaker, texts in RECORDINGS.items() for text in texts.split()
         for k in range(3, len(text), 2)}
SIZES = dict(Counter(EMOTIONS[name[5]] for name in sorted(NAMES)))
LABEL_SETS = {"7": SIZES, "4": only(SIZES)}


def prepare_emodb(corpus_dir: str | Path, label_set: str = "7") -> Corpus:
    """The utterances of `label_set` (7 or 4) below `corpus_dir` that bear EmoDB's names, in whatever subfolders."""
    sizes = chosen("emodb", "label set", label_set, LABEL_SETS)
    folder = existing(corpus_dir, "EmoDB's files, 03a01Fa.wav …")
    utterances = []
    for path in audio_files(folder):
        name = _NAME.match(path.stem)
        if not name:
            continue
        speaker, text, emotion = name.groups()
        if speaker not in GENDERS or text not in TEXTS:
            raise PyserError(f"{path}: EmoDB has no speaker {speaker} or text {text}; take it out")
        if EMOTIONS[emotion] in sizes:
            utterances.append(Utterance(path.stem, path, speaker, GENDERS[speaker], TEXTS[text], EMOTIONS[emotion]))
    if not utterances:
        raise PyserError(f"{folder}: no file is named like 03a01Fa.wav; give the folder of EmoDB")
    missing = {name for name in NAMES if EMOTIONS[name[5]] in sizes} - {one.id for one in utterances}
    notes = differences("emodb", (str(one.emotion) for one in utterances), sizes, missing)
    here = len({one.emotion for one in utterances})  # copies with four emotions are about
    return Corpus("emodb", utterances, FOLDS, ABOUT, notes, {"label_set": f"{here} emotions", "subset": "all"},
                  missing=missing)
