"""What the systems in pyser.ser.cmgi train: a speech encoder that hears words, a text encoder that reads, CmGI on top."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from pyser.encoders.lstm import LasRecogniser, LstmText
from pyser.encoders.recogniser import Recogniser, load_recogniser
from pyser.encoders.speech import SpeechOutput
from pyser.encoders.text import TextEncoder, load_text
from pyser.errors import PyserError
from pyser.nn import model_io
from pyser.nn.cmgi import CmgiConfig, CmgiNetwork
from pyser.nn.coattention import Sequences
from pyser.nn.lstm import mask_of
from pyser.ser.folds import SELECTIONS

KIND = "pyser cmgi"
LSTM = "lstm"  # instead of an encoder's name: one that begins at random (pyser.encoders.lstm)


@dataclass(frozen=True)
class CmgiTraining:
    """How a system is made and trained.

    speech, text: encoders, by their names on the hub or directories, "" where there is none, "lstm" for one that begins at
    random. transcript: what the text encoder reads in evaluation: asr (what the speech encoder hears), text (the true words)
    or a table `utterance words` of another recogniser, which it then reads in training too. init: the experiment whose
    speech encoders this one begins with, fold by fold. freeze: of the speech encoder, features (its convolutions) or none.
    asr_weight: the paper's alpha, of CTC. It leaves open whether an utterance's loss is a sum over its labels, some ten times
    as large, or their mean: the mean here. lm, words: files of the CTC beam search, "" for greedy.
    lr_initial, lr_final: of the encoders' layers; the paper prints 10e-5, which is 1e-4 as it stands and 1e-5 as it is
    usually meant: 1e-5 here, and 1e-4 (head_factor) for the layers that begin at random: CmGI's, the output, and CTC's of
    an encoder that came without.
    batch_utterances, accumulate: utterances in memory at once, and how many such batches make one step.
    gradient_checkpointing: of both encoders, less memory, slower. See CmgiConfig and TrainConfig for the others.
    """

    speech: str = ""
    text: str = ""
    transcript: str = "asr"
    init: str = ""
    interaction: str = "cmgi"
    nodes: int = 768
    heads: int = 8
    dropout: float = 0.1
    asr_weight: float = 0.1
    lm: str = ""
    words: str = ""
    freeze: str = "features"
    num_epochs: int = 20
    lr_initial: float = 1e-5
    lr_final: float = 1e-5
    head_factor: float = 10.0
    weight_decay: float = 0.01
    batch_utterances: int = 2
    accumulate: int = 8
    class_balanced: bool = False
    gradient_checkpointing: bool = False
    precision: str = "float32"
    seed: int = 0
    selection: str = "valid"

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise PyserError(f"--selection={self.selection}; known: {' '.join(SELECTIONS)}")
        if not (self.speech or self.text):
            raise PyserError("neither --speech nor --text; give an encoder")
        if min(self.num_epochs, self.batch_utterances, self.accumulate) < 1:
            raise PyserError("--num-epochs, --batch-utterances and --accumulate must be at least 1")
        if not 0 <= self.asr_weight <= 1:
            raise PyserError(f"--asr-weight={self.asr_weight:g}; it must be between 0 and 1")
        if self.head_factor <= 0:
            raise PyserError(f"--head-factor={self.head_factor:g}; it must be above 0")
        if self.freeze not in ("features", "none"):
            raise PyserError(f"--freeze={self.freeze}; a speech encoder that learns has its features frozen, or none")
        if not self.speech and (self.asr_weight or self.init or self.hears):
            raise PyserError("--asr-weight, --init and --transcript=asr are of a speech encoder: give --speech, or "
                             "--asr-weight=0 --transcript=text")

    @property
    def hears(self) -> bool:
        """Whether the text encoder reads what the speech encoder hears."""
        return bool(self.text) and self.transcript == "asr"


class Output(NamedTuple):
    """log_posteriors (N, K); speech: what its encoder gave; heard: the words of each utterance, where they are asked for."""

    log_posteriors: Tensor
    speech: SpeechOutput | None
    heard: list[str] | None


class CmgiModel(nn.Module):
    """Encoders, and the network on top of them."""

    def __init__(
        self, config: CmgiTraining, labels: Sequence[str], speech: Recogniser | None, text: TextEncoder | LstmText | None
    ):
        super().__init__()
        self.config, self.labels, self.speech, self.text = config, tuple(labels), speech, text
        self.words = None if text is None else text.model  # (registered: it learns)
        self.network = CmgiNetwork(CmgiConfig(
            0 if speech is None else speech.dim, 0 if text is None else text.dim, len(self.labels), config.interaction,
            config.nodes, config.heads, config.dropout))

    def forward(self, waves: Sequence[np.ndarray] | None, sentences: Sequence[str] | None, hear: bool = False) -> Output:
        """waves: samples (T,) of each utterance, None without a speech encoder. sentences: what the text encoder reads; None:
        what is heard. hear: also where that is not read."""
        output = acoustic = text = heard = None
        if self.speech is not None:
            assert waves is not None
            output = self.speech(waves)
            x = output.hidden[-1]  # (N, T, D_a)
            acoustic = Sequences(x, mask_of(output.lengths, x.shape[1], x.device))
            if hear or (self.text is not None and sentences is None):
                heard = self.speech.hear(output)
        if self.text is not None:
            read = heard if sentences is None else sentences
            assert read is not None
            text = Sequences(*self.text.hidden([self.text.tokens(sentence) for sentence in read]))  # (N, S, D_l)
        return Output(self.network(acoustic, text), output, heard)

    def asr_loss(self, output: SpeechOutput, transcripts: Sequence[str]) -> Tensor:
        """Mean over the utterances that have a transcript, 0 if none has."""
        known = [row for row, words in enumerate(transcripts) if words]
        assert self.speech is not None
        if not known:
            return output.hidden[-1].sum() * 0.0
        logits = None if output.logits is None else output.logits[known]
        some = SpeechOutput(logits, (output.hidden[-1][known],), output.lengths[known])
        return self.speech.loss(some, [transcripts[row] for row in known])

    def checkpoint_gradients(self) -> None:
        """Of both encoders."""
        if self.speech is not None:
            self.speech.checkpoint_gradients()
        if isinstance(self.text, TextEncoder):
            self.text.model.gradient_checkpointing_enable({"use_reentrant": False})


def build(config: CmgiTraining, labels: Sequence[str]) -> CmgiModel:
    """With the parameters that the encoders come with, and random ones in what is new."""
    speech: Recogniser | None = None
    if config.speech:
        speech = LasRecogniser() if config.speech == LSTM else load_recogniser(config.speech, config.lm, config.words)
    text = None
    if config.text:
        text = LstmText.new() if config.text == LSTM else load_text(config.text)
    return CmgiModel(config, labels, speech, text)


def read_cmgi(path: str | Path) -> tuple[CmgiModel, dict[str, str]]:
    """In eval mode, with its metadata; PyserError if the file is missing, damaged or another model's."""
    state, metadata = model_io.read(path)
    if metadata.get("kind") != KIND:
        raise PyserError(f"{path}: not a {KIND}; give the directory that `pyser cmgi train` wrote")
    try:
        model = build(CmgiTraining(**json.loads(metadata["config"])), json.loads(metadata["labels"]))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PyserError(f"{path}: not readable ({str(error).splitlines()[0][:80]}); train this fold again") from None
    return model.eval(), metadata
