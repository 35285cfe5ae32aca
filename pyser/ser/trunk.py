"""The acoustic model below an emotion classifier, computed and trained with it: from features to a bottleneck node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pyser.chain.data import pad
from pyser.errors import PyserError
from pyser.nn.model_io import load_tdnnf
from pyser.nn.tdnnf import TdnnF

BELOW_ALL = "lda"  # the input, which is never trained: all layers above it are


@dataclass(frozen=True)
class TrunkConfig:
    """model: an acoustic model, of which the layers up to `node` are computed; those above `train_above` learn: none if that
    is the node, which is a bottleneck whose input can be augmented.

    Both are Kaldi's names: lda, tdnn1, tdnnf2 …, prefinal-l. subsampling: every n-th frame of the node is taken.
    """

    model: str
    node: str
    train_above: str = BELOW_ALL
    subsampling: int = 1


def node_names(network: TdnnF) -> list[str]:
    """The nodes that can be a bottleneck, in order; the first is the input."""
    return [BELOW_ALL, "tdnn1", *(f"tdnnf{n}" for n in range(2, len(network.layers) + 2)), "prefinal-l"]


class Trunk(nn.Module):
    """(N, context + T + context, feat_dim) -> (N, ceil(T / subsampling), D). Layers that do not learn stay in eval mode."""

    def __init__(self, network: TdnnF, config: TrunkConfig):
        super().__init__()
        names = node_names(network)
        for name in (config.node, config.train_above):
            if name not in names:
                raise PyserError(f"{config.model} has no node '{name}' to train at; it has {' '.join(names)}")
        depth, frozen = names.index(config.node), names.index(config.train_above)
        if frozen > depth or not depth:
            raise PyserError(f"--train-above {config.train_above} --node {config.node}: layers from one to the other are "
                             f"trained; the node must be {names[1]} or above, and not below --train-above")
        self.network, self.config = network, config
        self.layers = min(depth - 1, len(network.layers))
        self.prefinal = config.node == "prefinal-l"
        self.context = 1 + sum(network.config.strides[: self.layers])
        units = [nn.ModuleList([network.affine1, network.batchnorm1, network.dropout1]), *network.layers, network.prefinal_l]
        self.frozen = units[:frozen] + units[depth:] + [network.chain, network.xent]  # (modules of the network already)
        for unit in self.frozen:
            unit.requires_grad_(False)
        self.train()

    @property
    def dim(self) -> int:
        return self.network.config.prefinal_dim if self.prefinal else self.network.config.dim

    def train(self, mode: bool = True) -> Trunk:
        super().train(mode)
        for unit in self.frozen:
            unit.train(False)
        return self

    def forward(self, feats: Tensor, ivectors: Tensor | None) -> Tensor:
        x = self.network.hidden(feats, ivectors, self.config.subsampling, self.layers)
        return self.network.prefinal_l(x) if self.prefinal else x

    def padded(self, feats: Sequence[np.ndarray]) -> Tensor:
        """Utterances (T, feat_dim) as one batch for `forward`, edges repeated."""
        longest = max(map(len, feats))
        rows = [pad(matrix, self.context, longest - len(matrix) + self.context) for matrix in feats]
        return torch.from_numpy(np.stack(rows)).float()

    def rows(self, feats: Sequence[np.ndarray], ivectors: Tensor | None) -> tuple[Tensor, Tensor]:
        """The node's frames of all utterances, one after the other (M, D), and the number of the utterance of each (M,)."""
        lengths = torch.tensor([-(-len(matrix) // self.config.subsampling) for matrix in feats])
        out = self(self.padded(feats), ivectors)
        keep = torch.arange(out.shape[1])[None] < lengths[:, None]
        return out[keep], torch.arange(len(feats)).repeat_interleave(lengths)


    def bottlenecks(self, feats: np.ndarray, ivectors: np.ndarray | None) -> np.ndarray:
        """(frames, D) of one utterance (T, feat_dim), by the middle one of its i-vectors (rows, D)."""
        with torch.no_grad():
            return np.asarray(self.rows([feats], None if ivectors is None else middle([ivectors]))[0])


def middle(ivectors: Sequence[np.ndarray]) -> Tensor:
    """The middle row of each utterance's online i-vectors (rows, D): (N, D)."""
    return torch.from_numpy(np.stack([rows[len(rows) // 2] for rows in ivectors]))


def load_trunk(config: TrunkConfig) -> Trunk:
    """The network of config.model, up to its node."""
    if not Path(config.model).exists():
        raise PyserError(f"{config.model}: no such acoustic model; train it first")
    return Trunk(load_tdnnf(config.model), config)
