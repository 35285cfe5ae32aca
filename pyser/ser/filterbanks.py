"""Filterbanks of whole utterances, as networks of pyser.nn.sa2sr take them: normalised, masked at random in training,
stacked, and in batches of similar lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyser.chain.data import pad
from pyser.chain.specaugment import frequency_mask, time_mask
from pyser.errors import PyserError
from pyser.features.cmvn import CmvnConfig, apply_cmvn, cmvn_stats
from pyser.kaldi.tables import load_mat, read_scp, read_table

FRAME_SECONDS = 0.01
OF_ITSELF = CmvnConfig(norm_vars=True)
FREQUENCY_SHARE = 0.3  # of the bins: a mask has up to so many
TIME_SHARE = 0.2  # of the frames: masks have so many on average
MAX_FRAMES = 20  # masked in a row
SHORTEST = 0.9  # of the longest utterance in a batch: less than a tenth of any batch is padding
JITTER = 0.05  # lengths are this uncertain when utterances are sorted by them: other ones meet in each epoch


def normalise(feats: np.ndarray) -> np.ndarray:
    """(T, D) of one utterance, each column with a mean of 0 and a variance of 1."""
    return apply_cmvn(feats, cmvn_stats(feats), OF_ITSELF)


def stack_frames(feats: np.ndarray, stack: int) -> np.ndarray:
    """(T, D) -> (ceil(T / stack), stack * D): each `stack` frames side by side, none twice but the last one at the end."""
    return pad(feats, 0, -len(feats) % stack).reshape(-1, stack * feats.shape[1])


def mask(feats: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Normalised filterbanks (T, D) with a band of bins, and with stretches of time, put to the mean of 0; each of the two
    with this probability (D. Park et al., "SpecAugment", Interspeech 2019). A copy."""
    feats = feats.copy()
    if rng.random() < probability:
        feats[:, frequency_mask(feats.shape[1], FREQUENCY_SHARE, rng)] = 0
    if rng.random() < probability:
        feats[time_mask(len(feats), TIME_SHARE, MAX_FRAMES, rng)] = 0
    return feats


@dataclass(frozen=True)
class Filterbanks:
    """rxfilenames and frames: of each utterance; stack: frames that become one; spec_augment: see `mask`."""

    rxfilenames: Mapping[str, str]
    frames: Mapping[str, int]
    stack: int
    spec_augment: float
    seed: int

    @classmethod
    def of(cls, data_dir: str | Path, stack: int, spec_augment: float, seed: int) -> Filterbanks:
        """Of data_dir's feats.scp and utt2num_frames."""
        rxfilenames = read_scp(Path(data_dir) / "feats.scp")
        counts = read_table(Path(data_dir) / "utt2num_frames")
        lacking = rxfilenames.keys() - counts.keys()
        if lacking or not rxfilenames:
            raise PyserError(f"{data_dir}/utt2num_frames: lacks {min(lacking, default='all of it')}; run make_fbank.sh")
        return cls(rxfilenames, {utt: int(counts[utt]) for utt in rxfilenames}, stack, spec_augment, seed)

    @property
    def dim(self) -> int:
        """Of a stacked frame."""
        return self.stack * load_mat(next(iter(self.rxfilenames.values()))).shape[1]

    def length(self, utt: str) -> int:
        """Stacked frames."""
        return -(-self.frames[utt] // self.stack)

    def load(self, utts: Sequence[str], epoch: int = 0) -> tuple[Tensor, Tensor]:
        """(N, longest, dim) and lengths (N,) of these utterances; masked, in each epoch otherwise, if epoch is above 0."""
        matrices = [self._one(utt, epoch) for utt in utts]
        x = np.zeros((len(matrices), max(map(len, matrices)), matrices[0].shape[1]), np.float32)
        for row, matrix in zip(x, matrices, strict=True):
            row[: len(matrix)] = matrix
        return torch.from_numpy(x), torch.tensor([len(matrix) for matrix in matrices])

    def _one(self, utt: str, epoch: int) -> np.ndarray:
        feats = load_mat(self.rxfilenames[utt])
        if len(feats) != self.frames[utt] or not np.isfinite(feats).all():
            raise PyserError(f"{utt}: features of {len(feats)} frames, {self.frames[utt]} in utt2num_frames, or not finite; "
                             "write them again")
        feats = normalise(feats)
        if epoch:
            feats = mask(feats, self.spec_augment, np.random.default_rng([self.seed, epoch, *utt.encode()]))
        return stack_frames(feats, self.stack)


def buckets(lengths: Mapping[str, int], most: int, rng: np.random.Generator | None = None) -> list[list[str]]:
    """All utterances in batches of at most `most` frames with padding (or one utterance), less than a tenth of them padding;
    with `rng` in any order and with other neighbours each time, else sorted by length."""
    names = list(lengths)
    size = np.array([lengths[name] for name in names])
    order = np.argsort(size if rng is None else size * rng.uniform(1, 1 + JITTER, len(size)), kind="stable")
    groups: list[list[str]] = []
    shortest = longest = 0
    for number in order:
        low, high = min(shortest, size[number]), max(longest, size[number])
        if not groups or high * (len(groups[-1]) + 1) > most or low < SHORTEST * high:
            groups.append([])
            low = high = size[number]
        groups[-1].append(names[number])
        shortest, longest = low, high
    return groups if rng is None else [groups[place] for place in rng.permutation(len(groups))]


def even_batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """All utterances (0 to U - 1) in batches of at most `size`, in any order; of neighbours by length, others
    each time. How much is padding depends on how many utterances there are."""
    order = np.argsort(lengths * rng.uniform(1, 1 + JITTER, len(lengths)), kind="stable")
    groups = np.array_split(order, -(-len(order) // size))
    return [groups[place] for place in rng.permutation(len(groups))]


def padding(groups: Sequence[Sequence[str]], lengths: Mapping[str, int]) -> float:
    """The share of frames that are padding."""
    whole = sum(len(group) * max(lengths[utt] for utt in group) for group in groups)
    return 1 - sum(lengths[utt] for group in groups for utt in group) / whole
