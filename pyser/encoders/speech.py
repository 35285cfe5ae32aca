"""Speech encoders of Hugging Face (wav2vec 2.0, HuBERT, WavLM): waves of any lengths in, hidden states and CTC logits out."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from pyser.encoders import gelu
from pyser.encoders.huggingface import find, from_pretrained, load_weights, quiet
from pyser.encoders.vocabulary import Vocabulary
from pyser.encoders.waves import RATE
from pyser.errors import PyserError
from pyser.files import read_json, write_text

TYPES = "wav2vec2", "hubert", "wavlm"
FREEZE = "none", "features", "encoder"
TOKENIZER = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "processor_class": "Wav2Vec2Processor", "do_lower_case": False}


@dataclass(frozen=True)
class SpeechOutput:
    """N waves, padded to the longest.

    logits : (N, T, V), None of a model without a CTC head
    hidden : L + 1 times (N, T, D): the input of the first transformer layer, then the output of each
    lengths : (N,) frames of each; what stands behind them means nothing
    """

    logits: Tensor | None
    hidden: tuple[Tensor, ...]
    lengths: Tensor


class PaddedGroupNorm(nn.GroupNorm):
    """A group norm over time that leaves out padding; `lengths` are the frames of each utterance of the batch to come."""

    lengths: Sequence[int] = ()

    def forward(self, input: Tensor) -> Tensor:
        """input (N, C, T) to the same, 0 in the padding."""
        frames = input.shape[-1]
        if all(length == frames for length in self.lengths):
            return super().forward(input)
        parts = [F.pad(super(PaddedGroupNorm, self).forward(input[n : n + 1, :, :length]), (0, frames - length))
                 for n, length in enumerate(self.lengths)]
        return torch.cat(parts)


class SpeechEncoder(nn.Module):
    """A model of Hugging Face's (AutoModelForCTC) with what belongs to it.

    vocabulary : of its logits; None of a model without a CTC head, which gives hidden states only
    normalise : whether waves are brought to mean 0 and variance 1, each by itself

    In a batch each utterance has the outputs that it has alone. For models whose convolutions end in a layer norm an
    attention mask is enough. Those with a group norm (wav2vec2-base and its kin) were trained without one, on padded batches;
    here the group norm leaves out the padding and the mask is given too.
    """

    def __init__(self, model: Any, vocabulary: Vocabulary | None, normalise: bool = True):
        super().__init__()
        self.model, self.vocabulary, self.normalise = model, vocabulary, normalise
        self.config = model.config
        self.config.layerdrop = 0.0  # a layer that is left out has no hidden states
        gelu.guard(model)
        if self.config.feat_extract_norm == "group":
            first = model.base_model.feature_extractor.conv_layers[0]
            norm = PaddedGroupNorm(first.layer_norm.num_groups, first.layer_norm.num_channels, first.layer_norm.eps)
            norm.load_state_dict(first.layer_norm.state_dict())
            first.layer_norm = norm.to(first.conv.weight.device)

    @property
    def num_layers(self) -> int:
        """Transformer layers; there is one more of hidden states."""
        return int(self.config.num_hidden_layers)

    @property
    def dim(self) -> int:
        """Columns of the hidden states."""
        return int(self.config.hidden_size)

    @property
    def frame_shift(self) -> float:
        """Seconds."""
        return math.prod(self.config.conv_stride) / RATE

    def num_frames(self, num_samples: int) -> int:
        """Frames of a wave; 0 where it is too short to have one."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            num_samples = max(num_samples - kernel, -stride) // stride + 1
        return num_samples

    def num_samples(self, num_frames: int) -> int:
        """The least samples that a wave of so many frames has."""
        for kernel, stride in zip(reversed(self.config.conv_kernel), reversed(self.config.conv_stride), strict=True):
            num_frames = (num_frames - 1) * stride + kernel
        return num_frames

    def forward(self, waves: Sequence[np.ndarray]) -> SpeechOutput:
        """waves : samples (T,) of each utterance, -1 to 1, at RATE"""
        lengths = [len(wave) for wave in waves]
        frames = [self.num_frames(length) for length in lengths]
        if not lengths or not min(frames):
            short = f"{min(lengths)} samples" if lengths else "no wave"
            raise PyserError(f"{short} given to a speech encoder, which needs {self.num_samples(1)} for a frame")
        longest = max(lengths)
        if self.training and self.config.mask_time_prob > 0:  # the masks of SpecAugment have to fit in
            longest = max(longest, self.num_samples(self.config.mask_time_length))
        device = next(self.parameters()).device
        if device.type == "cpu" and torch.is_autocast_cpu_enabled() and torch.__version__.startswith("1."):
            raise PyserError(f"torch {torch.__version__} has no layer norm of less than single precision on a processor; "
                             "take --precision float32, or torch 2")
        batch, mask = np.zeros((len(waves), longest), np.float32), np.zeros((len(waves), longest), np.int64)
        for row, wave in enumerate(waves):
            batch[row, : len(wave)] = self._normalised(wave)
            mask[row, : len(wave)] = 1
        norm = self.model.base_model.feature_extractor.conv_layers[0].layer_norm
        if isinstance(norm, PaddedGroupNorm):
            kernel, stride = self.config.conv_kernel[0], self.config.conv_stride[0]
            norm.lengths = [(length - kernel) // stride + 1 for length in lengths]
        output = self.model.base_model(torch.from_numpy(batch).to(device), torch.from_numpy(mask).to(device),
                                       output_hidden_states=True)
        last = output.last_hidden_state  # (of hidden_states the last comes before or behind a layer norm, by version)
        logits = None if self.vocabulary is None else self.model.lm_head(self.model.dropout(last))
        return SpeechOutput(logits, (*output.hidden_states[:-1], last), torch.tensor(frames, device=device))

    def _normalised(self, wave: np.ndarray) -> np.ndarray:
        if not self.normalise:
            return wave
        return np.asarray((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7), np.float32)

    def freeze(self, what: str) -> None:
        """features: the convolutions; encoder: all but the CTC head; none."""
        if what not in FREEZE:
            raise PyserError(f"--freeze is {what}; it must be one of {', '.join(FREEZE)}")
        if what != "none":
            self.model.freeze_feature_encoder()
        if what == "encoder":
            self.model.freeze_base_model()

    def checkpoint_gradients(self) -> None:
        """Compute the layers' activations again for the gradient: less memory, slower."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def new_head(self, vocabulary: Vocabulary) -> None:
        """A CTC head with random parameters for these characters."""
        head = nn.Linear(self.dim, len(vocabulary))
        nn.init.normal_(head.weight, std=self.config.initializer_range)
        nn.init.zeros_(head.bias)
        self.model.lm_head, self.vocabulary = head.to(next(self.parameters()).device), vocabulary
        self.config.vocab_size, self.config.pad_token_id = len(vocabulary), vocabulary.blank

    def save(self, directory: str | Path) -> None:
        """Write the files that transformers' AutoModelForCTC and AutoProcessor open; model.safetensors last."""
        assert self.vocabulary is not None
        directory = Path(directory)
        padding = self.config.feat_extract_norm == "layer"
        tokens = self.vocabulary.tokens
        special: dict[str, str | None] = {"pad_token": tokens[self.vocabulary.blank]}
        for name, spellings in (("bos", ("<s>",)), ("eos", ("</s>",)), ("unk", ("<unk>", "[UNK]"))):
            special[f"{name}_token"] = next((token for token in spellings if token in tokens), None)
        texts = {
            "vocab.json": self.vocabulary.json(),
            "tokenizer_config.json": _json({**TOKENIZER, **special, "word_delimiter_token": self.vocabulary.delimiter}),
            "special_tokens_map.json": _json({name: token for name, token in special.items() if token}),
            "preprocessor_config.json": _json({
                "feature_extractor_type": "Wav2Vec2FeatureExtractor", "processor_class": "Wav2Vec2Processor",
                "feature_size": 1, "sampling_rate": RATE, "padding_side": "right", "padding_value": 0.0,
                "do_normalize": self.normalise, "return_attention_mask": padding}),
        }
        for name, text in texts.items():
            write_text(directory / name, text)
        with tempfile.TemporaryDirectory(prefix=".", dir=directory) as temporary:
            try:
                with quiet():
                    self.model.save_pretrained(temporary)
            except SafetensorError as error:
                raise PyserError(f"cannot write {directory}/model.safetensors: {error}; check space") from None
            for path in sorted(Path(temporary).iterdir()):
                os.replace(path, directory / path.name)


def load_speech(name: str | Path) -> SpeechEncoder:
    """The model of a name on Hugging Face's hub or of a directory, in eval mode; PyserError if it cannot be used."""
    from transformers import AutoConfig, AutoModelForCTC

    config = from_pretrained(AutoConfig, name)
    if config.model_type not in TYPES:
        raise PyserError(f"{name}: a model of type {config.model_type}; speech encoders are {', '.join(TYPES)}")
    if getattr(config, "add_adapter", False):
        raise PyserError(f"{name}: has an adapter behind its layers (add_adapter), which is not supported")
    model, missing = load_weights(AutoModelForCTC, name)
    # What only training needs is missing from some checkpoints on the hub.
    lacking = [key for key in missing if not key.startswith("lm_head.") and not key.endswith("masked_spec_embed")]
    if any(key.endswith("masked_spec_embed") for key in missing):  # transformers 5 leaves it as the memory happens to be
        with torch.no_grad():
            embedding = model.base_model.masked_spec_embed
            embedding.copy_(torch.rand(embedding.shape, generator=torch.Generator().manual_seed(0)))
    if lacking:
        raise PyserError(f"{name}: the checkpoint lacks {len(lacking)} tensors of the model (e.g. {lacking[0]})")
    vocabulary = None
    if "lm_head.weight" not in missing:
        path = find(name, "vocab.json")
        if path is None:
            raise PyserError(f"{name}: has a CTC head, but no vocab.json that says of what characters")
        blank = -1 if config.pad_token_id is None else config.pad_token_id
        vocabulary = Vocabulary.read(path, config.vocab_size, blank)
    settings = find(name, "preprocessor_config.json")
    known: dict[str, Any] = read_json(settings) if settings is not None else {}
    if known.get("sampling_rate", RATE) != RATE:
        raise PyserError(f"{settings}: {known['sampling_rate']} Hz; speech encoders are used at {RATE} Hz")
    return SpeechEncoder(model, vocabulary, bool(known.get("do_normalize", True))).eval()


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
