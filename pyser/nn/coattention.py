"""Attention of one sequence to itself or to another, and of two sequences to each other.

Scaled dot products in several heads: A. Vaswani et al., "Attention is all you need", NIPS 2017. Two streams that exchange
keys and values: J. Lu et al., "ViLBERT", NeurIPS 2019, as Y. Li, P. Bell, C. Lai fuse streams of speech ("Fusing ASR outputs
in joint training for speech emotion recognition", ICASSP 2022). With Q_A, K_A, V_A the projections of stream A, of head i:

    head_i = softmax(Q_Ai K_Bi^T / sqrt(d)) V_Bi     (1)        H_AB = [head_1 ... head_h] W_A     (2)
    head_i = softmax(Q_Bi K_Ai^T / sqrt(d)) V_Ai     (3)        H_BA = [head_1 ... head_h] W_B     (4)

No residual, no layer norm. torch's own attention is not used: rows without any key are NaN there, and its evaluation takes
another path than its training.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Sequences(NamedTuple):
    """x (N, T, D); mask (N, T), true where there is a frame. Elsewhere x is finite and counts for nothing."""

    x: Tensor
    mask: Tensor

    def mean(self) -> Tensor:
        """Over the frames of each (N, D); zeros where there is none."""
        frames = self.mask.sum(dim=1).clamp_min(1)  # (N,)
        return self.x.masked_fill(~self.mask[..., None], 0).sum(dim=1) / frames[:, None]


def one_after_the_other(parts: list[Sequences]) -> Sequences:
    """(N, T_1 + T_2 ..., D): to attention, which knows no order, the frames of all parts."""
    return Sequences(torch.cat([part.x for part in parts], dim=1), torch.cat([part.mask for part in parts], dim=1))


class Attention(nn.Module):
    """Queries (N, Q, dim) to keys (N, T, dim) -> (N, Q, nodes), each head having nodes / heads of them."""

    def __init__(self, dim: int, nodes: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, (nodes // heads) ** -0.5
        self.query, self.key, self.value = (nn.Linear(dim, nodes) for _ in range(3))
        self.output = nn.Linear(nodes, nodes)
        for layer in (self.query, self.key, self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, keys: Sequences) -> Tensor:
        query = self._split(self.query(queries)) * self.scale  # (N, h, Q, d)
        key, value = self._split(self.key(keys.x)), self._split(self.value(keys.x))  # (N, h, T, d)
        score = query @ key.transpose(2, 3)  # (N, h, Q, T)
        score.masked_fill_(~keys.mask[:, None, None], torch.finfo(score.dtype).min)  # finite, for a row without any key
        heads = score.softmax(dim=3) @ value  # (N, h, Q, d), equations 1 and 3
        joined: Tensor = self.output(heads.transpose(1, 2).flatten(2))  # (N, Q, h d), equations 2 and 4
        return joined

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, T, h d) -> (N, h, T, d)


class CoAttention(nn.Module):
    """Streams A (N, T_A, nodes) and B (N, T_B, nodes) -> H_AB (N, T_A, nodes) and H_BA (N, T_B, nodes).

    A stream without frames tells the other nothing: A where B is empty stays as it is, and H_BA has no frames.
    """

    def __init__(self, nodes: int, heads: int):
        super().__init__()
        self.a_to_b, self.b_to_a = Attention(nodes, nodes, heads), Attention(nodes, nodes, heads)

    def forward(self, a: Sequences, b: Sequences) -> tuple[Sequences, Sequences]:
        return _told(a, b, self.a_to_b(a.x, b)), _told(b, a, self.b_to_a(b.x, a))


def _told(stream: Sequences, other: Sequences, attended: Tensor) -> Sequences:
    return Sequences(torch.where(other.mask.any(dim=1)[:, None, None], attended, stream.x.to(attended)), stream.mask)
