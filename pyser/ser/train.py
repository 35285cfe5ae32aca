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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pyser.errors import Dropped, PyserError
from pyser.files import read_json, write_json, write_text
from pyser.kaldi.datadir import write_table
from pyser.kaldi.tables import load_mat, read_scp, read_table
from pyser.scoring.metrics import unweighted_accuracy, weighted_accuracy
from pyser.ser.examples import Batch, Examples, StoredExamples, groups, load_examples, posteriors
from pyser.ser.folds import Fold, check_leaks, digest, fold_names, read_fold, write_fold
from pyser.ser.frame_classifier import FrameClassifier, SerConfig
from pyser.ser.frames import load_frames, mean_and_std
from pyser.ser.network import EmotionNetwork, save_network
from pyser.ser.trunk import Trunk, TrunkConfig, load_trunk
from pyser.training import checkpoints
from pyser.training.loop import TrainConfig, set_seed, train


@dataclass(frozen=True)
class Inputs:
    """rxfilenames by utterance: feats are bottlenecks, or, with a trunk, what it is computed from; ivectors for it; vad where
    silence is left out; cmvn: the statistics that an utterance is normalised by."""

    feats: Mapping[str, str]
    ivectors: Mapping[str, str] | None = None
    trunk: TrunkConfig | None = None
    vad: Mapping[str, str] | None = None
    cmvn: Mapping[str, np.ndarray] | None = None

    def load(self, utts: Sequence[str], classes: Mapping[str, int], subsample: int, what: str) -> Examples:
        """`what` is said of how much memory they take."""
        if self.trunk is not None:
            return load_examples(utts, self.feats, self.ivectors, classes, self.trunk.subsampling, self.vad)
        return StoredExamples(load_frames(utts, self.feats, classes, subsample, what, self.vad, self.cmvn))

    def dim(self, trunk: Trunk | None) -> int:
        """Columns of the classifier's input."""
        return trunk.dim if trunk is not None else load_mat(next(iter(self.feats.values()))).shape[1]


def train_folds(
    data_dir: str | Path,
    folds_dir: str | Path,
    exp_dir: str | Path,
    config: SerConfig,
    only: Sequence[str] = (),
    max_dropped: float = 0.05,
    trunk: TrunkConfig | None = None,
    ivector_dir: str | Path | None = None,
    vad_scp: str | Path | None = None,
) -> list[str]:
    """Train the folds in `folds_dir` (those named in `only`, or all) on data_dir's feats.scp, utt2emo and utt2spk.

    trunk : the layers that learn with the classifier; data_dir then holds the acoustic model's own features, ivector_dir its
        i-vectors. Without it feats.scp is of bottlenecks.
    vad_scp : which frames of the acoustic model's features are speech (`pyser vad compute`), for config.vad

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
    ivectors = None if ivector_dir is None else read_scp(Path(ivector_dir) / "ivector_online.scp")
    if config.vad != (vad_scp is not None):
        raise PyserError("--vad=true and --vad-scp FILE belong together: give both or neither")
    vad = None if vad_scp is None else read_scp(vad_scp)
    cmvn = speaker_cmvn(data_dir, speakers, trunk) if config.cmvn == "speaker" else None
    inputs = Inputs(feats, ivectors, trunk, vad, cmvn)
    folds, dropped = {}, Dropped("ser train", max_dropped)
    everything = {name: read_fold(Path(folds_dir) / name, name) for name in names}
    total = {utt for fold in everything.values() for utt in (*fold.train, *fold.valid, *fold.test)}
    tables: dict[str, Mapping[str, object] | None] = {
        "label in utt2emo": {utt: emotion for utt, emotion in emotions.items() if emotion}, "features in feats.scp": feats,
        "i-vectors": ivectors, "vad": vad, "CMVN statistics of the speaker": cmvn,
    }
    usable = set()
    for utt in sorted(total, key=str.encode):
        lacking = [what for what, table in tables.items() if table is not None and utt not in table]
        if lacking:
            dropped.add(utt, f"without {lacking[0]}")
        else:
            usable.add(utt)
    print(dropped.finish(len(total)), flush=True)
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
    _settings(exp_dir, config, trunk, labels, asked, data_dir, Path(folds_dir))
    write_table(exp_dir / "utt2emo", {utt: emotions[utt] for utt in usable})
    write_table(exp_dir / "utt2spk", {utt: speakers[utt] for utt in usable})
    features = _features_digest(sorted(usable), inputs)
    lines = []
    for name in names:
        if not only or name in only:
            lines.append(train_fold(exp_dir / f"fold{name}", folds[name], inputs, emotions, labels, config, features))
            print(lines[-1], flush=True)
    return lines


def speaker_cmvn(data_dir: Path, speakers: Mapping[str, str], trunk: TrunkConfig | None) -> dict[str, np.ndarray]:
    """Utterance -> statistics (2, D + 1) of its speaker's bottlenecks, from data_dir/cmvn.scp."""
    if trunk is not None:
        raise PyserError("--cmvn=speaker needs bottlenecks in files: those of layers that learn have no statistics yet")
    path = data_dir / "cmvn.scp"
    if not path.exists():
        raise PyserError(f"{path}: missing; make_bottleneck_features.sh writes it, or pyser cmvn compute --spk2utt")
    stats = {speaker: load_mat(rxfilename) for speaker, rxfilename in read_scp(path).items()}
    return {utt: stats[speaker] for utt, speaker in speakers.items() if speaker in stats}


def train_fold(
    out_dir: Path, fold: Fold, inputs: Inputs, emotions: Mapping[str, str], labels: Sequence[str], config: SerConfig,
    features: str,
) -> str:
    """Train, select and test one fold in `out_dir`; returns a line with the validation UA. features: the digest of all
    folds' features."""
    utts = *fold.train, *fold.valid, *fold.test
    digests = fold.digests() | {"feats": _features_digest(utts, inputs), "labels": digest(
        f"{utt} {emotions[utt]}" for utt in utts)}
    if _finished(out_dir, fold, digests):
        return f"fold {fold.name}: finished before"
    classes = {utt: labels.index(emotions[utt]) for utt in utts}
    examples = inputs.load(fold.train, classes, config.subsample, f"fold {fold.name} train")
    valid = inputs.load(fold.valid, classes, config.subsample, f"fold {fold.name} valid") if fold.valid else None
    per_class = np.bincount(examples.label, examples.lengths if config.of_frames else None, minlength=len(labels))
    if not per_class.all():
        missing = labels[int(per_class.argmin())]
        raise PyserError(f"fold {fold.name}: no training utterance is labelled {missing}; mend train.list or utt2emo")
    weight = torch.from_numpy(per_class.sum() / (len(labels) * per_class)).float() if config.class_balanced else None
    set_seed(config.seed)
    trunk = load_trunk(inputs.trunk) if inputs.trunk is not None else None
    model = EmotionNetwork(FrameClassifier(inputs.dim(trunk), labels, config), trunk)
    mean, std = normalisation(model, examples)
    model.classifier.mean[:], model.classifier.std[:] = torch.from_numpy(mean), torch.from_numpy(std)

    def loss_fn(model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, EmotionNetwork)
        x, utt, label = examples.rows(model, batch, config)
        loss, log_posteriors, label = model.classifier.loss(x, utt, label, weight)
        return loss, {"weight": len(label), "wa": float((log_posteriors.argmax(dim=1) == label).sum())}

    def valid_fn(model: nn.Module) -> dict[str, float]:
        assert valid is not None and isinstance(model, EmotionNetwork)
        return _evaluate(model, valid, len(labels))

    settings = TrainConfig(config.num_epochs, config.lr_initial, config.lr_final, weight_decay=config.weight_decay,
                           seed=config.seed)
    steps = sum(1 for _ in examples.batches(1, config))
    rows = train(model, lambda epoch: examples.batches(epoch, config), steps, loss_fn, out_dir, settings,
                 valid_fn=valid_fn if valid is not None else None, describe=lambda batch: f"a batch of fold {fold.name}")
    best = rows[-1] if valid is None else max(rows, key=lambda row: (row["valid_ua"], -row["valid_loss"]))
    epoch = int(best["epoch"])
    model.load_state_dict(checkpoints.load(checkpoints.path_of(out_dir, epoch))["model"])
    model.eval()
    tested = posteriors(model, inputs.load(fold.test, classes, 1, f"fold {fold.name} test"))
    lines = [f"{utt} {' '.join(f'{p:.8g}' for p in row)}" for utt, row in zip(fold.test, tested.tolist(), strict=True)]
    save_network(out_dir / "final.safetensors", model, {
        "fold": fold.name, "selection": config.selection, "epoch": str(epoch), "digests": json.dumps(digests),
        "selected_on": digests["valid"] if valid is not None else "", "features": features, "posteriors": digest(lines),
    })
    write_text(out_dir / "test_posteriors.txt", "".join(f"{line}\n" for line in lines))
    checkpoints.remove(out_dir)  # history.json stays
    chosen = f"epoch {epoch}, validation UA {100 * best['valid_ua']:.1f}" if valid is not None else "the last epoch"
    return f"fold {fold.name}: {chosen}, {len(fold.test)} test utterances"


def normalisation(model: EmotionNetwork, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of the classifier's input over all frames, as it is before training."""
    if isinstance(examples, StoredExamples):
        return mean_and_std(examples.frames.feats)
    model.eval()
    with torch.no_grad():
        parts = [examples.utterances(model, group)[0].numpy() for group in groups(examples.lengths)]
    return mean_and_std(np.concatenate(parts))


def _evaluate(model: EmotionNetwork, examples: Examples, num_labels: int) -> dict[str, float]:
    """UA and WA over utterances, and their mean loss."""
    found = posteriors(model, examples)
    counts = np.zeros((num_labels, num_labels), dtype=np.int64)
    np.add.at(counts, (examples.label, found.argmax(dim=1).numpy()), 1)
    right = found[torch.arange(len(found)), torch.from_numpy(examples.label)]
    loss = float(-right.clamp_min(1e-30).log().mean())
    return {"ua": unweighted_accuracy(counts), "wa": weighted_accuracy(counts), "loss": loss}


def _settings(
    exp_dir: Path, config: SerConfig, trunk: TrunkConfig | None, labels: list[str], asked: dict[str, int], data_dir: Path,
    folds_dir: Path,
) -> None:
    """Write ser.json, or check that the one that is there says the same."""
    path = exp_dir / "ser.json"
    now = asdict(config) | {f"trunk_{name}": value for name, value in (asdict(trunk) if trunk is not None else {}).items()}
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


def _features_digest(utts: Sequence[str], inputs: Inputs) -> str:
    """Changes when the archives of the utterances' features are written again."""
    entries = [table[utt] for table in (inputs.feats, inputs.ivectors, inputs.vad) if table is not None for utt in utts]
    archives = sorted({entry.split("[")[0].rsplit(":", 1)[0] for entry in entries})
    stats = [os.stat(path) for path in archives if os.path.exists(path)]
    return digest([*utts, *entries, *(f"{s.st_size} {s.st_mtime_ns}" for s in stats)])


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
