"""Emotion of an utterance from frames of a speech encoder (a) and subwords of a text encoder (l): cross-modal gated
interaction, CmGI.

Y. Gao, H. Shi, C. Chu, T. Kawahara, "Speech emotion recognition with multi-level acoustic and semantic information extraction
and interaction", Interspeech 2024. With Q, K, V affine maps of a modality's d columns, in several heads:

    s_a = softmax(Q_a K_a^T / sqrt(d)) V_a        s_l = softmax(Q_l K_l^T / sqrt(d)) V_l        (3)  self-attention
    c_a = softmax(Q_a K_l^T / sqrt(d)) V_l        c_l = softmax(Q_l K_a^T / sqrt(d)) V_a        (4)  cross-attention
    G = f(sigma(concat(x, y)))                    gated(x, y) = concat(x * G, y * (1 - G))      (5)  gated fusion

    a (N, T, D_a) -> affine -> s_a, c_a (N, T, d) -> gated -> mean over the frames   (N, 2d) \\
    l (N, S, D_l) -> affine -> s_l, c_l (N, S, d) -> gated -> mean over the subwords (N, 2d) -> affine -> softmax

The temporal-aware gate of `cmgi` has a G for every frame and subword. The other rows of the paper's Table 2:

    none              means of a and l, side by side
    self, cross       means of s_a and s_l, or of c_a and c_l, side by side
    self-gate, cross-gate    the same two means, gated against each other
    cmgi-pooled-gate  cmgi, with a G for each modality that is computed of the means of s and c

The attention of (3) and (4) is pyser.nn.coattention's. Ours, the paper leaving it open: sigma is an affine map and f the
logistic function (between 0 and 1, as x * G, y * (1 - G) asks for); the affine maps to one d in front of the attention; that
(4) has maps Q, K, V of its own, and the heads another map behind them; no residual, no layer norm; which two vectors the
gates of Table 2 weigh; and that a modality which has nothing to say (no subwords) leaves the other one as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.nn.coattention import Attention, CoAttention, Sequences

INTERACTIONS = ("none", "self", "self-gate", "cross", "cross-gate", "cmgi-pooled-gate", "cmgi")
ALONE = ("none", "self")  # what one modality can do
GATES = {"self-gate": 1, "cross-gate": 1, "cmgi-pooled-gate": 2, "cmgi": 2}


@dataclass(frozen=True)
class CmgiConfig:
    """acoustic_dim, text_dim: D_a and D_l, 0 where that modality is not there. nodes: d. dropout: of the inputs."""

    acoustic_dim: int
    text_dim: int
    num_labels: int
    interaction: str = "cmgi"
    nodes: int = 768
    heads: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.interaction not in INTERACTIONS:
            raise PyserError(f"--interaction={self.interaction}; known: {' '.join(INTERACTIONS)}")
        if not (self.acoustic_dim and self.text_dim) and self.interaction not in ALONE:
            raise PyserError(f"--interaction={self.interaction} is of speech and text; one alone has {' or '.join(ALONE)}")
        if min(self.acoustic_dim, self.text_dim) < 0 or max(self.acoustic_dim, self.text_dim) < 1 or self.num_labels < 2:
            raise PyserError(f"{self}: speech or text must have a dimension, and labels are two at least")
        if min(self.nodes, self.heads) < 1 or self.nodes % self.heads:
            raise PyserError(f"--nodes={self.nodes} --heads={self.heads}; nodes must be a multiple of heads")
        if not 0 <= self.dropout < 1:
            raise PyserError(f"--dropout={self.dropout:g}; it must be at least 0 and below 1")


class Gate(nn.Module):
    """x, y (..., d) -> (..., 2d), equation 5."""

    def __init__(self, nodes: int):
        super().__init__()
        self.affine = nn.Linear(2 * nodes, nodes)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        gate = torch.sigmoid(self.affine(torch.cat([x, y], dim=-1)))  # (..., d)
        return torch.cat([x * gate, y * (1 - gate)], dim=-1)  # (..., 2d)


class CmgiNetwork(nn.Module):
    """Log posteriors (N, num_labels) of a and l, of either of which an utterance may have no frames. What stands behind the
    end of an utterance is never looked at."""

    def __init__(self, config: CmgiConfig):
        super().__init__()
        self.config = config
        kind, nodes, heads = config.interaction, config.nodes, config.heads
        dims = [dim for dim in (config.acoustic_dim, config.text_dim) if dim]
        self.dropout = nn.Dropout(config.dropout)
        if kind != "none":
            self.inputs = nn.ModuleList(nn.Linear(dim, nodes) for dim in dims)
            dims = [nodes] * len(dims)
        if kind.startswith(("self", "cmgi")):
            self.selves = nn.ModuleList(Attention(nodes, nodes, heads) for _ in dims)
        if kind.startswith(("cross", "cmgi")):
            self.cross = CoAttention(nodes, heads)
        self.gates = nn.ModuleList(Gate(nodes) for _ in range(GATES.get(kind, 0)))
        self.output = nn.Linear(sum(dims) * (2 if kind.startswith("cmgi") else 1), config.num_labels)

    def forward(self, acoustic: Sequences | None, text: Sequences | None) -> Tensor:
        found = [Sequences(self.dropout(x.x.masked_fill(~x.mask[..., None], 0)), x.mask)
                 for x in (acoustic, text) if x is not None]  # (N, T, D_a), (N, S, D_l)
        scores = self.output(torch.cat(self._interact(found), dim=1))  # (N, K)
        return scores.to(self.output.weight.dtype).log_softmax(dim=1)  # (of full precision in autocast too)

    def _interact(self, found: list[Sequences]) -> list[Tensor]:
        """What utterances are classified by: (N, columns) of each modality, or of both together."""
        kind = self.config.interaction
        if kind == "none":
            return [x.mean() for x in found]  # (N, D_a), (N, D_l)
        found = [Sequences(layer(x.x), x.mask) for layer, x in zip(self.inputs, found, strict=True)]  # (N, T or S, d)
        selves, crosses = [], []
        if kind.startswith(("self", "cmgi")):
            # (3): s_a (N, T, d), s_l (N, S, d)
            selves = [Sequences(layer(x.x, x), x.mask) for layer, x in zip(self.selves, found, strict=True)]
        if kind.startswith(("cross", "cmgi")):
            crosses = list(self.cross(*found))  # (4): c_a (N, T, d), c_l (N, S, d)
        if kind == "cmgi":  # (5) with G (N, T, d) and (N, S, d); means (N, 2d), (N, 2d)
            return [Sequences(gate(s.x, c.x), s.mask).mean() for gate, s, c in zip(self.gates, selves, crosses, strict=True)]
        if kind == "cmgi-pooled-gate":  # (5) with G (N, d) of each modality; (N, 2d), (N, 2d)
            return [gate(s.mean(), c.mean()) for gate, s, c in zip(self.gates, selves, crosses, strict=True)]
        means = [x.mean() for x in selves or crosses]  # (N, d) each
        return [gate(*means) for gate in self.gates] or means  # (5) with one G (N, d): (N, 2d); without: (N, d) each
