"""Activation, valence and dominance of a recording:

    audio -> mono, at the rate of the training -> filterbanks -> encoders and regressors of all folds -> ratings

exp/frontend/fbank.conf says how filterbanks are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pyser.config import read_conf
from pyser.errors import PyserError
from pyser.features.fbank import FbankConfig, fbank
from pyser.files import write_text
from pyser.ser.filterbanks import normalise, stack_frames
from pyser.ser.predict import Ratings, UtterancePredictor, seen_speakers, trained_folds
from pyser.ser.recording import Recording, naming
from pyser.ser.regression import RegressionModel, read_regression


@dataclass(frozen=True)
class RegressionPredictor(UtterancePredictor[Ratings]):
    """What `pyser.load` gives of a regression, to call `predict` of."""

    fbank: FbankConfig
    models: tuple[RegressionModel, ...]
    seen: frozenset[str] = frozenset()  # speakers that a fold was trained or selected on

    @property
    def labels(self) -> tuple[str, ...]:
        return self.models[0].labels

    @property
    def rate(self) -> int:
        """Hz of the recordings that the encoder was trained on."""
        return self.fbank.sample_frequency

    def predict_recording(self, recording: Recording) -> Ratings:
        """The means over the folds."""
        with naming(recording.name), torch.no_grad():
            feats = fbank(recording.samples, self.fbank)
            if not len(feats):
                raise PyserError(f"{len(recording.samples)} samples are less than one window of "
                                 f"{self.fbank.frame_length:g} ms")
            x = torch.from_numpy(stack_frames(normalise(feats), self.models[0].config.stack))
            found = torch.cat([model(x[None], torch.tensor([len(x)])) for model in self.models])
        return Ratings(dict(zip(self.labels, found.double().mean(dim=0).tolist(), strict=True)), recording.seconds,
                       recording.converted)


def load(exp_dir: str | Path) -> RegressionPredictor:
    """The models of every finished fold in `exp_dir`, averaged; a fold's own directory gives that fold alone.

    On the corpus it was trained on this is no test: only a fold that did not see a speaker may be scored on him.
    """
    paths, directory = trained_folds(exp_dir, "no regression", "pyser sa2sr fine-tune")
    models = tuple(read_regression(path)[0] for path in paths)
    if len({(model.labels, model.config.stack) for model in models}) > 1:
        raise PyserError(f"{exp_dir}: the folds have different dimensions or frames; train them again in a new directory")
    if not (directory / "fbank.conf").is_file():
        raise PyserError(f"{directory}/fbank.conf: missing; run `pyser sa2sr package` first")
    config = read_conf(directory / "fbank.conf", FbankConfig, dither=0.0)
    _check(config, models[0], directory / "fbank.conf")
    return RegressionPredictor(config, models, seen_speakers(paths))


def package(exp_dir: str | Path, fbank_conf: str | Path) -> Path:
    """Write exp_dir/frontend for `load`, the configuration of the training's filterbanks; returns it."""
    paths, directory = trained_folds(exp_dir, "no regression", "pyser sa2sr fine-tune")
    _check(read_conf(fbank_conf, FbankConfig), read_regression(paths[0])[0], fbank_conf)
    write_text(directory / "fbank.conf", Path(fbank_conf).read_text())
    return directory


def _check(config: FbankConfig, model: RegressionModel, path: str | Path) -> None:
    made, expected = config.num_mel_bins + config.use_energy, model.encoder.config.feat_dim // model.config.stack
    if made != expected:
        raise PyserError(f"{path}: makes features of {made} dimensions, the encoder was trained on {expected}; run "
                         "`pyser sa2sr package` with the configuration of its filterbanks")
