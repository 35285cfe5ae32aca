"""Are systems different? Paired tests over the utterances that both were scored on, and Holm's correction for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyser.errors import PyserError

RESAMPLES = 10_000
CHUNK = 100  # of them at a time


@dataclass(frozen=True)
class Difference:
    """B minus A, with the 95 % interval and two-sided p-value of the paired bootstrap (fractions)."""

    value: float
    low: float
    high: float
    p: float


def mcnemar(a_correct: Sequence[bool], b_correct: Sequence[bool]) -> tuple[int, int, float]:
    """(only A right, only B right, two-sided p) by the exact binomial test on the utterances where A and B differ.

    >>> mcnemar([True, True, True, False], [False, False, True, True])
    (2, 1, 1.0)
    """
    if len(a_correct) != len(b_correct):
        raise PyserError(f"{len(a_correct)} against {len(b_correct)} utterances; compare the same test set")
    only_a = sum(bool(a and not b) for a, b in zip(a_correct, b_correct, strict=True))  # (numpy's integers overflow)
    only_b = sum(bool(b and not a) for a, b in zip(a_correct, b_correct, strict=True))
    n, k = only_a + only_b, min(only_a, only_b)
    tail = sum(math.comb(n, i) for i in range(k + 1))  # whole numbers: exact however many utterances there are
    return only_a, only_b, min(1.0, 2 * tail / 2**n)


def paired_bootstrap(
    refs: Sequence[str], a_correct: np.ndarray, b_correct: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Difference]:
    """Differences in "ua" and "wa" when the utterances are drawn again with replacement.

    a_correct, b_correct (N,): 1 or 0 per utterance, or the share of a system's seeds that were right. Pooled UA and WA
    are linear in these for fixed references, so with shares the differences are those of the means over seeds.

    Covered is the choice of test utterances, for the very models that were trained: neither other seeds (hence three or
    more for a claim) nor other speakers, whose utterances are drawn as if they were independent of one another.
    """
    classes, index = np.unique(np.asarray(refs), return_inverse=True)
    # Utterances with the same class and outcomes are interchangeable, so drawing utterances is drawing such cells.
    rows = np.stack([index.astype(float), np.asarray(a_correct, float), np.asarray(b_correct, float)], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    n = len(rows)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)  # (R, cells)
    drawn = np.concatenate([counts[None], drawn]).astype(float)  # the first row is the test set itself
    gain = cells[:, 2] - cells[:, 1]
    member = cells[:, :1] == np.arange(len(classes))[None]  # (cells, K)
    total = drawn @ member  # (R + 1, K) utterances per class
    by_class = np.divide(drawn @ (member * gain[:, None]), total, out=np.full(total.shape, np.nan), where=total > 0)
    return {"ua": _difference(np.nanmean(by_class, axis=1)), "wa": _difference(drawn @ gain / n)}


def ccc_bootstrap(
    gold: np.ndarray, a: np.ndarray, b: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """Difference of the CCC of systems A and B when the utterances are drawn again with replacement: gold (N,), a and b
    (seeds, N); of several seeds the mean of their CCCs. What is covered is said at `paired_bootstrap`."""
    n, shift = len(gold), gold.mean()  # (the CCC does not change with the origin, its rounding does)
    y, systems = gold - shift, [x - shift for x in (*a, *b)]
    sums = np.stack([y, y**2, *(column for x in systems for column in (x, x**2, x * y))], axis=1)  # (N, 2 + 3 systems)
    rng, rows = np.random.default_rng(seed), [sums.mean(axis=0)[None]]  # the first row is the test set itself
    for start in range(0, resamples, CHUNK):
        drawn = rng.integers(n, size=(min(CHUNK, resamples - start), n))
        counts = np.stack([np.bincount(one, minlength=n) for one in drawn]).astype(float)
        rows.append(counts @ sums / n)
    moments = np.concatenate(rows)
    mean_y, square_y = moments[:, :1], moments[:, 1:2]  # (R + 1, 1)
    mean, square, product = (moments[:, 2 + k :: 3] for k in range(3))  # (R + 1, systems)
    below = square - mean**2 + square_y - mean_y**2 + (mean - mean_y) ** 2
    ccc = np.divide(2 * (product - mean * mean_y), below, out=np.zeros(below.shape), where=below > 0)
    return _difference(ccc[:, len(a):].mean(axis=1) - ccc[:, : len(a)].mean(axis=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order (Holm 1979, A simple sequentially rejective procedure).

    >>> holm([0.01, 0.04, 0.02])
    [0.03, 0.04, 0.04]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _difference(values: np.ndarray) -> Difference:
    values = np.round(values, 12)  # (shares of three seeds add up to zero only nearly)
    draws = values[1:]
    # The share of draws on the other side of zero; the observed value counts as one draw, so p is never 0.
    side = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    low, high = np.percentile(draws, [2.5, 97.5])
    return Difference(float(values[0]), float(low), float(high), min(1.0, 2 * (side + 1) / (len(draws) + 1)))
