"""Minimum Bayes risk: of an n-best list the hypothesis that expects fewest word errors, which need not be the most probable
(A. Stolcke, Y. König & M. Weintraub, "Explicit word error minimization in N-best list rescoring", Eurospeech 1997).

Systems are combined by the mean of their posteriors, as H. Xu, D. Povey, L. Mangu & J. Zhu do with lattices ("Minimum Bayes
risk decoding and system combination based on a recursion for edit distance", Computer Speech & Language, 2011).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def edit_distances(sentences: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(H, H): word errors of each of H sentences against each. Words are compared for all pairs at once."""
    lengths = np.array([len(words) for words in sentences])
    longest = int(lengths.max(initial=0))
    ids: dict[str, int] = {}
    words = np.full((len(sentences), longest), -1)
    for row, sentence in zip(words, sentences, strict=True):
        row[: len(sentence)] = [ids.setdefault(word, len(ids)) for word in sentence]
    count = np.arange(len(sentences))
    # rows[j][a, b]: of the first i words of a and the first j of b
    rows = np.broadcast_to(np.arange(longest + 1)[:, None, None], (longest + 1, len(count), len(count))).astype(np.int32)
    found = np.where(lengths[:, None] == 0, lengths[None], 0)
    for i in range(1, longest + 1):
        above, rows = rows, np.full_like(rows, i)
        for j in range(1, longest + 1):
            wrong = words[:, None, i - 1] != words[None, :, j - 1]
            rows[j] = np.minimum(np.minimum(above[j], rows[j - 1]) + 1, above[j - 1] + wrong)
        ended = np.flatnonzero(lengths == i)
        found[ended] = rows[lengths[None], ended[:, None], count[None]]
    return found.astype(np.float64)


def posteriors(scores: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """(H,): one of H hypotheses is right, each with a probability in proportion to exp(scale * score)."""
    proportions = np.exp(scale * (scores - scores.max()))
    return np.asarray(proportions / proportions.sum())


def expected_errors(distances: NDArray[np.float64], posteriors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H,) word errors that each of H hypotheses expects, their distances (H, H) being word errors."""
    return np.asarray(distances @ posteriors)
