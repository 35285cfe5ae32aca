"""Classification metrics, all computed from one matrix of confusion counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyser.errors import PyserError


def confusion(refs: Sequence[str], hyps: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Counts (K, K): row = reference, column = hypothesis, in the order of `labels`.

    >>> confusion(["sad", "sad", "ang"], ["sad", "ang", "ang"], ["ang", "sad"]).tolist()
    [[1, 0], [1, 1]]
    """
    if len(refs) != len(hyps):
        raise PyserError(f"{len(refs)} references but {len(hyps)} hypotheses; score the same utterances")
    index = {label: i for i, label in enumerate(labels)}
    unknown = sorted({*refs, *hyps} - index.keys())
    if unknown:
        raise PyserError(f"label '{unknown[0]}' is not in the label set {' '.join(labels)}; mend utt2emo")
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, ([index[r] for r in refs], [index[h] for h in hyps]), 1)
    return counts


def recalls(counts: np.ndarray) -> np.ndarray:
    """Recall of every class (K,); NaN where the class has no reference."""
    total = counts.sum(axis=1)
    return np.divide(np.diag(counts), total, out=np.full(len(counts), np.nan), where=total > 0)


def unweighted_accuracy(counts: np.ndarray) -> float:
    """UA = UAR = balanced accuracy: mean of the recalls, over the classes that have references."""
    return float(np.nanmean(recalls(counts))) if counts.sum() else float("nan")


def weighted_accuracy(counts: np.ndarray) -> float:
    """WA = accuracy: correct utterances over all utterances."""
    return float(np.trace(counts) / counts.sum()) if counts.sum() else float("nan")


def concordance(x: np.ndarray, y: np.ndarray) -> float:
    """Concordance correlation coefficient of x and y (N,), in float64, with the variances of n, not n - 1 (L. I.-K. Lin,
    Biometrics 45, 1989); 0 where both are constant.

    >>> round(concordance(np.array([1, 2, 3]), np.array([2, 3, 4])), 6)
    0.571429
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    dx, dy = x - x.mean(), y - y.mean()
    below = (dx**2).mean() + (dy**2).mean() + (x.mean() - y.mean()) ** 2
    return float(2 * (dx * dy).mean() / below) if below > 0 else 0.0


def area_under_curve(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of the area under the ROC curve of each against all others: scores (N, K), labels (N,) from 0.
    Equal scores count half; a class that all or none of the N are of does not count.

    >>> area_under_curve(np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]), np.array([0, 1, 1]))
    1.0
    """
    from scipy.stats import rankdata

    areas = []
    for number in range(scores.shape[1]):
        inside = labels == number
        positives, negatives = int(inside.sum()), int((~inside).sum())
        if positives and negatives:  # Mann and Whitney's U over the number of pairs
            ranks = rankdata(scores[:, number])
            areas.append((ranks[inside].sum() - positives * (positives + 1) / 2) / (positives * negatives))
    return float(np.mean(areas)) if areas else float("nan")


def macro_f1(counts: np.ndarray) -> float:
    """Mean of the classes' F1 = 2 tp / (2 tp + fp + fn), over the classes that occur as reference or hypothesis."""
    seen = counts.sum(axis=0) + counts.sum(axis=1)
    f1 = 2 * np.diag(counts)[seen > 0] / seen[seen > 0]
    return float(f1.mean()) if len(f1) else float("nan")


def mean_shares(counts: np.ndarray) -> np.ndarray:
    """Mean over the folds of their row-normalised matrices: counts (F, K, K) -> (K, K), as in Zhou & Beigi's Figure 1.

    A fold without references of a class does not count for that class's row; a row without any reference is 0.

    >>> mean_shares(np.array([[[1, 0], [0, 0]], [[4, 4], [0, 2]]])).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    totals = counts.sum(axis=2, keepdims=True)  # (F, K, 1)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    return np.asarray(shares.sum(axis=0) / np.maximum((totals > 0).sum(axis=0), 1))


def figures(counts: np.ndarray) -> dict[str, float]:
    """ua, wa and macro_f1, as fractions."""
    return {"ua": unweighted_accuracy(counts), "wa": weighted_accuracy(counts), "macro_f1": macro_f1(counts)}
