"""Contrastive predictive coding: what comes next is told from frames of elsewhere (A. van den Oord, Y. Li, O. Vinyals,
"Representation learning with contrastive predictive coding", arXiv 1807.03748).

    stacked filterbanks -> affine, rectified, affine -> codes (T, codes)
                        -> the encoder, each direction apart -> context (T, units) -> k-th affine -> codes k frames on

The forward direction predicts what follows and the backward direction what came before: the encoder is bidirectional, and
with both directions together nothing would be left to predict. The weights between the directions, which therefore learn
nothing, are zero, and learn in fine-tuning. Negatives are other frames of the same utterance: those of other utterances
could be told by their speakers and rooms alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.nn.lstm import mask_of
from pyser.nn.sa2sr import Encoder, EncoderConfig


@dataclass(frozen=True)
class CpcConfig:
    """steps: frames ahead that are predicted, 1 to so many; negatives: frames drawn for all predictions of a step in an
    utterance; the right one is none."""

    codes: int = 64
    steps: int = 12
    negatives: int = 128

    def __post_init__(self) -> None:
        if min(self.codes, self.steps, self.negatives) < 1:
            raise PyserError(f"{self}: codes, steps and negatives must be positive")


class Predictor(nn.Module):
    """An encoder that learns to predict: (x (N, T, feat_dim), lengths (N,)) -> cross-entropy of the right frame among the
    negatives, and the share of predictions that prefer it, both means over all predictions; how many there are."""

    def __init__(self, config: EncoderConfig, cpc: CpcConfig):
        super().__init__()
        self.cpc, self.encoder = cpc, Encoder(config)
        self.encoder.lstm.separate()
        self.codes = nn.Sequential(nn.Linear(config.feat_dim, config.units), nn.ReLU(), nn.Linear(config.units, cpc.codes))
        self.ahead = nn.ModuleList(nn.Linear(config.units, cpc.codes) for _ in range(cpc.steps))
        self.behind = nn.ModuleList(nn.Linear(config.units, cpc.codes) for _ in range(cpc.steps))

    def forward(self, x: Tensor, lengths: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, int]:
        codes, mask = self.codes(x), mask_of(lengths, x.shape[1], x.device)
        past, future = self.encoder.lstm.apart(x, lengths)
        losses, right, count = x.new_zeros(()), x.new_zeros(()), 0
        for step in range(1, self.cpc.steps + 1):
            both = mask[:, step:]  # of frames t and t + step: where the later one is inside
            if not both.any():
                break
            drawn = (torch.rand(len(x), self.cpc.negatives, generator=generator) * lengths.cpu()[:, None]).long().to(x.device)
            others = codes.gather(1, drawn[:, :, None].expand(-1, -1, codes.shape[2]))  # (N, negatives, codes)
            for context, first, affine in ((past[:, :-step], step, self.ahead[step - 1]),
                                           (future[:, step:], 0, self.behind[step - 1])):
                told = affine(context)  # (N, T - step, codes)
                places = torch.arange(first, first + both.shape[1], device=x.device)
                true = (told * codes[:, places]).sum(dim=2, keepdim=True).float()
                false = (told @ others.transpose(1, 2)).float()  # (N, T - step, negatives)
                false = false.masked_fill(drawn[:, None] == places[:, None], -torch.inf)
                scores = torch.cat([true, false], dim=2)[both]
                losses = losses + F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.long), reduction="sum")
                right = right + (scores[:, 0] > scores[:, 1:].amax(dim=1)).sum()
                count += len(scores)
        return losses / max(count, 1), right / max(count, 1), count
