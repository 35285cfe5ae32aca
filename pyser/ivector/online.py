"""Online i-vectors: one every `period` frames from all frames so far (online2/online-ivector-feature.cc).

                    +- online CMVN - splice - final.mat - UBM -> posteriors -+
    features -------+                                                        +-> statistics - conjugate gradient -> i-vector
                    +--------------- splice - final.mat ---------------------+

Utterances of one speaker can be chained: the speaker's CMVN and i-vector statistics go on from one to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyser.config import read_conf
from pyser.errors import PyserError
from pyser.features.cmvn import OnlineCmvnConfig, apply_online_cmvn, cmvn_stats, read_stats
from pyser.features.splice import splice
from pyser.files import read_lines
from pyser.ivector.extractor import IvectorExtractor, read_extractor
from pyser.ivector.pca import read_transform, transform
from pyser.ivector.ubm import DiagGmm, posteriors, read_diag_gmm

FILES = ("final.ie", "final.dubm", "final.mat", "global_cmvn.stats", "splice_opts", "online_cmvn.conf")


@dataclass(frozen=True)
class OnlineIvectorConfig:
    """Kaldi's names and defaults. max_count > 0 keeps long utterances' i-vectors as close to the prior as if they had
    that many (scaled) frames; max_remembered_frames limits what a speaker's statistics weigh in the next utterance."""

    ivector_period: int = 10
    num_gselect: int = 5
    min_post: float = 0.025
    posterior_scale: float = 0.1
    max_count: float = 0.0
    max_remembered_frames: float = 1000.0
    num_cg_iters: int = 15


@dataclass(frozen=True)
class FrontEnd:
    """What comes before the Gaussians: online CMVN, splicing, and PCA or LDA."""

    lda: np.ndarray
    global_stats: np.ndarray
    left_context: int = 3
    right_context: int = 3
    cmvn: OnlineCmvnConfig = OnlineCmvnConfig()

    def project(self, feats: np.ndarray) -> np.ndarray:
        """(T, D) -> (T, D'): spliced and transformed; of features as they are, what the statistics are made of."""
        return transform(self.lda, splice(np.asarray(feats, np.float64), self.left_context, self.right_context))

    def normalise(self, feats: np.ndarray, speaker_stats: np.ndarray | None = None) -> np.ndarray:
        """(T, D) -> (T, D) after online CMVN; `project` of it is the UBM's input."""
        return apply_online_cmvn(feats, self.global_stats, speaker_stats, self.cmvn)


@dataclass(frozen=True)
class OnlineExtractor:
    """A whole extractor directory."""

    front_end: FrontEnd
    ubm: DiagGmm
    extractor: IvectorExtractor


@dataclass
class SpeakerState:
    """What one utterance leaves to the speaker's next (OnlineIvectorExtractorAdaptationState); the prior is not in it."""

    cmvn: np.ndarray
    count: float
    linear: np.ndarray
    quadratic: np.ndarray

    @classmethod
    def new(cls, feat_dim: int, extractor: IvectorExtractor) -> SpeakerState:
        size = extractor.quadratics.shape[1]
        return cls(np.zeros((2, feat_dim + 1)), 0.0, np.zeros(extractor.dim), np.zeros(size))

    def limit(self, max_frames: float, posterior_scale: float) -> None:
        """Scale the statistics down to the weight of `max_frames` frames."""
        self.cmvn = self.cmvn * min(1.0, max_frames / max(self.cmvn[0, -1], 1e-10))
        scale = min(1.0, max_frames * posterior_scale / max(self.count, 1e-10))
        self.count, self.linear, self.quadratic = self.count * scale, self.linear * scale, self.quadratic * scale


def load_extractor(directory: str | Path) -> OnlineExtractor:
    """Read Kaldi's extractor directory; PyserError names the file that is missing or does not fit."""
    directory = Path(directory)
    for name in FILES:
        if not (directory / name).exists():
            raise PyserError(f"{directory}/{name}: no such file; an extractor directory holds {' '.join(FILES)}")
    contexts = {"left-context": 4, "right-context": 4}  # splice-feats' own defaults
    for option in " ".join(read_lines(directory / "splice_opts")).split():
        name, _, value = option.lstrip("-").partition("=")
        if name not in contexts or not value.isdigit():
            raise PyserError(f"{directory}/splice_opts: '{option}'; expected --left-context=N --right-context=N")
        contexts[name] = int(value)
    cmvn = read_conf(directory / "online_cmvn.conf", OnlineCmvnConfig)
    front_end = FrontEnd(read_transform(directory / "final.mat"), read_stats(directory / "global_cmvn.stats"),
                         contexts["left-context"], contexts["right-context"], cmvn)
    ubm, extractor = read_diag_gmm(directory / "final.dubm"), read_extractor(directory / "final.ie")
    spliced = (front_end.global_stats.shape[1] - 1) * (1 + sum(contexts.values()))
    shape = extractor.projections.shape[:2]
    if front_end.lda.shape[1] - spliced not in (0, 1) or shape != ubm.means.shape or shape[1] != len(front_end.lda):
        raise PyserError(f"{directory}: final.mat, final.dubm, final.ie and global_cmvn.stats are of different sizes; "
                         "they must come from one training")
    return OnlineExtractor(front_end, ubm, extractor)


def extract(
    online: OnlineExtractor, feats: np.ndarray, config: OnlineIvectorConfig, state: SpeakerState | None = None
) -> np.ndarray:
    """feats (T, D) -> i-vectors (ceil(T / period), S) float32; row i has seen frames 0 … i * period.

    With `state` the speaker's earlier utterances count, and the state goes on to the next one.
    """
    front_end, extractor, period = online.front_end, online.extractor, config.ivector_period
    if feats.ndim != 2 or not len(feats) or feats.shape[1] != front_end.global_stats.shape[1] - 1:
        raise PyserError(f"features of shape {feats.shape}, the extractor wants "
                         f"{front_end.global_stats.shape[1] - 1} columns")
    carried = state if state is not None else SpeakerState.new(feats.shape[1], extractor)
    # Frames after the last i-vector are left out of its statistics, though not out of the CMVN's.
    used = (len(feats) - 1) // period * period + 1
    likes = online.ubm.loglikes(front_end.project(front_end.normalise(feats, carried.cmvn))[:used])
    indices, post = posteriors(likes, config.num_gselect, config.min_post)
    ends = np.arange(0, used, period) + 1
    counts, linear, quadratic = extractor.statistics(front_end.project(feats)[:used], indices,
                                                     post * config.posterior_scale, ends)
    counts = carried.count + np.cumsum(counts)
    linear, quadratic = np.cumsum(linear, 0) + carried.linear, np.cumsum(quadratic, 0) + carried.quadratic
    diagonal = np.arange(extractor.dim)
    current = np.zeros(extractor.dim)
    current[0] = extractor.prior_offset
    rows = np.empty((len(ends), extractor.dim), np.float32)
    for row, count in enumerate(counts):
        prior = max(count, config.max_count) / config.max_count if config.max_count > 0 else 1.0
        a, b = quadratic[row][extractor.unpack], linear[row].copy()
        a[diagonal, diagonal] += prior
        b[0] += prior * extractor.prior_offset
        current = conjugate_gradient(a, b, current, config.num_cg_iters)
        rows[row] = current
    rows[:, 0] -= np.float32(extractor.prior_offset)
    if state is not None:
        state.cmvn = state.cmvn + cmvn_stats(feats)
        state.count, state.linear, state.quadratic = float(counts[-1]), linear[-1].copy(), quadratic[-1].copy()
        state.limit(config.max_remembered_frames, config.posterior_scale)
    return rows


def extract_utterance(online: OnlineExtractor, feats: np.ndarray, period: int = 10) -> np.ndarray:
    """i-vectors of an utterance on its own, (ceil(T / period), S)."""
    return extract(online, feats, OnlineIvectorConfig(ivector_period=period))


def extract_speaker(
    online: OnlineExtractor, utterances: Sequence[np.ndarray], config: OnlineIvectorConfig
) -> list[np.ndarray]:
    """i-vectors of a speaker's utterances, each going on from the ones before it."""
    state = SpeakerState.new(utterances[0].shape[1], online.extractor) if utterances else None
    return [extract(online, feats, config, state) for feats in utterances]


def conjugate_gradient(a: np.ndarray, b: np.ndarray, start: np.ndarray, max_iters: int) -> np.ndarray:
    """Solve a x = b (symmetric positive definite) from `start` in at most `max_iters` steps.

    The early stop is part of the result: Kaldi's i-vectors are not converged, so its rules are followed exactly
    (matrix/optimization.cc, LinearCgd): the residual is computed anew whenever its norm has changed a hundredfold since
    that was last done, and the exact solution is taken should it have grown.
    """
    x = start.copy()
    residual = a @ x - b
    direction = -residual
    norm = first_norm = fresh_norm = residual @ residual
    for _ in range(min(max_iters, len(b) + 5)):
        moved = a @ direction
        step = -(direction @ residual) / (direction @ moved) if norm > 0 else 0.0
        x += step * direction
        residual += step * moved
        next_norm = residual @ residual
        if next_norm < 1e-4 * fresh_norm or next_norm > 1e4 * fresh_norm:
            residual = a @ x - b
            next_norm = fresh_norm = residual @ residual
        if next_norm <= np.finfo(np.float64).tiny:
            break
        direction = direction * (next_norm / norm) - residual
        norm = next_norm
    if norm > first_norm and norm > first_norm + 1e-10 * (b @ b):
        return np.linalg.solve(a, b)
    return x
