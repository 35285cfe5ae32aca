"""How the sentiment of the words goes with the emotion of the voice (Ghriss et al. 2022, Table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from pathlib import Path

import numpy as np

from pyser.corpora.circumplex import placement
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table
from pyser.scoring.figures import INK, caption, new_figure, save
from pyser.scoring.tables import format_table
from pyser.ser.sentiment import SENTIMENTS, read_sentiment


@dataclass(frozen=True)
class SentimentTable:
    """counts (sentiments, emotions); rho: Spearman's, with its p-value, of the sentiment (negative, neutral, positive) and
    the sign of the emotion's valence on the circumplex, over the `ranked` utterances of emotions that have one; NaN where
    either is always the same."""

    name: str
    emotions: tuple[str, ...]
    counts: np.ndarray
    rho: float
    p: float
    ranked: int


def sentiment_table(data_dir: str | Path) -> SentimentTable:
    """Of data_dir's utt2sentiment and utt2emo; PyserError if they have no utterance in common."""
    from scipy.stats import spearmanr

    data_dir = Path(data_dir)
    emotions = read_table(data_dir / "utt2emo")
    said = read_sentiment(data_dir)
    pairs = [(SENTIMENTS.index(one.label), emotions[utt]) for utt, one in said.items() if emotions.get(utt)]
    if not pairs:
        raise PyserError(f"{data_dir}: no utterance has a sentiment and an emotion; label the same utterances")
    names = tuple(sorted({emotion for _, emotion in pairs}))
    counts = np.zeros((len(SENTIMENTS), len(names)), dtype=np.int64)
    for sentiment, emotion in pairs:
        counts[sentiment, names.index(emotion)] += 1
    ranks = [(sentiment, np.sign(place[1])) for sentiment, emotion in pairs if (place := placement(emotion)) is not None]
    rho = p = float("nan")
    if ranks and all(len(set(column)) > 1 for column in zip(*ranks, strict=True)):
        rho, p = (float(value) for value in spearmanr(*zip(*ranks, strict=True)))
    return SentimentTable(data_dir.name, names, counts, rho, p, len(ranks))


def as_text(table: SentimentTable, style: str = "text") -> str:
    """The counts with their sums, and Spearman's rho."""
    rows = [[name, *map(str, row), str(row.sum())] for name, row in zip(SENTIMENTS, table.counts, strict=True)]
    sums = table.counts.sum(axis=0)
    rows.append(["all", *map(str, sums), str(sums.sum())])
    return f"{format_table(('sentiment', *table.emotions, 'all'), rows, style)}\n\n{_rho(table)}"


def _rho(table: SentimentTable) -> str:
    if isnan(table.rho):
        return "Spearman's rho: none, all utterances are of one sentiment, or of one sign of valence or none"
    return (f"Spearman's rho {table.rho:.2f} (p = {table.p:.3g}) of sentiment and sign of the emotion's valence, "
            f"{table.ranked} utterances")


def plot_sentiment(table: SentimentTable, path: str | Path) -> None:
    """The counts, shaded by their share of the emotion."""
    share = table.counts / table.counts.sum(axis=0)
    width = 2.6 + 0.95 * len(table.emotions)
    figure = new_figure(width, 3.6)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), count in np.ndenumerate(table.counts):
        ink = "white" if share[row, column] > 0.55 else INK
        axes.text(column, row, f"{count}\n{100 * share[row, column]:.0f}%", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(table.emotions)), table.emotions)
    axes.set_yticks(range(len(SENTIMENTS)), SENTIMENTS)
    axes.tick_params(length=0)
    axes.set_xlabel("emotion of the voice")
    axes.set_ylabel("sentiment of the words")
    axes.set_title(table.name, fontsize=11)
    caption(figure, f"{_rho(table)}; per cent of the emotion's utterances", width)
    save(figure, path)
