"""One results.json per experiment: every number that a table or a figure shows, and what it takes to doubt them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.files import read_json, read_lines, write_json
from pyser.kaldi.tables import read_table
from pyser.nn.model_io import identity
from pyser.scoring.metrics import confusion, figures, recalls
from pyser.scoring.order import order_of
from pyser.scoring.wer import Errors, score
from pyser.ser.folds import PARTS, SELECTIONS, Fold, check_leaks, digest, read_fold
from pyser.ser.streams import HIDDEN
from pyser.ser.targets import EMOTIONS, Targets

Results = dict[str, Any]
METRICS = ("ua", "wa", "macro_f1")
STATED = ("corpus", "label_set", "subset", "selection", "ivector_mode", "acoustic_model", "subsampling", "frames_per_chunk")
SELECTION_NOTES = {
    "valid": "the epoch with the best UA on validation speakers taken from the training data",
    "last": "fixed number of epochs, nothing selected; validation speakers were trained on",
}


def score_experiment(exp_dir: str | Path) -> Results:
    """Score the finished folds of `exp_dir`, write exp_dir/results.json and return its content.

    PyserError when a fold leaks (test speakers trained on or selected on), when a checkpoint was trained or selected
    on other lists, labels, settings or features than those it is scored with, or when the posteriors are not the
    checkpoint's or not those of the test list.
    """
    exp_dir = Path(exp_dir)
    settings = read_json(exp_dir / "ser.json", "labels", "config", "folds")
    emotions, speakers = read_table(exp_dir / "utt2emo"), read_table(exp_dir / "utt2spk")
    labels = settings["labels"]
    folds: list[dict[str, Any]] = []
    decisions: dict[str, list[str]] = {}  # utterance -> fold, label, decision
    said = read_table(exp_dir / "text") if (exp_dir / "text").exists() else {}
    words: dict[str, Errors] = {}  # fold -> of a system that also hears words
    tested, missing = tested_folds(exp_dir, settings, emotions, speakers, EMOTIONS)
    for one in tested:
        hyps = {utt: labels[int(np.argmax(row))] for utt, row in one.outputs.items()}
        refs = {utt: emotions[utt] for utt in one.fold.test}
        decisions |= {utt: [one.fold.name, refs[utt], hyps[utt]] for utt in one.fold.test}
        if said and (one.directory / "hyp.txt").exists():
            words[one.fold.name] = _word_errors(one.directory / "hyp.txt", one.fold.test, said)
        counts = confusion(list(refs.values()), list(hyps.values()), labels)
        folds.append({
            **one.about(speakers, settings["folds"]), **figures(counts), "confusion": counts.tolist(),
            "valid_ua": one.valid("ua"),
        })
    deaf = [one for one in tested if one.fold.name not in words]
    if words and deaf and all(any(said.get(utt) for utt in one.fold.test) for one in deaf):
        raise PyserError(f"{deaf[0].directory}/hyp.txt: missing, other folds have one; train this fold again")
    pooled = np.sum([fold["confusion"] for fold in folds], axis=0)
    packaged = _packaged(exp_dir / "frontend")
    config, about = settings["config"], settings.get("about", {})
    results: Results = {
        "name": exp_dir.resolve().name,
        "system": re.sub(r"_seed\d+$", "", exp_dir.resolve().name),
        "seed": config["seed"],
        "selection": config["selection"],
        "selection_note": SELECTION_NOTES[config["selection"]],
        "ivector_mode": packaged.get("ivector_mode", "not stated"),
        "node": _node(config, packaged),
        "acoustic_model": packaged.get("acoustic_model", "not stated"),
        "subsampling": packaged.get("subsampling", "not stated"),
        "frames_per_chunk": packaged.get("frames_per_chunk", "not stated"),
        "corpus": about.get("corpus", Path(settings.get("data", "")).name),
        "label_set": about.get("label_set", "not stated"),
        "subset": about.get("subset", "not stated"),
        "labels": labels,
        "label_counts": dict(sorted(Counter(ref for _, ref, _ in decisions.values()).items())),
        "config": config,
        "mean": {name: float(np.mean([fold[name] for fold in folds])) for name in METRICS},
        "std": {name: float(np.std([f[name] for f in folds], ddof=1)) if len(folds) > 1 else None for name in METRICS},
        "pooled": {**figures(pooled), "confusion": pooled.tolist(), "n": int(pooled.sum()),
                   "recalls": [None if np.isnan(r) else float(r) for r in recalls(pooled)]},
        "folds": folds,
        "wer": _wer(words),
        "folds_missing": missing,
        "order": order_of({utt: ref for utt, (_, ref, _) in decisions.items()}, speakers)._asdict(),
        "notes": {"acoustic_model": "the beginning of the SHA-256 of its file; of random parameters, of "
                  "the network that they are in place of", "mean, std": "over folds; std with n - 1",
                  "wer": "in per cent, of the test lists; null of a system that hears no words",
                  "order": "shares of utterances whose emotion the other speakers tell: by that of the speaker's utterance "
                  "before, by its place, or as the most frequent one; i-vectors that carry over may know as much",
                  "valid_ua": "of the epoch that was taken", "pooled": "one confusion matrix over all test lists",
                  "confusion": "counts; row = label, column = decision", "decisions": "utterance: fold, label, decision"},
        "decisions": dict(sorted(decisions.items(), key=lambda item: item[0].encode())),
    }
    write_json(exp_dir / "results.json", results)
    return results


def _word_errors(path: Path, utts: Sequence[str], said: Mapping[str, str]) -> Errors:
    """Of what hyp.txt has of the utterances, those without transcript left out."""
    hyps = read_table(path)
    odd = hyps.keys() ^ set(utts)
    if odd:
        raise PyserError(f"{path}: {len(odd)} utterances differ from test.list, e.g. {min(odd)}; train this fold again")
    refs = {utt: said[utt] for utt in utts if said.get(utt)}
    return score(refs, {utt: hyps[utt] for utt in refs})[0]


def _wer(folds: Mapping[str, Errors]) -> dict[str, Any] | None:
    """Pooled over the folds, and of each."""
    total = sum(folds.values(), Errors())
    return {"pooled": total.rate, "words": total.n, "folds": {name: e.rate for name, e in folds.items()}} if total.n else None


@dataclass(frozen=True)
class TestedFold:
    """A finished fold after all checks; outputs: of its network for each utterance of the test list."""

    fold: Fold
    directory: Path
    epoch: int
    outputs: Mapping[str, Sequence[float]]

    def about(self, speakers: Mapping[str, str], asked: Mapping[str, int]) -> dict[str, Any]:
        """What results say of it, whatever its network gives. asked: fold -> length of the test list, before dropping."""
        fold = self.fold
        return {
            "name": fold.name, "epoch": self.epoch, "utterances": {part: len(getattr(fold, part)) for part in PARTS},
            "test_dropped": asked[fold.name] - len(fold.test),
            "speakers": {part: len({speakers[utt] for utt in getattr(fold, part)}) for part in PARTS},
            "lists": {part: f"fold{fold.name}/{part}.list" for part in PARTS}, "sha256": fold.digests(),
        }

    def valid(self, figure: str) -> float | None:
        """Of the epoch that was taken, by the fold's history.json; None if nothing was looked at."""
        path = self.directory / "history.json"
        rows: list[dict[str, float]] = json.loads(path.read_text()) if self.fold.valid and path.exists() else []
        return next((row.get(f"valid_{figure}") for row in rows if row["epoch"] == self.epoch), None)


def tested_folds(
    exp_dir: Path, settings: Results, labelled: Mapping[str, str], speakers: Mapping[str, str], targets: Targets
) -> tuple[list[TestedFold], list[str]]:
    """The finished folds of exp_dir with what their networks gave, and the names of those that are not finished; PyserError
    as score_experiment says. labelled: utterance -> its line in exp_dir's utt2emo or utt2avd."""
    asked, labels, outputs = settings["folds"], settings["labels"], targets.outputs
    unasked = {path.parent.name for path in exp_dir.glob(f"fold*/{outputs}")} - {f"fold{name}" for name in asked}
    if unasked:
        raise PyserError(f"{exp_dir}: {min(unasked)} is not among the folds of ser.json, so its result would be left out; "
                         "move it elsewhere, or train all folds again")
    found: list[TestedFold] = []
    missing: list[str] = []
    features: dict[str, str] = {}  # fold -> digest of what it was trained on
    seen: set[str] = set()
    for name in asked:
        directory = exp_dir / f"fold{name}"
        if not (directory / outputs).exists():
            missing.append(name)
            continue
        fold = read_fold(directory, name)
        check_leaks(fold, speakers)
        checkpoint = check_checkpoint(directory / "final.safetensors", fold, settings, labelled, targets.table)
        features[name] = checkpoint.get("features", "")
        other = next((before for before in features if features[before] != features[name]), None)
        if other is not None:
            raise PyserError(f"{exp_dir}: folds {other} and {name} were trained on different features; train both again")
        rows = read_outputs(directory / outputs, fold.test, len(labels))
        if checkpoint.get("posteriors") != digest(read_lines(directory / outputs)):
            raise PyserError(f"{directory}/{outputs}: not what the checkpoint beside it gave; train this fold again")
        twice = seen & rows.keys()
        if twice:
            raise PyserError(f"{exp_dir}: {min(twice)} is in the test list of two folds; pooling would count it twice")
        seen |= rows.keys()
        found.append(TestedFold(fold, directory, int(checkpoint["epoch"]), rows))
    if not found:
        raise PyserError(f"{exp_dir}: no finished fold; train the folds first")
    return found, missing


def _packaged(frontend: Path) -> dict[str, Any]:
    """frontend.json, and which acoustic model is beside it; what is not there is not in it."""
    packaged = read_json(frontend / "frontend.json") if (frontend / "frontend.json").exists() else {}
    for model in sorted(frontend.glob("final.*")):
        packaged["acoustic_model"] = identity(model)
    return packaged


def check_checkpoint(
    path: Path, fold: Fold, settings: Results, emotions: Mapping[str, str], table: str
) -> dict[str, str]:
    """Metadata of the checkpoint at `path`; PyserError unless it was made for this fold, with these lists, emotions (or
    ratings, whichever the `table` has) and settings (ser.json), and did not see its test list."""
    from pyser.nn.model_io import read

    metadata = read(path)[1]
    try:
        trained, config = dict(json.loads(metadata["digests"])), dict(json.loads(metadata["config"]))
        config |= {f"trunk_{key}": value for key, value in json.loads(metadata.get("trunk", "{}")).items()}
        labels, selection, selected_on = json.loads(metadata["labels"]), metadata["selection"], metadata["selected_on"]
        epoch, name = int(metadata["epoch"]), metadata["fold"]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise PyserError(f"{path}: does not say what it was selected on, so it is not scored; train it again") from None
    unlabelled = [utt for part in PARTS for utt in getattr(fold, part) if utt not in emotions]
    if unlabelled:
        raise PyserError(f"{path.parent.parent}/{table}: {unlabelled[0]} of fold {fold.name} is not in it; train again")
    now = fold.digests()
    now["labels"] = digest(f"{utt} {emotions[utt]}" for part in PARTS for utt in getattr(fold, part))
    if selection not in SELECTIONS:
        raise PyserError(f"{path}: unknown selection '{selection}'; known: {' '.join(SELECTIONS)}")
    if now["test"] in (selected_on, trained.get("train"), trained.get("valid")):
        raise PyserError(f"{path}: selected or trained on the test list of fold {fold.name}; it is not scored on it")
    if selected_on != (now["valid"] if selection == "valid" else ""):
        raise PyserError(f"{path}: not selected on this fold's valid.list; train this fold again")
    for part in PARTS:
        if trained.get(part) != now[part]:
            raise PyserError(f"{path}: made with another {part}.list than the one beside it; train this fold again")
    if trained.get("labels") != now["labels"]:
        raise PyserError(f"{path}: made with other emotions than {path.parent.parent}/{table} says; train this fold again")
    if name != fold.name:
        raise PyserError(f"{path}: the checkpoint of fold {name}, not of fold {fold.name}; undo the renaming")
    then = config | {"selection": selection, "labels": labels}
    asked = settings["config"] | {"labels": settings["labels"]}
    odd = sorted(key for key in then.keys() | asked.keys() if then.get(key) != asked.get(key))
    if odd:
        raise PyserError(f"{path}: made with {odd[0]} {then.get(odd[0])}, but ser.json says {asked.get(odd[0])}; one "
                         "experiment has one setting: train this fold again")
    if selection == "last" and epoch != config.get("num_epochs"):
        raise PyserError(f"{path}: epoch {epoch} of {config.get('num_epochs')}, but it says that none was selected; train "
                         "this fold again")
    return metadata


def read_outputs(path: Path, utts: Sequence[str], size: int) -> dict[str, list[float]]:
    """Utterance -> its `size` outputs; the file must hold exactly `utts`."""
    outputs = {}
    for utt, value in read_table(path).items():
        try:
            row = [float(word) for word in value.split()]
        except ValueError:
            row = []
        if len(row) != size or not np.isfinite(row).all():
            raise PyserError(f"{path}: {utt}: expected {size} numbers, found '{value[:40]}'; train it again")
        outputs[utt] = row
    odd = outputs.keys() ^ set(utts)
    if odd:
        raise PyserError(f"{path}: {len(odd)} utterances differ from test.list, e.g. {min(odd)}; train this fold again")
    return {utt: outputs[utt] for utt in utts}


def read_results(path: str | Path) -> Results:
    """A results.json, or the one in a directory."""
    path = Path(path)
    return read_json(path / "results.json" if path.is_dir() else path, "system", "mean", "std", "pooled", "decisions")


def _node(config: Mapping[str, Any], packaged: Mapping[str, Any]) -> str:
    """The layer that a classifier reads: of the acoustic model, or of a fusion's speech encoder."""
    if HIDDEN in (config.get("streams") or {}):
        return f"layer{config['layer']}"
    return str(config.get("trunk_node", packaged.get("node", "not stated")))


def statements(result: Results) -> dict[str, str]:
    """All that a result says about how it was made, but for its name, node and seed, and the seed of the experiment or of the
    random parameters that it began with; what it does not say is not in it."""
    missing = result.get("folds_missing", [])
    num_folds = str(len(result["folds"])) + (f" of {len(result['folds']) + len(missing)}" if missing else "")
    said = {name: result.get(name, "not stated") for name in STATED}
    said = {name: str(value) for name, value in said.items()}
    said |= {"labels": " ".join(result["labels"]), "folds": num_folds, "n": str(result["pooled"]["n"])}
    elsewhere = {"seed", "selection", "trunk_node"}
    if result["node"].startswith("layer"):
        elsewhere.add("layer")
    said |= {name: re.sub(r"_seed\d+(?=(\.safetensors)?$)", "", value) if isinstance(value, str) else json.dumps(value)
             for name, value in result["config"].items() if name not in elsewhere}
    return {name: value for name, value in said.items() if value != "not stated"}


def by_system(results: Sequence[Results]) -> list[list[Results]]:
    """Results that differ in nothing but the seed, together and ordered by it."""
    groups: dict[tuple[object, ...], dict[int, Results]] = {}
    for result in results:
        group = groups.setdefault((result["system"], result["node"], *statements(result).items()), {})
        if result["seed"] in group:
            raise PyserError(f"{result['name']}: seed {result['seed']} of {result['system']} is given twice; give every "
                             "seed once")
        group[result["seed"]] = result
    return [[group[seed] for seed in sorted(group)] for group in groups.values()]
