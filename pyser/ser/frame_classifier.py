"""Emotion of one frame: a new layer and a softmax on the bottleneck of an acoustic model (Zhou & Beigi, 2020).

    frame (D) -> normalise -> affine -> ReLU -> batch norm -> dropout -> affine -> softmax over the emotions

The posteriors of an utterance's frames are summed; the largest sum is its emotion.
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
CHUNK = 16384  # frames per forward pass outside training


@dataclass(frozen=True)
class SerConfig:
    """One classifier and how to train it.

    selection `valid`: the epoch with the best UA on the validation list; `last`: fixed epochs, the validation list is
    trained on as well. subsample n: every n-th frame of the training and validation utterances (test: all frames).
    class_balanced: frames weighted so that every emotion counts the same.
    """

    hidden_dim: int = 256
    dropout: float = 0.2
    num_epochs: int = 10
    lr_initial: float = 1e-3
    lr_final: float = 1e-4
    weight_decay: float = 0.0
    batch_frames: int = 1024
    class_balanced: bool = True
    subsample: int = 1
    seed: int = 0
    selection: str = "valid"

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise PyserError(f"--selection={self.selection}; known: {' '.join(SELECTIONS)}")
        if min(self.hidden_dim, self.num_epochs, self.batch_frames - 1, self.subsample) < 1:
            raise PyserError("--hidden-dim, --num-epochs and --subsample must be at least 1, --batch-frames at least 2")
        if not 0 <= self.dropout < 1:
            raise PyserError(f"--dropout={self.dropout:g}; it must be at least 0 and below 1")


class FrameClassifier(nn.Module):
    """Frames (N, dim) -> log posteriors (N, len(labels)). The input normalisation is part of the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, labels: Sequence[str], config: SerConfig):
        super().__init__()
        self.labels, self.config = tuple(labels), config
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.hidden = nn.Linear(dim, config.hidden_dim)
        self.batchnorm = nn.BatchNorm1d(config.hidden_dim, affine=False)  # as Kaldi's: no scale, no offset
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden_dim, len(self.labels))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std  # (N, D)
        x = self.dropout(self.batchnorm(torch.relu(self.hidden(x))))  # (N, H)
        return self.output(x).log_softmax(dim=-1)  # (N, K)


def utterance_posteriors(model: FrameClassifier, feats: np.ndarray) -> np.ndarray:
    """Frame posteriors of one utterance's features (T, dim), summed over the frames and normalised: (K,) float64."""
    if feats.ndim != 2 or feats.shape[1] != len(model.mean) or not len(feats):
        raise PyserError(f"features of shape {feats.shape}, but this classifier takes (frames, {len(model.mean)}); "
                         "use the node it was trained on")
    model.eval()
    total = torch.zeros(len(model.labels), dtype=torch.float64)
    with torch.no_grad():
        for chunk in torch.from_numpy(np.ascontiguousarray(feats)).split(CHUNK):
            total += model(chunk.float()).exp().double().sum(dim=0)
    if not bool(torch.isfinite(total).all()):
        raise PyserError("features that are not finite; write them again")
    return np.asarray((total / total.sum()).numpy())


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
