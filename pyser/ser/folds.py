"""Folds: lists of utterances to train on, to select on and to test on, with speakers that must not meet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_lines, write_text
from pyser.kaldi.perturb import unperturbed

PARTS = ("train", "valid", "test")
SELECTIONS = ("valid", "last")  # how the epoch was chosen


@dataclass(frozen=True)
class Fold:
    """One split of a corpus; every list is sorted by bytes."""

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def digests(self) -> dict[str, str]:
        """SHA-256 of each list."""
        return {part: digest(getattr(self, part)) for part in PARTS}


def digest(lines: Iterable[str]) -> str:
    """SHA-256 over lines, in their order."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def fold_names(directory: str | Path) -> list[str]:
    """Names of the folds in `directory`: subdirectories with a test.list, 2 before 10."""
    names = [path.parent.name for path in Path(directory).glob("*/test.list")]
    if not names:
        raise PyserError(f"{directory}: no folds in it (expected <fold>/test.list); run `pyser corpus prepare` first")
    return sorted(names, key=lambda name: [(int(n or 0), text) for n, text in re.findall(r"(\d+)|(\D+)", name)])


def read_fold(directory: str | Path, name: str) -> Fold:
    """The lists of one fold from its own directory; train.list and test.list are needed."""
    lists = {}
    for part in PARTS:
        path = Path(directory) / f"{part}.list"
        lines = read_lines(path) if part != "valid" or path.exists() else []
        utts = [line.split()[0] for line in lines if line.strip()]
        if len(set(utts)) != len(utts):
            raise PyserError(f"{path}: an utterance occurs twice; make the lines unique")
        if not utts and part != "valid":
            raise PyserError(f"{path}: empty; write the folds again")
        lists[part] = tuple(sorted(utts, key=str.encode))
    return Fold(name, **lists)


def write_fold(directory: str | Path, fold: Fold) -> None:
    """Write {train,valid,test}.list."""
    for part in PARTS:
        write_text(Path(directory) / f"{part}.list", "".join(f"{utt}\n" for utt in getattr(fold, part)))


def check_leaks(fold: Fold, utt2spk: Mapping[str, str]) -> None:
    """PyserError if a test utterance or a test speaker is trained on or selected on, at any speed."""
    said = {unperturbed(utt) for utt in fold.test}
    for part in ("train", "valid"):
        common = [utt for utt in getattr(fold, part) if unperturbed(utt) in said]
        if common:
            raise PyserError(f"fold {fold.name}: {len(common)} test utterances are in {part}.list, e.g. {min(common)}; "
                             "the result would be worthless: mend the lists")
    unknown = [utt for part in PARTS for utt in getattr(fold, part) if utt not in utt2spk]
    if unknown:
        raise PyserError(f"fold {fold.name}: {unknown[0]} is not in utt2spk, so speakers cannot be checked; add it")
    tested = {unperturbed(utt2spk[utt]) for utt in fold.test}
    for part in ("train", "valid"):
        for utt in getattr(fold, part):
            if unperturbed(utt2spk[utt]) in tested:
                raise PyserError(f"fold {fold.name}: speaker {utt2spk[utt]} of the test list is also in {part}.list "
                                 f"({utt}); use speaker-independent folds")
