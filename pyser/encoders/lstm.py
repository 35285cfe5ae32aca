"""Encoders that begin at random: LSTMs of filterbanks, with an attention decoder that writes what they hear (LAS; W. Chan et
al., "Listen, attend and spell", ICASSP 2016), and of characters. What emotion systems had before pretrained encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyser.encoders.speech import SpeechOutput
from pyser.encoders.vocabulary import ENGLISH
from pyser.errors import PyserError
from pyser.features.fbank import FbankConfig, fbank
from pyser.kaldi.wav import INT16
from pyser.nn.lstm import BiLstm, mask_of

STACKED = 4  # frames of 10 ms that become one
START, END = (ENGLISH.tokens.index(token) for token in ("<s>", "</s>"))
MAX_TEXT = 512  # characters; more are cut off
FBANK = FbankConfig(num_mel_bins=40, dither=0.0)
WINDOW = 400  # samples of a frame
MEAN, STD = 12.0, 4.0  # of filterbanks, about those of speech; loudness and colour of an utterance are left in it


@dataclass(frozen=True)
class LstmConfig:
    """units: in each direction, and half of the decoder's."""

    units: int = 128
    layers: int = 2
    embedding: int = 64
    dropout: float = 0.2

    def lstm(self, dim: int) -> BiLstm:
        """Of frames of `dim`."""
        return BiLstm(dim, self.units, self.layers, self.dropout)


class LasRecogniser(nn.Module):
    """A `Recogniser` that listens, attends and spells English characters."""

    vocabulary = ENGLISH

    def __init__(self, config: LstmConfig = LstmConfig()):  # noqa: B008
        super().__init__()
        self.config, width = config, 2 * config.units
        self.listener = config.lstm(STACKED * FBANK.num_mel_bins)
        self.embedding = nn.Embedding(len(ENGLISH), config.embedding)
        self.cell = nn.LSTMCell(config.embedding + width, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.output = nn.Linear(2 * width, len(ENGLISH))

    @property
    def dim(self) -> int:
        return 2 * self.config.units

    def forward(self, waves: Sequence[np.ndarray]) -> SpeechOutput:
        feats = [_stacked(wave) for wave in waves]
        lengths = torch.tensor([len(matrix) for matrix in feats])
        x = nn.utils.rnn.pad_sequence([torch.from_numpy(matrix) for matrix in feats], batch_first=True)  # (N, T, 160)
        device = self.output.weight.device
        return SpeechOutput(None, (self.listener(x.to(device), lengths),), lengths.to(device))

    def loss(self, output: SpeechOutput, transcripts: Sequence[str]) -> Tensor:
        """Cross-entropy of every character and of the end, the ones before being the true ones."""
        labels = [torch.tensor([*ENGLISH.encode(words), END], device=output.lengths.device) for words in transcripts]
        targets = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-1)  # (N, L)
        given = F.pad(targets[:, :-1].clamp_min(0), (1, 0), value=START)
        state, steps = self._begin(output), []
        for step in range(targets.shape[1]):
            scores, state = self._spell(given[:, step], state, output)
            steps.append(scores)
        scores = torch.stack(steps, dim=2).float()  # (N, V, L)
        losses = F.cross_entropy(scores, targets, ignore_index=-1, reduction="none").sum(dim=1)  # (N,)
        return (losses / (targets >= 0).sum(dim=1)).mean()

    @torch.no_grad()
    def hear(self, output: SpeechOutput) -> list[str]:
        """Greedy; at most one character a frame."""
        label = torch.full_like(output.lengths, START)
        state, written = self._begin(output), []
        ended = torch.zeros_like(label, dtype=torch.bool)
        for _ in range(int(output.lengths.max())):
            scores, state = self._spell(label, state, output)
            label = scores.argmax(dim=1)
            written.append(label)
            ended |= label == END
            if bool(ended.all()):
                break
        rows = torch.stack(written, dim=1).tolist()  # (N, L)
        said = [takewhile(lambda label: label != END, row[:length]) for row, length
                in zip(rows, output.lengths.tolist(), strict=True)]
        return [" ".join("".join(t for t in (ENGLISH.tokens[label] for label in labels) if len(t) == 1)
                         .replace(ENGLISH.delimiter, " ").split()) for labels in said]

    def freeze(self, what: str) -> None:
        """An LSTM has no convolutions to freeze, and begins at random."""

    def checkpoint_gradients(self) -> None:
        raise PyserError("--gradient-checkpointing is of transformers; an LSTM has none")

    def _begin(self, output: SpeechOutput) -> tuple[Tensor, Tensor, Tensor]:
        zeros = output.hidden[-1].new_zeros(len(output.lengths), self.dim)
        return zeros, zeros, zeros

    def _spell(
        self, label: Tensor, state: tuple[Tensor, Tensor, Tensor], output: SpeechOutput
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Scores (N, V) of the character behind `label` (N,), and the state there: the cell's two and the context, (N, D)."""
        x = output.hidden[-1]  # (N, T, D)
        hidden, cell = self.cell(torch.cat([self.embedding(label), state[2]], dim=1), state[:2])
        score = (self.key(x) @ self.query(hidden)[:, :, None])[:, :, 0] * self.dim**-0.5  # (N, T)
        outside = ~mask_of(output.lengths, x.shape[1], x.device)
        share = score.masked_fill(outside, -torch.inf).softmax(dim=1)
        context = (share[:, None] @ x.masked_fill(outside[..., None], 0))[:, 0]  # (N, D)
        return self.output(torch.cat([hidden, context], dim=1)), (hidden, cell, context)


@dataclass(frozen=True)
class LstmText:
    """Sentences to hidden states of their characters, as `TextEncoder` gives those of subwords; an empty one has none."""

    model: nn.ModuleDict
    dim: int

    @classmethod
    def new(cls, config: LstmConfig = LstmConfig()) -> LstmText:  # noqa: B008
        layers = {"embedding": nn.Embedding(len(ENGLISH), config.embedding), "lstm": config.lstm(config.embedding)}
        return cls(nn.ModuleDict(layers), 2 * config.units)

    def tokens(self, sentence: str) -> list[int]:
        return ENGLISH.encode(sentence)[:MAX_TEXT]

    def hidden(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(N, T, dim), and a mask (N, T) that is true where there is a character."""
        lengths = torch.tensor([len(labels) for labels in tokens])
        longest = max(int(lengths.max()), 1)
        ids = torch.tensor([[*labels, *[0] * (longest - len(labels))] for labels in tokens])  # (N, T)
        ids = ids.to(next(self.model.parameters()).device)
        x = self.model["lstm"](self.model["embedding"](ids), lengths)
        return x, mask_of(lengths, longest, x.device)


def _stacked(wave: np.ndarray) -> np.ndarray:
    """(T / STACKED, 160) filterbanks of samples; at least one frame."""
    feats = fbank(wave * np.float32(INT16), FBANK)
    if not len(feats):
        raise PyserError(f"{len(wave)} samples are less than one frame, which has {WINDOW}")
    feats = np.pad((feats - MEAN) / STD, ((0, -len(feats) % STACKED), (0, 0))).astype(np.float32)
    return feats.reshape(len(feats) // STACKED, -1)
