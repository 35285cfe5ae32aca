"""Which utterances utils/subset_data_dir.sh and utils/split_data.sh choose, the same ones, and the directories of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import write_text
from pyser.kaldi.lists import (
    Table,
    copy_file,
    keep,
    list_names,
    num_rows,
    read_dir,
    spk2utts,
    words,
    write_dir,
)
from pyser.kaldi.scripts import read_keyed, read_scp, read_table, read_text


def subset(source: str | Path, target: str | Path, utts: Iterable[str]) -> str:
    """Only the utterances `utts`; stm and frame_shift go along. Return a line with the numbers before and after."""
    source, target = Path(source), Path(target)
    lists, utts = read_dir(source, ("utt2spk",)), list(utts)
    unknown = [utt for utt in utts if utt not in lists["utt2spk"]]
    if unknown:
        raise PyserError(f"{source}: {len(unknown)} of the wanted utterances are not in it, e.g. {unknown[0]}")
    if not utts:
        raise PyserError(f"{source}: no utterances were asked for, or none of those is in it")
    kept = keep(lists, utts)
    recordings = {words(value)[0] for value in kept["segments"].values()} if "segments" in kept else set(utts)
    write_dir(target, kept)
    if (source / "stm").exists():
        lines = read_text(source / "stm").splitlines(keepends=True)
        write_text(target / "stm", "".join(x for x in lines if x.startswith(";;") or recordings & set(x.split()[:1])))
    if (source / "frame_shift").exists():
        copy_file(source / "frame_shift", target / "frame_shift")
    return f"{target}: {len(kept['utt2spk'])} of {len(lists['utt2spk'])} utterances"


def some_utterances(source: str | Path, num: int, how: str | None = None) -> list[str]:
    """`num` utterances of a data directory: evenly spread, or the `how` of subset_data_dir.sh: first, last, shortest,
    per-spk (`num` of each speaker), speakers (random ones, whole, until `num` is reached)."""
    source = Path(source)
    utt2spk = read_table(source / "utt2spk")
    utts = sorted(utt2spk)
    if num > len(utts):
        raise PyserError(f"{source}: cannot take {num} of {len(utts)} utterances; ask for fewer")
    if how == "shortest":
        if (source / "utt2num_frames").exists():
            frames = read_table(source / "utt2num_frames")
            wrong = [utt for utt, number in frames.items() if not number.isdecimal()]
            if wrong:
                raise PyserError(f"{source}/utt2num_frames: {wrong[0]}: expected a number, found '{frames[wrong[0]]}'")
            lengths = {utt: int(number) for utt, number in frames.items()}
        elif (source / "feats.scp").exists():
            lengths = {utt: num_rows(rxfilename) for utt, rxfilename in read_scp(source / "feats.scp").items()}
        else:
            raise PyserError(f"{source}: the shortest need utt2num_frames or feats.scp; compute the features first")
        return [utt for utt in shortest(lengths, num) if utt in utt2spk]
    if how == "per-spk":
        return per_speaker(utt2spk, num)
    if how == "speakers":
        return random_speakers(utt2spk, num)
    return {"first": utts[:num], "last": utts[-num:], None: evenly(utts, num)}[how]


def listed_utterances(source: str | Path, spk_list: str | Path | None, utt_list: str | Path | None) -> list[str]:
    """The utterances of a data directory whose speaker, or which themselves, are the first word of a line of a file. (As in
    Kaldi the file may hold others too.)"""
    utt2spk = read_table(Path(source) / "utt2spk")
    listed = {key for key, _ in read_keyed(spk_list or utt_list or "")}
    return [utt for utt, spk in utt2spk.items() if (spk if spk_list else utt) in listed]


def evenly(utts: list[str], num: int) -> list[str]:
    """`num` of `utts`, spread over them as subset_scp.pl does: halve the list, give the second half what is odd."""
    if num == 0 or len(utts) == 1:
        return utts[:num]
    half = len(utts) // 2
    return evenly(utts[:half], num // 2) + evenly(utts[half:], num - num // 2)


def shortest(utt2num_frames: Mapping[str, int], num: int) -> list[str]:
    """The `num` utterances with the fewest frames."""
    return sorted(utt2num_frames, key=lambda utt: (utt2num_frames[utt], utt))[:num]


def per_speaker(utt2spk: Table, num: int) -> list[str]:
    """At most `num` utterances of each speaker, evenly spread over those of the speaker."""
    chosen = []
    for utts in spk2utts(utt2spk).values():
        step = max(1, len(utts) // num)
        chosen += utts[: num * step : step]
    return chosen


def random_speakers(utt2spk: Table, num: int) -> list[str]:
    """Whole speakers in random order until there are `num` utterances: those that shuffle_list.pl with its seed 0 gives."""
    spk2utt = sorted(spk2utts(utt2spk).items())
    state, keys = 0x330E, []  # Perl's rand after srand(0): drand48
    for _ in spk2utt:
        state = (state * 0x5DEECE66D + 0xB) % 2**48
        keys.append(f"{state / 2**48:.15g}")  # which the script compares as strings
    chosen: list[str] = []
    for _, (_, utts) in sorted(zip(keys, spk2utt, strict=True), key=lambda pair: pair[0]):
        chosen += utts if len(chosen) < num else []
    return chosen


def split_by_speaker(utt2spk: Table, num: int) -> list[list[str]]:
    """`num` parts of about equally many utterances, each speaker whole in one of them, in order (split_scp.pl --utt2spk).

    At first equally many speakers in each part; then speakers at the borders move to the neighbour as long as that makes
    the two more alike.
    """
    speakers = spk2utts(utt2spk)
    if num > len(speakers):
        raise PyserError(f"cannot split {len(speakers)} speakers into {num}; use at most {len(speakers)} parts, or --per-utt")
    parts: list[list[str]] = [[] for _ in range(num)]
    for index, speaker in enumerate(speakers):
        parts[index * num // len(speakers)].append(speaker)
    sizes = [sum(len(speakers[speaker]) for speaker in part) for part in parts]
    changed = True
    while changed:
        changed = False
        for here in range(num):
            for there, border in ((here + 1, -1), (here - 1, 0)):
                if not 0 <= there < num or not parts[here]:
                    continue
                count = len(speakers[parts[here][border]])
                if abs((sizes[there] + count) - (sizes[here] - count)) < abs(sizes[there] - sizes[here]):
                    parts[there].insert(0 if there > here else len(parts[there]), parts[here].pop(border))
                    sizes[here] -= count
                    sizes[there] += count
                    changed = True
    return [[utt for speaker in part for utt in speakers[speaker]] for part in parts]


def split_by_utterance(utts: list[str], num: int) -> list[list[str]]:
    """`num` parts in order, equally many utterances in each; the first ones take what is left over (split_scp.pl)."""
    if num > len(utts):
        raise PyserError(f"cannot split {len(utts)} utterances into {num}; use at most {len(utts)} parts")
    whole, rest = divmod(len(utts), num)
    starts = [part * whole + min(part, rest) for part in range(num + 1)]
    return [utts[start:end] for start, end in zip(starts, starts[1:], strict=False)]


def split(source: str | Path, target: str | Path, num: int, per_utt: bool = False) -> str:
    """target/1 … target/num, by speaker or by utterance; return the closing line."""
    lists = read_dir(source, ("utt2spk",))
    utt2spk = lists["utt2spk"]
    try:
        parts = split_by_utterance(sorted(utt2spk), num) if per_utt else split_by_speaker(utt2spk, num)
    except PyserError as error:
        raise PyserError(f"{source}: {error}") from None
    for job, utts in enumerate(parts, start=1):
        if not utts:
            raise PyserError(f"{source}: part {job} of {num} would be empty, the speakers are too unequal; use fewer parts")
        write_dir(Path(target) / str(job), keep(lists, utts))
    odd = [name for name in ("feats.scp", "text") if name in lists and len(lists[name]) != len(utt2spk)]
    warning = f"; {odd[0]} has not as many lines as utt2spk, mend it with: pyser data fix {source}" if odd else ""
    return f"{target}: {num} parts of {len(utt2spk)} utterances{warning}"


def is_split(source: str | Path, target: str | Path, num: int) -> bool:
    """Whether target/1 … target/num are there with the same lists as `source`, none older than it."""
    source, target = Path(source), Path(target)
    lists = [name for name in list_names(source) if (source / name).stat().st_size] if source.is_dir() else []
    pairs = [(source / name, target / str(job) / name) for job in range(1, num + 1) for name in lists]
    return bool(pairs) and all(new.exists() and new.stat().st_mtime_ns >= old.stat().st_mtime_ns for old, new in pairs)
