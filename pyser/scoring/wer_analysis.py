"""Word error rate by emotion and by length of the reference: Tables 1 and 2 of Li, Bell & Lai, "Fusing ASR outputs in joint
training for speech emotion recognition", ICASSP 2022.

A cell's WER is that of its words, pooled, as in compute-wer; not a mean over utterances.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from pyser.errors import PyserError
from pyser.scoring.significance import RESAMPLES
from pyser.scoring.tables import format_table
from pyser.scoring.wer import Errors, word_errors

Key = tuple[str | None, str | None]

BOUNDS = (1, 11, 21, 31)
EMPTY = "0"
NAN = float("nan")
ERRORS = ("words", "WER", "95% interval", "ins", "del", "sub")
WHAT = "Length: words of the reference. WER, ins, del, sub: per cent of the words. 95% interval: bootstrap over utterances."


@dataclass(frozen=True)
class Cell:
    """A group of utterances: how many, how many are short, their errors added up, and the 95 % interval of its WER."""

    utterances: int
    short: int
    errors: Errors
    low: float
    high: float

    @property
    def rate(self) -> float:
        """WER in per cent; NaN without reference words."""
        return self.errors.rate if self.errors.n else NAN

    @property
    def short_share(self) -> float:
        """Short utterances, in per cent of all."""
        return 100 * self.short / self.utterances if self.utterances else NAN


@dataclass(frozen=True)
class Analysis:
    """Cells by (emotion, length), either of them None for all; utterances are short below `bounds[1]` words."""

    bounds: tuple[int, ...]
    emotions: tuple[str, ...]
    lengths: tuple[str, ...]
    cells: dict[Key, Cell]


def analyse(
    refs: Mapping[str, str], hyps: Mapping[str, str], bounds: Sequence[int] = BOUNDS,
    emotions: Mapping[str, str] | None = None,
) -> Analysis:
    """Word errors of `refs` (utterance -> words) by length, and by `emotions` (utterance -> label) where they are given.

    bounds: the least words of each bin, from 1 upwards; references without words are a bin of their own, "0". Bins without
    utterances are left out.
    An utterance without hypothesis is all deletions; of hypotheses without reference there is nothing to count.
    """
    names = bin_names(bounds)
    unlabelled = [] if emotions is None else [utt for utt in refs if not emotions.get(utt)]
    if unlabelled:
        raise PyserError(f"{unlabelled[0]} has no emotion in utt2emo ({len(unlabelled)} such); give the data directory that "
                         "was decoded")
    groups: dict[Key, list[Errors]] = defaultdict(list)
    for utt, ref in refs.items():
        errors = word_errors(ref.split(), hyps.get(utt, "").split())
        emotion, length = emotions[utt] if emotions else None, names[bisect_right(bounds, errors.n)]
        for key in {(emotion, length), (emotion, None), (None, length), (None, None)}:
            groups[key].append(errors)
    kinds = tuple(sorted({emotion for emotion, _ in groups if emotion}))
    lengths = tuple(name for name in names if (None, name) in groups)
    cells = {key: _cell(groups[key], bounds[1]) for key in product((*kinds, None), (*lengths, None))}
    return Analysis(tuple(bounds), kinds, lengths, cells)


def bin_names(bounds: Sequence[int]) -> list[str]:
    """The bin of references without words, and those that begin at `bounds`.

    >>> bin_names((1, 2, 6))
    ['0', '1', '2-5', '6+']
    """
    if len(bounds) < 2 or bounds[0] != 1 or any(a >= b for a, b in zip(bounds, bounds[1:], strict=False)):
        raise PyserError(f"bins {','.join(map(str, bounds))}: give the least words of each, two or more, from 1 upwards, "
                         f"such as {','.join(map(str, BOUNDS))}")
    inner = [f"{a}-{b - 1}" if b - a > 1 else f"{a}" for a, b in zip(bounds, bounds[1:], strict=False)]
    return [EMPTY, *inner, f"{bounds[-1]}+"]


def interval(errors: Sequence[Errors], seed: int = 0) -> tuple[float, float]:
    """95 % interval (per cent) of the pooled WER when the utterances are drawn again with replacement (Bisani & Ney,
    "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004).

    NaN for fewer than two utterances or no words. Without any error there is none to be drawn: 0, 0.
    """
    if len(errors) < 2 or not any(e.n for e in errors):
        return NAN, NAN
    # Utterances with as many errors and words are interchangeable, so drawing utterances is drawing such kinds.
    kinds, counts = np.unique([(e.total, e.n) for e in errors], axis=0, return_counts=True)  # (kinds, 2), (kinds,)
    drawn = np.random.default_rng(seed).multinomial(len(errors), counts / len(errors), size=RESAMPLES)  # (R, kinds)
    wrong, words = (drawn @ kinds).T
    low, high = np.percentile(100 * wrong[words > 0] / words[words > 0], [2.5, 97.5])
    return float(low), float(high)


def _cell(errors: Sequence[Errors], short: int) -> Cell:
    return Cell(len(errors), sum(e.n < short for e in errors), sum(errors, Errors()), *interval(errors))


def tables(analysis: Analysis, by: Sequence[str]) -> dict[tuple[str, ...], str]:
    """The tables by `by`, "emotion" or "length"; of both: by either and by both."""
    found: dict[tuple[str, ...], str] = {(factor,): _table(analysis, factor) for factor in by}
    return found if len(by) == 1 else found | {tuple(by): _cross_table(analysis)}


def _table(analysis: Analysis, by: str) -> str:
    """Table 1: WER by emotion, and the share of short utterances; or by length, without."""
    rows = []
    for name in (*(analysis.emotions if by == "emotion" else analysis.lengths), None):
        cell = analysis.cells[(name, None) if by == "emotion" else (None, name)]
        share = [_number(cell.short_share, 1, " %")] if by == "emotion" else []
        rows.append([name or "all", str(cell.utterances), *share, *_errors(cell)])
    share = [f"<{analysis.bounds[1]} words"] if by == "emotion" else []
    return format_table((by, "utterances", *share, *ERRORS), rows)


def _cross_table(analysis: Analysis) -> str:
    """Table 2: WER and, in brackets, utterances by length and emotion."""
    rows = []
    for length in (*analysis.lengths, None):
        cells = [analysis.cells[emotion, length] for emotion in (*analysis.emotions, None)]
        rows.append([length or "all", *(f"{_number(cell.rate)} ({cell.utterances})" for cell in cells)])
    return format_table(("length", *analysis.emotions, "all"), rows)


def as_csv(analysis: Analysis, by: Sequence[str]) -> str:
    """Every cell by emotion, by length or by both: counts, rates in per cent; what is not defined is empty."""
    emotions = (*analysis.emotions, None) if "emotion" in by else (None,)
    lengths = (*analysis.lengths, None) if "length" in by else (None,)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*by, "utterances", f"below_{analysis.bounds[1]}_words_percent", "words", "wer", "wer_low", "wer_high",
                     "ins", "del", "sub"])
    for emotion, length in product(emotions, lengths):
        cell = analysis.cells[emotion, length]
        group = {"emotion": emotion or "all", "length": length or "all"}
        share, *rates = (_number(value, missing="") for value in (cell.short_share, cell.rate, cell.low, cell.high))
        writer.writerow([*(group[factor] for factor in by), cell.utterances, share, cell.errors.n, *rates, cell.errors.ins,
                         cell.errors.dels, cell.errors.sub])
    return text.getvalue()


def remarks(
    analysis: Analysis, refs: Mapping[str, str], hyps: Mapping[str, str], emotions: Mapping[str, str] | None = None
) -> list[str]:
    """What the tables rest on: references without words, utterances without hypothesis, labels without reference."""
    lines = [WHAT]
    empty = [utt for utt, ref in refs.items() if not ref.split()]
    if empty:
        lines.append(f"References without words: {len(empty)} (e.g. {empty[0]}); they have no WER, words inserted "
                     f"there ({analysis.cells[None, EMPTY].errors.ins}) count where lengths are pooled.")
    unheard = [utt for utt in refs if utt not in hyps]
    if unheard:
        lines.append(f"Utterances without hypothesis: {len(unheard)} (e.g. {unheard[0]}); their words count as deleted.")
    others = sorted((emotions or {}).keys() - refs.keys())
    if others:
        lines.append(f"Utterances of utt2emo without reference: {len(others)} (e.g. {others[0]}); they are left out.")
    return lines


def _errors(cell: Cell) -> list[str]:
    """The columns ERRORS."""
    e = cell.errors
    shares = [_number(100 * count / e.n if e.n else NAN) for count in (e.ins, e.dels, e.sub)]
    between = "-" if np.isnan(cell.low) else f"{cell.low:.2f} … {cell.high:.2f}"
    return [str(e.n), _number(cell.rate), between, *shares]


def _number(value: float, digits: int = 2, unit: str = "", missing: str = "-") -> str:
    return missing if np.isnan(value) else f"{value:.{digits}f}{unit}"
