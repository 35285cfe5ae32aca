"""Online i-vectors: one every `period` frames from all frames so far (online2/online-ivector-feature.cc).

                    +- online CMVN - splice - final.mat - UBM -> posteriors -+
    features -------+                                                        +-> statistics - conjugate gradient -> i-vector
                    +--------------- splice - final.mat ---------------------+

Utterances of one speaker can be chained: the speaker's CMVN and i-vector statistics go on from one to the next. Only
the conjugate gradient has to wait for the utterance before; all else is done for many utterances at once. Up to the
posteriors the numbers are float32, as in Kaldi; the statistics are float64, but for the quadratic term of the few frames
between two i-vectors, which is summed in float32 before it is added to the speaker's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pyser.errors import PyserError
from pyser.features.cmvn import cmvn_stats
from pyser.ivector import kernels
from pyser.ivector.directory import FILES, OnlineExtractor, OnlineIvectorConfig, load_extractor
from pyser.ivector.ubm import Posteriors, posteriors

__all__ = ["FILES", "OnlineExtractor", "OnlineIvectorConfig", "SpeakerState", "check_feats", "extract_batch",
           "extract_speaker", "extract_utterance", "load_extractor"]


@dataclass
class SpeakerState:
    """What one utterance leaves to the speaker's next (OnlineIvectorExtractorAdaptationState); the prior is not in it.

    cmvn (2, D + 1); count, linear (S,), quadratic (packed lower triangle,), float64.
    """

    cmvn: np.ndarray
    count: float
    linear: np.ndarray
    quadratic: np.ndarray

    @classmethod
    def new(cls, online: OnlineExtractor) -> SpeakerState:
        size = online.extractor.dim
        return cls(np.zeros((2, online.front_end.feat_dim + 1)), 0.0, np.zeros(size), np.zeros(size * (size + 1) // 2))

    def add_cmvn(self, feats: np.ndarray, max_frames: float) -> None:
        """Add an utterance's CMVN statistics, then scale down to the weight of `max_frames` frames (LimitFrames)."""
        self.cmvn = self.cmvn + cmvn_stats(feats)
        if self.cmvn[0, -1] > max_frames:
            self.cmvn *= max_frames / self.cmvn[0, -1]

    def limit(self, max_count: float) -> None:
        """Scale the i-vector statistics down to the weight of `max_count` scaled frames (LimitFrames)."""
        if self.count > max_count:
            scale = max_count / self.count
            self.count, self.linear, self.quadratic = max_count, self.linear * scale, self.quadratic * scale


def check_feats(online: OnlineExtractor, feats: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """feats (T, D) as the extractor wants them; three columns too many are pitch and are cut off, as Kaldi does."""
    dim = online.front_end.feat_dim
    if feats.ndim != 2 or not feats.size:
        raise PyserError("no features; take it out of the list or make its features again")
    if feats.shape[1] not in (dim, dim + 3):
        raise PyserError(f"features of {feats.shape[1]} dimensions, the extractor was trained on {dim}; use those features")
    feats = np.ascontiguousarray(feats[:, :dim], np.float32)
    if not np.isfinite(feats).all():
        raise PyserError("not a number or infinite among the features; make them again")
    if weights is not None and not np.isfinite(weights).all():
        raise PyserError("not a number or infinite among the frame weights; make them again")
    return feats


def extract_batch(
    online: OnlineExtractor, utterances: Sequence[np.ndarray], states: Sequence[SpeakerState], config: OnlineIvectorConfig,
    weights: Sequence[np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Features (T, D) float32 of `check_feats` -> i-vectors (ceil(T / period), S) float32; row i saw frames 0 … i * period.

    states: of each utterance's speaker; one object for several utterances chains them, in the order given.
    weights (T,) of the frames (silence 0, say); frames beyond them weigh nothing.
    """
    if not kernels.available:
        from pyser.ivector import batched

        return batched.extract_batch(online, utterances, states, config, weights)
    before = []
    for feats, state in zip(utterances, states, strict=True):
        before.append(state.cmvn)
        state.add_cmvn(feats, config.max_remembered_frames)
    projected, starts = online.front_end.project_batch(utterances, before)
    frame_weights = np.zeros(projected.shape[1], np.float32)
    for number, (feats, start) in enumerate(zip(utterances, starts, strict=True)):
        given = weights[number][: len(feats)] if weights is not None else np.ones(len(feats), np.float32)
        frame_weights[start : start + len(given)] = given
    selected = posteriors(
        online.ubm, projected[1], frame_weights, config.num_gselect, config.min_post, config.posterior_scale)
    edges = [start + block_edges(len(feats), config) for feats, start in zip(utterances, starts, strict=True)]
    return _solve(online, projected[1 if config.online_cmvn_iextractor else 0], selected, edges, utterances, states, config)


def _solve(
    online: OnlineExtractor, feats: np.ndarray, selected: Posteriors, edges: Sequence[np.ndarray],
    utterances: Sequence[np.ndarray], states: Sequence[SpeakerState], config: OnlineIvectorConfig,
) -> list[np.ndarray]:
    gaussians, post, count = selected
    begin, end = np.concatenate([one[:-1] for one in edges]), np.concatenate([one[1:] for one in edges])
    room = int(count.sum())
    starts = np.empty(len(begin) + 1, np.int64)
    gauss, weight = np.empty(room, np.int32), np.empty(room)
    first = np.empty((room, feats.shape[1]))
    kernels.sum_blocks(begin, end, gaussians, post, count, feats, starts, gauss, weight, first, len(online.ubm.weights))
    linears = np.empty((len(begin), online.sigma_inv_m.shape[2]))
    kernels.linear_terms(starts, gauss, first, online.sigma_inv_m, linears)
    results, at = [], 0
    for utterance, one, state in zip(utterances, edges, states, strict=True):
        length, number = len(utterance), len(one) - 1
        solved = 1 if config.greedy_ivector_extractor else -(-length // config.ivector_period)
        rows = np.empty((solved, online.extractor.dim), np.float32)
        state.count = kernels.solve_blocks(
            at, at + number, starts, gauss, weight, online.quadratics, linears, state.count, state.linear, state.quadratic,
            online.extractor.prior_offset, float(config.max_count), config.num_cg_iters, rows)
        state.limit(config.max_remembered_frames * config.posterior_scale)
        at += number
        wanted = np.arange(length if config.repeat else -(-length // config.ivector_period))
        if config.greedy_ivector_extractor:
            rows = rows[np.zeros_like(wanted)]
        elif config.repeat:
            rows = rows[wanted // config.ivector_period]
        results.append(rows)
    return results


def block_edges(length: int, config: OnlineIvectorConfig) -> np.ndarray:
    """The frames between i-vectors, as edges. Frames after the last i-vector belong to no block, and so not to the
    speaker's statistics either, unless every frame is asked for."""
    if config.greedy_ivector_extractor:
        return np.array([0, length])
    edges = np.concatenate([[0], np.arange(0, length, config.ivector_period) + 1])
    return np.append(edges, length) if config.repeat and edges[-1] < length else edges


def extract_utterance(online: OnlineExtractor, feats: np.ndarray, period: int = 10) -> np.ndarray:
    """i-vectors of an utterance on its own, (ceil(T / period), S)."""
    return extract_speaker(online, [feats], replace(online.config, ivector_period=period))[0]


def extract_speaker(
    online: OnlineExtractor, utterances: Sequence[np.ndarray], config: OnlineIvectorConfig | None = None
) -> list[np.ndarray]:
    """i-vectors of a speaker's utterances, each going on from the ones before it."""
    state = SpeakerState.new(online)
    feats = [check_feats(online, one) for one in utterances]
    return extract_batch(online, feats, [state] * len(feats), config or online.config) if feats else []
