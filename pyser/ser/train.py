"""Classifiers of frames, or of all frames of an utterance, as a system of experiments: on bottlenecks in files, or on an
acoustic model whose layers learn with them. Frames carry their utterance's emotion, decisions are made per utterance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.kaldi.tables import load_mat, read_scp, read_table
from pyser.ser.examples import Batch, Examples, StoredExamples, groups, load_examples, posteriors
from pyser.ser.experiment import Loss, run_folds
from pyser.ser.folds import Fold
from pyser.ser.frame_classifier import FrameClassifier, SerConfig
from pyser.ser.frames import load_frames, mean_and_std
from pyser.ser.network import EmotionNetwork, save_network
from pyser.ser.trunk import TrunkConfig, load_trunk
from pyser.training.loop import TrainConfig


@dataclass(frozen=True)
class FrameSystem:
    """rxfilenames by utterance: feats are bottlenecks, or, with a trunk, what it is computed from; ivectors for it; vad where
    silence is left out; cmvn (2, D + 1): the statistics that an utterance is normalised by."""

    config: SerConfig
    feats: Mapping[str, str]
    ivectors: Mapping[str, str] | None = None
    trunk: TrunkConfig | None = None
    vad: Mapping[str, str] | None = None
    cmvn: Mapping[str, str] | None = None

    @property
    def selection(self) -> str:
        return self.config.selection

    @property
    def training(self) -> TrainConfig:
        c = self.config
        return TrainConfig(c.num_epochs, c.lr_initial, c.lr_final, weight_decay=c.weight_decay, seed=c.seed,
                           precision=c.precision, learning_rate_factors=(("trunk.", c.learning_rate_factor),),
                           counted="frames" if c.of_frames else "utterances")

    def settings(self) -> dict[str, Any]:
        trunk = asdict(self.trunk) if self.trunk is not None else {}
        return asdict(self.config) | {f"trunk_{name}": value for name, value in trunk.items()}

    def tables(self) -> dict[str, Mapping[str, object] | None]:
        return {"features in feats.scp": self.feats, "i-vectors": self.ivectors, "vad": self.vad,
                "CMVN statistics of the speaker": self.cmvn}

    def inputs(self, utts: Sequence[str], fold: str = "") -> list[str]:
        tables = self.feats, self.ivectors, self.vad, self.cmvn
        return [table[utt] for table in tables if table is not None for utt in utts]

    def load(self, utts: Sequence[str], classes: Mapping[str, int], part: str) -> Examples:
        if self.trunk is not None:
            return load_examples(utts, self.feats, self.ivectors, classes, self.trunk.subsampling, self.vad)
        subsample = 1 if part.endswith("test") else self.config.subsample
        cmvn = None
        if self.cmvn is not None:
            stats = {rxfilename: load_mat(rxfilename) for rxfilename in {self.cmvn[utt] for utt in utts}}
            cmvn = {utt: stats[self.cmvn[utt]] for utt in utts}
        return StoredExamples(load_frames(utts, self.feats, classes, subsample, part, self.vad, cmvn))

    def class_counts(self, examples: Examples, num_classes: int) -> np.ndarray:
        frames = examples.lengths if self.config.of_frames else None
        return np.bincount(examples.label, frames, minlength=num_classes)

    def model(self, labels: Sequence[str], examples: Examples, fold: Fold) -> EmotionNetwork:
        trunk = load_trunk(self.trunk) if self.trunk is not None else None
        dim = trunk.dim if trunk is not None else load_mat(next(iter(self.feats.values()))).shape[1]
        network = EmotionNetwork(FrameClassifier(dim, labels, self.config), trunk)
        mean, std = normalisation(network, examples)
        network.classifier.mean[:], network.classifier.std[:] = torch.from_numpy(mean), torch.from_numpy(std)
        return network

    def batches(self, examples: Examples, epoch: int) -> Iterator[Batch]:
        return examples.batches(epoch, self.config)

    def loss(self, model: EmotionNetwork, examples: Examples, batch: Batch, weight: Tensor) -> Loss:
        x, utt, label = examples.rows(model, batch, self.config)
        loss, log_posteriors, label = model.classifier.loss(x, utt, label, weight if self.config.class_balanced else None)
        return loss, {"weight": len(label), "wa": float((log_posteriors.argmax(dim=1) == label).sum())}

    def posteriors(self, model: EmotionNetwork, examples: Examples) -> Tensor:
        return posteriors(model, examples)

    def test(self, model: EmotionNetwork, examples: Examples, utts: Sequence[str], out_dir: Path) -> Tensor:
        return self.posteriors(model, examples)

    def save(self, path: Path, model: EmotionNetwork, metadata: dict[str, str]) -> None:
        save_network(path, model, metadata)


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
    """Train the folds in `folds_dir` on data_dir's feats.scp, utt2emo and utt2spk; see `run_folds`.

    trunk : the layers that learn with the classifier; data_dir then holds the acoustic model's own features, ivector_dir its
        i-vectors. Without it feats.scp is of bottlenecks.
    vad_scp : which frames of the acoustic model's features are speech (`pyser vad compute`), for config.vad
    """
    data_dir = Path(data_dir)
    if config.vad != (vad_scp is not None):
        raise PyserError("--vad=true and --vad-scp FILE belong together: give both or neither")
    ivectors = None if ivector_dir is None else read_scp(Path(ivector_dir) / "ivector_online.scp")
    vad = None if vad_scp is None else read_scp(vad_scp)
    cmvn = speaker_cmvn(data_dir, trunk) if config.cmvn == "speaker" else None
    system = FrameSystem(config, read_scp(data_dir / "feats.scp"), ivectors, trunk, vad, cmvn)
    return run_folds(system, data_dir, folds_dir, exp_dir, only, max_dropped)


def speaker_cmvn(data_dir: Path, trunk: TrunkConfig | None) -> dict[str, str]:
    """Utterance -> the statistics of its speaker's bottlenecks in data_dir/cmvn.scp."""
    if trunk is not None:
        raise PyserError("--cmvn=speaker needs bottlenecks in files: those of layers that learn have no statistics yet")
    path = data_dir / "cmvn.scp"
    if not path.exists():
        raise PyserError(f"{path}: missing; make_bottleneck_features.sh writes it, or pyser cmvn compute --spk2utt")
    stats, speakers = read_scp(path), read_table(data_dir / "utt2spk")
    return {utt: stats[speaker] for utt, speaker in speakers.items() if speaker in stats}


def normalisation(model: EmotionNetwork, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (D,) of the classifier's input over all frames, as it is before training."""
    if isinstance(examples, StoredExamples):
        return mean_and_std(examples.frames.feats)
    model.eval()
    with torch.no_grad():
        parts = [examples.utterances(model, group)[0].numpy() for group in groups(examples.lengths)]
    return mean_and_std(np.concatenate(parts))
