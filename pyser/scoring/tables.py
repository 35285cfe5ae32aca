"""Tables of results, drawn from results.json files: aligned text for the terminal, Markdown for RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyser.errors import PyserError
from pyser.scoring.results import Results
from pyser.scoring.significance import Difference, mcnemar, paired_bootstrap

HEADER = ("system", "data", "selection", "i-vectors", "folds", "n", "UA", "WA", "macro F1", "pooled UA", "pooled WA")


def results_table(results: Sequence[Results], markdown: bool = False) -> str:
    """One row per result, and one more (mean ± std over seeds) for every system with several seeds. Per cent.

    UA, WA and macro F1: mean ± std over the folds.
    """
    rows = []
    for result in results:
        spread = [_plus_minus(result["mean"][name], result["std"][name]) for name in ("ua", "wa", "macro_f1")]
        pooled = [_percent(result["pooled"][name]) for name in ("ua", "wa")]
        rows.append([result["name"], *_about(result), *spread, *pooled])
    for key, group in by_system(results).items():
        if len(group) > 1:
            means = [_over(group, "mean", name) for name in ("ua", "wa", "macro_f1")]
            pooled = [_over(group, "pooled", name) for name in ("ua", "wa")]
            rows.append([f"{key[0]}, {len(group)} seeds", *_about(group[0]), *means, *pooled])
    return format_table(HEADER, rows, markdown)


def fold_table(result: Results, markdown: bool = False) -> str:
    """UA, WA and macro F1 of every fold, their mean ± std, and pooled. Per cent."""
    rows = []
    for fold in result["folds"]:
        counts = [str(fold["utterances"][part]) for part in ("train", "valid", "test")]
        rows.append([fold["name"], *counts, str(fold["epoch"]), *(_percent(fold[m]) for m in ("ua", "wa", "macro_f1"))])
    spread = [_plus_minus(result["mean"][name], result["std"][name]) for name in ("ua", "wa", "macro_f1")]
    rows.append(["mean ± std", "", "", "", "", *spread])
    pooled = result["pooled"]
    rows.append(["pooled", "", "", str(pooled["n"]), "", *(_percent(pooled[m]) for m in ("ua", "wa", "macro_f1"))])
    return format_table(("fold", "train", "valid", "test", "epoch", "UA", "WA", "macro F1"), rows, markdown)


def comparison(a: Sequence[Results], b: Sequence[Results]) -> str:
    """Paired tests of system B against system A, over the utterances that both were scored on; one result per seed."""
    every = [*a, *b]
    utts = sorted(set.intersection(*(set(result["decisions"]) for result in every)))
    if not utts:
        raise PyserError(f"{a[0]['name']} and {b[0]['name']} have no test utterance in common; compare the same corpus")
    refs = [every[0]["decisions"][utt][1] for utt in utts]
    for result in every:
        for utt, ref in zip(utts, refs, strict=True):
            if result["decisions"][utt][1] != ref:
                raise PyserError(f"{utt} is {ref} in {every[0]['name']} but {result['decisions'][utt][1]} in "
                                 f"{result['name']}; compare results with the same labels")
    lines = [f"A = {_names(a)}", f"B = {_names(b)}", f"{len(utts)} utterances in common"]
    left_out = max(len(result["decisions"]) for result in every) - len(utts)
    lines[-1] += f" ({left_out} left out: not scored by both)" if left_out else ""
    right_a, right_b = (np.stack([_right(result, utts) for result in side]) for side in (a, b))  # (seeds, N)
    for name, difference in paired_bootstrap(refs, right_a.mean(axis=0), right_b.mean(axis=0)).items():
        lines.append(f"{name.upper()} of B - A: {_difference(difference)}")
    for i in range(min(len(a), len(b))):
        only_a, only_b, p = mcnemar(list(right_a[i]), list(right_b[i]))
        pair = f"seeds {a[i]['seed']} and {b[i]['seed']}: " if len(every) > 2 else ""
        lines.append(f"McNemar, exact: {pair}only A right {only_a}, only B right {only_b}, p = {p:.3g}")
    if min(len(a), len(b)) < 3:
        lines.append(f"{len(a)} and {len(b)} seeds: the tests cover the choice of utterances, not of seeds; "
                     "claim a difference on 3 seeds or more")
    return "\n".join(lines)


def two_systems(results: Sequence[Results]) -> tuple[list[Results], list[Results]]:
    """Split results into two systems (A: that of the first one), each ordered by seed."""
    if len(results) == 2:
        return [results[0]], [results[1]]
    groups = [sorted(group, key=lambda result: int(result["seed"])) for group in by_system(results).values()]
    if len(groups) != 2:
        raise PyserError(f"{len(results)} results of {len(groups)} systems; give two, or the seeds of two systems")
    return groups[0], groups[1]


def by_system(results: Sequence[Results]) -> dict[tuple[str, ...], list[Results]]:
    """Results that differ in nothing but the seed, together."""
    groups: dict[tuple[str, ...], list[Results]] = {}
    for result in results:
        key = (result["system"], *_about(result), " ".join(result["labels"]))
        groups.setdefault(key, []).append(result)
    return groups


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Columns as wide as their longest cell; the first to the left, the others to the right.

    >>> print(format_table(("fold", "UA"), [("1", "50.0")]))
    fold    UA
    1     50.0
    """
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [[cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
             for row in cells]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def _about(result: Results) -> list[str]:
    missing = len(result.get("folds_missing", []))
    folds = f"{len(result['folds'])} of {len(result['folds']) + missing}" if missing else str(len(result["folds"]))
    known = [str(result[name]) for name in ("corpus", "label_set", "subset") if result[name] != "not stated"]
    return [" ".join(known), result["selection"], result["ivector_mode"], folds, str(result["pooled"]["n"])]


def _over(group: Sequence[Results], part: str, name: str) -> str:
    values = [result[part][name] for result in group]
    return _plus_minus(float(np.mean(values)), float(np.std(values, ddof=1)))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _plus_minus(mean: float, std: float | None) -> str:
    return _percent(mean) if std is None else f"{_percent(mean)} ± {_percent(std)}"


def _difference(d: Difference) -> str:
    return (f"{100 * d.value:+.2f} points, 95% interval {100 * d.low:+.2f} … {100 * d.high:+.2f}, "
            f"p = {d.p:.3g} (paired bootstrap over utterances)")


def _names(side: Sequence[Results]) -> str:
    return " ".join(result["name"] for result in side)


def _right(result: Results, utts: Sequence[str]) -> np.ndarray:
    return np.array([result["decisions"][utt][1] == result["decisions"][utt][2] for utt in utts])
