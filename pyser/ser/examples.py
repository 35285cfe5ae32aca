"""What a classifier learns from: frames in memory, or features from which the layers below it are computed each time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pyser.chain.specaugment import spec_augment
from pyser.errors import PyserError
from pyser.kaldi.tables import load_mat, load_vec
from pyser.ser.frame_classifier import SerConfig
from pyser.ser.frames import Frames, speech
from pyser.ser.network import EmotionNetwork
from pyser.ser.trunk import middle

Batch = np.ndarray  # numbers of frames or of utterances
EVALUATED_FRAMES = 16384  # at a time
POOL = 8  # batches whose utterances are sorted by length together, so that little is padded


class Examples(Protocol):
    """label (U,): the class of each utterance; lengths (U,): its frames."""

    @property
    def label(self) -> np.ndarray: ...

    @property
    def lengths(self) -> np.ndarray: ...

    def batches(self, epoch: int, config: SerConfig) -> Iterator[Batch]:
        """What one epoch is trained on, in another order in each."""

    def rows(self, model: EmotionNetwork, batch: Batch, config: SerConfig) -> tuple[Tensor, Tensor, Tensor]:
        """Frames (M, D), the utterance of each (M,) and the classes (U,) of the utterances."""

    def utterances(self, model: EmotionNetwork, utts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """All frames of these utterances (M, D), not augmented, and for each its place in `utts` (M,)."""


@dataclass(frozen=True)
class StoredExamples:
    """Bottleneck features."""

    frames: Frames

    @property
    def label(self) -> np.ndarray:
        return self.frames.label

    @property
    def lengths(self) -> np.ndarray:
        return np.bincount(self.frames.utt, minlength=len(self.frames.label))

    def batches(self, epoch: int, config: SerConfig) -> Iterator[Batch]:
        count, size = len(self.frames), config.batch_frames
        if not config.of_frames:
            count, size = len(self.label), config.batch_utterances
        order = np.random.default_rng([config.seed, epoch]).permutation(count)
        for part in np.array_split(order, -(-count // size)):
            if len(part) > 1:  # batch norm needs two
                yield np.sort(part)  # in memory order; a batch is a set

    def rows(self, model: EmotionNetwork, batch: Batch, config: SerConfig) -> tuple[Tensor, Tensor, Tensor]:
        if not config.of_frames:
            return *self.utterances(model, batch.tolist()), torch.from_numpy(self.label[batch])
        x = torch.from_numpy(self.frames.feats[batch]).float()
        return x, torch.from_numpy(self.frames.utt[batch]), torch.from_numpy(self.label)

    def utterances(self, model: EmotionNetwork, utts: Sequence[int]) -> tuple[Tensor, Tensor]:
        first = np.searchsorted(self.frames.utt, utts)
        last = np.searchsorted(self.frames.utt, utts, side="right")
        x = np.concatenate([self.frames.feats[a:b] for a, b in zip(first, last, strict=True)])
        return torch.from_numpy(x).float(), torch.arange(len(utts)).repeat_interleave(torch.from_numpy(last - first))


@dataclass(frozen=True)
class ComputedExamples:
    """Input features (T, feat_dim) of each utterance and its online i-vectors (rows, D), for a trunk; speech: of its frames
    (those of the trunk's node), which are taken."""

    feats: Sequence[np.ndarray]
    ivectors: Sequence[np.ndarray] | None
    label: np.ndarray
    subsampling: int
    speech: Sequence[np.ndarray] | None = None

    @property
    def lengths(self) -> np.ndarray:
        if self.speech is not None:
            return np.array([mask.sum() for mask in self.speech])
        return np.array([-(-len(matrix) // self.subsampling) for matrix in self.feats])

    def batches(self, epoch: int, config: SerConfig) -> Iterator[Batch]:
        for part in bucketed(self.lengths, config.batch_utterances, np.random.default_rng([config.seed, epoch])):
            # the epoch travels with the batch: it decides how its utterances are augmented
            yield np.concatenate([[epoch], part])

    def rows(self, model: EmotionNetwork, batch: Batch, config: SerConfig) -> tuple[Tensor, Tensor, Tensor]:
        assert model.trunk is not None
        epoch, utts = int(batch[0]), batch[1:]
        feats, ivectors = [], []
        for utt in utts:
            rng = np.random.default_rng([config.seed, epoch, utt])
            feats.append(spec_augment(self.feats[utt], rng, config.spec_augment) if config.spec_augment else self.feats[utt])
            if self.ivectors is not None:
                ivectors.append(self.ivectors[utt][rng.integers(len(self.ivectors[utt]))])
        x, utt_of = model.trunk.rows(feats, torch.from_numpy(np.stack(ivectors)) if ivectors else None)
        return *self._voiced(x, utt_of, utts.tolist()), torch.from_numpy(self.label[utts])

    def utterances(self, model: EmotionNetwork, utts: Sequence[int]) -> tuple[Tensor, Tensor]:
        assert model.trunk is not None
        ivectors = None if self.ivectors is None else middle([self.ivectors[utt] for utt in utts])
        return self._voiced(*model.trunk.rows([self.feats[utt] for utt in utts], ivectors), utts)

    def _voiced(self, x: Tensor, utt: Tensor, utts: Sequence[int]) -> tuple[Tensor, Tensor]:
        if self.speech is None:
            return x, utt
        mask = torch.from_numpy(np.concatenate([self.speech[number] for number in utts]))
        return x[mask], utt[mask]


def load_examples(
    utts: Sequence[str], feats: Mapping[str, str], ivectors: Mapping[str, str] | None, classes: Mapping[str, int],
    subsampling: int, vad: Mapping[str, str] | None = None,
) -> ComputedExamples:
    """From the rxfilenames of features, i-vectors and vad."""
    matrices = [load_mat(feats[utt]) for utt in utts]
    for utt, matrix in zip(utts, matrices, strict=True):
        if not len(matrix) or not np.isfinite(matrix).all():
            raise PyserError(f"{utt}: features that are empty or not finite; write them again")
    rows = None if ivectors is None else [load_mat(ivectors[utt]) for utt in utts]
    masks = None if vad is None else [
        speech(load_vec(vad[utt]), -(-len(matrix) // subsampling), utt) for utt, matrix in zip(utts, matrices, strict=True)
    ]
    labels = np.array([classes[utt] for utt in utts], dtype=np.int64)
    return ComputedExamples(matrices, rows, labels, subsampling, masks)


def bucketed(lengths: np.ndarray, size: int, rng: np.random.Generator, least: int = 2) -> Iterator[np.ndarray]:
    """All utterances in batches of at most `size`, and of at least `least`, of similar lengths, in any order."""
    order = rng.permutation(len(lengths))
    pools = np.array_split(order, max(len(order) // (size * POOL), 1))
    found = [part for pool in pools
             for part in np.array_split(pool[np.argsort(lengths[pool], kind="stable")], -(-len(pool) // size))]
    for number in rng.permutation(len(found)):
        if len(found[number]) >= least:
            yield found[number]


def groups(lengths: np.ndarray) -> Iterator[list[int]]:
    """Utterances in order, as many at a time as have EVALUATED_FRAMES frames, or one."""
    group: list[int] = []
    frames = 0
    for utt, length in enumerate(lengths):
        if group and frames + length > EVALUATED_FRAMES:
            yield group
            group, frames = [], 0
        group.append(utt)
        frames += int(length)
    if group:
        yield group


def posteriors(model: EmotionNetwork, examples: Examples) -> Tensor:
    """(U, K) float64 of all utterances; the model is to be in eval mode."""
    found = []
    with torch.no_grad():
        for group in groups(examples.lengths):
            x, utt = examples.utterances(model, group)
            found.append(model.classifier.utterances(x, utt, len(group)).double().exp())
    return torch.cat(found)
