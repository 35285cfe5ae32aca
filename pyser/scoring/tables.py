"""Tables of results, drawn from results.json files: aligned text for the terminal, Markdown, and LaTeX for a paper."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.scoring.layers import chosen_on_validation, same_but_node
from pyser.scoring.order import Order
from pyser.scoring.results import METRICS, Results, by_system, statements
from pyser.scoring.significance import Difference, holm, mcnemar, paired_bootstrap

SPREAD = "UA, WA and macro F1 in per cent: mean ± std over folds; of several seeds: mean ± std over the seeds' means."
FRONTEND = ("acoustic_model", "subsampling", "frames_per_chunk")  # they are said where they differ, as settings are
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--",
         **{character: f"\\{character}" for character in "&%$#_{}"}}


def results_table(results: Sequence[Results], style: str = "text") -> str:
    """One row per result, and one more for every system with several seeds; `style` is text, markdown or latex.

    SPREAD says what stands behind each ±. A setting that is not the same in all results has a column of its own.
    """
    systems = by_system(results)
    said = [statements(result) for result in results]
    known = dict.fromkeys((*FRONTEND, *(name for result in results for name in result["config"])))
    settings = [name for name in known if name != "selection" and len({about.get(name) for about in said}) > 1]
    short = {name: _tails({about.get(name, "") for about in said}) for name in settings}
    rows = []
    for result in results:
        spread = [_plus_minus(result["mean"][name], result["std"][name]) for name in METRICS]
        pooled = [_percent(result["pooled"][name]) for name in METRICS[:2]]
        rows.append([result["name"], *_about(result, short), *spread, *pooled, *_wer([result])])
    for group in systems:
        if len(group) > 1:
            spread = [_over(group, "mean", name) for name in METRICS]
            pooled = [_over(group, "pooled", name) for name in METRICS[:2]]
            rows.append([f"{group[0]['system']}, {len(group)} seeds", *_about(group[0], short), *spread, *pooled,
                         *_wer(group)])
    header = ["system", "data", "selection", "i-vectors", *settings, "folds", "n", "UA", "WA", "macro F1", "pooled UA",
              "pooled WA", "WER"]
    if not any(row[-1] for row in rows):  # of systems that hear no words
        header, rows = header[:-1], [row[:-1] for row in rows]
    table = format_table(header, rows, style)
    below = [SPREAD, *dict.fromkeys(filter(None, map(order_warning, results)))]
    if style == "latex":
        return "\n".join([*(f"% {line.replace('±', '+-')}" for line in below), table])
    return "\n".join([table, "", *below])


def fold_table(result: Results) -> str:
    """UA, WA and macro F1 of every fold, their mean ± std, and pooled. Per cent."""
    rows = []
    for fold in result["folds"]:
        counts = [str(fold["utterances"][part]) for part in ("train", "valid", "test")]
        rows.append([fold["name"], *counts, str(fold["epoch"]), *(_percent(fold[m]) for m in METRICS)])
    rows.append(["mean ± std", "", "", "", "", *(_plus_minus(result["mean"][m], result["std"][m]) for m in METRICS)])
    pooled = result["pooled"]
    rows.append(["pooled", "", "", str(pooled["n"]), "", *(_percent(pooled[m]) for m in METRICS)])
    return format_table(("fold", "train", "valid", "test", "epoch", "UA", "WA", "macro F1"), rows)


def layers_table(results: Sequence[Results]) -> str:
    """UA of every node on validation and test speakers, and the test UA of the nodes that validation chooses. Per cent."""
    rows = [(layer.node, "" if layer.valid_ua is None else _percent(layer.valid_ua), _plus_minus(layer.ua, layer.std))
            for layer in same_but_node(results)]
    table, choice = format_table(("node", "validation UA", "test UA"), rows), chosen_on_validation(results)
    if choice is None:
        return f"{table}\nNo node can be chosen: nothing was validated (--selection last)."
    nodes = ", ".join(f"fold {name} {node}" for name, node in choice.nodes.items())
    return f"{table}\nchosen on each fold's validation speakers: UA {_plus_minus(choice.ua, choice.std)} ({nodes})"


def made_with(result: Results) -> str:
    """One line: node, seed and all else that the result says about how it was made."""
    said = {"node": result["node"], "seed": str(result["seed"])} | statements(result)
    return f"{result['name']}: " + ", ".join(f"{name} {value}" for name, value in said.items()
                                        if value not in ("", "not stated"))


def order_warning(result: Results) -> str:
    """One line if i-vectors carried over between utterances whose order tells their emotions; otherwise nothing."""
    if result.get("ivector_mode") != "carry-over" or "order" not in result:
        return ""
    order = Order(**result["order"])
    if not order.tells:
        return ""
    return (f"WARNING: the order of a speaker's utterances tells {_percent(order.best)} % of the emotions (guessing "
            f"{_percent(order.most_frequent)} %), and i-vectors that carry over may know it; compare with "
            "i-vectors of each utterance alone")


def comparisons(systems: Sequence[Sequence[Results]]) -> str:
    """Paired tests of each further system against the first; for several, their p-values corrected after Holm too."""
    texts, found = zip(*(comparison(systems[0], system) for system in systems[1:]), strict=True)
    if len(found) == 1:
        return str(texts[0])
    lines = [f"Holm's correction for {len(found)} comparisons with A (paired bootstrap):"]
    for name in found[0]:
        corrected = holm([differences[name].p for differences in found])
        for system, p in zip(systems[1:], corrected, strict=True):
            lines.append(f"{name.upper()} of {_names(system)}: p = {p:.3g}")
    return "\n\n".join([*texts, "\n".join(lines)])


def comparison(a: Sequence[Results], b: Sequence[Results]) -> tuple[str, dict[str, Difference]]:
    """Paired tests of system B against system A, over the utterances that both were scored on; one result per seed.

    Returns the text, and the bootstrap's differences in "ua" and "wa".
    """
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
    differences = paired_bootstrap(refs, right_a.mean(axis=0), right_b.mean(axis=0))
    for name, difference in differences.items():
        lines.append(f"{name.upper()} of B - A: {_difference(difference)}")
    for i in range(min(len(a), len(b))):
        only_a, only_b, p = mcnemar(list(right_a[i]), list(right_b[i]))
        pair = f"seeds {a[i]['seed']} and {b[i]['seed']}: " if len(every) > 2 else ""
        lines.append(f"McNemar, exact: {pair}only A right {only_a}, only B right {only_b}, p = {p:.3g}")
    if min(len(a), len(b)) < 3:
        lines.append(f"{len(a)} and {len(b)} seeds: the tests cover the choice of utterances, not of seeds; "
                     "claim a difference on 3 seeds or more")
    return "\n".join(lines), differences


def systems_of(results: Sequence[Results]) -> list[list[Results]]:
    """Results as the systems to compare, the first being the one that the others are compared with. Two results are two
    systems even if they differ in the seed only."""
    systems = [[result] for result in results] if len(results) == 2 else by_system(results)
    if len(systems) < 2:
        raise PyserError(f"{len(results)} results of one system; give two, or the seeds of two systems or more")
    return systems


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], style: str = "text") -> str:
    """Columns as wide as their longest cell; the first to the left, the others to the right. LaTeX needs booktabs.

    >>> print(format_table(("fold", "UA"), [("1", "50.0")]))
    fold    UA
    1     50.0
    """
    cells = [list(header), *(list(row) for row in rows)]
    if style == "latex":
        cells = [[_latex(cell) for cell in row] for row in cells]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [[cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
             for row in cells]
    if style == "text":
        return "\n".join("  ".join(line).rstrip() for line in lines)
    if style == "markdown":
        rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
        return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
    body = [f"{' & '.join(line)} \\\\" for line in lines]
    return "\n".join([f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", body[0], r"\midrule", *body[1:],
                      r"\bottomrule", r"\end{tabular}"])


def _latex(cell: str) -> str:
    """`1.5 ± 0.2` as mathematics, all else as the text it is."""
    number = re.fullmatch(r"(-?[\d.]+) ± ([\d.]+)", cell)
    return rf"${number[1]} \pm {number[2]}$" if number else "".join(LATEX.get(character, character) for character in cell)


def _about(result: Results, short: Mapping[str, Mapping[str, str]]) -> list[str]:
    """short: setting -> how the values are written that are too long for a table."""
    said = statements(result)
    data = " ".join(said[name] for name in ("corpus", "label_set", "subset") if name in said)
    cells = {name: said.get(name, "") for name in ("selection", "ivector_mode", *short, "folds", "n")}
    return [data, *(short.get(name, {}).get(value, value) for name, value in cells.items())]


def _tails(values: Collection[str]) -> dict[str, str]:
    """Absolute paths -> as many of their last parts as tell them from each other."""
    paths = {value: Path(value).parts for value in values if value.startswith("/")}
    tails = paths
    for count in range(1, max(map(len, paths.values()), default=0)):
        tails = {value: parts[-count:] for value, parts in paths.items()}
        if len(set(tails.values())) == len(tails):
            break
    return {value: str(Path(*parts)) for value, parts in tails.items()}


def _wer(group: Sequence[Results]) -> list[str]:
    """Per cent, pooled over the folds; of several seeds the mean of theirs."""
    rates = [result["wer"]["pooled"] for result in group if result.get("wer")]
    return [f"{np.mean(rates):.1f}" if len(rates) == len(group) else ""]


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
