"""Confusion matrices as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.files import atomic
from pyser.scoring.metrics import figures


def plot_confusion(counts: np.ndarray, labels: Sequence[str], path: str | Path, title: str = "") -> None:
    """Draw counts (K, K): each cell its share of the row (%) and, below, the count; UA, WA and n in the title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.asarray(counts)
    if counts.shape != (len(labels), len(labels)):
        raise PyserError(f"confusion counts of shape {counts.shape} for {len(labels)} labels; score again")
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = 2.2 + 0.85 * len(labels)
    figure = Figure(figsize=(side, side), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(labels)):
        for column in range(len(labels)):
            ink = "white" if share[row, column] > 0.55 else "#1b2a41"
            bold = "bold" if row == column else "normal"
            axes.text(column, row - 0.08, f"{100 * share[row, column]:.1f}", ha="center", va="center", color=ink,
                      fontsize=11, fontweight=bold)
            axes.text(column, row + 0.24, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=7,
                      alpha=0.8)
    axes.set_xticks(range(len(labels)), labels, rotation=45 if max(map(len, labels)) > 6 else 0)
    axes.set_yticks(range(len(labels)), [f"{label} ({n})" for label, n in zip(labels, totals[:, 0], strict=True)])
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("recognised as")
    axes.set_ylabel("labelled as (utterances)")
    all_of_them = figures(counts)
    line = f"UA {100 * all_of_them['ua']:.1f} %   WA {100 * all_of_them['wa']:.1f} %   n = {int(counts.sum())}"
    axes.set_title(f"{title}\n{line}" if title else line, fontsize=11)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
