"""Activation, valence and dominance by an encoder, pretrained or not, and a regressor (pyser.nn.sa2sr), as a system of
experiments.

The loss is minus the mean over the dimensions of the concordance correlation coefficient within the batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyser.device import choose_device
from pyser.errors import PyserError
from pyser.nn import model_io
from pyser.nn.sa2sr import Encoder, EncoderConfig, Regressor, RegressorConfig, concordance
from pyser.ser.experiment import Loss, run_folds
from pyser.ser.filterbanks import FRAME_SECONDS, Filterbanks, even_batches, padding
from pyser.ser.folds import SELECTIONS, Fold
from pyser.ser.pretraining import load_encoder
from pyser.ser.targets import RATINGS
from pyser.training.loop import TrainConfig

KIND = "pyser regression"
EVALUATED_UTTERANCES = 32  # at a time
Batch = np.ndarray  # the epoch, then numbers of utterances


@dataclass(frozen=True)
class RegressionConfig:
    """A line `--name=value` each in conf/regression.conf.

    encoder: a directory of `pyser sa2sr pretrain`; without one the encoder is of random parameters, of these layers and
    units. freeze: the encoder keeps its parameters. pretraining and encoder_id: what the encoder learnt, and the beginning
    of its file's SHA-256; both are found, not given. spec_augment: the probability of each of its masks.
    """

    encoder: str = ""
    freeze: bool = False
    stack: int = 3
    layers: int = 5
    units: int = 192
    nodes: int = 64
    heads: int = 4
    dropout: float = 0.0
    spec_augment: float = 0.5
    num_epochs: int = 30
    lr_initial: float = 1e-3
    lr_final: float = 1e-4
    weight_decay: float = 0.0
    batch_utterances: int = 32
    precision: str = "float32"
    num_threads: int = 1
    seed: int = 0
    selection: str = "valid"
    pretraining: str = "none"
    encoder_id: str = ""

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise PyserError(f"--selection={self.selection}; known: {' '.join(SELECTIONS)}")
        if min(self.num_epochs, self.batch_utterances - 1) < 1 or not 0 <= self.spec_augment <= 1:
            raise PyserError("--num-epochs must be at least 1, --batch-utterances at least 2, --spec-augment from 0 to 1")


class RegressionModel(nn.Module):
    """x (N, T, feat_dim), lengths (N,) -> ratings (N, K), on the scale of the corpus, whose mean and standard deviation (K,)
    are part of the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, config: RegressionConfig, labels: Sequence[str]):
        super().__init__()
        self.config, self.labels, self.encoder = config, tuple(labels), encoder
        sizes = RegressorConfig(config.nodes, config.heads, config.dropout)
        self.regressor = Regressor(encoder.config.dim, len(self.labels), sizes)
        self.register_buffer("mean", torch.zeros(len(self.labels)))
        self.register_buffer("std", torch.ones(len(self.labels)))

    def train(self, mode: bool = True) -> RegressionModel:
        super().train(mode)
        if self.config.freeze:
            self.encoder.eval()  # (without the dropout of its pretraining)
        return self

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        frames = self.encoder(x.to(self.mean.device), lengths)
        ratings: Tensor = self.regressor(frames).float() * self.std + self.mean
        return ratings


@dataclass(frozen=True)
class RatedExamples:
    """label (U, K): the ratings of each utterance, whose features are read when they are needed."""

    utts: Sequence[str]
    label: np.ndarray
    feats: Filterbanks

    @property
    def lengths(self) -> np.ndarray:
        return np.array([self.feats.length(utt) for utt in self.utts])


@dataclass(frozen=True)
class RegressionSystem:
    config: RegressionConfig
    feats: Filterbanks

    @property
    def selection(self) -> str:
        return self.config.selection

    @property
    def training(self) -> TrainConfig:
        c = self.config
        return TrainConfig(c.num_epochs, c.lr_initial, c.lr_final, weight_decay=c.weight_decay, seed=c.seed, optimizer="adam",
                           precision=c.precision, counted="utterances")

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def tables(self) -> dict[str, Mapping[str, object] | None]:
        return {"features": self.feats.rxfilenames}

    def inputs(self, utts: Sequence[str], fold: str = "") -> list[str]:
        return [self.feats.rxfilenames[utt] for utt in utts]

    def load(self, utts: Sequence[str], classes: Mapping[str, Sequence[float]], part: str) -> RatedExamples:
        examples = RatedExamples(utts, np.array([classes[utt] for utt in utts], dtype=np.float64), self.feats)
        hours, line = sum(self.feats.frames[utt] for utt in utts) * FRAME_SECONDS / 3600, f"{part}: {len(utts)} utterances"
        groups = [[utts[n] for n in batch[1:]] for batch in self.batches(examples, 1)]
        if part.endswith("train") and groups:
            line += f", {100 * padding(groups, {utt: self.feats.length(utt) for utt in utts}):.1f}% padding"
        print(f"{line}, {hours:.2f} h", flush=True)
        return examples

    def class_counts(self, examples: RatedExamples, num_classes: int) -> np.ndarray:
        return np.full(num_classes, len(examples.label))

    def model(self, labels: Sequence[str], examples: RatedExamples, fold: Fold) -> RegressionModel:
        c = self.config
        if c.encoder:  # every fold begins with the one that was given
            encoder, _ = load_encoder(c.encoder)
        else:
            encoder = Encoder(EncoderConfig(self.feats.dim, c.layers, c.units))
        model = RegressionModel(encoder, c, labels)
        std = examples.label.std(axis=0)
        if not std.all():
            raise PyserError(f"every training utterance has the same {labels[int(std.argmin())]}; mend utt2avd")
        model.mean[:], model.std[:] = torch.from_numpy(examples.label.mean(axis=0)), torch.from_numpy(std)
        if c.freeze:
            model.encoder.requires_grad_(False)
        return model.to(choose_device("optional"))

    def batches(self, examples: RatedExamples, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([self.config.seed, epoch])
        for part in even_batches(examples.lengths, self.config.batch_utterances, rng):
            if len(part) > 1:  # (no correlation of one)
                yield np.concatenate([[epoch], part])  # the epoch decides how its utterances are masked

    def loss(self, model: RegressionModel, examples: RatedExamples, batch: Batch, weight: Tensor) -> Loss:
        epoch, utts = int(batch[0]), batch[1:]
        found = model(*examples.feats.load([examples.utts[utt] for utt in utts], epoch))
        target = torch.from_numpy(examples.label[utts]).to(found.device)
        # On a common scale: the corpus's own would make no difference, but for the rounding.
        ccc = concordance((found - model.mean) / model.std, (target - model.mean) / model.std).mean()
        return -ccc, {"weight": float(len(utts)), "ccc": float(ccc.detach()) * len(utts)}

    def posteriors(self, model: RegressionModel, examples: RatedExamples) -> Tensor:
        order = np.argsort(examples.lengths, kind="stable")
        found = torch.zeros(examples.label.shape, dtype=torch.float64)
        for group in np.array_split(order, -(-len(order) // EVALUATED_UTTERANCES)):
            ratings = model(*examples.feats.load([examples.utts[utt] for utt in group]))
            found[torch.from_numpy(group)] = ratings.detach().cpu().double()
        return found

    def test(self, model: RegressionModel, examples: RatedExamples, utts: Sequence[str], out_dir: Path) -> Tensor:
        return self.posteriors(model, examples)

    def save(self, path: Path, model: RegressionModel, metadata: dict[str, str]) -> None:
        model_io.save(path, model, self.config, {"kind": KIND, "labels": json.dumps(list(model.labels)),
                                                 "sizes": json.dumps(asdict(model.encoder.config)), **metadata})


def fine_tune(
    data_dir: str | Path, folds_dir: str | Path, exp_dir: str | Path, config: RegressionConfig, only: Sequence[str] = (),
    max_dropped: float = 0.05,
) -> list[str]:
    """Train the folds in `folds_dir` on the filterbanks, utt2avd and utt2spk of data_dir; see `run_folds`."""
    torch.set_num_threads(config.num_threads)
    if config.freeze and not config.encoder:
        raise PyserError("--freeze keeps random parameters where there is no --encoder; give one, or leave --freeze out")
    config = replace(config, pretraining="none", encoder_id="")
    if config.encoder:
        encoder, metadata = load_encoder(config.encoder)
        pretrained = json.loads(metadata["config"])
        config = replace(config, stack=pretrained["stack"], layers=encoder.config.layers, units=encoder.config.units,
                         pretraining=metadata["objective"],
                         encoder_id=model_io.file_digest(Path(config.encoder) / "final.safetensors"))
    feats = Filterbanks.of(data_dir, config.stack, config.spec_augment, config.seed)
    if config.encoder and feats.dim != encoder.config.feat_dim:
        raise PyserError(f"{data_dir}: features of {feats.dim // config.stack} dimensions, {config.encoder} was trained on "
                         f"{encoder.config.feat_dim // config.stack}; compute them with the same conf/fbank.conf")
    return run_folds(RegressionSystem(config, feats), data_dir, folds_dir, exp_dir, only, max_dropped, RATINGS)


def read_regression(path: str | Path) -> tuple[RegressionModel, dict[str, str]]:
    """In eval mode, with its metadata; PyserError if the file is missing, damaged or another model's."""
    state, metadata = model_io.read(path)
    if metadata.get("kind") != KIND:
        raise PyserError(f"{path}: not a {KIND}; give a file that `pyser sa2sr fine-tune` wrote")
    try:
        encoder = Encoder(EncoderConfig(**json.loads(metadata["sizes"])))
        model = RegressionModel(encoder, RegressionConfig(**json.loads(metadata["config"])), json.loads(metadata["labels"]))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PyserError(f"{path}: not readable ({str(error).splitlines()[0][:80]}); train this fold again") from None
    return model.eval(), metadata
