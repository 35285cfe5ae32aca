"""Online i-vectors in torch, as pyser.ivector.online gives them, of many speakers side by side: what a GPU wants.

Up to the linear terms all frames are computed at once. The conjugate gradient begins where it stopped an i-vector before,
so the blocks of frames between two i-vectors of one speaker come one after the other; what is done together is the n-th
block of every speaker who has one. Speakers are ranked by their number of blocks, so that these are always the first so
many, and blocks are numbered in the order in which they are solved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pyser.ivector.conjugate import conjugate_gradient, solve_exactly
from pyser.ivector.directory import OnlineExtractor, OnlineIvectorConfig
from pyser.ivector.frontend import FrontEnd
from pyser.ivector.online import SpeakerState, block_edges
from pyser.ivector.pairs import Pairs, runs_of, sum_pairs
from pyser.ivector.ubm import DiagGmm
from pyser.ivector.ubm_em import likelihood_matrix, likelihood_terms

PART_FRAMES = 65536  # of whole utterances, whose frames are computed at once
CHUNK = 16384  # of these, how many have their spliced features and log-likelihoods in memory together
QUADRATICS = 2**26  # elements of the blocks' quadratic terms that are
RUN = 64  # statistics of one Gaussian that are one matrix product


def extract_batch(
    online: OnlineExtractor, utterances: Sequence[np.ndarray], states: Sequence[SpeakerState], config: OnlineIvectorConfig,
    weights: Sequence[np.ndarray] | None = None, device: torch.device | str = "cpu",
) -> list[np.ndarray]:
    """As pyser.ivector.online.extract_batch, on `device`."""
    device = torch.device(device)
    before = []
    for feats, state in zip(utterances, states, strict=True):
        before.append(state.cmvn)
        state.add_cmvn(feats, config.max_remembered_frames)
    order = _Order.of([len(feats) for feats in utterances], states, config)
    blocks = _Blocks.of(order.size, online.extractor.dim, device)
    tables = _Tables.of(online, device)
    for part in _parts(utterances):
        frame_weights = np.concatenate([_weights(len(utterances[u]), weights[u] if weights else None) for u in part])
        (raw, normalised), _ = project_batch(
            online.front_end, [utterances[u] for u in part], [before[u] for u in part], device)
        pairs = posteriors(online.ubm, normalised, torch.from_numpy(frame_weights).to(device), config.num_gselect,
                           config.min_post, config.posterior_scale)
        block = torch.from_numpy(np.concatenate([order.block_of_frame(u, len(utterances[u])) for u in part])).to(device)
        blocks.add(tables, block, pairs, normalised if config.online_cmvn_iextractor else raw)
    rows = _walk(online, tables, blocks, order, config).cpu().numpy()
    results = []
    for utterance, feats in enumerate(utterances):
        solved = rows[order.blocks[utterance]]
        wanted = np.arange(len(feats) if config.repeat else -(-len(feats) // config.ivector_period))
        if config.greedy_ivector_extractor:
            wanted = np.zeros_like(wanted)
        elif config.repeat:
            wanted //= config.ivector_period
        results.append(solved[wanted])
    return results


def _parts(utterances: Sequence[np.ndarray]) -> Iterator[list[int]]:
    part: list[int] = []
    for number in range(len(utterances)):
        part.append(number)
        if sum(len(utterances[u]) for u in part) >= PART_FRAMES or number == len(utterances) - 1:
            yield part
            part = []


def _weights(length: int, given: np.ndarray | None) -> np.ndarray:
    """(T,) float32; frames beyond those given weigh nothing."""
    if given is None:
        return np.ones(length, np.float32)
    return np.pad(given[:length], (0, max(0, length - len(given)))).astype(np.float32)


def project_batch(
    front_end: FrontEnd, utterances: Sequence[np.ndarray], speaker_stats: Sequence[np.ndarray], device: torch.device
) -> tuple[Tensor, np.ndarray]:
    """As FrontEnd.project_batch, without rows that mean nothing: (2, rows, D') float32, and where utterances begin."""
    lengths = np.array([len(feats) for feats in utterances])
    starts = np.cumsum(lengths) - lengths
    feats = torch.from_numpy(np.concatenate(utterances)).to(device)
    cmvn = front_end.cmvn
    if cmvn.norm_means and not cmvn.norm_vars and not cmvn.skip_dims:
        normalised = _subtract_running_means(front_end, feats, lengths, np.stack([stats[0] for stats in speaker_stats]))
    else:
        normalised = torch.from_numpy(np.concatenate([
            front_end.normalise(one, stats if stats[0, -1] > 0 else None)
            for one, stats in zip(utterances, speaker_stats, strict=True)])).float().to(device)
    spliced = front_end.feat_dim * (front_end.left_context + 1 + front_end.right_context)
    matrix = torch.from_numpy(front_end.lda[:, :spliced].T.astype(np.float32)).to(device)
    offset = torch.from_numpy(front_end.lda[:, spliced:].sum(1).astype(np.float32)).to(device)
    utterance = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
    first, last = (torch.from_numpy(edge).to(device)[utterance, None] for edge in (starts, starts + lengths - 1))
    context = torch.arange(-front_end.left_context, front_end.right_context + 1, device=device)
    projected = feats.new_empty(2, len(feats), len(front_end.lda))
    for begin in range(0, len(feats), CHUNK):
        part = slice(begin, begin + CHUNK)
        frames = torch.arange(begin, min(begin + CHUNK, len(feats)), device=device)[:, None] + context
        frames = torch.minimum(torch.maximum(frames, first[part]), last[part])
        for source, out in ((feats, projected[0]), (normalised, projected[1])):
            out[part] = torch.addmm(offset, source[frames].flatten(1), matrix)
    return projected, starts


def _subtract_running_means(front_end: FrontEnd, feats: Tensor, lengths: np.ndarray, speakers: np.ndarray) -> Tensor:
    """Online CMVN without variances (feat/online-feature.cc, OnlineCmvn::GetFrame): feats (T, D) -> (T, D) float32.

    lengths (N,) of the utterances one after the other; speakers (N, D + 1) float64: sums and frame count of the speaker's
    earlier utterances.
    """
    cmvn, device = front_end.cmvn, feats.device
    total = torch.from_numpy(front_end.global_stats[0]).to(device)
    speaker = torch.from_numpy(speakers).to(device)
    starts = np.cumsum(lengths) - lengths
    out = torch.empty_like(feats)
    sizes = np.ceil(np.log2(lengths)).astype(int)
    for size in np.unique(sizes):  # utterances of about one length side by side: at most half of it is padding
        chosen = np.flatnonzero(sizes == size)
        longest = int(lengths[chosen].max())
        length = torch.from_numpy(lengths[chosen]).to(device)[:, None]
        frame = torch.arange(longest, device=device)[None]
        rows = torch.from_numpy(starts[chosen]).to(device)[:, None] + torch.minimum(frame, length - 1)
        sums = feats[rows].double().cumsum(1)
        if longest > cmvn.cmn_window:
            sums = torch.cat([sums[:, : cmvn.cmn_window], sums[:, cmvn.cmn_window :] - sums[:, : -cmvn.cmn_window]], dim=1)
        count = (frame + 1).clamp(max=cmvn.cmn_window).double()
        earlier = speaker[torch.from_numpy(chosen).to(device)][:, None]  # (n, 1, D + 1)
        available = earlier[:, :, -1]
        from_speaker = torch.minimum(cmvn.cmn_window - count, available.clamp(max=cmvn.speaker_frames))
        from_total = (cmvn.cmn_window - count - from_speaker).clamp(max=cmvn.global_frames)
        sums += (from_speaker / available.clamp(min=1e-300))[:, :, None] * earlier[:, :, :-1]
        sums += (from_total / total[-1])[:, :, None] * total[:-1]
        mean = sums / (count + from_speaker + from_total)[:, :, None]
        inside = frame < length
        out[rows[inside]] = feats[rows[inside]] - mean[inside].float()
    return out


def posteriors(
    ubm: DiagGmm, feats: Tensor, weights: Tensor, num_gselect: int = 5, min_post: float = 0.025, scale: float = 1.0
) -> Pairs:
    """As pyser.ivector.ubm.posteriors, of feats (T, D) and weights (T,) float32 on one device."""
    matrix = likelihood_matrix(ubm).to(feats.device)
    keep = min(num_gselect, matrix.shape[1])
    least = torch.full_like(weights, min_post)
    light = (weights != 1) & (weights != 0)
    least = torch.where(light, (least / weights.abs()).clamp(max=0.99), least)
    found = []
    for begin in range(0, len(feats), CHUNK):
        part = slice(begin, begin + CHUNK)
        likes, gauss = (likelihood_terms(feats[part]) @ matrix).topk(keep, dim=1)
        best = likes[:, :1]
        kept = likes > best + least[part, None].log()
        kept[:, 0] = True
        post = torch.exp(likes - best) * kept
        kept &= post >= least[part, None] * post.sum(1, keepdim=True)  # of the sum before anything is dropped
        kept[:, 0] = True
        post *= kept
        post *= (weights[part] * scale)[:, None] / post.sum(1, keepdim=True)
        frame, place = (kept & (weights[part] != 0)[:, None]).nonzero(as_tuple=True)
        found.append((frame + begin, gauss[frame, place], post[frame, place]))
    return Pairs(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@dataclass(frozen=True)
class _Order:
    """In which order blocks are solved.

    blocks: of each utterance, its blocks' numbers; edges: and their frames. speakers: the states by rank, most blocks
    first. starts (steps + 1,): the n-th block of the speakers is numbered from starts[n], by rank. first, solved (size,):
    whether a block begins its utterance, and whether an i-vector is wanted after it. ends: of every step, the ranks
    whose utterance ends there.
    """

    blocks: list[np.ndarray]
    edges: list[np.ndarray]
    speakers: list[SpeakerState]
    starts: np.ndarray
    first: np.ndarray
    solved: np.ndarray
    ends: list[np.ndarray]

    @property
    def size(self) -> int:
        return int(self.starts[-1])

    @classmethod
    def of(cls, lengths: Sequence[int], states: Sequence[SpeakerState], config: OnlineIvectorConfig) -> _Order:
        edges = [block_edges(length, config) for length in lengths]
        number = {id(state): 0 for state in states}
        began = []  # after how many blocks of its speaker an utterance begins
        for one, state in zip(edges, states, strict=True):
            began.append(number[id(state)])
            number[id(state)] += len(one) - 1
        speakers = sorted({id(state): state for state in states}.values(), key=lambda state: -number[id(state)])
        rank = {id(state): place for place, state in enumerate(speakers)}
        totals = np.array([number[id(state)] for state in speakers])
        active = np.searchsorted(-totals, -np.arange(totals.max()))  # how many have more than n blocks
        starts = np.concatenate([[0], np.cumsum(active)])
        blocks = [starts[at + np.arange(len(one) - 1)] + rank[id(state)]
                  for at, one, state in zip(began, edges, states, strict=True)]
        first, solved = np.zeros(starts[-1], bool), np.zeros(starts[-1], bool)
        ends: list[list[int]] = [[] for _ in active]
        for at, one, length, own, state in zip(began, edges, lengths, blocks, states, strict=True):
            first[own[0]] = True
            solved[own[: 1 if config.greedy_ivector_extractor else -(-length // config.ivector_period)]] = True
            ends[at + len(one) - 2].append(rank[id(state)])
        return cls(blocks, edges, speakers, starts, first, solved, [np.array(one, np.int64) for one in ends])

    def block_of_frame(self, utterance: int, length: int) -> np.ndarray:
        """(T,), -1 where a frame belongs to none."""
        edges = self.edges[utterance]
        found = np.full(length, -1)
        found[: edges[-1]] = np.repeat(self.blocks[utterance], np.diff(edges))
        return found


@dataclass(frozen=True)
class _Tables:
    """Of an extractor: sigma_inv_m (G, D, S) float64, quadratics (G, S S) float32."""

    sigma_inv_m: Tensor
    quadratics: Tensor

    @classmethod
    def of(cls, online: OnlineExtractor, device: torch.device) -> _Tables:
        unpack = torch.from_numpy(online.extractor.unpack).to(device)
        quadratics = torch.from_numpy(online.quadratics).to(device)[:, unpack.flatten()]
        return cls(torch.from_numpy(online.extractor.sigma_inv_m).to(device), quadratics)


@dataclass
class _Blocks:
    """Statistics of the blocks: linear (B, S), count (B,) float64; and, of some utterances after the other, block, gauss,
    weight (N,) of the pairs of a block and a Gaussian."""

    linear: Tensor
    count: Tensor
    pairs: list[tuple[Tensor, Tensor, Tensor]]

    @classmethod
    def of(cls, size: int, dim: int, device: torch.device) -> _Blocks:
        zeros = torch.zeros(size, dim + 1, dtype=torch.float64, device=device)
        return cls(zeros[:, :dim], zeros[:, dim], [])

    def add(self, tables: _Tables, block: Tensor, pairs: Pairs, feats: Tensor) -> None:
        """Sum pairs of frames, each of which is of a block (T,) or -1, and feats (T, D)."""
        inside = block[pairs.frame] >= 0
        pairs = Pairs(pairs.frame[inside], pairs.gauss[inside], pairs.weight[inside])
        size = len(self.linear)
        keys, weight, first = sum_pairs(pairs.gauss * size + block[pairs.frame], pairs, feats)
        gauss, own = keys.div(size, rounding_mode="floor"), keys % size
        run, place, valid = runs_of(gauss, len(tables.sigma_inv_m), RUN)
        terms = (first[place] @ tables.sigma_inv_m[run])[valid]
        self.linear.index_add_(0, own, terms)
        self.count.index_add_(0, own, weight)
        self.pairs.append((own, gauss, weight.float()))

    def quadratics(self, tables: _Tables, order: _Order) -> Iterator[tuple[int, Tensor]]:
        """A step and its blocks' quadratic terms (n, S, S), summed in float32."""
        own, gauss, weight = (torch.cat(parts) for parts in zip(*self.pairs, strict=True))
        room = QUADRATICS // tables.quadratics.shape[1]
        place = torch.argsort(own, stable=True)
        gauss, weight = gauss[place], weight[place]
        bounds = torch.searchsorted(own[place].contiguous(), torch.arange(len(self.linear) + 1, device=own.device))
        starts, dim, step = order.starts, self.linear.shape[1], 0
        while step < len(starts) - 1:
            end = max(step + 1, int(np.searchsorted(starts, starts[step] + room, side="right")) - 1)
            bags = bounds[starts[step] : starts[end] + 1]
            pairs = slice(int(bags[0]), int(bags[-1]))
            terms = functional.embedding_bag(
                gauss[pairs], tables.quadratics, bags[:-1] - bags[0], mode="sum", per_sample_weights=weight[pairs])
            for one in range(step, end):
                yield one, terms[starts[one] - starts[step] : starts[one + 1] - starts[step]].view(-1, dim, dim)
            step = end


def _walk(
    online: OnlineExtractor, tables: _Tables, blocks: _Blocks, order: _Order, config: OnlineIvectorConfig
) -> Tensor:
    """The i-vectors (B, S) float32 after every block that wants one; brings the speakers' states up to date."""
    device, dim, offset = blocks.linear.device, online.extractor.dim, online.extractor.prior_offset
    unpack = online.extractor.unpack
    count, linear, packed = (
        torch.from_numpy(np.stack([np.asarray(getattr(state, name), np.float64) for state in order.speakers])).to(device)
        for name in ("count", "linear", "quadratic"))
    quadratic = packed[:, torch.from_numpy(unpack.flatten()).to(device)].view(-1, dim, dim)
    start = torch.zeros(dim, dtype=torch.float64, device=device)
    start[0] = offset
    x = start.repeat(len(order.speakers), 1)
    first, solved = (torch.from_numpy(flags).to(device)[:, None] for flags in (order.first, order.solved))
    ending = torch.from_numpy(np.concatenate(order.ends)).to(device)
    ends = np.cumsum([0, *map(len, order.ends)])
    limit = config.max_remembered_frames * config.posterior_scale
    rows = torch.zeros(order.size, dim, dtype=torch.float32, device=device)
    for step, terms in blocks.quadratics(tables, order):
        here = slice(order.starts[step], order.starts[step + 1])
        n = len(terms)
        quadratic[:n] += terms
        linear[:n] += blocks.linear[here]
        count[:n] += blocks.count[here]
        prior = torch.ones_like(count[:n])
        if config.max_count > 0:
            prior = count[:n].clamp(min=config.max_count) / config.max_count
        b = linear[:n] + prior[:, None] * start
        before = torch.where(first[here], start, x[:n])
        if config.num_cg_iters:
            after, grew = conjugate_gradient(quadratic[:n], prior, b, before, config.num_cg_iters)
            if grew.any():
                after[grew] = solve_exactly(quadratic[:n][grew], prior[grew], b[grew])
        else:
            after = solve_exactly(quadratic[:n], prior, b)
        after = torch.where((count[:n] > 0)[:, None], after, start)
        x[:n] = torch.where(solved[here], after, before)
        rows[here] = x[:n].float()
        rank = ending[ends[step] : ends[step + 1]]
        if len(rank):
            scale = torch.where(count[rank] > limit, limit / count[rank].clamp(min=1e-300), torch.ones_like(count[rank]))
            count[rank] *= scale
            linear[rank] *= scale[:, None]
            quadratic[rank] *= scale[:, None, None]
    rows[:, 0] -= offset
    low = torch.tril_indices(dim, dim, device=device)
    counts, linears = count.tolist(), linear.cpu().numpy()
    packed = quadratic[:, low[0], low[1]].cpu()
    for place, state in enumerate(order.speakers):
        state.count, state.linear, state.quadratic = counts[place], linears[place].copy(), packed[place].numpy().copy()
    return rows
