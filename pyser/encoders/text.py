"""Sentences to the last hidden states of a text encoder of Hugging Face (BERT, RoBERTa, MiniLM, …)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyser.device import choose_device
from pyser.encoders.huggingface import from_pretrained, load_weights
from pyser.errors import PyserError

BATCH_TOKENS = 2048  # of a batch, padding included


def load_text(name: str | Path, use_gpu: str = "no") -> TextEncoder:
    """The encoder of a directory or of a name on the hub, such as bert-base-uncased."""
    from transformers import AutoModel, AutoTokenizer

    model, missing = load_weights(AutoModel, name)
    tokenizer = from_pretrained(AutoTokenizer, name)
    if model.main_input_name != "input_ids" or model.config.is_encoder_decoder or not tokenizer("")["input_ids"]:
        raise PyserError(f"{name}: a {model.config.model_type}, not a text encoder such as BERT; give one")
    if missing := [key for key in missing if not key.startswith("pooler.")]:  # (which is not used here)
        raise PyserError(f"{name}: its weights lack {missing[0]} and {len(missing) - 1} more; get the model again")
    return TextEncoder(model.eval().to(choose_device(use_gpu)), tokenizer)


@dataclass(frozen=True)
class TextEncoder:
    """model, tokenizer : AutoModel's and AutoTokenizer's."""

    model: Any
    tokenizer: Any

    @property
    def dim(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def max_tokens(self) -> int:
        """Of a sentence, special tokens included."""
        positions = getattr(self.model.config, "max_position_embeddings", 512)
        embedding = getattr(getattr(self.model, "embeddings", None), "position_embeddings", None)
        padding = getattr(embedding, "padding_idx", None)
        if padding is not None:  # RoBERTa counts from behind the padding's index
            positions -= padding + 1
        return min(int(self.tokenizer.model_max_length), positions)

    def tokens(self, sentence: str) -> list[int]:
        """The sentence's tokens between the special ones ([CLS] and [SEP] of BERT), which are all there is of an empty one.

        Sentences in capitals, as transcripts are, become small letters, in which text is mostly written. What is beyond
        max_tokens is cut off.
        """
        said = sentence.lower() if sentence.isupper() else sentence
        return list(self.tokenizer(said, truncation=True, max_length=self.max_tokens)["input_ids"])

    def hidden(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Last hidden states (N, T, dim) of N sentences, and a mask (N, T) that is true where there is a token."""
        longest = max(map(len, tokens))
        ids = torch.full((len(tokens), longest), self.tokenizer.pad_token_id or 0)  # (N, T)
        mask = torch.zeros(len(tokens), longest, dtype=torch.long)
        for row, sentence in enumerate(tokens):
            ids[row, : len(sentence)] = torch.tensor(sentence)
            mask[row, : len(sentence)] = 1
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask.bool()

    @torch.no_grad()
    def features(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """For each sentence (tokens, dim) float32, its tokens' last hidden states, the special tokens' rows included."""
        tokens = [self.tokens(sentence) for sentence in sentences]
        outputs: list[np.ndarray] = [np.zeros((0, self.dim), np.float32)] * len(tokens)
        for batch in batches([len(ids) for ids in tokens], BATCH_TOKENS):
            hidden = self.hidden([tokens[i] for i in batch])[0].cpu().numpy()
            for row, i in enumerate(batch):
                outputs[i] = hidden[row, : len(tokens[i])].copy()
        return outputs


def batches(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Places in `lengths`, those of similar length together, at most `most` with padding (or one alone) in each."""
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not found or (len(found[-1]) + 1) * lengths[i] > most:
            found.append([])
        found[-1].append(i)
    return found
