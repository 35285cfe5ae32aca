"""IEMOCAP: five sessions of two speakers each.

Labels are the majority categories on the summary lines of SessionN/dialog/EmoEvaluation/*.txt:

    [6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]

with valence, activation and dominance on 1-5. Ses01F_impro01_M002 is spoken by session 1's man, Ses01M here, whoever
the dialog is named after; utterance ids get the speaker in front, as Kaldi's sorting wants.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, chosen, differences, existing, present, words
from pyser.errors import PyserError
from pyser.lang.lexicon import UNKNOWN_WORD

# Category -> label of each set; what is not named is left out.
LABEL_SETS = {
    "5531": {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"},  # happy and excited together
    "5500": {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"},  # the same, transcribed ones only
    "4936": {"ang": "ang", "exc": "exc", "neu": "neu", "sad": "sad"},  # excited only (Zhou and Beigi)
}
# Labels of the full corpus, session by session.
COUNTS = {
    "improvised": {"ang": (62, 22, 90, 84, 31), "hap": (33, 54, 60, 31, 106), "exc": (99, 137, 89, 164, 174),
                   "neu": (223, 217, 198, 174, 287), "sad": (104, 100, 190, 81, 133)},
    "scripted": {"ang": (167, 115, 150, 243, 139), "hap": (102, 63, 75, 34, 37), "exc": (44, 73, 62, 74, 125),
                 "neu": (161, 145, 122, 84, 97), "sad": (90, 97, 115, 62, 112)},
}
TRANSCRIBED = {"ang": 1103, "hap": 1615, "neu": 1704, "sad": 1078}  # of 5500, in all
FOLDS = tuple((f"Ses{session:02d}F", f"Ses{session:02d}M") for session in range(1, 6))
ABOUT = ("IEMOCAP: by licence of USC's SAIL. Cite: C. Busso et al., IEMOCAP: interactive emotional dyadic motion capture "
         "database, Language Resources and Evaluation 42(4), 2008.")
# Scripted dialogs are the same in every session: their words leak.
SUBSETS = {"all": ("improvised", "scripted"), "improvised": ("improvised",), "scripted": ("scripted",)}
# Where every dialog has a file or, of its audio, a folder.
PLACES = {"dialog/EmoEvaluation": ".txt", "dialog/transcriptions": ".txt", "sentences/wav": ""}
_DIALOG = re.compile(r"Ses\d\d[FM]_(impro|script)\w+")
_SUMMARY = re.compile(r"^\[[\d.]+ *- *[\d.]+\]\s+(\w+)\s+(\w+)\s+\[([\d.]+), *([\d.]+), *([\d.]+)\]")
_TRANSCRIPT = re.compile(r"^(\w+) \[[\d.]+-[\d.]+\]: ?(.*)$")
_MARKS = re.compile(r"\[[^\]]*\]")  # [LAUGHTER] and the like


def prepare_iemocap(corpus_dir: str | Path, label_set: str = "5531", subset: str = "all") -> Corpus:
    """Utterances of `label_set` (5531, 5500 or 4936) in the dialogs of `subset` (all, improvised or scripted).

    5500 holds transcribed utterances only, whose number is known of the full corpus alone; what is labelled is counted by
    session in every set. In the others an utterance without words has the transcript <UNK>.
    """
    labels, kinds = chosen("iemocap", "label set", label_set, LABEL_SETS), chosen("iemocap", "subset", subset, SUBSETS)
    folder = existing(corpus_dir, "Session1 … Session5")
    utterances, labelled, missing, without_words = [], list[str](), list[str](), 0
    for session in range(1, 6):
        root = folder / f"Session{session}"
        evaluations = sorted(path for path in (root / "dialog/EmoEvaluation").glob("*.txt")
                             if not path.name.startswith("._") and _kind(path.stem) in kinds)
        if not evaluations:
            what = "evaluation files" if subset == "all" else f"evaluation files of {subset} dialogs"
            raise PyserError(f"{root}/dialog/EmoEvaluation: no {what}; IEMOCAP has five sessions, copy it whole")
        missing += _missing(root, kinds)
        for evaluation in evaluations:
            texts = _transcripts(root / "dialog/transcriptions" / evaluation.name)
            for utt, category, valence, activation, dominance in _summaries(evaluation):
                emotion, text = labels.get(category), texts.get(utt)
                if not emotion:
                    continue
                labelled.append(f"Ses{session:02d} {emotion}")
                without_words += not text
                if text or label_set != "5500":
                    path = present(root / "sentences/wav" / evaluation.stem / f"{utt}.wav")
                    speaker = f"Ses{session:02d}{utt.rsplit('_', 1)[1][0]}"
                    utterances.append(Utterance(f"{speaker}-{utt}", path, speaker, speaker[-1].lower(), text or UNKNOWN_WORD,
                                                emotion, f"{activation} {valence} {dominance}"))
    if not utterances:
        raise PyserError(f"{folder}: no utterance has a label of {label_set}, {subset}; copy the corpus whole")
    if not any(one.path.exists() for one in utterances):
        raise PyserError(f"{folder}: no audio in Session*/sentences/wav, e.g. no {utterances[0].path}; copy the corpus whole")
    notes = []
    if without_words:
        what = "left out" if label_set == "5500" else f"transcribed {UNKNOWN_WORD}"
        notes.append(f"iemocap: {without_words} labelled utterances have no words in the transcript, {what}")
    name = "iemocap, with words or without" if label_set == "5500" else "iemocap"
    notes += differences(name, labelled, full_size(label_set, subset))
    if label_set == "5500" and subset == "all":
        notes += differences("iemocap", (str(one.emotion) for one in utterances), TRANSCRIBED)
    notes += differences("iemocap", (), {}, missing)
    return Corpus("iemocap", utterances, FOLDS, ABOUT, notes, {"label_set": label_set, "subset": subset, "avd": "1-5"},
                  missing=missing)


def full_size(label_set: str, subset: str) -> dict[str, int]:
    """'Ses01 ang' … -> labelled utterances in the full corpus."""
    sizes: dict[str, int] = {}
    for category, label in LABEL_SETS[label_set].items():
        for session in range(5):
            key = f"Ses{session + 1:02d} {label}"
            sizes[key] = sizes.get(key, 0) + sum(COUNTS[kind][category][session] for kind in SUBSETS[subset])
    return sizes


def _kind(dialog: str) -> str:
    return "improvised" if "impro" in dialog else "scripted"


def _missing(session: Path, kinds: Collection[str]) -> list[str]:
    """What dialogs of these kinds have in one of PLACES and lack in another."""
    found = {place: {path.name.removesuffix(suffix) for path in (session / place).glob(f"*{suffix}")}
             for place, suffix in PLACES.items()}
    dialogs = sorted(name for name in set().union(*found.values()) if _DIALOG.fullmatch(name) and _kind(name) in kinds)
    return [f"{session.name}/{place}/{name}{suffix}" for place, suffix in PLACES.items() for name in dialogs
            if name not in found[place]]


def _summaries(path: Path) -> list[tuple[str, ...]]:
    """(utterance, category, valence, activation, dominance) of each summary line."""
    found = (_SUMMARY.match(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [match.groups() for match in found if match]


def _transcripts(path: Path) -> dict[str, str]:
    """Utterance -> words in capitals, without punctuation and [NOISE] marks."""
    texts = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        match = _TRANSCRIPT.match(line)
        if match:
            texts[match[1]] = words(_MARKS.sub(" ", match[2]))
    return texts
