"""Any Kaldi data directory: checked, its audio paths made absolute, sorted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyser.corpora.corpus import write_folds
from pyser.errors import Dropped, PyserError
from pyser.files import read_json, write_json
from pyser.kaldi.datadir import keep, read_dir, validate, write_dir
from pyser.kaldi.manifests import manifests, recording, segment, write_manifests
from pyser.kaldi.segments import BadSegment
from pyser.kaldi.wav import parse_entry
from pyser.ser.folds import PARTS, Fold, fold_names, read_fold, write_fold

FOLDS = 5
LABELS = "utt2emo", "utt2avd"
LISTS = ("wav.scp", "segments", "text", "utt2spk", "spk2gender", "utt2emo", "utt2avd", "utt2lang", "utt2uniq")


def prepare_kaldi_dir(source: str | Path, target: str | Path, max_dropped: float = 0.05) -> str:
    """Copy the lists of `source` to `target`, with manifests in `target`/../manifests; return the closing lines.

    Paths in wav.scp may be relative to the working directory, to `source` or to its parent. Utterances without speaker,
    transcript (a directory without text may have utt2emo or utt2avd instead) or readable audio are dropped and counted.

    Of a directory with utt2emo or utt2avd also the folds, `target`/folds: those of `source`, with what it says about them
    and the ratings (folds/info.json), if it has some, else FOLDS of the speakers.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.resolve() == source.resolve():
        raise PyserError(f"{target}: the source itself; give another directory to write to")
    lists = {name: table for name, table in read_dir(source).items() if name in LISTS}
    if not lists.keys() & {"text", *LABELS}:
        raise PyserError(f"{source}/text: missing; a data directory needs transcripts (or emotions, utt2emo, or ratings, "
                         "utt2avd)")
    recordings: dict[str, Any] = {}
    bad = {}
    for key, entry in lists["wav.scp"].items():
        known = parse_entry(entry)
        if known is None or known.path != entry:
            raise PyserError(f"{source}/wav.scp: {key} is a command; write the path of its file (wav, flac, ogg, sph …)")
        found = [path for path in (Path(entry), source / entry, source.parent / entry) if path.exists()]
        path = (found[0] if found else source / entry).absolute()
        try:
            recordings[key] = recording(path, key)
            lists["wav.scp"][key] = str(path)
        except PyserError as error:
            print(f"{key}: {error}", flush=True)
            bad[key] = "unreadable" if found else "without audio file"
    dropped = Dropped(f"data {source}", max_dropped)
    lists["utt2dur"] = {}
    utts = sorted(set(lists["utt2spk"]) | set(lists.get("text", {})) | set(lists.get("segments", lists["wav.scp"])))
    for utt in utts:
        if utt not in lists["utt2spk"]:
            dropped.add(utt, "without speaker in utt2spk")
        elif "text" in lists and not lists["text"].get(utt):
            dropped.add(utt, "without transcript in text")
        elif "segments" in lists and utt not in lists["segments"]:
            dropped.add(utt, "without segment in segments")
        else:
            try:
                part = segment(lists, utt, source)
                one = recordings.get(part.recording)
                if one is None:
                    dropped.add(utt, bad.get(part.recording, "without audio in wav.scp"))
                    continue
                start, end = part.within(one.num_samples, one.sampling_rate) if "segments" in lists else (0.0, one.duration)
                lists["utt2dur"][utt] = f"{end - start:.7g}"
            except BadSegment as error:
                print(f"{utt}: {error}", flush=True)
                dropped.add(utt, "with a bad segment")
    closing = dropped.finish(len(utts))
    lists = keep(lists, lists["utt2dur"])
    used = {key: recordings[key] for key in lists["wav.scp"]}
    write_manifests(*manifests(lists, used, target), target.parent / "manifests", target.name)
    write_dir(target, lists)
    if lists.keys() & set(LABELS):
        closing += f"\n{_folds(lists, source, target)}"
    return f"{closing}\n{validate(target, need_text='text' in lists)}"


def _folds(lists: Mapping[str, Mapping[str, str]], source: Path, target: Path) -> str:
    """Write target/folds; returns a line about them. What is not in `lists` is left out of the source's."""
    labelled = {utt for name in LABELS for utt in lists.get(name, ())}
    speakers = {utt: speaker for utt, speaker in lists["utt2spk"].items() if utt in labelled}
    info = source / "folds" / "info.json"
    about = read_json(info) if info.exists() else {}
    shutil.rmtree(target / "folds", ignore_errors=True)  # of an earlier run
    if list((source / "folds").glob("*/test.list")):
        for name in fold_names(source / "folds"):
            fold = read_fold(source / "folds" / name, name)
            write_fold(target / "folds" / name, Fold(name, *(tuple(utt for utt in getattr(fold, part) if utt in speakers)
                                                            for part in PARTS)))
        said = f"those of {source}/folds"
    else:
        names = sorted(set(speakers.values()))
        if len(names) < 2:
            return f"no folds: what is labelled is of {len(names)} speaker, and no speaker may be trained and tested on"
        number = min(FOLDS, len(names))
        write_folds(speakers, [names[k::number] for k in range(number)], target / "folds")
        said = f"{number}, of every {number}th speaker each"
    write_json(target / "folds" / "info.json", {"corpus": source.resolve().name} | about)
    return f"{target}/folds: {said}"
