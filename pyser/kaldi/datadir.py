"""Kaldi data directories: checked, fixed, copied, cut down, split, combined and perturbed as Kaldi's utils/*_data_dir.sh do,
with every per-utterance list carried along (Kaldi's scripts leave utt2emo and its kin behind).

The lists themselves are in lists.py, the checks in validate.py, the choice of utterances in subset.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyser.errors import Dropped, PyserError
from pyser.kaldi.lists import (
    FEATURE_LISTS,
    LABELS,
    Table,
    copy_file,
    keep,
    key_of,
    num_rows,
    read_dir,
    words,
    write_dir,
    write_table,
)
from pyser.kaldi.perturb import perturb_speed, perturb_volume
from pyser.kaldi.scripts import read_text
from pyser.kaldi.subset import is_split, listed_utterances, some_utterances, split, subset
from pyser.kaldi.tables import read_scp, read_table
from pyser.kaldi.validate import validate
from pyser.kaldi.wav import parse_entry

__all__ = [
    "Affixes", "Table", "collect_feats", "combine", "copy", "fix", "is_split", "keep", "listed_utterances", "num_rows",
    "perturb_speed", "perturb_volume", "read_dir", "read_table", "some_utterances", "split", "subset", "validate",
    "write_dir", "write_table",
]


@dataclass(frozen=True)
class Affixes:
    """What copy puts before and after the ids of utterances and speakers (recordings keep theirs)."""

    utt_prefix: str = ""
    utt_suffix: str = ""
    spk_prefix: str = ""
    spk_suffix: str = ""

    def utt(self, utt: str) -> str:
        return f"{self.utt_prefix}{utt}{self.utt_suffix}"

    def spk(self, spk: str) -> str:
        return f"{self.spk_prefix}{spk}{self.spk_suffix}"


NO_AFFIXES = Affixes()


def fix(directory: str | Path, utt_extra_files: Iterable[str] = (), spk_extra_files: Collection[str] = ()) -> str:
    """Sort everything and keep the utterances that the lists agree on, as utils/fix_data_dir.sh; the old files go to .backup.

    `utt_extra_files` and `spk_extra_files` are filtered too (utt2*, spk2* and reco2* are anyway). Returns the closing line.
    """
    directory = Path(directory)
    lists = read_dir(directory, ("utt2spk",), (*utt_extra_files, *spk_extra_files), mend=True)
    kept, line = _agreed(directory, lists, spk_extra_files)
    for name in (*lists, "spk2utt"):
        if (directory / name).exists():
            (directory / ".backup").mkdir(exist_ok=True)
            shutil.copy2(directory / name, directory / ".backup" / name)
    write_dir(directory, kept)
    return f"{line}; the old files are in {directory}/.backup"


def _agreed(directory: Path, lists: dict[str, Table], speaker_lists: Collection[str] = ()) -> tuple[dict[str, Table], str]:
    """The lists with only the utterances that Kaldi keeps, and a line that counts the others.

    Those are the utterances of every one of feats.scp, text, segments (with a recording in wav.scp), utt2lang, wav.scp,
    utt2dur and utt2num_frames (with a number above 0), of speakers in cmvn.scp and spk2gender; and of utt2emo and utt2avd.
    """
    utt2spk = lists["utt2spk"]
    for utt, spk in utt2spk.items():
        if len(words(spk)) != 1:
            raise PyserError(f"{directory}/utt2spk: {utt}: expected one speaker, found '{spk}'; mend that line")
    if "segments" in lists and not lists.get("wav.scp"):
        raise PyserError(f"{directory}/wav.scp: missing or empty, but there is a segments file; write it")
    has: dict[str, Collection[str]] = {}
    for name in ("cmvn.scp", "spk2gender"):
        if name in lists:
            has[name] = {utt for utt, spk in utt2spk.items() if spk in lists[name]}
    for name in ("feats.scp", "text", "utt2lang", *LABELS, *([] if "segments" in lists else ["wav.scp"])):
        if name in lists:
            has[name] = lists[name]
    if "segments" in lists:
        has["segments"] = {utt for utt, value in lists["segments"].items() if set(words(value)[:1]) & lists["wav.scp"].keys()}
    for name in ("utt2dur", "utt2num_frames"):
        if name in lists:
            has[name] = {utt for utt, value in lists[name].items() if _positive(value)}
    utts, losses = set(utt2spk), []
    for name, those in has.items():
        lost = utts.difference(those)
        utts -= lost
        if lost:
            losses.append(f"{len(lost)} not in {name}, e.g. {min(lost)}")
    if not utts:
        raise PyserError(f"{directory}: no utterance is in every list ({'; '.join(losses)}); check that their ids agree")
    by_speaker = sorted(utts, key=lambda utt: (utt2spk[utt], utt))
    for one, other in zip(by_speaker, sorted(utts), strict=True):
        if one != other:
            raise PyserError(f"{directory}/utt2spk: {other} of {utt2spk[other]}: sorting by utterance and by speaker differ; "
                             "put the speaker in front of the utterance ids")
    why = f" ({'; '.join(losses)})" if losses else ""
    return keep(lists, utts, speaker_lists), f"{directory}: kept {len(utts)} of {len(utt2spk)} utterances{why}"


def _positive(value: str) -> bool:
    try:
        return float(value) > 0
    except ValueError:
        return False


def copy(source: str | Path, target: str | Path, affixes: Affixes = NO_AFFIXES, feats: bool = True) -> None:
    """All lists, with new ids where `affixes` say so (utt2uniq then leads back to the old ones), as copy_data_dir.sh.

    Lists that only `target` has go to its .backup. Without `feats`, what belongs to the features is left behind: for a
    directory that gets features of its own.
    """
    source, target = Path(source), Path(target)
    if target.exists() and target.resolve() == source.resolve():
        raise PyserError(f"{target}: the source itself; give another directory to write to")
    lists = read_dir(source, ("utt2spk",))
    if "utt2uniq" not in lists and (affixes.utt_prefix or affixes.utt_suffix):
        lists["utt2uniq"] = {utt: utt for utt in lists["utt2spk"]}
    rename = {"utterance": affixes.utt, "speaker": affixes.spk, "recording": str if "segments" in lists else affixes.utt}
    out = {
        name: {rename[key_of(name)](key): value for key, value in table.items()}
        for name, table in lists.items() if feats or name not in FEATURE_LISTS
    }
    out["utt2spk"] = {utt: affixes.spk(spk) for utt, spk in out["utt2spk"].items()}
    write_dir(target, out)
    for name in (*(["frame_shift"] if feats else []), "stm", "glm", "ctm"):
        if (source / name).exists():
            copy_file(source / name, target / name)


def combine(
    target: str | Path, sources: Iterable[str | Path], extra_files: Iterable[str] = (), skip_fix: bool = False
) -> str:
    """The union of `sources`, fixed, as combine_data.sh; return the closing lines.

    A list that some source lacks is left out, but for utt2uniq and segments: they are made where they are missing. One key
    with two values is an error, save in cmvn.scp, where the first in sorted order stays.
    """
    target = Path(target)
    by_source = {Path(source): read_dir(source, ("utt2spk",), extra_files) for source in sources}
    every = list(by_source.values())
    shifts = {source / "frame_shift": read_text(source / "frame_shift").strip() for source, lists in by_source.items()
              if "feats.scp" in lists and (source / "frame_shift").exists()}
    if len(set(shifts.values())) > 1:
        raise PyserError(f"{target}: the features of the sources do not combine, their frame shifts differ: "
                         + ", ".join(f"{path} {shift}" for path, shift in shifts.items()))
    for source, lists in by_source.items():
        if "segments" not in lists and any("segments" in other for other in every):
            lists["segments"] = {utt: f"{utt} 0 {seconds}" for utt, seconds in _durations(source, lists).items()}
        if "utt2uniq" not in lists and any("utt2uniq" in other for other in every):
            lists["utt2uniq"] = {utt: utt for utt in lists["utt2spk"]}
    common = set.intersection(*(set(lists) for lists in every))
    lines = [f"{target}: not combining {name}, which is not in every source"
             for name in sorted(set().union(*every) - common)]
    union: dict[str, Table] = {name: {} for name in sorted(common)}
    for lists in every:
        for name in union:
            for key, value in lists[name].items():
                former = union[name].setdefault(key, value)
                if former != value and name != "cmvn.scp":
                    raise PyserError(f"{target}: {key} differs between the {name} of the sources; rename one of them")
                union[name][key] = min(former, value)
    if not skip_fix:
        union, line = _agreed(target, union)
        lines.append(line)
    write_dir(target, union)
    if shifts:
        copy_file(next(iter(shifts)), target / "frame_shift")
    return "\n".join(lines)


def _durations(source: Path, lists: Mapping[str, Table]) -> Table:
    """utt2dur, or else the lengths of the audio files, in seconds."""
    if lists.get("utt2dur"):
        return lists["utt2dur"]
    import soundfile

    durations = {}
    for utt in lists["utt2spk"]:
        known, info = parse_entry(lists.get("wav.scp", {}).get(utt, "|")), None
        if known:
            with suppress(soundfile.SoundFileError, OSError):
                info = soundfile.info(known.path)
        if not known or not info:
            raise PyserError(f"{source}: no length for {utt}, which the combined segments need; write {source}/utt2dur")
        durations[utt] = f"{info.duration / known.speed:.7g}"
    return durations


def collect_feats(directory: str | Path, scps: Iterable[str | Path], max_dropped: float = 0.05) -> str:
    """Join the jobs' scp files into feats.scp and utt2num_frames, drop the utterances without features from all lists,
    and return the line that counts them."""
    lists = read_dir(directory)
    feats: Table = {}
    for scp in scps:
        feats |= read_scp(scp)
    total = len(lists["utt2spk"])
    dropped = Dropped(f"features of {directory}", max_dropped)
    for utt in sorted(set(lists["utt2spk"]) - set(feats)):
        dropped.add(utt, "without features, see the log of the job that computed them")
    line = dropped.finish(total)
    lists["feats.scp"] = {utt: value for utt, value in feats.items() if utt in lists["utt2spk"]}
    lists["utt2num_frames"] = {utt: str(num_rows(value)) for utt, value in lists["feats.scp"].items()}
    write_dir(directory, keep(lists, lists["feats.scp"]))
    return line
