"""Word error rate by emotion and by length of the reference, drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyser.scoring.figures import INK, caption, new_figure, save
from pyser.scoring.wer_analysis import EMPTY, Analysis

ONE, ALL = "#6baed6", "#c3c9d4"


def plot_wer(analysis: Analysis, by: Sequence[str], path: str | Path, title: str = "") -> None:
    """Bars of WER by emotion or by words of the reference, or in groups by both, with their 95 % intervals; below them, of
    how many utterances each is."""
    lengths = [name for name in analysis.lengths if name != EMPTY]  # (without words there is no WER)
    columns = [*(lengths if "length" in by else analysis.emotions), None]
    series = [*analysis.emotions, None] if len(by) > 1 else [None]
    colours = [*_distinct(len(series) - 1), ALL] if len(series) > 1 else [ONE]
    column_wide = max(0.75, 0.17 * len(series) + 0.25, *(0.11 * len(name or "all") for name in columns))
    wide, tall = max(5.0, 1.6 + column_wide * len(columns)), 0.3 + 0.2 * len(series)
    figure = new_figure(wide, 4.2 + tall)
    bars, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, tall))
    width = 0.86 / len(series)
    for i, (emotion, colour) in enumerate(zip(series, colours, strict=True)):
        for j, column in enumerate(columns):
            cell = analysis.cells[(emotion, column) if "length" in by else (column, None)]
            counts.text(j, i, str(cell.utterances), ha="center", va="center", fontsize=8, color=INK)
            if np.isnan(cell.rate):
                continue
            x = j + (i - (len(series) - 1) / 2) * width
            bars.bar(x, cell.rate, width=0.92 * width, color=colour)
            bars.plot([x, x], [cell.low, cell.high], color=INK, linewidth=1)
            if len(series) == 1:
                bars.text(x, np.fmax(cell.rate, cell.high), f"{cell.rate:.1f}", ha="center", va="bottom", fontsize=9,
                          color=INK)
        if len(series) > 1:
            counts.plot(-0.58, i, marker="s", markersize=7, color=colour, clip_on=False)
    bars.margins(y=0.08)
    bars.set_ylim(bottom=0)
    bars.set_ylabel("WER (%)")
    bars.set_title("\n".join(textwrap.wrap(title, int(wide * 11))), fontsize=11)
    bars.spines[["top", "right"]].set_visible(False)
    bars.tick_params(axis="x", length=0)
    counts.set_xlim(-0.58, len(columns) - 0.42)
    counts.set_ylim(len(series) - 0.4, -0.6)
    counts.set_xticks(range(len(columns)), [name or "all" for name in columns])
    counts.set_yticks(range(len(series)), [name or "all" for name in series] if len(series) > 1 else ["utterances"])
    counts.tick_params(length=0, labeltop=True, labelbottom=False)
    counts.tick_params(axis="y", pad=8)
    counts.spines[:].set_visible(False)
    caption(figure, f"columns: {'words of the reference' if 'length' in by else 'emotions'}; numbers: utterances; "
             "lines: 95% interval, bootstrap over utterances (none for a single one)", wide)
    save(figure, path)


def _distinct(number: int) -> list[tuple[float, float, float]]:
    """Colours: the strong ones of a scheme first, then its pale ones, without its greys; again from the start after 18."""
    from matplotlib import colormaps

    scheme = [colormaps["tab20"](i)[:3] for i in (*range(0, 20, 2), *range(1, 20, 2)) if i not in (14, 15)]
    return [scheme[i % len(scheme)] for i in range(number)]
