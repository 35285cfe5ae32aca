"""What every preparer returns, and how it becomes manifests, a Kaldi data directory and folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyser.errors import Dropped, PyserError
from pyser.files import write_json, write_text
from pyser.kaldi.manifests import recording, write_data_dir


@dataclass(frozen=True)
class Utterance:
    """A labelled or transcribed utterance in a file of its own."""

    id: str
    path: Path
    speaker: str
    gender: str
    text: str | None = None
    emotion: str | None = None
    avd: str | None = None


@dataclass(frozen=True)
class Corpus:
    """groups: speakers of each test fold; notes: what differs from the full corpus; info: what to say with results."""

    name: str
    utterances: Sequence[Utterance]
    groups: Sequence[Sequence[str]]
    about: str
    notes: Sequence[str] = ()
    info: dict[str, str] = field(default_factory=dict)


def existing(corpus_dir: str | Path, hint: str) -> Path:
    """The folder, or one line that says what was expected in it."""
    corpus_dir = Path(corpus_dir)
    if not corpus_dir.is_dir():
        raise PyserError(f"{corpus_dir}: no such folder; give --corpus the folder that holds {hint}")
    return corpus_dir


def audio_files(folder: Path, suffixes: Iterable[str] = (".wav", ".flac")) -> list[Path]:
    """Audio files below `folder`, sorted; macOS's ._ files are none."""
    found = (path for suffix in suffixes for path in folder.rglob(f"*{suffix}"))
    return sorted(path for path in found if not path.name.startswith("._"))


def write_corpus(corpus: Corpus, data_dir: str | Path, max_dropped: float = 0.05) -> str:
    """Write data_dir/<name> (Kaldi), data_dir/manifests (Lhotse) and data_dir/<name>/folds; return the closing lines."""
    from lhotse import RecordingSet, SupervisionSegment, SupervisionSet

    dropped = Dropped(f"corpus {corpus.name}", max_dropped)
    recordings, supervisions = [], []
    for one in corpus.utterances:
        try:
            audio = recording(one.path.absolute(), one.id)
        except PyserError as error:
            print(f"{one.id}: {error}", flush=True)
            dropped.add(one.id, "unreadable")
            continue
        recordings.append(audio)
        custom = {key: value for key, value in (("emotion", one.emotion), ("avd", one.avd)) if value}
        supervisions.append(SupervisionSegment(one.id, one.id, 0.0, audio.duration, text=one.text, speaker=one.speaker,
                                               gender=one.gender, custom=custom or None))
    closing = [corpus.about, *corpus.notes, dropped.finish(len(corpus.utterances))]
    save(corpus.name, RecordingSet.from_recordings(recordings), SupervisionSet.from_segments(supervisions), data_dir)
    folds = Path(data_dir) / corpus.name / "folds"
    write_folds({one.id: one.speaker for one in supervisions}, corpus.groups, folds)
    write_json(folds / "info.json", {"corpus": corpus.name, **corpus.info})
    emotions = Counter(one.custom["emotion"] for one in supervisions if one.custom)
    closing.append(f"{corpus.name}: {len(corpus.groups)} speaker-independent folds; "
                   + ", ".join(f"{label} {count}" for label, count in sorted(emotions.items())))
    return "\n".join(closing)


def save(name: str, recordings: Any, supervisions: Any, data_dir: str | Path) -> None:
    """Lhotse manifests in data_dir/manifests and a Kaldi data directory data_dir/<name>."""
    folder = Path(data_dir) / "manifests"
    folder.mkdir(parents=True, exist_ok=True)
    recordings.to_file(str(folder / f"{name}_recordings.jsonl.gz"))
    supervisions.to_file(str(folder / f"{name}_supervisions.jsonl.gz"))
    write_data_dir(recordings, supervisions, Path(data_dir) / name)


def write_folds(speaker_of: dict[str, str], groups: Sequence[Sequence[str]], folds_dir: str | Path) -> None:
    """folds_dir/<k>/{train,valid,test}.list: group k is tested, group k + 1 validates, the others train."""
    group_of = {speaker: number for number, group in enumerate(groups) for speaker in group}
    strangers = sorted(set(speaker_of.values()) - set(group_of))
    if strangers:
        raise PyserError(f"speaker {strangers[0]} belongs to no fold; check the corpus")
    present = [k for k in range(len(groups)) if any(group_of[speaker] == k for speaker in speaker_of.values())]
    if len(present) < 3:
        raise PyserError(f"speakers of {len(present)} folds only: training, validation and test need three at least")
    for position, k in enumerate(present):
        valid = present[(position + 1) % len(present)]
        for part in ("train", "valid", "test"):
            utts = [utt for utt, speaker in speaker_of.items()
                    if part == ("test" if group_of[speaker] == k else "valid" if group_of[speaker] == valid else "train")]
            text = "".join(f"{utt}\n" for utt in sorted(utts, key=str.encode))
            write_text(Path(folds_dir) / str(k + 1) / f"{part}.list", text)
