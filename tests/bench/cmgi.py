"""Seconds and memory of a step of the full-size pair, HuBERT-large and BERT-base with random parameters, CmGI's second stage:
python tests/bench/cmgi.py [--batch 2] [--accumulate 8] [--seconds 10] [--steps 1] [--gradient-checkpointing]
[--precision bfloat16]. Without the checkpoint behind an epoch (5 GB), on a GPU if there is one."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pyser  # noqa: F401  (before torch)

import numpy as np  # isort: skip
from steps import measure, options
from transformers import BertConfig, BertModel, HubertConfig, HubertForCTC

from pyser.encoders.speech import SpeechEncoder
from pyser.encoders.vocabulary import ENGLISH
from pyser.encoders.waves import RATE
from pyser.ser.cmgi import CmgiExamples, CmgiSystem
from pyser.ser.cmgi_model import CmgiTraining
from pyser.ser.folds import Fold

WORDS = "WHAT DO YOU MEAN YOU HAVE NO IDEA WHERE THE OTHER ONE IS I TOLD YOU ALL OF THIS BEFORE WE LEFT THE HOUSE"
LARGE = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, conv_bias=True,
             feat_extract_norm="layer", do_stable_layer_norm=True, ctc_zero_infinity=True, vocab_size=len(ENGLISH),
             pad_token_id=ENGLISH.blank)


def write_encoders(root: Path) -> None:
    """hubert and bert; the words of the latter are the letters."""
    SpeechEncoder(HubertForCTC(HubertConfig(**LARGE)), ENGLISH).save(root / "hubert")
    BertModel(BertConfig()).save_pretrained(root / "bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"{mark}{letter}" for mark in ("", "##") for letter in
                                                           "abcdefghijklmnopqrstuvwxyz")]
    (root / "bert/vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
    (root / "bert/tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))


def main() -> None:
    parser = options(__doc__, batch=2, seconds=10, steps=1)
    parser.add_argument("--accumulate", type=int, default=8)
    given = parser.parse_args()
    rng, count = np.random.default_rng(0), given.batch * given.accumulate * given.steps
    waves = [0.1 * rng.standard_normal(round(given.seconds * RATE), np.float32) for _ in range(count)]
    examples = CmgiExamples(np.arange(count) % 4, waves, [WORDS] * count, [WORDS] * count)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        write_encoders(root)
        config = CmgiTraining(str(root / "hubert"), str(root / "bert"), num_epochs=1, batch_utterances=given.batch,
                              accumulate=given.accumulate, gradient_checkpointing=given.gradient_checkpointing,
                              precision=given.precision)
        system = CmgiSystem(config, None, {})
        model = system.model(["ang", "hap", "neu", "sad"], examples, Fold("1", (), (), ()))
        said = measure(system, model, examples, given.steps, root / "exp")
    how = f"{given.precision}{', gradient checkpointing' if given.gradient_checkpointing else ''}"
    print(f"{how}, {given.batch} x {given.accumulate} utterances of {given.seconds:g} s, {said}")


if __name__ == "__main__":
    main()
