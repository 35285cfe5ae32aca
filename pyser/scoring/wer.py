"""Word errors, counted and printed as Kaldi's compute-wer does (src/bin/compute-wer.cc), by kaldialign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import kaldialign

from pyser.errors import PyserError


@dataclass(frozen=True)
class Errors:
    """Edit operations that turn a reference of `n` words into a hypothesis; they add up over utterances."""

    ins: int = 0
    dels: int = 0
    sub: int = 0
    n: int = 0

    @property
    def total(self) -> int:
        return self.ins + self.dels + self.sub

    @property
    def rate(self) -> float:
        """Word error rate in per cent; 0 errors on an empty reference are 0, any others infinite."""
        return 100.0 * self.total / self.n if self.n else (float("inf") if self.total else 0.0)

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.ins + other.ins, self.dels + other.dels, self.sub + other.sub, self.n + other.n)


def word_errors(ref: Sequence[str], hyp: Sequence[str]) -> Errors:
    """Fewest edits between two lists of words, either may be empty; ties fall as in compute-wer.

    >>> word_errors("a b c".split(), "a x c d".split())
    Errors(ins=1, dels=0, sub=1, n=3)
    """
    counts = kaldialign.edit_distance(list(ref), list(hyp))
    return Errors(int(counts["ins"]), int(counts["del"]), int(counts["sub"]), len(ref))


def format_wer(errors: Errors) -> str:
    """Kaldi's line.

    >>> format_wer(Errors(ins=1, dels=2, sub=3, n=24))
    '%WER 25.00 [ 6 / 24, 1 ins, 2 del, 3 sub ]'
    """
    return (f"%WER {errors.rate:.2f} [ {errors.total} / {errors.n}, {errors.ins} ins, {errors.dels} del, "
            f"{errors.sub} sub ]")


def score(refs: Mapping[str, str], hyps: Mapping[str, str]) -> tuple[Errors, str]:
    """Errors over all of `refs` (utterance -> words) and compute-wer's three-line report (--mode=all).

    An utterance without hypothesis counts as all deletions and marks the result [PARTIAL]. A hypothesis without
    reference is a PyserError.
    """
    strangers = sorted(hyps.keys() - refs.keys())
    if strangers:
        raise PyserError(f"hypothesis of {strangers[0]} has no reference ({len(strangers)} such); add it or drop it")
    total, wrong = Errors(), 0
    for utt, ref in refs.items():
        errors = word_errors(ref.split(), hyps.get(utt, "").split())
        total, wrong = total + errors, wrong + (errors.total > 0)
    missing = len(refs) - len(hyps)
    sentences = len(refs)
    rate = 100.0 * wrong / sentences if sentences else 0.0
    report = (f"{format_wer(total)}{' [PARTIAL]' if missing else ''}\n"
              f"%SER {rate:.2f} [ {wrong} / {sentences} ]\n"
              f"Scored {sentences} sentences, {missing} not present in hyp.\n")
    return total, report
