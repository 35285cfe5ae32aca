"""Emotion of a recording, in three lines:

    from pyser.ser import predict
    predictor = predict.load_predictor("exp/ser_tdnnf12")
    print(predictor("some.wav").emotion)

    audio -> 16 kHz mono -> MFCC -> online i-vectors -> bottleneck node -> frame classifiers of all folds -> emotion
             (exp/frontend holds all that comes before the classifiers, so an experiment can be moved as a whole)
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from pyser.config import read_conf
from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.files import read_lines, write_json
from pyser.kaldi.wav import INT16, load_audio, resample
from pyser.nn.compute import ComputeConfig, compute
from pyser.nn.model_io import load_nnet3, model_file
from pyser.nn.nnet3 import Nnet3
from pyser.ser.frame_classifier import FrameClassifier, read_classifier, utterance_posteriors

Audio = str | os.PathLike[str] | tuple[np.ndarray, int]


@dataclass(frozen=True)
class Prediction:
    """The emotion with the largest posterior, and all posteriors (they sum to 1)."""

    emotion: str
    posteriors: dict[str, float]


@dataclass(frozen=True)
class FrontendConfig:
    """How the classifiers' input is made; ivector_mode is the one the training features had (a single recording
    always starts fresh)."""

    node: str
    subsampling: int = 1
    frames_per_chunk: int = 150
    ivector_period: int = 10
    ivector_mode: str = "carry-over"


@dataclass(frozen=True)
class Frontend:
    """From samples to bottleneck features."""

    config: FrontendConfig
    mfcc: MfccConfig
    model: Nnet3
    extractor: Any  # None for a network without i-vectors

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Bottlenecks (frames, D) of samples (T,) in int16 scale at self.mfcc.sample_frequency."""
        feats = mfcc(samples, self.mfcc)
        if not len(feats):
            raise PyserError(f"{len(samples)} samples are less than one window of {self.mfcc.frame_length:g} ms")
        ivectors = None
        if self.extractor is not None:
            from pyser.ivector.online import extract_utterance

            ivectors = extract_utterance(self.extractor, feats, self.config.ivector_period)
        return compute(self.model, feats, ivectors, ComputeConfig(
            self.config.node, self.config.frames_per_chunk, self.config.subsampling, self.config.ivector_period))


@dataclass(frozen=True)
class Predictor:
    """Call it with a path, or with (samples, rate)."""

    frontend: Frontend
    classifiers: tuple[FrameClassifier, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classifiers[0].labels

    def __call__(self, audio: Audio) -> Prediction:
        """Any format, sample rate and number of channels. samples: (T,) or (T, channels), float in -1 … 1 or int16."""
        name = "samples" if isinstance(audio, tuple) else str(audio)
        samples = to_mono(audio, self.frontend.mfcc.sample_frequency)
        try:
            feats = self.frontend(samples)
            folds = [utterance_posteriors(classifier, feats) for classifier in self.classifiers]
        except PyserError as error:
            raise PyserError(f"{name}: {error}") from None
        mean = np.mean(folds, axis=0)
        posteriors = {label: float(p) for label, p in zip(self.labels, mean, strict=True)}
        return Prediction(self.labels[int(np.argmax(mean))], posteriors)


def to_mono(audio: Audio, rate: int) -> np.ndarray:
    """Samples (T,) float32 in int16 scale at `rate` Hz."""
    if not isinstance(audio, tuple):
        return load_audio(str(audio), rate)
    samples, given = np.asarray(audio[0]), int(audio[1])
    if samples.ndim not in (1, 2) or not samples.size or given < 1:
        raise PyserError(f"samples of shape {samples.shape} at {given} Hz; expected (T,) or (T, channels)")
    if samples.dtype.kind == "f":
        scaled = samples.astype(np.float32) * np.float32(INT16)
    elif samples.dtype == np.int16:
        scaled = samples.astype(np.float32)
    else:
        raise PyserError(f"samples of type {samples.dtype}; give floats between -1 and 1, or int16")
    if scaled.ndim == 2:
        scaled = scaled.mean(axis=1)
    return resample(scaled, Fraction(rate, given))


def load_predictor(exp_dir: str | Path) -> Predictor:
    """The classifiers of every finished fold in `exp_dir`, averaged; a fold's own directory gives that fold alone.

    On the corpus it was trained on this is no test: only a fold that did not see a speaker may be scored on him.
    """
    exp_dir = Path(exp_dir)
    alone = (exp_dir / "final.safetensors").is_file()
    paths = [exp_dir / "final.safetensors"] if alone else sorted(exp_dir.glob("fold*/final.safetensors"))
    if not paths:
        raise PyserError(f"{exp_dir}: no classifier in it (fold*/final.safetensors); run `pyser ser train` first")
    classifiers = tuple(read_classifier(path)[0] for path in paths)
    if any(classifier.labels != classifiers[0].labels for classifier in classifiers):
        raise PyserError(f"{exp_dir}: the folds have different labels; train them again in a new directory")
    frontend = load_frontend((exp_dir.parent if alone else exp_dir) / "frontend")
    dim, expected = frontend.model.dim(frontend.config.node), len(classifiers[0].mean)
    if dim != expected:
        raise PyserError(f"{exp_dir}: node {frontend.config.node} has {dim} dimensions, not {expected}; "
                         "run `pyser ser package-frontend` with the network and node they were trained on")
    return Predictor(frontend, classifiers)


def load_frontend(directory: str | Path) -> Frontend:
    """Read what `package_frontend` wrote."""
    directory = Path(directory)
    if not (directory / "frontend.json").is_file():
        raise PyserError(f"{directory}: no front end in it; run `pyser ser package-frontend` first")
    try:
        config = FrontendConfig(**json.loads("\n".join(read_lines(directory / "frontend.json"))))
    except (TypeError, ValueError) as error:
        raise PyserError(f"{directory}/frontend.json: not readable ({error}); package the front end again") from None
    extractor = None
    if (directory / "ivector_extractor").is_dir():
        from pyser.ivector.online import load_extractor

        extractor = load_extractor(directory / "ivector_extractor")
    model = load_nnet3(directory)
    return Frontend(config, read_conf(directory / "mfcc.conf", MfccConfig, dither=0.0), model, extractor)


def package_frontend(
    exp_dir: str | Path,
    chain_model: str | Path,
    extractor_dir: str | Path | None,
    mfcc_conf: str | Path,
    node: str,
    subsampling: int = 1,
    frames_per_chunk: int = 150,
    ivector_period: int = 10,
    ivector_mode: str = "carry-over",
) -> Path:
    """Copy network, extractor and MFCC configuration into exp_dir/frontend, for `load_predictor`; returns it."""
    chain_model, target = Path(chain_model), Path(exp_dir) / "frontend"
    chain_model = model_file(chain_model)
    model = load_nnet3(chain_model)
    model.dim(node)  # names the nodes there are, if this is none of them
    read_conf(mfcc_conf, MfccConfig)
    ivector_dim = model.input_dim("ivector")
    if bool(ivector_dim) != (extractor_dir is not None):
        wants = f"i-vectors of dimension {ivector_dim}" if ivector_dim else "no i-vectors"
        raise PyserError(f"{chain_model}: takes {wants}; give --extractor exactly when it takes them")
    mode = ivector_mode if extractor_dir is not None else "none"
    config = FrontendConfig(node, subsampling, frames_per_chunk, ivector_period, mode)
    partial = target.with_name(f".frontend.{os.getpid()}.tmp")
    try:
        partial.mkdir(parents=True)
        shutil.copyfile(chain_model, partial / f"final{chain_model.suffix}")
        shutil.copyfile(mfcc_conf, partial / "mfcc.conf")
        if extractor_dir is not None:
            from pyser.ivector.online import FILES

            (partial / "ivector_extractor").mkdir()
            for name in FILES:
                if not (Path(extractor_dir) / name).is_file():
                    raise PyserError(f"{extractor_dir}/{name}: missing; run `pyser ivector train` first")
                shutil.copyfile(Path(extractor_dir) / name, partial / "ivector_extractor" / name)
        write_json(partial / "frontend.json", asdict(config))
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as error:
        raise PyserError(f"{target}: cannot write it ({error.strerror}: {error.filename}); check the paths") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
