"""One results.json per experiment: every number that a table or a figure shows, and what it takes to doubt them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.files import read_json, write_json
from pyser.kaldi.tables import read_table
from pyser.scoring.metrics import confusion, figures, recalls
from pyser.ser.folds import PARTS, SELECTIONS, Fold, check_leaks, read_fold

Results = dict[str, Any]
METRICS = ("ua", "wa", "macro_f1")
SELECTION_NOTES = {
    "valid": "the epoch with the best UA on validation speakers taken from the training data",
    "last": "fixed number of epochs, nothing selected; validation speakers were trained on",
}


def score_experiment(exp_dir: str | Path) -> Results:
    """Score the finished folds of `exp_dir`, write exp_dir/results.json and return its content.

    PyserError when a fold leaks (test speakers trained on or selected on), when a checkpoint was trained or selected
    on other lists than those it is scored with, or when the posteriors are not those of the test list.
    """
    exp_dir = Path(exp_dir)
    settings = read_json(exp_dir / "ser.json", "labels", "config", "folds")
    emotions, speakers = read_table(exp_dir / "utt2emo"), read_table(exp_dir / "utt2spk")
    labels, asked = settings["labels"], settings["folds"]
    folds: list[dict[str, Any]] = []
    decisions: dict[str, list[str]] = {}  # utterance -> fold, label, decision
    missing = []
    for name, num_asked in asked.items():
        directory = exp_dir / f"fold{name}"
        if not (directory / "test_posteriors.txt").exists():
            missing.append(name)
            continue
        fold = read_fold(directory, name)
        check_leaks(fold, speakers)
        epoch = check_checkpoint(directory / "final.safetensors", fold)
        hyps = read_decisions(directory / "test_posteriors.txt", fold.test, labels)
        twice = decisions.keys() & hyps.keys()
        if twice:
            raise PyserError(f"{exp_dir}: {min(twice)} is in the test list of two folds; pooling would count it twice")
        refs = {utt: emotions[utt] for utt in fold.test}
        decisions |= {utt: [name, refs[utt], hyps[utt]] for utt in fold.test}
        counts = confusion(list(refs.values()), list(hyps.values()), labels)
        folds.append({
            "name": name, **figures(counts), "confusion": counts.tolist(), "epoch": epoch,
            "utterances": {part: len(getattr(fold, part)) for part in PARTS},
            "test_dropped": num_asked - len(fold.test),
            "speakers": {part: len({speakers[utt] for utt in getattr(fold, part)}) for part in PARTS},
            "lists": {part: f"fold{name}/{part}.list" for part in PARTS}, "sha256": fold.digests(),
        })
    if not folds:
        raise PyserError(f"{exp_dir}: no finished fold; run `pyser ser train` first")
    pooled = np.sum([fold["confusion"] for fold in folds], axis=0)
    frontend = exp_dir / "frontend" / "frontend.json"
    packaged = read_json(frontend) if frontend.exists() else {}
    selection, about = settings["config"]["selection"], settings.get("about", {})
    results: Results = {
        "name": exp_dir.resolve().name,
        "system": re.sub(r"_seed\d+$", "", exp_dir.resolve().name),
        "seed": settings["config"]["seed"],
        "selection": selection,
        "selection_note": SELECTION_NOTES[selection],
        "ivector_mode": packaged.get("ivector_mode", "not stated"),
        "node": packaged.get("node", "not stated"),
        "corpus": about.get("corpus", Path(settings.get("data", "")).name),
        "label_set": about.get("label_set", "not stated"),
        "subset": about.get("subset", "not stated"),
        "labels": labels,
        "label_counts": dict(sorted(Counter(ref for _, ref, _ in decisions.values()).items())),
        "config": settings["config"],
        "mean": {name: float(np.mean([fold[name] for fold in folds])) for name in METRICS},
        "std": {name: float(np.std([f[name] for f in folds], ddof=1)) if len(folds) > 1 else None for name in METRICS},
        "pooled": {**figures(pooled), "confusion": pooled.tolist(), "n": int(pooled.sum()),
                   "recalls": [None if np.isnan(r) else float(r) for r in recalls(pooled)]},
        "folds": folds,
        "folds_missing": missing,
        "notes": {"mean, std": "over folds; std with n - 1", "pooled": "one confusion matrix over all test lists",
                  "decisions": "utterance: fold, label, decision"},
        "decisions": dict(sorted(decisions.items(), key=lambda item: item[0].encode())),
    }
    write_json(exp_dir / "results.json", results)
    return results


def check_checkpoint(path: Path, fold: Fold) -> int:
    """The epoch of the checkpoint at `path`; PyserError unless it was made with this fold's lists and did not see its
    test list."""
    from pyser.nn.model_io import read

    metadata = read(path)[1]
    try:
        trained, selection = json.loads(metadata["digests"]), metadata["selection"]
        selected_on, epoch = metadata["selected_on"], int(metadata["epoch"])
    except (KeyError, ValueError):
        raise PyserError(f"{path}: does not say what it was selected on, so it is not scored; train it again") from None
    now = fold.digests()
    if selection not in SELECTIONS:
        raise PyserError(f"{path}: unknown selection '{selection}'; known: {' '.join(SELECTIONS)}")
    if selected_on == now["test"] or trained["train"] == now["test"]:
        raise PyserError(f"{path}: selected or trained on the test list of fold {fold.name}; it is not scored on it")
    if selected_on != (now["valid"] if selection == "valid" else ""):
        raise PyserError(f"{path}: not selected on this fold's valid.list; train this fold again")
    for part in PARTS:
        if trained.get(part) != now[part]:
            raise PyserError(f"{path}: made with another {part}.list than the one beside it; train this fold again")
    return epoch


def read_decisions(path: Path, utts: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Utterance -> label of the largest posterior; the file must hold exactly `utts`."""
    decisions = {}
    for utt, value in read_table(path).items():
        try:
            posteriors = [float(word) for word in value.split()]
        except ValueError:
            posteriors = []
        if len(posteriors) != len(labels) or not np.isfinite(posteriors).all():
            raise PyserError(f"{path}: {utt}: expected {len(labels)} numbers, found '{value[:40]}'; train it again")
        decisions[utt] = labels[int(np.argmax(posteriors))]
    odd = decisions.keys() ^ set(utts)
    if odd:
        raise PyserError(f"{path}: {len(odd)} utterances differ from test.list, e.g. {min(odd)}; train this fold again")
    return {utt: decisions[utt] for utt in utts}


def read_results(path: str | Path) -> Results:
    """A results.json, or the one in a directory."""
    path = Path(path)
    return read_json(path / "results.json" if path.is_dir() else path, "system", "mean", "std", "pooled", "decisions")
