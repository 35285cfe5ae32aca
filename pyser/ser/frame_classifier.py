"""Emotion of an utterance from frames of an acoustic model's bottleneck (Zhou & Beigi, 2020), in four ways.

    frame (D) -> normalise -> affine -> ReLU -> batch norm -> dropout -> affine -> softmax over the emotions

sum: frames are trained, and the posteriors of an utterance's frames are summed (the paper). log: their logarithms are.
statistics, attention: an utterance's mean and standard deviation over its frames, each counting the same (Snyder et al.,
X-vectors, ICASSP 2018) or by learnt weights (Okabe et al., Attentive statistics pooling, Interspeech 2018), take the place
of the frame, and utterances are trained: what the paper names as its next step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.nn import model_io
from pyser.ser.folds import SELECTIONS

KIND = "pyser frame classifier"
POOLINGS = ("sum", "log", "statistics", "attention")
ATTENTION_DIM = 64
CHUNK = 16384  # frames per forward pass outside training
FLOOR = 1e-4  # of the variance over an utterance's frames, the normalised corpus having 1


@dataclass(frozen=True)
class SerConfig:
    """One classifier and how to train it.

    selection `valid`: the epoch with the best UA on the validation list; `last`: fixed epochs, the validation list is
    trained on as well. subsample n: every n-th frame of the training and validation utterances (test: all frames).
    class_balanced: frames (of the poolings that train utterances: these) weighted so that every emotion counts the same.
    pooling: see above. batch_frames, batch_utterances: of a step, whichever of them are trained; utterances too where the
    acoustic model learns. spec_augment: where it does, see pyser.chain.specaugment; learning_rate_factor: its layers'
    learning rate is so many times the classifier's. input_dropout: of pooled statistics.
    vad: frames that are silence are left out, in training and in test; see pyser.features.vad.
    cmvn: `speaker` normalises mean and variance of the bottlenecks of all that a speaker says, a test speaker too.
    precision: of the training, see TrainConfig; tests are in float32.
    """

    hidden_dim: int = 256
    dropout: float = 0.2
    num_epochs: int = 10
    lr_initial: float = 1e-3
    lr_final: float = 1e-4
    weight_decay: float = 0.0
    batch_frames: int = 1024
    batch_utterances: int = 32
    class_balanced: bool = True
    subsample: int = 1
    seed: int = 0
    selection: str = "valid"
    pooling: str = "sum"
    input_dropout: float = 0.0
    spec_augment: float = 0.0
    learning_rate_factor: float = 1.0
    vad: bool = False
    cmvn: str = "none"
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise PyserError(f"--selection={self.selection}; known: {' '.join(SELECTIONS)}")
        if self.pooling not in POOLINGS:
            raise PyserError(f"--pooling={self.pooling}; known: {' '.join(POOLINGS)}")
        if self.cmvn not in ("none", "speaker"):
            raise PyserError(f"--cmvn={self.cmvn}; known: none speaker")
        if min(self.hidden_dim, self.num_epochs, self.batch_frames - 1, self.batch_utterances - 1, self.subsample) < 1:
            raise PyserError("--hidden-dim, --num-epochs and --subsample must be at least 1, --batch-frames and "
                             "--batch-utterances at least 2")
        if self.learning_rate_factor <= 0:
            raise PyserError(f"--learning-rate-factor={self.learning_rate_factor:g}; it must be above 0")
        for name, value in (("dropout", self.dropout), ("input-dropout", self.input_dropout)):
            if not 0 <= value < 1:
                raise PyserError(f"--{name}={value:g}; it must be at least 0 and below 1")

    @property
    def of_frames(self) -> bool:
        """Whether frames are what is trained."""
        return self.pooling in ("sum", "log")


class FrameClassifier(nn.Module):
    """Log posteriors over `labels`, of frames or of utterances. The input normalisation is part of the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, labels: Sequence[str], config: SerConfig):
        super().__init__()
        self.labels, self.config = tuple(labels), config
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        if config.pooling == "attention":
            self.attention = nn.Sequential(nn.Linear(dim, ATTENTION_DIM), nn.Tanh(), nn.Linear(ATTENTION_DIM, 1))
        if not config.of_frames:
            self.statistics = nn.Sequential(nn.BatchNorm1d(2 * dim, affine=False), nn.Dropout(config.input_dropout))
        self.hidden = nn.Linear(dim if config.of_frames else 2 * dim, config.hidden_dim)
        self.batchnorm = nn.BatchNorm1d(config.hidden_dim, affine=False)  # as Kaldi's: no scale, no offset
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_dim, len(self.labels))

    def forward(self, x: Tensor) -> Tensor:
        """Frames (M, D) -> log posteriors (M, K) of each; PyserError where only utterances have some."""
        if not self.config.of_frames:
            raise PyserError(f"--pooling={self.config.pooling} has posteriors of utterances, not of frames")
        return self._classify((x - self.mean) / self.std)

    def utterances(self, x: Tensor, utt: Tensor, count: int) -> Tensor:
        """Frames (M, D), the utterance of each (M,), which ascends, each of `count` having one at least -> log posteriors
        (count, K)."""
        if not self.config.of_frames:
            return self._classify(self._pool((x - self.mean) / self.std, utt, count))
        frames = self(x).double()
        if self.config.pooling == "sum":
            sums = _sums(frames.exp(), utt, count)
            return (sums / sums.sum(dim=1, keepdim=True)).log()
        return (_sums(frames, utt, count) / torch.bincount(utt, minlength=count)[:, None]).log_softmax(dim=1)

    def loss(self, x: Tensor, utt: Tensor, label: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean cross-entropy of frames (M, D) whose utterances have the classes label (U,), or of the utterances; with the
        log posteriors and the classes of whatever is trained. weight (K,): of the classes."""
        if self.config.of_frames:
            label, log_posteriors = label[utt], self(x)
        else:
            log_posteriors = self.utterances(x, utt, len(label))
        return nn.functional.nll_loss(log_posteriors, label, weight), log_posteriors, label

    def _pool(self, x: Tensor, utt: Tensor, count: int) -> Tensor:
        """Mean and standard deviation over each utterance's frames (count, 2 D)."""
        if self.config.pooling == "attention":
            score = self.attention(x)
            each = score.detach().split(torch.bincount(utt, minlength=count).tolist())
            largest = nn.utils.rnn.pad_sequence(each, padding_value=-torch.inf).amax(dim=0)  # (count, 1)
            share = (score - largest[utt]).exp()
            share = share / _sums(share, utt, count)[utt]
        else:
            share = (1 / torch.bincount(utt, minlength=count).to(x))[utt][:, None]
        mean = _sums(share * x, utt, count)
        variance = _sums(share * (x - mean[utt]).square(), utt, count)
        pooled: Tensor = self.statistics(torch.cat([mean, variance.clamp_min(FLOOR).sqrt()], dim=1))
        return pooled

    def _classify(self, x: Tensor) -> Tensor:
        x = self.dropout(self.batchnorm(torch.relu(self.hidden(x))))  # (N, H)
        return self.output(x).to(self.output.weight.dtype).log_softmax(dim=-1)  # (N, K), of full precision in autocast too


def _sums(x: Tensor, utt: Tensor, count: int) -> Tensor:
    return torch.zeros(count, x.shape[1], dtype=x.dtype, device=x.device).index_add(0, utt, x)


def utterance_posteriors(model: FrameClassifier, feats: np.ndarray) -> np.ndarray:
    """Posteriors (K,) float64 of one utterance's features (T, dim)."""
    if feats.ndim != 2 or feats.shape[1] != len(model.mean) or not len(feats):
        raise PyserError(f"features of shape {feats.shape}, but this classifier takes (frames, {len(model.mean)}); "
                         "use the node it was trained on")
    model.eval()
    with torch.no_grad():
        x = torch.from_numpy(np.ascontiguousarray(feats)).float()
        posteriors = model.utterances(x, torch.zeros(len(x), dtype=torch.long), 1)[0].double().exp()
    if not bool(torch.isfinite(posteriors).all()):
        raise PyserError("features that are not finite; write them again")
    return np.asarray(posteriors.numpy())


def save_classifier(path: str | Path, model: FrameClassifier, extra: dict[str, str]) -> None:
    """Write the model with its config and labels; `extra` (strings) goes into the metadata too."""
    model_io.save(path, model, model.config, {"kind": KIND, "labels": json.dumps(list(model.labels))} | extra)


def read_classifier(path: str | Path) -> tuple[FrameClassifier, dict[str, str]]:
    """A classifier in eval mode and its metadata; PyserError if the file is missing, damaged or another model's."""
    state, metadata = model_io.read(path)
    if metadata.get("kind") != KIND:
        raise PyserError(f"{path}: not a {KIND}; give the directory that `pyser ser train` wrote")
    try:
        labels, config = json.loads(metadata["labels"]), SerConfig(**json.loads(metadata["config"]))
        model = FrameClassifier(len(state["mean"]), labels, config)
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PyserError(f"{path}: not readable ({str(error).splitlines()[0][:80]}); train this fold again") from None
    return model.eval(), metadata
