"""Activation and valence of acted corpora, by their categories: nobody rated these utterances.

Where an emotion lies on the circle of J. A. Russell, "A circumplex model of affect", Journal of Personality and Social
Psychology 39(6), 1980: degrees from pleasure (0) by way of arousal (90) to displeasure (180), of his words happy, excited,
astonished, angry, afraid, sad, bored and calm, by his circular scaling (his others place some of them
elsewhere). Disgusted is none of them: its direction is that of its mean ratings in J. A.
Russell and A. Mehrabian, "Evidence for a three-factor theory of emotions", Journal of Research in Personality 11(3), 1977
(pleasure -0.60, arousal 0.35). Neutral is the centre. Dominance is not a dimension of the circle.
"""

from __future__ import annotations

from math import cos, radians, sin
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_json, write_json
from pyser.kaldi.datadir import read_table, write_table

DEGREES = {"happy": 7.8, "excited": 48.6, "surprised": 69.8, "angry": 99.0, "fearful": 116.0, "disgust": 149.7, "sad": 207.5,
           "bored": 242.0, "calm": 316.2}
NAMES = {"ang": "angry", "hap": "happy", "exc": "excited", "neu": "neutral", "fear": "fearful", "surprise": "surprised",
         "boredom": "bored", "happiness": "happy", "anger": "angry", "sadness": "sad"}
DERIVED = "category-derived"
SOURCE = f"{DERIVED} (Russell 1980, circular scaling; disgust: Russell & Mehrabian 1977)"


def placement(emotion: str) -> tuple[float, float] | None:
    """Activation and valence, both from -1 to 1; None of an emotion that has no place."""
    name = NAMES.get(emotion, emotion)
    if name == "neutral":
        return 0.0, 0.0
    angle = DEGREES.get(name)
    return None if angle is None else (sin(radians(angle)), cos(radians(angle)))


def write_placements(data_dir: str | Path) -> str:
    """Write data_dir/utt2avd by its utt2emo, and into folds/info.json that it is category-derived; return the closing line.

    PyserError where there are ratings already, or an emotion has no place.
    """
    data_dir = Path(data_dir)
    emotions, target, info = read_table(data_dir / "utt2emo"), data_dir / "utt2avd", data_dir / "folds" / "info.json"
    about = read_json(info) if info.exists() else {}
    if target.exists() and not str(about.get("avd", "")).startswith(DERIVED):
        raise PyserError(f"{target}: has ratings already; take it away if they are to be derived from the categories")
    table = {}
    for utt, emotion in emotions.items():
        place = placement(emotion)
        if place is None:
            raise PyserError(f"{data_dir}/utt2emo: {utt}: {emotion} has no place on the circle; take these utterances out")
        table[utt] = f"{place[0]:.4f} {place[1]:.4f} -"
    write_json(info, about | {"avd": SOURCE})
    write_table(target, table)
    return (f"{target}: activation and valence of {len(table)} utterances, DERIVED FROM THEIR CATEGORIES "
            f"({', '.join(sorted(set(emotions.values())))}), not annotated")
