"""An emotion experiment: a system trained and tested fold by fold, in files that `pyser score ser` can check.

exp/ser.json utt2emo utt2spk       settings, and the labels and speakers that scoring needs; of ratings utt2avd
exp/foldN/{train,valid,test}.list  what was trained on, selected on and tested on, after dropping
exp/foldN/final.safetensors        metadata: selection, epoch, digests of the lists
exp/foldN/test_posteriors.txt      utterance and its posteriors, in the order of the labels; written last (test_ratings.txt)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pyser.errors import Dropped, PyserError
from pyser.files import read_json, write_json, write_text
from pyser.kaldi.datadir import write_table
from pyser.kaldi.perturb import unperturbed
from pyser.kaldi.tables import read_table
from pyser.ser.folds import Fold, check_leaks, digest, fold_names, read_fold, write_fold
from pyser.ser.targets import EMOTIONS, Targets
from pyser.training import checkpoints
from pyser.training.loop import TrainConfig, best_epoch, set_seed, train

Examples = TypeVar("Examples", bound="Labelled")
Batch = TypeVar("Batch")
Model = TypeVar("Model", bound=nn.Module)
Loss = tuple[Tensor, dict[str, float]]


class Labelled(Protocol):
    """Utterances in memory; label (U,): the class of each, or (U, K): its ratings."""

    @property
    def label(self) -> np.ndarray: ...


class System(Protocol, Generic[Examples, Batch, Model]):
    """How utterances become emotions or ratings (pyser.ser.targets).

    selection `valid`: the epoch with the best UA or CCC on the validation list; `last`: fixed epochs, the validation list is
    trained on as well.
    """

    @property
    def selection(self) -> str: ...

    @property
    def training(self) -> TrainConfig: ...

    def settings(self) -> dict[str, Any]:
        """All that may not differ between the folds of an experiment; a checkpoint's metadata says the same."""

    def tables(self) -> dict[str, Mapping[str, object] | None]:
        """What an utterance needs, in words -> the utterances that have it; None where it is not used."""

    def inputs(self, utts: Sequence[str], fold: str = "") -> list[str]:
        """All rxfilenames that `load` would read; of a fold also the model that it begins with, if it does."""

    def load(self, utts: Sequence[str], classes: Mapping[str, Any], part: str) -> Examples:
        """part: train, valid or test; classes: the number of each utterance's emotion, or its ratings."""

    def class_counts(self, examples: Examples, num_classes: int) -> np.ndarray:
        """(K,): of whatever is trained, how many there are of each class, or rated in each dimension."""

    def model(self, labels: Sequence[str], examples: Examples, fold: Fold) -> Model:
        """Before training, its input normalised by the training examples."""

    def batches(self, examples: Examples, epoch: int) -> Iterator[Batch]:
        """What one epoch is trained on."""

    def loss(self, model: Model, examples: Examples, batch: Batch, weight: Tensor) -> Loss:
        """As `pyser.training.loop.train` takes it. weight (K,): of the classes, with which each counts the same."""

    def posteriors(self, model: Model, examples: Examples) -> Tensor:
        """(U, K) float64 of all utterances, or their ratings; the model is in eval mode."""

    def test(self, model: Model, examples: Examples, utts: Sequence[str], out_dir: Path) -> Tensor:
        """The posteriors of the test list; what else there is to say of it goes into files in out_dir."""

    def save(self, path: Path, model: Model, metadata: dict[str, str]) -> None: ...


@dataclass(frozen=True)
class Corpus:
    """The folds to train, after what cannot be used was left out, and what is known of their utterances: emotions, or
    ratings, as the table of `targets` has them."""

    folds: Mapping[str, Fold]
    emotions: Mapping[str, str]
    labels: Sequence[str]
    targets: Targets


def run_folds(
    system: System[Any, Any, Any], data_dir: str | Path, folds_dir: str | Path, exp_dir: str | Path,
    only: Sequence[str] = (), max_dropped: float = 0.05, targets: Targets = EMOTIONS,
) -> list[str]:
    """Train the folds in `folds_dir` (those named in `only`, or all) on the utterances of data_dir's utt2emo (or whatever
    table has the `targets`) and utt2spk.

    Copies of training utterances at other speeds (`pyser data perturb-speed`) are trained on with them, wherever data_dir has
    some. Returns one line per fold. A finished fold is left alone and a half-done one continued; a fold whose features have
    changed since is trained anew. PyserError on other settings or lists than exp_dir was made with.
    """
    data_dir, exp_dir = Path(data_dir), Path(exp_dir)
    names = fold_names(folds_dir)
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise PyserError(f"{folds_dir}: no fold {unknown[0]}; there are: {' '.join(names)}")
    emotions, speakers = read_table(data_dir / targets.table), read_table(data_dir / "utt2spk")
    everything = {name: read_fold(Path(folds_dir) / name, name) for name in names}
    tables = {f"label in {targets.table}": {utt: emotion for utt, emotion in emotions.items() if emotion}, **system.tables()}
    total = {utt for fold in everything.values() for utt in (*fold.train, *fold.valid, *fold.test)}
    copies = _copies(emotions, total)
    usable = _usable(total.union(*copies.values()), tables, max_dropped)
    folds = {}
    for name, fold in everything.items():
        kept = {part: tuple(u for u in getattr(fold, part) if u in usable) for part in ("train", "valid", "test")}
        if system.selection == "last":  # nothing is selected, so the validation speakers are trained on
            union = tuple(sorted({*kept["train"], *kept["valid"]}, key=str.encode))
            kept |= {"train": union, "valid": ()}
        more = {copy for utt in kept["train"] for copy in copies.get(utt, ()) if copy in usable} - set(kept["train"])
        if more:
            kept["train"] = tuple(sorted({*kept["train"], *more}, key=str.encode))
            print(f"fold {name}: {len(more)} copies of training utterances at other speeds are trained on too", flush=True)
        folds[name] = Fold(name, **kept)
        check_leaks(folds[name], speakers)
        if not kept["test"] or not kept["train"] or (system.selection == "valid" and not kept["valid"]):
            raise PyserError(f"{folds_dir}/{name}: a list has no usable utterance; mend the lists, or without a "
                             "validation list use --selection last")
    corpus = Corpus(folds, emotions, targets.labels({utt: emotions[utt] for utt in usable}), targets)
    asked = {fold.name: len(fold.test) for fold in everything.values()}
    _settings(exp_dir, system, corpus.labels, asked, data_dir, Path(folds_dir))
    write_table(exp_dir / targets.table, {utt: emotions[utt] for utt in usable})
    write_table(exp_dir / "utt2spk", {utt: speakers[utt] for utt in usable})
    features = _digest(system, sorted(usable))
    lines = []
    for name in names:
        if not only or name in only:
            lines.append(train_fold(system, corpus, name, exp_dir / f"fold{name}", features))
            print(lines[-1], flush=True)
    return lines


def _copies(emotions: Mapping[str, str], utts: set[str]) -> dict[str, list[str]]:
    """Utterance of the folds -> its copies at other speeds, which lists that were made before them do not have."""
    copies: dict[str, list[str]] = {}
    for utt in emotions:
        original = unperturbed(utt)
        if original != utt and original in utts:
            copies.setdefault(original, []).append(utt)
    return copies


def _usable(total: set[str], tables: Mapping[str, Mapping[str, object] | None], max_dropped: float) -> set[str]:
    """The utterances that every table has; says what the others lack."""
    usable, dropped = set(), Dropped("ser train", max_dropped)
    for utt in sorted(total, key=str.encode):
        lacking = [what for what, table in tables.items() if table is not None and utt not in table]
        if lacking:
            dropped.add(utt, f"without {lacking[0]}")
        else:
            usable.add(utt)
    print(dropped.finish(len(total)), flush=True)
    return usable


def train_fold(system: System[Any, Any, Any], corpus: Corpus, name: str, out_dir: Path, features: str) -> str:
    """Train, select and test one fold in `out_dir`; returns a line with the validation UA or CCC. features: the digest of
    all folds' features."""
    fold, emotions, labels, targets = corpus.folds[name], corpus.emotions, corpus.labels, corpus.targets
    utts = *fold.train, *fold.valid, *fold.test
    told = digest(f"{utt} {emotions[utt]}" for utt in utts)
    digests = fold.digests() | {"feats": _digest(system, utts, name), "labels": told}
    if _finished(out_dir, fold, digests, targets.outputs):
        return f"fold {name}: finished before"
    classes = targets.parse({utt: emotions[utt] for utt in utts}, labels)
    examples = system.load(fold.train, classes, f"fold {name} train")
    valid = system.load(fold.valid, classes, f"fold {name} valid") if fold.valid else None
    per_class = system.class_counts(examples, len(labels))
    if not per_class.all():
        missing = labels[int(per_class.argmin())]
        raise PyserError(f"fold {name}: no training utterance is labelled {missing}; mend train.list or utt2emo")
    set_seed(system.training.seed)
    weight = torch.from_numpy(per_class.sum() / (len(labels) * per_class)).float()
    model = system.model(labels, examples, fold)

    def valid_fn(model: nn.Module) -> dict[str, float]:
        assert valid is not None
        return targets.evaluate(system.posteriors(model, valid), valid.label)

    rows = train(
        model, lambda epoch: system.batches(examples, epoch), sum(1 for _ in system.batches(examples, 1)),
        lambda model, batch, progress: system.loss(model, examples, batch, weight), out_dir,
        replace(system.training, keep_checkpoints=1, keep_best=targets.figure if valid is not None else ""),
        valid_fn=valid_fn if valid is not None else None, describe=lambda batch: f"a batch of fold {name}",
    )
    best = rows[-1] if valid is None else best_epoch(rows, targets.figure)
    epoch = int(best["epoch"])
    model.load_state_dict(checkpoints.load(checkpoints.path_of(out_dir, epoch))["model"])
    model.eval()
    with torch.no_grad():
        tested = system.test(model, system.load(fold.test, classes, f"fold {name} test"), fold.test, out_dir)
    lines = [f"{utt} {' '.join(f'{p:.8g}' for p in row)}" for utt, row in zip(fold.test, tested.tolist(), strict=True)]
    system.save(out_dir / "final.safetensors", model, {
        "fold": name, "selection": system.selection, "epoch": str(epoch), "digests": json.dumps(digests),
        "selected_on": digests["valid"] if valid is not None else "", "features": features, "posteriors": digest(lines),
    })
    write_text(out_dir / targets.outputs, "".join(f"{line}\n" for line in lines))
    checkpoints.remove(out_dir)  # history.json stays
    chosen = "the last epoch"
    if valid is not None:
        chosen = f"epoch {epoch}, validation {targets.say(best[f'valid_{targets.figure}'])}"
    return f"fold {name}: {chosen}, {len(fold.test)} test utterances"


def _settings(
    exp_dir: Path, system: System[Any, Any, Any], labels: Sequence[str], asked: dict[str, int], data_dir: Path,
    folds_dir: Path,
) -> None:
    """Write ser.json, or check that the one that is there says the same."""
    path, now = exp_dir / "ser.json", system.settings()
    if path.exists():
        then = read_json(path)
        changed = [f"{name} {then['config'].get(name)} -> {now.get(name)}" for name in now | then["config"]
                   if then["config"].get(name) != now.get(name)]
        changed += [f"labels {' '.join(then['labels'])} -> {' '.join(labels)}"] if then["labels"] != labels else []
        if changed:
            raise PyserError(f"{exp_dir}: made with other settings ({', '.join(changed)}); delete it or use another")
    info = folds_dir / "info.json"
    about = read_json(info) if info.exists() else {}
    settings = {"config": now, "labels": labels, "folds": asked, "data": str(data_dir), "about": about}
    write_json(path, settings)


def _digest(system: System[Any, Any, Any], utts: Sequence[str], fold: str = "") -> str:
    """Changes when the archives of the utterances' features are written again."""
    entries = system.inputs(utts, fold)
    archives = sorted({entry.split("[")[0].rsplit(":", 1)[0] for entry in entries})
    stats = [os.stat(path) for path in archives if os.path.exists(path)]
    return digest([*utts, *entries, *(f"{s.st_size} {s.st_mtime_ns}" for s in stats)])


def _finished(out_dir: Path, fold: Fold, digests: dict[str, str], outputs: str) -> bool:
    """Whether the fold is trained and tested; if not, its lists are written (or left) and training may go on."""
    path = out_dir / "digests.json"
    if path.exists():
        then = read_json(path)
        changed = [name for name, value in digests.items() if then.get(name) != value]
        if changed and changed != ["feats"]:
            raise PyserError(f"{out_dir}: trained with other {changed[0]} list; delete it or use another directory")
        if changed:
            print(f"fold {fold.name}: the features have changed since; training it again", flush=True)
            shutil.rmtree(out_dir)
    if (out_dir / outputs).exists() and (out_dir / "final.safetensors").exists() and path.exists():
        return True
    write_fold(out_dir, fold)
    write_json(path, digests)
    return False
