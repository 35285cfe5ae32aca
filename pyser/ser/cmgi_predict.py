"""Emotion of a recording by a system of speech and the words that it hears in it; all of it is in the folds' models, but for
what config.json and tokenizers of the encoders say, which stay where they are, or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pyser.errors import PyserError
from pyser.kaldi.wav import INT16
from pyser.ser.cmgi_model import CmgiModel, read_cmgi
from pyser.ser.predict import Prediction, UtterancePredictor, seen_speakers, trained_folds
from pyser.ser.recording import Recording, naming


@dataclass(frozen=True)
class CmgiPredictor(UtterancePredictor[Prediction]):
    """What `pyser.load` gives of such a system, to call `predict` of."""

    models: tuple[CmgiModel, ...]
    seen: frozenset[str] = frozenset()  # speakers that a fold was trained or selected on

    @property
    def labels(self) -> tuple[str, ...]:
        return self.models[0].labels

    def predict_recording(self, recording: Recording) -> Prediction:
        """The largest mean over the folds of the posteriors, and what the first of them hears."""
        wave = recording.samples / np.float32(INT16)
        with naming(recording.name), torch.no_grad():
            outputs = [model([wave], None, hear=bool(model.config.asr_weight)) for model in self.models]
        mean = torch.stack([output.log_posteriors[0].double().exp() for output in outputs]).mean(dim=0).tolist()
        posteriors = dict(zip(self.labels, mean, strict=True))
        heard = outputs[0].heard
        return Prediction(max(posteriors, key=lambda label: posteriors[label]), posteriors, recording.seconds,
                          recording.converted, None if heard is None else heard[0])


def load(exp_dir: str | Path) -> CmgiPredictor:
    """The models of every finished fold in `exp_dir`, averaged; a fold's own directory gives that fold alone.

    On the corpus it was trained on this is no test: only a fold that did not see a speaker may be scored on him.
    """
    paths, _ = trained_folds(exp_dir, "no model", "pyser cmgi train")
    models = tuple(read_cmgi(path)[0] for path in paths)
    if len({model.labels for model in models}) > 1:
        raise PyserError(f"{exp_dir}: the folds have different labels; train them again in a new directory")
    config = models[0].config
    if config.text and not config.hears:
        raise PyserError(f"{exp_dir}: reads words that it does not hear ({config.transcript}); no recording gives them")
    return CmgiPredictor(models, seen_speakers(paths))
