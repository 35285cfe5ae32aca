"""Results of regression, in one results.json per experiment as those of classification, and tables and tests of them.

The figure is the concordance correlation coefficient (CCC) over all test utterances of all folds together, never a mean over
batches; its mean and standard deviation over folds are there too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.files import read_json, write_json
from pyser.kaldi.tables import read_table
from pyser.scoring.metrics import concordance
from pyser.scoring.results import SELECTION_NOTES, Results, by_system, tested_folds
from pyser.scoring.significance import Difference, ccc_bootstrap, holm
from pyser.scoring.tables import format_table
from pyser.ser.targets import RATINGS

SPREAD = "CCC over all test utterances, those of all folds together; of several seeds: mean ± std over the seeds."
SELECTION = SELECTION_NOTES | {"valid": "the epoch with the best mean CCC on validation speakers, none of them tested"}


def score_ratings(exp_dir: str | Path) -> Results:
    """Score the finished folds of `exp_dir`, write exp_dir/results.json and return its content; PyserError as
    pyser.scoring.results.score_experiment."""
    exp_dir = Path(exp_dir)
    settings = read_json(exp_dir / "ser.json", "labels", "config", "folds")
    rated, speakers = read_table(exp_dir / RATINGS.table), read_table(exp_dir / "utt2spk")
    labels = settings["labels"]
    tested, missing = tested_folds(exp_dir, settings, rated, speakers, RATINGS)
    folds: list[dict[str, Any]] = []
    ratings: dict[str, list[Any]] = {}  # utterance -> fold, rated, found
    for one in tested:
        gold = RATINGS.parse({utt: rated[utt] for utt in one.fold.test}, labels)
        ratings |= {utt: [one.fold.name, list(gold[utt]), list(one.outputs[utt])] for utt in one.fold.test}
        folds.append({**one.about(speakers, settings["folds"]), **_ccc(labels, [ratings[utt] for utt in one.fold.test]),
                      "valid_ccc": one.valid("ccc")})
    about, config = settings.get("about", {}), dict(settings["config"])
    results: Results = {
        "name": exp_dir.resolve().name,
        "system": re.sub(r"_seed\d+$", "", exp_dir.resolve().name),
        "node": "",
        "seed": config["seed"],
        "selection": config["selection"],
        "selection_note": SELECTION[config["selection"]],
        "corpus": about.get("corpus", Path(settings.get("data", "")).name),
        "label_set": about.get("label_set", "not stated"),
        "subset": about.get("subset", "not stated"),
        "scale": about.get("avd", "not stated"),
        "labels": labels,
        # Seeds of a system may have encoders of their own.
        "encoder": {name: config.pop(name) for name in ("encoder", "encoder_id")},
        "config": config,
        "mean": {label: float(np.mean([fold[label] for fold in folds])) for label in labels},
        "std": {label: float(np.std([f[label] for f in folds], ddof=1)) if len(folds) > 1 else None for label in labels},
        "pooled": {**_ccc(labels, list(ratings.values())), "n": len(ratings)},
        "folds": folds,
        "folds_missing": missing,
        "notes": {"mean, std": "CCC over folds; std with n - 1", "pooled": "CCC over all test lists together",
                  "scale": "of the ratings; category-derived: nobody rated them", "valid_ccc": "of the epoch that was taken",
                  "ratings": "utterance: fold, rated, found; in the order of the labels"},
        "ratings": {utt: ratings[utt] for utt in sorted(ratings)},
    }
    write_json(exp_dir / "results.json", results)
    return results


def _ccc(labels: Sequence[str], rows: Sequence[Any]) -> dict[str, float]:
    """Of rows [fold, rated, found]."""
    gold, found = (np.array([row[place] for row in rows], dtype=np.float64) for place in (1, 2))
    return {label: concordance(found[:, d], gold[:, d]) for d, label in enumerate(labels)}


def read_ratings(path: str | Path) -> Results:
    """The results.json of a regression, or the one in a directory."""
    path = Path(path)
    return read_json(path / "results.json" if path.is_dir() else path, "system", "labels", "pooled", "ratings")


def fold_table(result: Results) -> str:
    """CCC of every fold, their mean ± std, and pooled."""
    labels = result["labels"]
    rows = []
    for fold in result["folds"]:
        counts = [str(fold["utterances"][part]) for part in ("train", "valid", "test")]
        rows.append([fold["name"], *counts, str(fold["epoch"]), *(f"{fold[label]:.3f}" for label in labels)])
    if len(rows) > 1:
        rows.append(["mean ± std", "", "", "", "",
                     *(f"{result['mean'][label]:.3f} ± {result['std'][label]:.3f}" for label in labels)])
    pooled = result["pooled"]
    rows.append(["pooled", "", "", str(pooled["n"]), "", *(f"{pooled[label]:.3f}" for label in labels)])
    return format_table(("fold", "train", "valid", "test", "epoch", *labels), rows)


def ratings_table(results: Sequence[Results], style: str = "text") -> str:
    """One row per result, and one more for every system with several seeds; `style` is text, markdown or latex."""
    labels = same_labels(results)
    rows = [[result["name"], *_about(result), *(f"{result['pooled'][label]:.3f}" for label in labels)] for result in results]
    for group in by_system(results):
        if len(group) > 1:
            values = np.array([[result["pooled"][label] for label in labels] for result in group])
            spread = [f"{column.mean():.3f} ± {column.std(ddof=1):.3f}" for column in values.T]
            rows.append([f"{group[0]['system']}, {len(group)} seeds", *_about(group[0]), *spread])
    table = format_table(("system", "data", "ratings", "pretraining", "encoder", "folds", "n", *labels), rows, style)
    return f"% {SPREAD.replace('±', '+-')}\n{table}" if style == "latex" else f"{table}\n\n{SPREAD}"


def _about(result: Results) -> list[str]:
    data = " ".join(result[name] for name in ("corpus", "label_set", "subset") if result[name] != "not stated")
    whole = len(result["folds"]) + len(result["folds_missing"])
    folds = str(whole) if not result["folds_missing"] else f"{len(result['folds'])} of {whole}"
    config = result["config"]
    return [data, result["scale"], config["pretraining"], "frozen" if config["freeze"] else "learns", folds,
            str(result["pooled"]["n"])]


def same_labels(results: Sequence[Results]) -> list[str]:
    """The dimensions of all results; PyserError if they differ."""
    other = next((result for result in results if result["labels"] != results[0]["labels"]), None)
    if other is not None:
        raise PyserError(f"{other['name']} has ratings of {', '.join(other['labels'])}, {results[0]['name']} of "
                         f"{', '.join(results[0]['labels'])}; give results of the same dimensions")
    return list(results[0]["labels"])


def comparisons(systems: Sequence[Sequence[Results]]) -> str:
    """Paired bootstrap of each further system against the first; for several, their p-values corrected after Holm too."""
    texts, found = zip(*(comparison(systems[0], system) for system in systems[1:]), strict=True)
    if len(found) == 1:
        return str(texts[0])
    lines = [f"Holm's correction for {len(found)} comparisons with A:"]
    for label in found[0]:
        corrected = holm([differences[label].p for differences in found])
        lines += [f"{label} of {system[0]['system']}: p = {p:.3g}" for system, p in zip(systems[1:], corrected, strict=True)]
    return "\n\n".join([*texts, "\n".join(lines)])


def comparison(a: Sequence[Results], b: Sequence[Results]) -> tuple[str, dict[str, Difference]]:
    """CCC of system B minus that of A over the utterances that both were scored on; one result per seed."""
    every = [*a, *b]
    labels = same_labels(every)
    utts = sorted(set.intersection(*(set(result["ratings"]) for result in every)))
    if not utts:
        raise PyserError(f"{a[0]['name']} and {b[0]['name']} have no test utterance in common; compare the same corpus")
    for result in every:
        odd = next((utt for utt in utts if result["ratings"][utt][1] != every[0]["ratings"][utt][1]), None)
        if odd is not None:
            raise PyserError(f"{odd} is rated otherwise in {result['name']} than in {every[0]['name']}; compare the same")
    gold = np.array([every[0]["ratings"][utt][1] for utt in utts])  # (N, D)
    found_a, found_b = (np.array([[result["ratings"][utt][2] for utt in utts] for result in side]) for side in (a, b))
    lines = [f"A = {a[0]['system']} ({len(a)} seeds)", f"B = {b[0]['system']} ({len(b)} seeds)",
             f"{len(utts)} utterances in common, taken as independent, though speakers have several"]
    differences = {}
    for d, label in enumerate(labels):
        difference = ccc_bootstrap(gold[:, d], found_a[..., d], found_b[..., d])
        differences[label] = difference
        lines.append(f"{label} of B - A: {difference.value:+.4f}, 95% interval {difference.low:+.4f} … "
                     f"{difference.high:+.4f}, p = {difference.p:.3g} (paired bootstrap over utterances)")
    if min(len(a), len(b)) < 3:
        lines.append(f"{len(a)} and {len(b)} seeds: the test covers the choice of utterances, not of seeds; "
                     "claim a difference on 3 seeds or more")
    for name, side in (("A", a), ("B", b)):
        encoders = {result["encoder"]["encoder_id"] for result in side}
        if len(side) > 1 and len(encoders) == 1 and encoders != {""}:
            lines.append(f"all seeds of {name} begin with one pretrained encoder: what is claimed of its pretraining "
                         "is claimed of this encoder")
    return "\n".join(lines), differences
