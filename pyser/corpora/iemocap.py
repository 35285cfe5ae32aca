"""IEMOCAP: five sessions of two speakers each.

Labels are the majority categories on the summary lines of SessionN/dialog/EmoEvaluation/*.txt:

    [6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5000, 2.5000, 2.5000]

with valence, activation and dominance on 1-5. Ses01F_impro01_M002 is spoken by session 1's man, Ses01M here, whoever
the dialog is named after; utterance ids get the speaker in front, as Kaldi's sorting wants.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pyser.corpora.corpus import Corpus, Utterance, existing
from pyser.errors import PyserError
from pyser.lang.lexicon import UNKNOWN_WORD

# Category -> label of each set; what is not named is left out.
LABEL_SETS = {
    "5531": {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"},  # happy and excited together
    "5500": {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"},  # the same, transcribed ones only
    "4936": {"ang": "ang", "exc": "exc", "neu": "neu", "sad": "sad"},  # excited only (Zhou and Beigi)
}
COUNTS = {
    "5531": {"ang": 1103, "hap": 1636, "neu": 1708, "sad": 1084},
    "5500": {"ang": 1103, "hap": 1615, "neu": 1704, "sad": 1078},
    "4936": {"ang": 1103, "exc": 1041, "neu": 1708, "sad": 1084},
}
FOLDS = tuple((f"Ses{session:02d}F", f"Ses{session:02d}M") for session in range(1, 6))
ABOUT = ("IEMOCAP: by licence of USC's SAIL. Cite: C. Busso et al., IEMOCAP: interactive emotional dyadic motion capture "
         "database, Language Resources and Evaluation 42(4), 2008.")
SUBSETS = ("all", "improvised", "scripted")  # scripted dialogs are the same in every session: their words leak
_SUMMARY = re.compile(r"^\[[\d.]+ *- *[\d.]+\]\s+(\w+)\s+(\w+)\s+\[([\d.]+), *([\d.]+), *([\d.]+)\]")
_TRANSCRIPT = re.compile(r"^(\w+) \[[\d.]+-[\d.]+\]: ?(.*)$")
_MARKS = re.compile(r"\[[^\]]*\]")  # [LAUGHTER] and the like
_PUNCTUATION = re.compile(r"[^A-Z0-9' ]+")


def prepare_iemocap(corpus_dir: str | Path, label_set: str = "5531", subset: str = "all") -> Corpus:
    """Utterances of `label_set` (5531, 5500 or 4936) in the dialogs of `subset` (all, improvised or scripted).

    5500 holds transcribed utterances only; in the others an utterance without words has the transcript <UNK>.
    """
    if label_set not in LABEL_SETS or subset not in SUBSETS:
        raise PyserError(f"label set {label_set}, subset {subset}: expected {'|'.join(LABEL_SETS)} and {'|'.join(SUBSETS)}")
    folder = existing(corpus_dir, "Session1 … Session5")
    utterances, without_words = [], 0
    for session in range(1, 6):
        root = folder / f"Session{session}"
        evaluations = sorted(p for p in (root / "dialog/EmoEvaluation").glob("*.txt") if not p.name.startswith("._"))
        if not evaluations:
            raise PyserError(f"{root}/dialog/EmoEvaluation: no evaluation files; IEMOCAP has five sessions, copy it whole")
        for evaluation in evaluations:
            if subset != "all" and ("impro" in evaluation.stem) != (subset == "improvised"):
                continue
            texts = _transcripts(root / "dialog/transcriptions" / evaluation.name)
            for utt, category, valence, activation, dominance in _summaries(evaluation):
                emotion, text = LABEL_SETS[label_set].get(category), texts.get(utt)
                if not emotion:
                    continue
                without_words += not text
                if text or label_set != "5500":
                    path = root / "sentences/wav" / evaluation.stem / f"{utt}.wav"
                    if not path.exists() and path.with_suffix(".flac").exists():
                        path = path.with_suffix(".flac")
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
    counts = Counter(one.emotion for one in utterances)
    if subset == "all" and counts != COUNTS[label_set]:
        wanted, here = (" ".join(f"{k} {v}" for k, v in sorted(c.items())) for c in (COUNTS[label_set], counts))
        notes.append(f"iemocap: NOT the full corpus: labelled {here}, the full one has {wanted}")
    return Corpus("iemocap", utterances, FOLDS, ABOUT, notes, {"label_set": label_set, "subset": subset})


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
            words = _MARKS.sub(" ", match[2].upper()).replace("\u2019", "'")
            texts[match[1]] = " ".join(_PUNCTUATION.sub(" ", words).split())
    return texts
