"""Figures drawn from results.json, as PNG or SVG: confusion matrices, and UA by bottleneck node."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pyser.errors import PyserError
from pyser.files import atomic
from pyser.scoring.layers import Layer, same_but_node
from pyser.scoring.metrics import figures, mean_shares
from pyser.scoring.results import Results, statements

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
INK = "#1b2a41"


def plot_confusion(counts: np.ndarray, labels: Sequence[str], path: str | Path, title: str = "") -> None:
    """Draw the counts of every fold, (F, K, K): in each cell the mean over folds of its share of the row (%; Zhou & Beigi,
    Figure 1) and, below, the count over all folds. Above: mean ± standard deviation over folds of UA and WA."""
    counts = np.asarray(counts)
    if counts.ndim != 3 or counts.shape[1:] != (len(labels), len(labels)):
        raise PyserError(f"confusion counts of shape {counts.shape} for {len(labels)} labels; score again")
    pooled, share = counts.sum(axis=0), mean_shares(counts)
    side = 2.4 + 0.85 * len(labels)
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(labels)):
        for column in range(len(labels)):
            ink = "white" if share[row, column] > 0.55 else INK
            bold = "bold" if row == column else "normal"
            axes.text(column, row - 0.08, f"{100 * share[row, column]:.1f}", ha="center", va="center", color=ink,
                      fontsize=11, fontweight=bold)
            axes.text(column, row + 0.24, str(pooled[row, column]), ha="center", va="center", color=ink, fontsize=7,
                      alpha=0.8)
    _name_columns(figure, labels, 0.85)
    axes.set_yticks(range(len(labels)), [f"{label} ({n})" for label, n in zip(labels, pooled.sum(axis=1), strict=True)])
    axes.set_xticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("recognised as")
    axes.set_ylabel("labelled as (utterances)")
    folds = [figures(fold) for fold in counts]
    line = "   ".join(f"{name.upper()} {_mean_and_std([fold[name] for fold in folds])} %" for name in ("ua", "wa"))
    figure.suptitle("\n".join([*textwrap.wrap(title, int(side * 9)), line]), fontsize=11)
    shares = f"mean over {len(counts)} folds of the share of the row in %" if len(counts) > 1 else "share of the row in %"
    caption(figure, f"{shares}; below it the utterances, {pooled.sum()} in all", side)
    save(figure, path)


def plot_layers(results: Sequence[Results], path: str | Path) -> None:
    """Bars of UA by bottleneck node, in the network's order, and the line of chance. PyserError as `same_but_node`."""
    layers = same_but_node(results)
    result, wide = results[0], max(5.0, 2.2 + 0.75 * len(layers))
    figure = new_figure(wide, 4.4)
    axes = figure.add_subplot()
    for i, layer in enumerate(layers):
        axes.bar(i, 100 * layer.ua, yerr=None if layer.std is None else 100 * layer.std, width=0.7, color="#6baed6",
                 ecolor=INK, capsize=4)
        axes.text(i, 100 * (layer.ua + (layer.std or 0)) + 1, f"{100 * layer.ua:.1f}", ha="center", va="bottom", fontsize=9,
                  color=INK)
    chance = 100 / len(result["labels"])
    axes.axhline(chance, color="#b2182b", linestyle="--", linewidth=1)
    axes.text(len(layers) - 0.6, chance + 0.6, f"chance {chance:.1f}", ha="left", va="bottom", fontsize=8, color="#b2182b")
    axes.set_xlim(-0.5, len(layers) + 0.2)
    axes.set_ylim(0, min(108, 100 * max(layer.ua + (layer.std or 0) for layer in layers) + 8))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel("UA (%)")
    axes.set_xlabel("hidden states, from the input of the first transformer layer to the output of the last"
                    if all(layer.node.startswith("layer") for layer in layers) else
                    "bottleneck node, from the network's input to its output")
    _name_columns(figure, [layer.node for layer in layers], 0.75)
    said = statements(result)
    axes.set_title(" ".join(said[name] for name in ("corpus", "label_set", "subset") if name in said), fontsize=11)
    caption(figure, _what_bars_are(layers, result), wide)
    save(figure, path)


def _what_bars_are(layers: Sequence[Layer], result: Results) -> str:
    folds, seeds = len(result["folds"]), layers[0].seeds
    partial = f" (PARTIAL: without fold {', '.join(result['folds_missing'])})" if result["folds_missing"] else ""
    text = f"UA: mean over {folds} fold{'s' if folds > 1 else ''}{partial}"
    if len(seeds) > 1:
        text += f" and seeds {' '.join(map(str, seeds))}; error bars: standard deviation over the seeds"
    elif layers[0].std is not None:
        text += f", seed {seeds[0]}; error bars: standard deviation over the folds"
    return f"{text}. All on the test speakers: no node was chosen here, and none may be chosen from this figure."


def _mean_and_std(values: Sequence[float]) -> str:
    spread = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{spread}"


def new_figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _name_columns(figure: Figure, names: Sequence[str], inches: float) -> None:
    """Ticks at 0, 1, … with `names`, slanted where one is too long for its column."""
    slanted = max(map(len, names)) * 0.09 > inches
    axes = figure.axes[0]
    axes.set_xticks(range(len(names)), names, rotation=40 if slanted else 0, ha="right" if slanted else "center",
                    rotation_mode="anchor")


def caption(figure: Figure, text: str, inches: float) -> None:
    """Small print below, in lines that fit."""
    figure.supxlabel("\n".join(textwrap.wrap(text, int(inches * 15))), fontsize=8, color=INK)


def save(figure: Figure, path: str | Path) -> None:
    """PNG or SVG, as `path` ends; equal figures are equal files."""
    from matplotlib import rc_context

    suffix = Path(path).suffix[1:].lower()
    if suffix not in FORMATS:
        raise PyserError(f"{path}: figures are written as {' or '.join(f'.{name}' for name in FORMATS)}; name it so")
    with rc_context({"svg.hashsalt": "pyser"}), atomic(path) as temporary:
        figure.savefig(temporary, format=suffix, metadata={"Date": None} if suffix == "svg" else None)
