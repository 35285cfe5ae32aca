"""Networks of sentiment-aware ASR pretraining and of what is fine-tuned on it.

A. Ghriss, B. Yang, V. Rozgic, E. Shriberg, C. Wang, "Sentiment-aware automatic speech recognition pre-training for enhanced
speech emotion recognition", ICASSP 2022.

    stacked filterbanks (T, D) -> 5 x Bi-LSTM (T, 2 units) -> affine -> CTC over characters
                                                           -> recurrent summary -> affine -> softmax over sentiments
                                                           -> regressor -> activation, valence, dominance

The regressor: two strided convolutions over time, each normalised over the sample and rectified; self-attention in several
heads; mean and variance over the frames, side by side; affine.

Ours, the paper leaving it open: the summary is the last state of an LSTM; as many channels in the convolutions as nodes in
the attention; a convolution's last window may reach behind the end, where there are zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.nn.coattention import Attention, Sequences
from pyser.nn.lstm import BiLstm, mask_of

CONVOLUTIONS = ((6, 3), (3, 2))  # frames that a filter sees, and its stride
SLOPE = 0.3  # of the rectifier, below 0


@dataclass(frozen=True)
class EncoderConfig:
    """feat_dim: of an input frame, of `stack` filterbanks; units: of the LSTM in each direction."""

    feat_dim: int = 120
    layers: int = 5
    units: int = 192
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.feat_dim, self.layers, self.units) < 1 or not 0 <= self.dropout < 1:
            raise PyserError(f"{self}: sizes must be positive, and dropout at least 0 and below 1")

    @property
    def dim(self) -> int:
        """Of an output frame."""
        return 2 * self.units


@dataclass(frozen=True)
class RegressorConfig:
    """nodes: of all heads together, and channels of the convolutions."""

    nodes: int = 64
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.nodes, self.heads) < 1 or self.nodes % self.heads or not 0 <= self.dropout < 1:
            raise PyserError(f"{self}: nodes must be a multiple of heads, and dropout at least 0 and below 1")


class Encoder(nn.Module):
    """x (N, T, feat_dim), lengths (N,) -> Sequences (N, T, 2 units), zero behind the end of each.

    It begins as Keras's LSTMs do, gate by gate (X. Glorot, Y. Bengio, AISTATS 2010; A. Saxe et al., ICLR 2014; 1 as the bias
    of the forget gate: R. Jozefowicz et al., ICML 2015): in five layers that begin as torch's do, what tells utterances apart
    has faded to a thousandth before it reaches the last.
    """

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.lstm = BiLstm(config.feat_dim, config.units, config.layers, config.dropout)
        for layer in (*self.lstm.ahead, *self.lstm.back):
            start_gates(layer)

    def forward(self, x: Tensor, lengths: Tensor) -> Sequences:
        return Sequences(self.lstm(x, lengths), mask_of(lengths, x.shape[1], x.device))


@torch.no_grad()
def start_gates(lstm: nn.LSTM) -> None:
    for name, parameter in lstm.named_parameters():
        for number, gate in enumerate(parameter.chunk(4)):  # input, forget, cell, output
            if name == "weight_ih_l0":
                nn.init.xavier_uniform_(gate)
            elif name == "weight_hh_l0":
                nn.init.orthogonal_(gate)
            else:
                nn.init.constant_(gate, float(number == 1 and name == "bias_ih_l0"))


class Summary(nn.Module):
    """Sequences (N, T, dim) -> logits (N, classes), of the last state of a recurrent layer."""

    def __init__(self, dim: int, units: int, classes: int):
        super().__init__()
        self.lstm = nn.LSTM(dim, units, batch_first=True)
        self.output = nn.Linear(units, classes)

    def forward(self, frames: Sequences) -> Tensor:
        lengths = frames.mask.sum(dim=1)
        states = self.lstm(frames.x)[0]
        last = states[torch.arange(len(lengths), device=states.device), lengths - 1]  # (N, units)
        logits: Tensor = self.output(last)
        return logits


class SpeechReader(nn.Module):
    """An encoder that learns to read speech, and with `sentiments` to hear what is said of it: logits (N, T, labels) for
    CTC, and (N, sentiments) or None."""

    def __init__(self, config: EncoderConfig, labels: int, sentiments: int = 0):
        super().__init__()
        self.encoder = Encoder(config)
        self.labels = nn.Linear(config.dim, labels)
        self.sentiment = Summary(config.dim, config.units, sentiments) if sentiments else None

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        frames = self.encoder(x, lengths)
        return self.labels(frames.x), None if self.sentiment is None else self.sentiment(frames)


class MaskedConvolution(nn.Module):
    """Sequences (N, T, in) -> (N, ceil(T / stride), out): windows that begin within the sequence, zeros behind its end.
    Normalised over all frames and channels of the sample (then a gain and a bias for each channel), rectified."""

    def __init__(self, dim: int, channels: int, width: int, stride: int):
        super().__init__()
        self.width, self.stride = width, stride
        self.convolution = nn.Conv1d(dim, channels, width, stride)
        self.gain, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, frames: Sequences) -> Sequences:
        lengths = (frames.mask.sum(dim=1) + self.stride - 1) // self.stride
        x = frames.x.masked_fill(~frames.mask[..., None], 0).transpose(1, 2)  # (N, in, T)
        out = -(-x.shape[2] // self.stride)
        x = F.pad(x, (0, (out - 1) * self.stride + self.width - x.shape[2]))  # cut where the last window does not reach
        x = self.convolution(x).transpose(1, 2)  # (N, out, channels)
        mask = mask_of(lengths, out, x.device)
        mean, variance = moments(x, mask, (1, 2))
        x = (x - mean) / (variance + 1e-5).sqrt() * self.gain + self.bias
        return Sequences(F.leaky_relu(x, SLOPE).masked_fill(~mask[..., None], 0), mask)


def moments(x: Tensor, mask: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and variance of x (N, T, D) over `dims`, which T is one of, where the mask (N, T) is true; dims are kept. Of
    float32 if x is of less: rounded means would hide small differences between sequences."""
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    inside = mask[..., None].to(x.dtype)
    count = inside.expand_as(x).sum(dim=dims, keepdim=True)
    mean = (x * inside).sum(dim=dims, keepdim=True) / count
    return mean, ((x - mean).square() * inside).sum(dim=dims, keepdim=True) / count


class Regressor(nn.Module):
    """Sequences (N, T, dim) -> (N, targets)."""

    def __init__(self, dim: int, targets: int, config: RegressorConfig):
        super().__init__()
        dims = dim, config.nodes
        self.convolutions = nn.ModuleList(
            MaskedConvolution(size, config.nodes, width, stride)
            for size, (width, stride) in zip(dims, CONVOLUTIONS, strict=True))
        self.attention = Attention(config.nodes, config.nodes, config.heads)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(2 * config.nodes, targets)

    def forward(self, frames: Sequences) -> Tensor:
        for convolution in self.convolutions:
            frames = convolution(frames)
        frames = Sequences(self.attention(frames.x, frames), frames.mask)
        mean, variance = moments(frames.x, frames.mask, (1,))
        found: Tensor = self.output(self.dropout(torch.cat([mean, variance], dim=2).squeeze(1)))  # of (N, 2 nodes)
        return found


def concordance(x: Tensor, y: Tensor) -> Tensor:
    """Concordance correlation coefficients (D,) of x and y (N, D), over the N (L. I.-K. Lin, "A concordance correlation
    coefficient to evaluate reproducibility", Biometrics 45, 1989). 0 where both are constant."""
    x, y = x.float(), y.float()
    dx, dy = x - x.mean(dim=0), y - y.mean(dim=0)
    gap = (x.mean(dim=0) - y.mean(dim=0)).square()
    return 2 * (dx * dy).mean(dim=0) / (dx.square().mean(dim=0) + dy.square().mean(dim=0) + gap).clamp_min(1e-8)
