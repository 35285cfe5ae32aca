"""Speech encoders that write down what they hear: one of Hugging Face's with its CTC head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pyser.encoders.ctc import mean_ctc_loss
from pyser.encoders.decode import BeamConfig, load_search
from pyser.encoders.speech import SpeechEncoder, SpeechOutput, load_speech
from pyser.encoders.vocabulary import ENGLISH, Vocabulary


class Recogniser(Protocol):
    """A module that is called with waves."""

    @property
    def dim(self) -> int: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> object: ...

    def __call__(self, waves: Sequence[np.ndarray]) -> SpeechOutput:
        """waves : samples (T,) of each utterance, -1 to 1, at RATE"""

    def loss(self, output: SpeechOutput, transcripts: Sequence[str]) -> Tensor:
        """Mean over utterances of the loss per label; 0 of those whose words do not fit into their frames."""

    def hear(self, output: SpeechOutput) -> list[str]:
        """The words of each utterance."""

    def freeze(self, what: str) -> None: ...

    def checkpoint_gradients(self) -> None: ...


class CtcRecogniser(nn.Module):
    """encoder : one without a CTC head gets one for English characters. lm, words : files of the beam search (`load_search`),
    "" for greedy."""

    def __init__(self, encoder: SpeechEncoder, lm: str | Path = "", words: str | Path = ""):
        super().__init__()
        if encoder.vocabulary is None:
            encoder.new_head(ENGLISH)
        assert encoder.vocabulary is not None
        self.encoder, self.vocabulary = encoder, encoder.vocabulary
        self.search, _ = load_search(encoder.vocabulary, lm or None, words or None, BeamConfig(), spare=False)

    @property
    def dim(self) -> int:
        return self.encoder.dim

    def forward(self, waves: Sequence[np.ndarray]) -> SpeechOutput:
        output: SpeechOutput = self.encoder(waves)
        return output

    def loss(self, output: SpeechOutput, transcripts: Sequence[str]) -> Tensor:
        assert output.logits is not None
        labels = [self.vocabulary.encode(words) for words in transcripts]
        return mean_ctc_loss(output.logits, output.lengths, labels, self.vocabulary.blank)

    @torch.no_grad()
    def hear(self, output: SpeechOutput) -> list[str]:
        assert output.logits is not None
        log_probs = output.logits.float().log_softmax(dim=2).cpu().numpy()  # (N, T, V)
        return [self.search(rows[:length]) for rows, length in zip(log_probs, output.lengths.tolist(), strict=True)]

    def freeze(self, what: str) -> None:
        self.encoder.freeze(what)

    def checkpoint_gradients(self) -> None:
        self.encoder.checkpoint_gradients()


def load_recogniser(name: str | Path, lm: str | Path = "", words: str | Path = "") -> CtcRecogniser:
    """Of a name on Hugging Face's hub or of a directory, as `load_speech`."""
    return CtcRecogniser(load_speech(name), lm, words)
