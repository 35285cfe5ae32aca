"""Speech encoders with random parameters, to be trained from scratch where no pretrained one is to be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyser.encoders.speech import TYPES, SpeechEncoder
from pyser.encoders.vocabulary import ENGLISH
from pyser.encoders.waves import RATE
from pyser.errors import PyserError
from pyser.features.mel import inverse_mel_scale, mel_scale
from pyser.training.loop import set_seed

COMMON = {"layerdrop": 0.0, "ctc_zero_infinity": True, "vocab_size": len(ENGLISH), "pad_token_id": ENGLISH.blank,
          "bos_token_id": 1, "eos_token_id": 2, "apply_spec_augment": True}
# For a few hours of speech on a processor: windows of 25 ms every 10 ms, as MFCCs have them, and frames of 30 ms.
FILTERBANK = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "conv_kernel": (400, 3),
              "conv_stride": (160, 3), "mask_time_length": 5}
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {**FILTERBANK, "conv_dim": (16, 16), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
             "mask_time_prob": 0.0},
    "small": {**FILTERBANK, "conv_dim": (160, 256), "hidden_size": 224, "num_hidden_layers": 6, "num_attention_heads": 4,
              "intermediate_size": 896, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 16,
              "mask_time_prob": 0.2, "attention_dropout": 0.0, "activation_dropout": 0.0},
    "base": {"mask_time_prob": 0.05},  # wav2vec2-base's
}


def init_speech(directory: str | Path, like: str = "small", model_type: str = "wav2vec2", seed: int = 0) -> str:
    """Write a model of random parameters, with CTC over English characters, as a directory of Hugging Face's; returns a line
    about it.

    like : tiny, small (see SIZES) or base. Of the first two the first convolution begins as a filterbank.
    """
    if like not in SIZES or model_type not in TYPES:
        raise PyserError(f"a model like {like} of type {model_type}; there are {', '.join(SIZES)} of {', '.join(TYPES)}")
    from transformers import AutoConfig, AutoModelForCTC

    if (Path(directory) / "model.safetensors").exists():
        raise PyserError(f"{directory}: holds a model; use a new directory")
    set_seed(seed)
    config = AutoConfig.for_model(model_type, **COMMON, **SIZES[like])
    if like != "base":  # (its 0.02 would keep so narrow a network in CTC's first plateau, all blank, for long)
        config.initializer_range = config.hidden_size**-0.5
    encoder = SpeechEncoder(AutoModelForCTC.from_config(config), ENGLISH)
    if config.feat_extract_norm == "layer":
        first = encoder.model.base_model.feature_extractor.conv_layers[0].conv
        with torch.no_grad():
            first.weight[:, 0] = torch.from_numpy(filterbank(*first.weight.shape[::2]))
            first.bias.zero_()
    encoder.save(directory)
    parameters = sum(p.numel() for p in encoder.parameters())
    return (f"{directory}: {model_type} like {like}, {parameters} parameters, {encoder.num_layers} layers of {encoder.dim}, "
            f"frames of {1000 * encoder.frame_shift:g} ms")


def filterbank(channels: int, kernel: int) -> np.ndarray:
    """(channels, kernel) float32: filters in channels / 4 mel bands, of four phases each, so that what follows finds the
    energy of a band whatever its phase. Gabor filters as wide as the bands (Zeghidour et al., "Learning filterbanks from raw
    speech for phone recognition", ICASSP 2018), with a gain that flattens the spectrum of speech."""
    low, high = mel_scale(np.array([60.0, 7600.0]))
    corners = inverse_mel_scale(np.linspace(low, high, channels // 4 + 2))
    centre, width = corners[1:-1, None, None], (corners[2:] - corners[:-2])[:, None, None] / 2  # (bands, 1, 1), Hz
    time = (np.arange(kernel) - (kernel - 1) / 2) / RATE
    deviation = np.sqrt(2 * np.log(2)) / (np.pi * width)  # the gain falls to a half at the band's borders
    window = np.exp(-0.5 * (time / deviation) ** 2)
    phase = np.arange(4)[:, None] * np.pi / 2
    filters = centre * window / window.sum(axis=-1, keepdims=True) * np.cos(2 * np.pi * centre * time + phase)
    return (filters / filters.std()).reshape(channels, kernel).astype(np.float32)
