"""MSP-Podcast: natural speech from podcasts, rated by listeners; the corpus's own partition is the one fold.

Labels/labels_consensus.csv has a line for each utterance:

    FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
    MSP-PODCAST_0001_0008.wav,N,2.2,4.0,2.6,30,Male,Test1

with activation, valence and dominance on 1-7; a release may have labels_consensus.json instead, an object of these values
for each file name, and Partitions.txt, with lines `Test1; MSP-PODCAST_0001_0008.wav`. Train trains, Development validates,
Test1 is tested; Test2 is in the data and in test2.list beside it. The labels of Test3 are not public.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyser.corpora.corpus import FOUR, Corpus, Utterance, audio_files, chosen, existing, words
from pyser.errors import PyserError
from pyser.files import read_lines
from pyser.kaldi.manifests import GENDERS
from pyser.lang.lexicon import UNKNOWN_WORD

EMOTIONS = {"A": "angry", "S": "sad", "H": "happy", "U": "surprised", "F": "fearful", "D": "disgust", "C": "contempt",
            "N": "neutral", "O": "other", "X": "no-agreement"}
NONE = ("other", "no-agreement")  # but rated all the same
LABEL_SETS = {"8": tuple(emotion for emotion in EMOTIONS.values() if emotion not in NONE), "4": FOUR,
              "all": tuple(EMOTIONS.values())}
PARTS = {"Train": "train", "Development": "valid", "Validation": "valid", "Test1": "test", "Test2": "test2", "Test3": None}
RATINGS = ("EmoAct", "EmoVal", "EmoDom")
COLUMNS = ("FileName", "EmoClass", *RATINGS, "SpkrID", "Gender", "Split_Set")
_RATING = re.compile(r"[1-6](\.\d+)?|7(\.0+)?")
RELEASE_1_11 = {"train": 84030, "valid": 19815, "test": 30647, "test2": 14815}  # of any label
ABOUT = ("MSP-Podcast: by licence of UT Dallas' MSP lab. Cite: R. Lotfian and C. Busso, Building naturalistic emotionally "
         "balanced speech corpus by retrieving emotional speech from existing podcast recordings, IEEE Transactions on "
         "Affective Computing 10(4), 2019; and say which release.")


def prepare_msp_podcast(corpus_dir: str | Path, label_set: str = "8") -> Corpus:
    """The utterances of `label_set` (8, 4, or all: also those of another emotion, or of none that raters agreed on) in
    Train, Development, Test1 and Test2.

    A speaker who is not known is a speaker of that utterance alone. Where there are Transcripts, an utterance without one
    has the transcript <UNK>.
    """
    emotions = chosen("msp-podcast", "label set", label_set, LABEL_SETS)
    folder = existing(corpus_dir, "Audios, Labels and Transcripts")
    rows = _rows(folder)
    paths = {path.stem: path for path in audio_files(folder)}
    texts = {path.stem: path for path in folder.glob("[Tt]ranscripts/**/*.txt") if not path.name.startswith("._")}
    utterances, part_of = [], {}
    for row in rows:
        part, emotion = PARTS[row["Split_Set"]], EMOTIONS[row["EmoClass"]]
        if part is None or emotion not in emotions:
            continue
        stem, known = Path(row["FileName"]).stem, row["SpkrID"].lower() != "unknown"
        speaker = f"spk{row['SpkrID'].zfill(4)}" if known else stem
        text = words(" ".join(read_lines(texts[stem]))) if stem in texts else ""
        utt = f"{speaker}-{stem}" if known else stem
        utterances.append(Utterance(
            utt, paths.get(stem, folder / "Audios" / row["FileName"]), speaker, GENDERS.get(row["Gender"].lower()),
            (text or UNKNOWN_WORD) if texts else None, emotion, " ".join(row[name] for name in RATINGS)))
        part_of[utt] = part
    if not any(one.path.exists() for one in utterances):
        raise PyserError(f"{folder}: no audio, e.g. no Audios/{rows[0]['FileName']}; copy the corpus whole")
    parts, notes = _disjoint({one.id: one.speaker for one in utterances}, part_of)
    label_set = f"{len(emotions)} emotions" if label_set != "all" else "all"
    return Corpus("msp-podcast", utterances, (), ABOUT, [*_sizes(rows), *_unknown(utterances), *notes],
                  {"label_set": label_set, "subset": "Test1", "avd": "1-7"}, parts)


def _rows(folder: Path) -> list[dict[str, str]]:
    """The labels of each utterance, checked, with its part of the corpus."""
    path, rows = _labels(folder)
    partitions = _partitions(folder)
    for row, where in rows:
        name = row.get("FileName", "")
        part = partitions.get(name, "")
        row["Split_Set"] = row.get("Split_Set") or part
        if any(not row.get(column) for column in COLUMNS):
            raise PyserError(f"{where}: expected values for {','.join(COLUMNS)}; mend the line")
        if part and PARTS.get(part) != PARTS.get(row["Split_Set"]):
            raise PyserError(f"{where}: {name} is in {row['Split_Set']}, but in {part} by Partitions.txt; take the "
                             "files of one release")
        for column, known in (("EmoClass", EMOTIONS), ("Split_Set", PARTS)):
            if row[column] not in known:
                raise PyserError(f"{where}: {column} {row[column]} is none of {', '.join(known)}; mend the line")
        for column in RATINGS:
            if not _RATING.fullmatch(row[column]):
                raise PyserError(f"{where}: {column} {row[column]} is no number from 1 to 7; mend the line")
    if not rows:
        raise PyserError(f"{path}: no utterances in it; take the file of the release")
    return [row for row, _ in rows]


def _labels(folder: Path) -> tuple[Path, list[tuple[dict[str, str], str]]]:
    """labels_consensus.csv or .json (labels_concensus in early releases): its path, and each utterance's values with where
    they stand."""
    places = [folder / sub for sub in ("Labels", "labels", "label", ".")]
    found = [path for suffix in ("csv", "json") for place in places for path in place.glob(f"labels_con?ensus.{suffix}")]
    if not found:
        raise PyserError(f"{folder}/Labels/labels_consensus.csv: not there; give the folder of the release, Labels and all")
    path = found[0]
    if path.suffix == ".json":
        try:
            table = json.loads("\n".join(read_lines(path)))
            return path, [({**{key: str(value).strip() for key, value in values.items()}, "FileName": name},
                           f"{path}: {name}") for name, values in table.items()]
        except (ValueError, TypeError, AttributeError):
            raise PyserError(f"{path}: not an object of labels for each file name; take the file of the release") from None
    lines = csv.reader(read_lines(path))
    header = next(lines, [])
    lacking = [name for name in COLUMNS if name not in header and name != "Split_Set"]
    if lacking:
        raise PyserError(f"{path}: has no column {lacking[0]}; take the file of the release")
    return path, [(dict(zip(header, (value.strip() for value in line), strict=False)), f"{path}:{lines.line_num}")
                  for line in lines]


def _partitions(folder: Path) -> dict[str, str]:
    """File name -> part, of Partitions.txt; empty where there is none."""
    found = [path for sub in (".", "Labels", "labels") for path in (folder / sub).glob("[Pp]artitions.txt")]
    parts = {}
    for number, line in enumerate(read_lines(found[0]) if found else [], start=1):
        part, *rest = (word.strip() for word in line.split(";"))
        if line.strip() and (part not in PARTS or not rest or not rest[0]):
            raise PyserError(f"{found[0]}:{number}: '{line[:60]}' is not like 'Test1; MSP-PODCAST_0001_0008.wav'")
        if line.strip():
            parts[rest[0]] = part
    return parts


def _sizes(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The sizes of the parts, whatever the labels: releases differ."""
    counts = Counter(part for row in rows if (part := PARTS[row["Split_Set"]]))
    here, full = (" ".join(f"{part} {sizes[part]}" for part in RELEASE_1_11) for sizes in (counts, RELEASE_1_11))
    same = "as release 1.11" if counts == RELEASE_1_11 else f"NOT release 1.11, which has {full}"
    return [f"msp-podcast: labelled {here}: {same}"]


def _unknown(utterances: Sequence[Utterance]) -> list[str]:
    counts = {"unknown speakers": sum(one.speaker == one.id for one in utterances),
              "speakers of unknown gender, so there is no spk2gender": sum(one.gender is None for one in utterances),
              f"no words, transcribed {UNKNOWN_WORD}": sum(one.text == UNKNOWN_WORD for one in utterances)}
    return [f"msp-podcast: {count} utterances with {what}" for what, count in counts.items() if count]


def _disjoint(speaker_of: Mapping[str, str], part_of: Mapping[str, str]) -> tuple[dict[str, list[str]], list[str]]:
    """The lists of the fold: what a test speaker says is not in train or valid, nor what a speaker of valid says in train."""
    held: set[str] = set()
    parts: dict[str, list[str]] = {}
    notes = []
    for part in ("test2", "test", "valid", "train"):
        utts = [utt for utt in speaker_of if part_of[utt] == part]
        apart = part.startswith("test")  # (the test sets share speakers, as published)
        parts[part] = utts if apart else [utt for utt in utts if speaker_of[utt] not in held]
        if len(parts[part]) < len(utts):
            notes.append(f"msp-podcast: {len(utts) - len(parts[part])} utterances of {part} are left out of {part}.list: "
                         "their speakers are tested or validated on")
        held |= {speaker_of[utt] for utt in utts}
    return {part: utts for part, utts in parts.items() if utts or part != "test2"}, notes
