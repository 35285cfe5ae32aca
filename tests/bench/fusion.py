"""Utterances a second and memory of a fusion of MFCC, hidden states of wav2vec 2.0 base (random parameters) and words:
python tests/bench/fusion.py [--joint] [--batch 20] [--seconds 5] [--steps 3] [--gradient-checkpointing]
[--precision bfloat16]. Streams of files, or with --joint the speech encoder learning too; on a GPU if there is one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyser  # noqa: F401  (before torch)

import numpy as np  # isort: skip
from steps import measure, options
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from pyser.encoders.speech import SpeechEncoder, load_speech
from pyser.encoders.vocabulary import ENGLISH
from pyser.encoders.waves import RATE
from pyser.ser.folds import Fold
from pyser.ser.fusion import FusionSystem, FusionTraining
from pyser.ser.streams import StreamExamples

WORDS = "WHAT DO YOU MEAN YOU HAVE NO IDEA WHERE THE OTHER ONE IS"
FRAMES = {"mfcc": (100, 40), "hidden": (50, 768), "text": (3, 768)}  # a second, and their dimension


def main() -> None:
    parser = options(__doc__, batch=20, seconds=5, steps=3)
    parser.add_argument("--joint", action="store_true")
    given = parser.parse_args()
    rng, count = np.random.default_rng(0), given.batch * given.steps
    streams = {name: [rng.standard_normal((round(rate * given.seconds), dim), np.float32) for _ in range(count)]
               for name, (rate, dim) in FRAMES.items() if not (given.joint and name == "hidden")}
    with tempfile.TemporaryDirectory() as directory:
        root, speech, waves, labels = Path(directory), None, None, None
        if given.joint:
            base = Wav2Vec2Config(vocab_size=len(ENGLISH), pad_token_id=ENGLISH.blank, ctc_zero_infinity=True)
            SpeechEncoder(Wav2Vec2ForCTC(base), ENGLISH).save(root / "speech")
            speech = load_speech(str(root / "speech"))
            waves = [0.1 * rng.standard_normal(round(given.seconds * RATE), np.float32) for _ in range(count)]
            labels = [ENGLISH.encode(WORDS)] * count
        config = FusionTraining(
            num_epochs=1, batch_utterances=given.batch, speech=str(root / "speech") if given.joint else "",
            gradient_checkpointing=given.gradient_checkpointing, precision=given.precision,
            streams={name: dim for name, (_, dim) in FRAMES.items()})
        system = FusionSystem(config, {}, speech=speech)
        examples = StreamExamples(np.arange(count) % 4, streams, waves, labels)
        model = system.model(["ang", "hap", "neu", "sad"], examples, Fold("1", (), (), ()))
        said = measure(system, model, examples, given.steps, root / "exp")
    how = "joint" if given.joint else "streams of files"
    how += f", {given.precision}{', gradient checkpointing' if given.gradient_checkpointing else ''}"
    print(f"{how}, {given.batch} utterances of {given.seconds:g} s a step, {said}")


if __name__ == "__main__":
    main()
