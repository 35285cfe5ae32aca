"""Lhotse cuts to batches of features, i-vectors and transcripts; the same for the same seed and epoch."""

from __future__ import annotations

import math
import random
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyser.chain.graph import Graph
from pyser.chain.perturb import SpeedPerturber
from pyser.chain.specaugment import spec_augment
from pyser.errors import Dropped, PyserError
from pyser.kaldi.tables import load_mat

VOLUMES = 0.125, 2.0  # utils/data/perturb_data_dir_volume.sh's
Numerators = Callable[[Sequence[str], Sequence[str], Sequence[int], Sequence[float]], list[Graph]]
LOOKAHEAD = 3  # batches read in the background while the network computes
SPAN = 30  # frames: training batches are as long as a multiple of it, so that few shapes need kernels of their own (oneDNN)


@dataclass(frozen=True)
class Batch:
    """N utterances of one step.

    feats : (N, T * subsampling + left + right context, feat_dim)
    ivectors : (N, ivector_dim), or None
    lengths : (N,) frames of output that belong to each utterance, the largest is T
    graphs : the N numerators; empty where ChainData was given none
    """

    ids: list[str]
    texts: list[str]
    feats: Tensor
    ivectors: Tensor | None
    lengths: Tensor
    graphs: list[Graph] = field(default_factory=list)

    def to(self, device: torch.device) -> Batch:
        ivectors = None if self.ivectors is None else self.ivectors.to(device)
        return Batch(self.ids, self.texts, self.feats.to(device), ivectors, self.lengths, self.graphs)

    def __str__(self) -> str:
        return f"utterances {self.ids[0]} … {self.ids[-1]}" if len(self.ids) > 1 else f"utterance {self.ids[0]}"


def select(
    cuts: Any,
    max_utt_duration: float,
    subsampling: int,
    min_frames: Callable[[str], int | None],
    max_dropped: float = 0.05,
) -> tuple[Any, str]:
    """The cuts that can be learnt from, and the line that says how many were dropped and why.

    `min_frames(text)` is the least number of output frames that the transcript fits into, None if it has no
    pronunciation. Durations in seconds. PyserError if more than the share `max_dropped` goes.
    """
    dropped, kept, total = Dropped("chain data", max_dropped), [], 0
    for cut in cuts:
        total += 1
        frames = -(-cut.num_frames // subsampling)
        needed = min_frames(text_of(cut))
        if cut.duration > max_utt_duration:
            dropped.add(cut.id, f"longer than {max_utt_duration:g} s (--max-utt-duration)")
        elif needed is None:
            dropped.add(cut.id, "without words, or with phones in an order that the phone LM lacks")
        elif frames < needed:
            dropped.add(cut.id, "too short for their phones")
        else:
            kept.append(cut)
    return type(cuts).from_cuts(kept), dropped.finish(total)


@dataclass(frozen=True)
class ChainData:
    """Batches of one data set.

    In training, batches are drawn from buckets of similar length and shuffled, each utterance takes one of its i-vectors and
    starts at frame 0, 1 … subsampling - 1 at random: over the epochs the network sees every frame as a centre.
    In validation: sorted as given, the middle i-vector, frame 0.

    max_duration: seconds for each of `world_size` processes. They share every batch, this one takes its utterances number
    `rank`, `rank` + world_size … and pads them as the whole batch is; utterances fewer than processes are left out.
    numerators: makes the graphs of utterances (ids, transcripts, frames of output, speeds), in the background as all else.
    speeds: in training, each utterance is played at one of its factors; the cuts' features and i-vectors are not read.
    perturb_volume: in training, each utterance is as if its samples had been multiplied by a number uniform in VOLUMES. Only
    for MFCCs with as many mel bins as cepstra and without energy (conf/mfcc_hires.conf), whose C0 this moves, and nothing
    else (but where a mel energy had been floored).
    spec_augment: in training, parts of the spectrum are masked, such a share in each epoch, see there; for the same MFCCs
    only.
    """

    cuts: Any
    left_context: int
    right_context: int
    subsampling: int
    max_duration: float
    seed: int
    training: bool
    rank: int = 0
    world_size: int = 1
    perturb_volume: bool = False
    numerators: Numerators | None = None
    speeds: SpeedPerturber | None = None
    spec_augment: Callable[[int], float] | None = None

    def whole(self) -> ChainData:
        """The same batches in one process, without graphs."""
        return replace(self, rank=0, world_size=1, max_duration=self.max_duration * self.world_size, numerators=None)

    def _cuts(self, epoch: int) -> Iterable[Any]:
        """The cuts of each whole batch, all processes' together."""
        from lhotse.dataset.sampling import DynamicBucketingSampler, SimpleCutSampler

        # Every process draws the whole batches: Lhotse is told that there is but one.
        options = {"max_duration": self.max_duration * self.world_size, "rank": 0, "world_size": 1}
        if not self.training:
            return SimpleCutSampler(self.cuts, **options)
        # A new sampler for each epoch carries no state over from the epochs before: resuming needs nothing saved.
        seed, buckets = self.seed + 7919 * epoch, min(30, len(self.cuts) // 50)
        if buckets < 2:
            return SimpleCutSampler(self.cuts, **options, shuffle=True, seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "eagerly read CutSet": the cuts are few and light
            batches = list(DynamicBucketingSampler(self.cuts, **options, num_buckets=buckets, shuffle=True, seed=seed))
        # Lhotse goes through the buckets in the order of one constant seed, small rests last. Its other order
        # (sync_buckets=False) leaves utterances out: it ends at an empty bucket.
        random.Random(seed).shuffle(batches)
        return batches

    def steps(self) -> int:
        """Batches in the first epoch; others may have a few more or less."""
        return sum(1 for _ in self._cuts(1))

    def batches(self, epoch: int) -> Iterator[Batch]:
        """All utterances once (of this process)."""
        with ThreadPoolExecutor(1) as pool:
            pending: deque[Any] = deque()
            for cuts in self._cuts(epoch):
                if len(cuts) < self.world_size:
                    continue
                pending.append(pool.submit(self._load, list(cuts), epoch))
                if len(pending) > LOOKAHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _load(self, cuts: list[Any], epoch: int) -> Batch:
        feats, shifts, ivectors, speeds = [], [], [], []
        span = 0
        perturber = self.speeds if self.training else None
        for number, cut in enumerate(cuts):
            rng = np.random.default_rng([self.seed, epoch, zlib.crc32(cut.id.encode())])
            shift = min(int(rng.integers(self.subsampling)) if self.training else 0, cut.num_frames - 1)
            speed = float(rng.choice(perturber.factors)) if perturber else 1.0
            frames = perturber.most_frames(cut.num_frames, speed) if perturber else cut.num_frames
            span = max(span, -(-(frames - shift) // self.subsampling) * self.subsampling)
            if number % self.world_size != self.rank:
                continue
            matrix, rows = perturber(cut.id, speed) if perturber else (features_of(cut), ivectors_of(cut))
            if not perturber and len(matrix) != cut.num_frames:
                raise PyserError(f"{cut.id}: {len(matrix)} frames of features, {cut.num_frames} in utt2num_frames; mend it")
            shifts.append(shift)
            speeds.append(speed)
            if rows is not None:
                ivectors.append(rows[rng.integers(len(rows)) if self.training else len(rows) // 2])
            if self.training and self.perturb_volume:
                matrix = scale_volume(matrix, float(rng.uniform(*VOLUMES)))
            masked = self.spec_augment(epoch) if self.training and self.spec_augment else 0.0
            if masked > 0:
                matrix = spec_augment(matrix, rng, masked)
            feats.append(matrix)
        cuts = cuts[self.rank :: self.world_size]
        if ivectors and len(ivectors) < len(cuts):
            raise PyserError(f"{cuts[0].id} … {cuts[-1].id}: some utterances have i-vectors, some do not; extract all")
        lengths = [-(-(len(f) - s) // self.subsampling) for f, s in zip(feats, shifts, strict=True)]
        if self.training:
            step = math.lcm(SPAN, self.subsampling)
            span = -(-span // step) * step
        padded = [pad(f, self.left_context - s, span + s - len(f) + self.right_context)
                  for f, s in zip(feats, shifts, strict=True)]
        ids, texts = [cut.id for cut in cuts], [text_of(cut) for cut in cuts]
        return Batch(
            ids,
            texts,
            torch.from_numpy(np.stack(padded)),
            torch.from_numpy(np.stack(ivectors)) if ivectors else None,
            torch.tensor(lengths),
            self.numerators(ids, texts, lengths, speeds) if self.numerators else [],
        )


def pad(feats: np.ndarray, left: int, right: int) -> np.ndarray:
    """feats (T, D) with its first row repeated `left` times before and its last `right` times after it; a negative
    number takes rows away. Returns (left + T + right, D)."""
    return feats[np.clip(np.arange(-left, len(feats) + right), 0, len(feats) - 1)]


def scale_volume(feats: np.ndarray, gain: float) -> np.ndarray:
    """MFCCs (T, D) of D mel bins, as if of samples multiplied by `gain`: all log-energies rise by 2 ln gain, and C0 is their
    sum over sqrt(D)."""
    feats = feats.copy()
    feats[:, 0] += 2 * np.sqrt(feats.shape[1]) * np.log(gain)
    return feats


def features_of(cut: Any) -> np.ndarray:
    """Features (T, D) of a cut of pyser.kaldi.manifests.read_cuts."""
    return load_mat(cut.features.storage_path)


def ivectors_of(cut: Any) -> np.ndarray | None:
    """Online i-vectors (rows, D) of a cut, one row every few frames; None if it has none."""
    rxfilename = (cut.custom or {}).get("ivector")
    return None if rxfilename is None else load_mat(rxfilename)


def text_of(cut: Any) -> str:
    """Its transcript, words with single spaces; empty if it has none."""
    return " ".join(" ".join(s.text or "" for s in cut.supervisions).split())
