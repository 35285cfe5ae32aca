"""Train a frame classifier for each fold: frames carry their utterance's emotion, decisions are made per utterance.

exp/ser.json utt2emo utt2spk       settings, and the labels and speakers that scoring needs
exp/foldN/{train,valid,test}.list  what was trained on, selected on and tested on, after dropping
exp/foldN/final.safetensors        metadata: selection, epoch, digests of the lists
exp/foldN/test_posteriors.txt      utterance and its posteriors, in the order of the labels; written last
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pyser.errors import Dropped, PyserError
from pyser.files import read_json, write_json, write_text
from pyser.kaldi.datadir import write_table
from pyser.kaldi.tables import load_mat, read_scp, read_table
from pyser.scoring.metrics import unweighted_accuracy, weighted_accuracy
from pyser.ser.folds import Fold, check_leaks, digest, fold_names, read_fold, write_fold
from pyser.ser.frame_classifier import CHUNK, FrameClassifier, SerConfig, save_classifier, utterance_posteriors
from pyser.ser.frames import Frames, load_frames, mean_and_std
from pyser.training import checkpoints
from pyser.training.loop import TrainConfig, set_seed, train

Batch = np.ndarray  # row numbers into the training frames


def train_folds(
    data_dir: str | Path,
    folds_dir: str | Path,
    exp_dir: str | Path,
    config: SerConfig,
    only: Sequence[str] = (),
    max_dropped: float = 0.05,
) -> list[str]:
    """Train the folds in `folds_dir` (those named in `only`, or all) on data_dir's feats.scp, utt2emo and utt2spk.

    Returns one line per fold. A finished fold is left alone and a half-done one continued; a fold whose features have
    changed since is trained anew. PyserError on other settings or lists than exp_dir was made with.
    """
    data_dir, exp_dir = Path(data_dir), Path(exp_dir)
    names = fold_names(folds_dir)
    unknown = sorted(set(only) - set(names))
    if unknown:
        raise PyserError(f"{folds_dir}: no fold {unknown[0]}; there are: {' '.join(names)}")
    feats, emotions = read_scp(data_dir / "feats.scp"), read_table(data_dir / "utt2emo")
    speakers = read_table(data_dir / "utt2spk")
    folds, dropped = {}, Dropped("ser train", max_dropped)
    everything = {name: read_fold(Path(folds_dir) / name, name) for name in names}
    total = {utt for fold in everything.values() for utt in (*fold.train, *fold.valid, *fold.test)}
    for utt in sorted(total, key=str.encode):
        if not emotions.get(utt):
            dropped.add(utt, "without label in utt2emo")
        elif utt not in feats:
            dropped.add(utt, "without features in feats.scp")
    print(dropped.finish(len(total)), flush=True)
    usable = {utt for utt in total if emotions.get(utt) and utt in feats}
    for name, fold in everything.items():
        kept = {part: tuple(u for u in getattr(fold, part) if u in usable) for part in ("train", "valid", "test")}
        if config.selection == "last":  # nothing is selected, so the validation speakers are trained on
            union = tuple(sorted({*kept["train"], *kept["valid"]}, key=str.encode))
            kept |= {"train": union, "valid": ()}
        folds[name] = Fold(name, **kept)
        check_leaks(folds[name], speakers)
        if not kept["test"] or not kept["train"] or (config.selection == "valid" and not kept["valid"]):
            raise PyserError(f"{folds_dir}/{name}: a list has no usable utterance; mend the lists, or without a "
                             "validation list use --selection last")
    labels = sorted({emotions[utt] for utt in usable})
    asked = {fold.name: len(fold.test) for fold in everything.values()}
    _settings(exp_dir, config, labels, asked, data_dir, Path(folds_dir))
    write_table(exp_dir / "utt2emo", {utt: emotions[utt] for utt in usable})
    write_table(exp_dir / "utt2spk", {utt: speakers[utt] for utt in usable})
    lines = []
    for name in names:
        if not only or name in only:
            lines.append(train_fold(exp_dir / f"fold{name}", folds[name], feats, emotions, labels, config))
            print(lines[-1], flush=True)
    return lines


def train_fold(
    out_dir: Path, fold: Fold, feats: Mapping[str, str], emotions: Mapping[str, str], labels: Sequence[str],
    config: SerConfig,
) -> str:
    """Train, select and test one fold in `out_dir`; returns a line with the validation UA."""
    digests = fold.digests() | {"feats": _features_digest(fold, feats), "labels": digest(
        f"{utt} {emotions[utt]}" for utt in (*fold.train, *fold.valid, *fold.test))}
    if _finished(out_dir, fold, digests):
        return f"fold {fold.name}: finished before"
    classes = {utt: labels.index(emotions[utt]) for utt in (*fold.train, *fold.valid)}
    frames = load_frames(fold.train, feats, classes, config.subsample, f"fold {fold.name} train")
    valid = load_frames(fold.valid, feats, classes, config.subsample, f"fold {fold.name} valid") if fold.valid else None
    per_class = np.bincount(frames.label[frames.utt], minlength=len(labels))
    if not per_class.all():
        missing = labels[int(per_class.argmin())]
        raise PyserError(f"fold {fold.name}: no training utterance is labelled {missing}; mend train.list or utt2emo")
    weight = torch.from_numpy(len(frames) / (len(labels) * per_class)).float() if config.class_balanced else None
    set_seed(config.seed)
    model = FrameClassifier(frames.feats.shape[1], labels, config)
    model.mean[:], model.std[:] = (torch.from_numpy(value) for value in mean_and_std(frames.feats))
    steps = -(-len(frames) // config.batch_frames)

    def batches(epoch: int) -> Iterator[Batch]:
        order = np.random.default_rng([config.seed, epoch]).permutation(len(frames))
        for part in np.array_split(order, steps):
            if len(part) > 1:  # batch norm needs two
                yield np.sort(part)  # in memory order; a batch is a set

    def loss_fn(model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        x = torch.from_numpy(frames.feats[batch]).float()
        y = torch.from_numpy(frames.label[frames.utt[batch]])
        log_posteriors = model(x)
        loss = nn.functional.nll_loss(log_posteriors, y, weight)
        return loss, {"weight": len(batch), "frame_wa": float((log_posteriors.argmax(dim=1) == y).sum())}

    def valid_fn(model: nn.Module) -> dict[str, float]:
        assert valid is not None
        return _evaluate(model, valid, len(labels))

    settings = TrainConfig(config.num_epochs, config.lr_initial, config.lr_final, weight_decay=config.weight_decay,
                           seed=config.seed)
    rows = train(model, batches, steps, loss_fn, out_dir, settings, valid_fn=valid_fn if valid is not None else None,
                 describe=lambda batch: f"{len(batch)} frames of fold {fold.name}")
    best = rows[-1] if valid is None else max(rows, key=lambda row: (row["valid_ua"], -row["valid_loss"]))
    epoch = int(best["epoch"])
    model.load_state_dict(checkpoints.load(checkpoints.path_of(out_dir, epoch))["model"])
    save_classifier(out_dir / "final.safetensors", model, {
        "fold": fold.name, "selection": config.selection, "epoch": str(epoch), "digests": json.dumps(digests),
        "selected_on": digests["valid"] if valid is not None else "",
    })
    _write_posteriors(out_dir / "test_posteriors.txt", model, fold.test, feats)
    checkpoints.remove(out_dir)  # history.json stays
    chosen = f"epoch {epoch}, validation UA {100 * best['valid_ua']:.1f}" if valid is not None else "the last epoch"
    return f"fold {fold.name}: {chosen}, {len(fold.test)} test utterances"


def _evaluate(model: nn.Module, frames: Frames, num_labels: int) -> dict[str, float]:
    """UA and WA over utterances, and the mean frame loss."""
    sums, loss = torch.zeros(len(frames.label), num_labels, dtype=torch.float64), 0.0
    for at in range(0, len(frames), CHUNK):
        part = slice(at, at + CHUNK)
        log_posteriors = model(torch.from_numpy(frames.feats[part]).float())
        utt = torch.from_numpy(frames.utt[part])
        sums.index_add_(0, utt, log_posteriors.exp().double())
        y = torch.from_numpy(frames.label)[utt]
        loss += float(nn.functional.nll_loss(log_posteriors, y, reduction="sum"))
    counts = np.zeros((num_labels, num_labels), dtype=np.int64)
    np.add.at(counts, (frames.label, sums.argmax(dim=1).numpy()), 1)
    return {"ua": unweighted_accuracy(counts), "wa": weighted_accuracy(counts), "loss": loss / len(frames)}


def _write_posteriors(path: Path, model: FrameClassifier, utts: Sequence[str], feats: Mapping[str, str]) -> None:
    """`utt p1 p2 …`, one line per utterance, over all of its frames."""
    lines = []
    for utt in utts:
        try:
            posteriors = utterance_posteriors(model, load_mat(feats[utt]))
        except PyserError as error:
            raise PyserError(f"{utt}: {error}") from None
        lines.append(f"{utt} {' '.join(f'{p:.8g}' for p in posteriors)}\n")
    write_text(path, "".join(lines))


def _settings(
    exp_dir: Path, config: SerConfig, labels: list[str], asked: dict[str, int], data_dir: Path, folds_dir: Path
) -> None:
    """Write ser.json, or check that the one that is there says the same."""
    path = exp_dir / "ser.json"
    if path.exists():
        then = read_json(path)
        now = asdict(config)
        changed = [f"{name} {then['config'].get(name)} -> {now[name]}" for name in now
                   if then["config"].get(name) != now[name]]
        changed += [f"labels {' '.join(then['labels'])} -> {' '.join(labels)}"] if then["labels"] != labels else []
        if changed:
            raise PyserError(f"{exp_dir}: made with other settings ({', '.join(changed)}); delete it or use another")
    info = folds_dir / "info.json"
    about = read_json(info) if info.exists() else {}
    settings = {"config": asdict(config), "labels": labels, "folds": asked, "data": str(data_dir), "about": about}
    write_json(path, settings)


def _features_digest(fold: Fold, feats: Mapping[str, str]) -> str:
    """Changes when the archives of the fold's features are written again."""
    utts = (*fold.train, *fold.valid, *fold.test)
    archives = sorted({feats[utt].split("[")[0].rsplit(":", 1)[0] for utt in utts})
    stats = [os.stat(path) for path in archives if os.path.exists(path)]
    return digest([*(f"{utt} {feats[utt]}" for utt in utts), *(f"{s.st_size} {s.st_mtime_ns}" for s in stats)])


def _finished(out_dir: Path, fold: Fold, digests: dict[str, str]) -> bool:
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
    if (out_dir / "test_posteriors.txt").exists() and (out_dir / "final.safetensors").exists() and path.exists():
        return True
    write_fold(out_dir, fold)
    write_json(path, digests)
    return False
