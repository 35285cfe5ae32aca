"""The lists of a Kaldi data directory: files whose lines begin with an utterance, a speaker or a recording and a space.

Known by their names, so that each follows its utterances through every operation:

    utterance   text  segments  feats.scp  vad.scp  utt2spk  utt2dur  utt2emo  and any other utt2*
    speaker     cmvn.scp  spk2gender  and any other spk2*   (spk2utt is not read, it is made from utt2spk)
    recording   wav.scp  reco2dur  reco2file_and_channel  and any other reco2*   (without segments: the utterances)

All are sorted by bytes, as `LC_ALL=C sort` does (Python's order of str is the same).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import atomic, write_text
from pyser.kaldi.scripts import GAP, read_table
from pyser.kaldi.tables import load_mat

Table = dict[str, str]

LABELS = ("utt2emo", "utt2avd")  # pyser's own lists that must hold every utterance, as Kaldi's must; Kaldi ignores them
FEATURE_LISTS = ("feats.scp", "utt2num_frames", "cmvn.scp", "vad.scp")
_LIST = re.compile(r"text|segments|(wav|feats|vad|cmvn)\.scp|(utt|reco|spk)2(?!utt)\w+|utt2utt")


def list_names(directory: Path) -> list[str]:
    """Names of the lists in `directory`, without spk2utt."""
    return sorted(path.name for path in directory.iterdir() if _LIST.fullmatch(path.name) and path.is_file())


def words(value: str) -> list[str]:
    """The words of the rest of a line."""
    return GAP.split(value) if value else []


def write_table(path: str | Path, table: Table) -> None:
    """Write `key value` lines sorted by bytes, whole or not at all."""
    lines = [f"{key} {table[key]}".rstrip() + "\n" for key in sorted(table)]
    write_text(path, "".join(lines))


def read_dir(
    directory: str | Path, needed: Iterable[str] = ("wav.scp", "utt2spk"), extra: Iterable[str] = (), mend: bool = False
) -> dict[str, Table]:
    """File name -> table, of all the lists that are there and of the files `extra`; PyserError without those `needed`."""
    directory = Path(directory)
    if not directory.is_dir():
        raise PyserError(f"{directory}: no such data directory; run the prepare stage first")
    names = list_names(directory)
    names += [name for name in extra if name not in names and (directory / name).is_file()]
    lists = {name: read_table(directory / name, mend, paths=name.endswith(".scp")) for name in names}
    for name in needed:
        if not lists.get(name):
            raise PyserError(f"{directory / name}: missing or empty; run the prepare stage again")
    return lists


def write_dir(directory: str | Path, lists: dict[str, Table]) -> None:
    """Write the lists and spk2utt. Lists of `directory` that are not in `lists` are moved to its .backup."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name in list_names(directory):
        if not lists.get(name):
            (directory / ".backup").mkdir(exist_ok=True)
            os.replace(directory / name, directory / ".backup" / name)
    for name, table in lists.items():
        if table and name != "wav.scp":
            write_table(directory / name, table)
    spk2utt = {spk: " ".join(utts) for spk, utts in spk2utts(lists["utt2spk"]).items()}
    write_table(directory / "spk2utt", spk2utt)
    if lists.get("wav.scp"):
        write_table(directory / "wav.scp", lists["wav.scp"])  # last: a directory with wav.scp is a whole one


def spk2utts(utt2spk: Table) -> dict[str, list[str]]:
    """Speaker -> its utterances, sorted; speakers in the order of their first utterances."""
    found: dict[str, list[str]] = {}
    for utt in sorted(utt2spk):
        found.setdefault(utt2spk[utt], []).append(utt)
    return found


def key_of(name: str, speaker_lists: Collection[str] = ()) -> str:
    """What a list is keyed by: 'utterance', 'speaker' or 'recording'. Names in `speaker_lists` are keyed by speaker."""
    if name == "wav.scp" or name.startswith("reco2"):
        return "recording"
    return "speaker" if name == "cmvn.scp" or name.startswith("spk2") or name in speaker_lists else "utterance"


def keep(lists: dict[str, Table], utts: Iterable[str], speaker_lists: Collection[str] = ()) -> dict[str, Table]:
    """Only `utts`, and only the recordings and speakers that they need; sorted."""
    wanted = set(utts)
    segments = lists.get("segments")
    recordings = {word for u in wanted if u in segments for word in words(segments[u])[:1]} if segments else wanted
    speakers = {lists["utt2spk"][u] for u in wanted if u in lists["utt2spk"]}
    keys = {"utterance": sorted(wanted), "speaker": sorted(speakers), "recording": sorted(recordings)}
    return {
        name: {key: table[key] for key in keys[key_of(name, speaker_lists)] if key in table} for name, table in lists.items()
    }


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)


_HEADER = re.compile(rb"\x00B(?:CM[23]? .{8}(?P<compressed>.{4})|[FD]M \x04(?P<plain>.{4}))", re.DOTALL)


def num_rows(rxfilename: str) -> int:
    """Rows of the matrix behind an scp entry, from its header where it is binary."""
    path, _, offset = rxfilename.rpartition(":")
    if path and offset.isdigit():
        with open(path, "rb") as file:
            file.seek(int(offset))
            found = _HEADER.match(file.read(24))
        if found:
            return int.from_bytes(found["compressed"] or found["plain"], "little")
    return len(load_mat(rxfilename))
