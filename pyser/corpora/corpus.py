"""What every preparer returns, and how it becomes manifests, a Kaldi data directory and folds."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyser.errors import Dropped, PyserError
from pyser.files import write_json, write_text
from pyser.kaldi.manifests import recording, write_data_dir, write_manifests


@dataclass(frozen=True)
class Utterance:
    """A labelled utterance in a file of its own; avd: activation, valence and dominance, 1-5."""

    id: str
    path: Path
    speaker: str
    gender: str
    text: str | None = None
    emotion: str | None = None
    avd: str | None = None


@dataclass(frozen=True)
class Corpus:
    """groups: speakers of each test fold; about: licence and citation; notes: what differs from the full corpus;
    info: what to say with results."""

    name: str
    utterances: Sequence[Utterance]
    groups: Sequence[Sequence[str]]
    about: str
    notes: Sequence[str] = ()
    info: dict[str, str] = field(default_factory=dict)


def existing(corpus_dir: str | Path, hint: str) -> Path:
    """The folder, absolute, or one line that says what was expected in it."""
    corpus_dir = Path(corpus_dir)
    if not corpus_dir.is_dir():
        raise PyserError(f"{corpus_dir}: no such folder; give the folder that holds {hint}")
    return corpus_dir.absolute()


def audio_files(folder: Path, suffixes: Iterable[str] = (".wav", ".flac")) -> list[Path]:
    """Audio files below `folder`, sorted; macOS's ._ files are none."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in found if not path.name.startswith("._"))


def write_corpus(corpus: Corpus, data_dir: str | Path, max_dropped: float = 0.05) -> str:
    """Write data_dir/<name> (Kaldi), data_dir/manifests (Lhotse) and data_dir/<name>/folds; return the closing lines."""
    from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

    paths: dict[str, Path] = {}
    for one in corpus.utterances:
        if one.id in paths:
            raise PyserError(f"{one.id} is twice in the corpus, {paths[one.id]} and {one.path}; take one copy out")
        paths[one.id] = one.path
    dropped = Dropped(f"corpus {corpus.name}", max_dropped)
    recordings, supervisions = [], []
    for one in corpus.utterances:
        try:
            audio = recording(one.path, one.id)
        except PyserError as error:
            if one.path.exists():
                print(f"{one.id}: {error}", flush=True)
            dropped.add(one.id, "unreadable" if one.path.exists() else "without audio file")
            continue
        recordings.append(audio)
        custom = {key: value for key, value in (("emotion", one.emotion), ("avd", one.avd)) if value}
        supervisions.append(SupervisionSegment(one.id, one.id, 0.0, audio.duration, text=one.text, speaker=one.speaker,
                                               gender=one.gender, custom=custom or None))
    closing = [corpus.about, *corpus.notes, dropped.finish(len(corpus.utterances))]
    manifests = RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions)
    folder = Path(data_dir) / corpus.name
    write_folds({one.id: one.speaker for one in supervisions}, corpus.groups, folder / "folds")
    write_json(folder / "folds" / "info.json", {"corpus": corpus.name, **corpus.info})
    save(corpus.name, *manifests, data_dir)
    emotions = Counter(one.custom["emotion"] for one in supervisions)
    closing.append(f"{folder}: {len(supervisions)} utterances, {len({one.speaker for one in supervisions})} speakers, "
                   f"{len(corpus.groups)} speaker-independent folds; "
                   + ", ".join(f"{label} {count}" for label, count in sorted(emotions.items())))
    return "\n".join(closing)


def save(name: str, recordings: Any, supervisions: Any, data_dir: str | Path) -> None:
    """Lhotse manifests in data_dir/manifests and a Kaldi data directory data_dir/<name>."""
    write_manifests(recordings, supervisions, Path(data_dir) / "manifests", name)
    write_data_dir(recordings, supervisions, Path(data_dir) / name)


def write_folds(speaker_of: dict[str, str], groups: Sequence[Sequence[str]], folds_dir: str | Path) -> None:
    """folds_dir/<k>/{train,valid,test}.list: group k is tested, group k + 1 validates, the others train.

    A group without utterances makes no fold. Folds of an earlier run are removed.
    """
    folds_dir = Path(folds_dir)
    group_of = {speaker: number for number, group in enumerate(groups) for speaker in group}
    strangers = sorted(set(speaker_of.values()) - set(group_of))
    if strangers:
        raise PyserError(f"speaker {strangers[0]} belongs to no fold; check the corpus")
    present = sorted({group_of[speaker] for speaker in speaker_of.values()})
    if len(present) < 3:
        raise PyserError(f"speakers of {len(present)} folds only: training, validation and test need three at least")
    for old in folds_dir.glob("*/test.list"):
        shutil.rmtree(old.parent)
    for position, k in enumerate(present):
        valid = present[(position + 1) % len(present)]
        for part in ("train", "valid", "test"):
            utts = [utt for utt, speaker in speaker_of.items()
                    if part == ("test" if group_of[speaker] == k else "valid" if group_of[speaker] == valid else "train")]
            text = "".join(f"{utt}\n" for utt in sorted(utts, key=str.encode))
            write_text(folds_dir / str(k + 1) / f"{part}.list", text)
