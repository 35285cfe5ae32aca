"""What every preparer returns, and how it becomes manifests, a Kaldi data directory and folds."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyser.errors import Dropped, PyserError
from pyser.files import write_json, write_text
from pyser.kaldi.manifests import recording, write_data_dir, write_manifests

T = TypeVar("T")
FOUR = ("angry", "happy", "neutral", "sad")  # the emotions that nearly every corpus has
_PUNCTUATION = re.compile(r"[^\w' ]+|_")


@dataclass(frozen=True)
class Utterance:
    """A labelled utterance in a file of its own; its id begins with its speaker's. gender: m, f or None (unknown); avd:
    activation, valence and dominance on the corpus's own scale, which Corpus.info["avd"] names."""

    id: str
    path: Path
    speaker: str
    gender: str | None
    text: str | None = None
    emotion: str | None = None
    avd: str | None = None


@dataclass(frozen=True)
class Corpus:
    """groups: speakers of each test fold; about: licence and citation; notes: what differs from the full corpus;
    info: what to say with results; parts: where the corpus has a partition of its own (then there are no groups), the
    utterances of train, valid, test and any further test set; missing: files of the full corpus that this copy lacks."""

    name: str
    utterances: Sequence[Utterance]
    groups: Sequence[Sequence[str]]
    about: str
    notes: Sequence[str] = ()
    info: dict[str, str] = field(default_factory=dict)
    parts: Mapping[str, Collection[str]] = field(default_factory=dict)
    missing: Collection[str] = ()


def existing(corpus_dir: str | Path, hint: str) -> Path:
    """The folder, absolute, or one line that says what was expected in it."""
    corpus_dir = Path(corpus_dir)
    if not corpus_dir.is_dir():
        raise PyserError(f"{corpus_dir}: no such folder; give the folder that holds {hint}")
    return corpus_dir.absolute()


def audio_files(folder: Path, suffixes: Iterable[str] = (".wav", ".flac")) -> list[Path]:
    """Audio files below `folder`, sorted, without macOS's ._ files; of a .flac and a .wav of one name the .wav counts."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith("._"))
    return sorted({path.with_suffix(""): path for path in sorted(found)}.values())


def present(path: Path) -> Path:
    """`path` or, if only that exists, the .flac or .wav of its name."""
    other = path.with_suffix(".wav" if path.suffix == ".flac" else ".flac")
    return other if other.exists() and not path.exists() else path


def chosen(corpus: str, kind: str, value: str, known: Mapping[str, T]) -> T:
    """known[value], or one line that names the right values of this `kind` (label set or subset)."""
    if value not in known:
        raise PyserError(f"{corpus}: no {kind} {value}; there are {', '.join(known)}")
    return known[value]


def only(sizes: Mapping[str, int], emotions: Iterable[str] = FOUR) -> dict[str, int]:
    """The sizes of these emotions, for a smaller label set."""
    return {emotion: sizes[emotion] for emotion in emotions}


def words(text: str) -> str:
    """Words in capitals, without punctuation."""
    return " ".join(_PUNCTUATION.sub(" ", text.upper().replace("\u2019", "'")).split())


def some(names: Collection[str], most: int = 10) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more


def differences(
    corpus: str, found: Iterable[str], sizes: Mapping[str, int], missing: Collection[str] = ()
) -> list[str]:
    """What differs from the full corpus, of which `sizes` has the number of utterances by emotion (or other category):
    a line of counts and a line that names `missing` files; none if nothing does."""
    counts = Counter(found)
    odd = [f"{counts[one]} of {size} {one}" for one, size in sizes.items() if counts[one] != size]
    notes = [f"{corpus}: NOT the full corpus: {', '.join(odd)}"] if odd else []
    return notes + ([f"{corpus}: missing {len(missing)} of the corpus's files: {some(missing)}"] if missing else [])


def write_corpus(corpus: Corpus, data_dir: str | Path, max_dropped: float = 0.05) -> str:
    """Write data_dir/<name> (Kaldi), data_dir/manifests (Lhotse) and data_dir/<name>/folds; return the closing lines.

    Files that are missing stand in folds/missing.txt, all of them; without any there is no such file.
    """
    dropped = Dropped(f"corpus {corpus.name}", max_dropped)
    recordings, supervisions = manifests(corpus.name, corpus.utterances, dropped)
    folder = Path(data_dir) / corpus.name
    _write_missing(corpus, folder / "folds" / "missing.txt")
    closing = [corpus.about, *corpus.notes, dropped.finish(len(corpus.utterances))]
    speakers = {one.id: one.speaker for one in supervisions}
    if corpus.parts:
        folds = write_partition({part: speakers.keys() & utts for part, utts in corpus.parts.items()}, folder / "folds")
    else:
        folds = write_folds(speakers, corpus.groups, folder / "folds")
    write_json(folder / "folds" / "info.json", {"corpus": corpus.name, **corpus.info})
    save(corpus.name, recordings, supervisions, data_dir)
    emotions = Counter(one.custom["emotion"] for one in supervisions)
    closing.append(f"{folder}: {len(speakers)} utterances, {len(set(speakers.values()))} speakers, "
                   f"{folds} speaker-independent fold{'s' * (folds != 1)}; "
                   + ", ".join(f"{label} {count}" for label, count in sorted(emotions.items())))
    return "\n".join(closing)


def manifests(corpus: str, utterances: Iterable[Utterance], dropped: Dropped) -> tuple[Any, Any]:
    """Lhotse's recordings and supervisions. Files that are missing or unreadable are named, and dropped."""
    from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

    paths: dict[str, Path] = {}
    recordings, supervisions, missing = [], [], []
    for one in utterances:
        if one.id in paths:
            raise PyserError(f"{one.id} is twice in the corpus, {paths[one.id]} and {one.path}; take one copy out")
        paths[one.id] = one.path
        try:
            audio = recording(one.path, one.id)
        except PyserError as error:
            if one.path.exists():
                print(f"{one.id}: {error}", flush=True)
                dropped.add(one.id, "unreadable")
            else:
                missing.append(one.path.name)
                dropped.add(one.id, "without audio file")
            continue
        recordings.append(audio)
        custom = {key: value for key, value in (("emotion", one.emotion), ("avd", one.avd)) if value}
        supervisions.append(SupervisionSegment(one.id, one.id, 0.0, audio.duration, text=one.text, speaker=one.speaker,
                                               gender=one.gender, custom=custom or None))
    if missing:
        print(f"{corpus}: audio missing for {len(missing)} of {len(paths)} utterances: {some(missing)}", flush=True)
    return RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions)


def _write_missing(corpus: Corpus, path: Path) -> None:
    """All files that are missing, one a line; said before the stage stops because of them."""
    missing = {*corpus.missing, *(one.path.name for one in corpus.utterances if not one.path.exists())}
    if missing:
        write_text(path, "".join(f"{name}\n" for name in sorted(missing)))
        print(f"{corpus.name}: {len(missing)} missing in all, named in {path}", flush=True)
    else:
        path.unlink(missing_ok=True)


def save(name: str, recordings: Any, supervisions: Any, data_dir: str | Path) -> None:
    """Lhotse manifests in data_dir/manifests and a Kaldi data directory data_dir/<name>."""
    write_manifests(recordings, supervisions, Path(data_dir) / "manifests", name)
    write_data_dir(recordings, supervisions, Path(data_dir) / name)


def write_folds(speaker_of: Mapping[str, str], groups: Sequence[Sequence[str]], folds_dir: str | Path) -> int:
    """folds_dir/<k>/{train,valid,test}.list: group k is tested, group k + 1 validates, the others train; their number.

    With two groups in all there is no valid.list: one group trains, the other is tested. A group without utterances makes
    no fold. Folds of an earlier run are removed.
    """
    group_of = {speaker: number for number, group in enumerate(groups) for speaker in group}
    strangers = sorted(set(speaker_of.values()) - set(group_of))
    if strangers:
        raise PyserError(f"speaker {strangers[0]} belongs to no fold; check the corpus")
    here = sorted({group_of[speaker] for speaker in speaker_of.values()})
    if len(here) < min(3, len(groups)):
        needed = "training and test need two" if len(groups) == 2 else "training, validation and test need three at least"
        raise PyserError(f"speakers of {len(here)} folds only: {needed}")
    _remove_folds(folds_dir)
    for position, k in enumerate(here):
        valid = here[(position + 1) % len(here)] if len(groups) > 2 else None
        parts: dict[str, list[str]] = {part: [] for part in ("train", "valid", "test") if part != "valid" or len(groups) > 2}
        for utt, speaker in speaker_of.items():
            parts["test" if group_of[speaker] == k else "valid" if group_of[speaker] == valid else "train"].append(utt)
        _write_lists(Path(folds_dir) / str(k + 1), parts)
    return len(here)


def write_partition(parts: Mapping[str, Collection[str]], folds_dir: str | Path) -> int:
    """folds_dir/1/<part>.list, the one fold of a corpus with a partition of its own. Folds of an earlier run are removed."""
    empty = [part for part, utts in parts.items() if not utts]
    if empty:
        raise PyserError(f"{folds_dir}: no utterances for {empty[0]}.list; copy the corpus whole")
    _remove_folds(folds_dir)
    _write_lists(Path(folds_dir) / "1", parts)
    return 1


def _remove_folds(folds_dir: str | Path) -> None:
    for old in Path(folds_dir).glob("*/test.list"):
        shutil.rmtree(old.parent)


def _write_lists(fold_dir: Path, parts: Mapping[str, Iterable[str]]) -> None:
    for part, utts in parts.items():
        write_text(fold_dir / f"{part}.list", "".join(f"{utt}\n" for utt in sorted(utts, key=str.encode)))
