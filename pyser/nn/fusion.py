"""Emotion of an utterance from several streams of it: MFCC, hidden states of an ASR model, words.

Y. Li, P. Bell, C. Lai, "Fusing ASR outputs in joint training for speech emotion recognition", ICASSP 2022.

    stream (T, D) -> normalise -> 2 x Bi-LSTM -> self-attention (T, nodes) -> [co-attention] -> mean over its frames (nodes)
    means of all streams, side by side -> affine -> softmax over the emotions

concat: no co-attention. coattention: each two streams attend to each other (pyser.nn.coattention). hierarchical: from the
lowest level, frames (MFCC), over the utterance (hidden states) up to the dialogue (words): the first two streams attend to
each other, then the frames of both outputs and the third stream do.

Ours, the paper leaving it open: that frames are what co-attention attends to, and that the mean makes a sequence an
encoding; dropout after each of the LSTM's layers; three streams of `coattention` pair by pair; no layer between the
encodings and the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.nn.coattention import Attention, CoAttention, Sequences, one_after_the_other
from pyser.nn.lstm import BiLstm, mask_of

FUSIONS = ("concat", "coattention", "hierarchical")
MAX_POOLED = {"mfcc": 2}  # frames of these streams that become one: their maximum, in each dimension


@dataclass(frozen=True)
class FusionConfig:
    """Sizes; the defaults are the paper's. streams: name -> dimension, in the order in which `hierarchical` fuses them.

    units: of the LSTM in each direction. nodes: of all heads together. One stream alone is not fused, whatever `fusion`.
    """

    streams: Mapping[str, int]
    num_labels: int
    fusion: str = "hierarchical"
    units: int = 32
    heads: int = 16
    nodes: int = 64
    dropout: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", dict(self.streams))
        if self.fusion not in FUSIONS:
            raise PyserError(f"--fusion={self.fusion}; known: {' '.join(FUSIONS)}")
        if not self.streams or not all(name.isidentifier() for name in self.streams):
            raise PyserError(f"--streams={','.join(self.streams)}; give names like mfcc,hidden,text")
        if min(self.num_labels - 1, self.units, self.heads, self.nodes, *self.streams.values()) < 1:
            raise PyserError(f"{self}: sizes must be positive, and labels two at least")
        if self.nodes % self.heads:
            raise PyserError(f"--nodes={self.nodes} --heads={self.heads}; nodes must be a multiple of heads")
        if not 0 <= self.dropout < 1:
            raise PyserError(f"--dropout={self.dropout:g}; it must be at least 0 and below 1")


class StreamEncoder(nn.Module):
    """x (N, T, dim), lengths (N,) on the CPU -> Sequences (N, ceil(longest / kernel), nodes). The input normalisation is
    part of the model. What lies behind the end of an utterance is never looked at; an utterance may have no frames."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, kernel: int, config: FusionConfig):
        super().__init__()
        self.kernel = kernel
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.lstm = BiLstm(dim, config.units, layers=2, dropout=config.dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.attention = Attention(2 * config.units, config.nodes, config.heads)

    def forward(self, x: Tensor, lengths: Tensor) -> Sequences:
        longest = max(int(lengths.max()), 1)
        x = F.pad((x - self.mean) / self.std, (0, 0, 0, longest - x.shape[1]))  # (N, longest, D): cut where T is longer
        if self.kernel > 1:
            x, lengths = _max_pool(x, lengths, self.kernel)  # (N, T', D)
        mask = mask_of(lengths, x.shape[1], x.device)
        x = self.dropout(self.lstm(x, lengths))  # (N, T', 2 units)
        return Sequences(self.attention(x, Sequences(x, mask)), mask)  # (N, T', nodes)


class FusionNetwork(nn.Module):
    """Log posteriors (N, num_labels) of N utterances, from streams[name] (N, T of the stream, dim) and lengths[name] (N,).

    An utterance may have no frames in some streams; in all of them, its posteriors are those of the output's bias.
    """

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict({
            name: StreamEncoder(dim, MAX_POOLED.get(name, 1), config) for name, dim in config.streams.items()})
        n = len(config.streams)
        pairs = {"concat": 0, "coattention": n * (n - 1) // 2, "hierarchical": n - 1}[config.fusion]
        encodings = {"concat": n, "coattention": max(2 * pairs, 1), "hierarchical": min(n, 2)}[config.fusion]
        self.coattentions = nn.ModuleList(CoAttention(config.nodes, config.heads) for _ in range(pairs))
        self.output = nn.Linear(encodings * config.nodes, config.num_labels)

    def normalise(self, name: str, mean: Tensor, std: Tensor) -> None:
        """Mean and standard deviation (dim,) of a stream's frames, for the model to keep."""
        encoder = cast(StreamEncoder, self.encoders[name])
        encoder.mean[:], encoder.std[:] = mean, std

    def forward(self, streams: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        encoded = []
        for name, dim in self.config.streams.items():
            if name not in streams or name not in lengths:
                raise PyserError(f"no stream '{name}'; this network takes {' '.join(self.config.streams)}")
            x, ends = streams[name], lengths[name].cpu()
            if x.ndim != 3 or x.shape[2] != dim or len(ends) != len(x) or ends.min() < 0 or ends.max() > x.shape[1]:
                raise PyserError(f"stream '{name}' of shape {tuple(x.shape)} with lengths {ends.tolist()}; this network "
                                 f"takes (utterances, frames, {dim}) and a number of these frames for each utterance")
            encoded.append(self.encoders[name](x, ends))  # (N, T, nodes)
        encodings = torch.cat([sequences.mean() for sequences in self._fuse(encoded)], dim=1)  # (N, encodings * nodes)
        scores = self.output(encodings).to(self.output.weight.dtype)  # (N, K), of full precision in autocast too
        return scores.log_softmax(dim=1)

    def _fuse(self, encoded: list[Sequences]) -> list[Sequences]:
        if self.config.fusion == "hierarchical":
            fused = encoded[:1]
            for coattention, stream in zip(self.coattentions, encoded[1:], strict=True):
                fused = list(coattention(one_after_the_other(fused), stream))
            return fused
        if not len(self.coattentions):
            return encoded
        pairs = combinations(encoded, 2)
        return [told for coattention, pair in zip(self.coattentions, pairs, strict=True) for told in coattention(*pair)]


def _max_pool(x: Tensor, lengths: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """(N, T, D), lengths (N,) -> (N, ceil(T / kernel), D) and theirs; the last maximum may be one of fewer frames."""
    x = x.masked_fill(~mask_of(lengths, x.shape[1], x.device)[..., None], -torch.inf)
    x = F.pad(x, (0, 0, 0, -x.shape[1] % kernel), value=-torch.inf)
    return x.unflatten(1, (-1, kernel)).amax(dim=2), (lengths + kernel - 1) // kernel
