"""Emotion of a recording, in three lines:

    import pyser
    predictor = pyser.load("exp/ser_tdnnf12")
    print(predictor.predict("some.wav").emotion)

    audio -> 16 kHz mono -> MFCC -> online i-vectors -> bottleneck node -> frame classifiers of all folds -> emotion
             (exp/frontend holds all that comes before the classifiers, so an experiment can be moved as a whole)
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar, overload

import numpy as np
import torch

from pyser.config import read_conf
from pyser.errors import PyserError
from pyser.features.cmvn import apply_cmvn
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.features.vad import VadConfig, voiced
from pyser.files import read_json, read_lines, write_json
from pyser.ivector.directory import FILES, OnlineExtractor, load_extractor
from pyser.ivector.online import SpeakerState, check_feats, extract_batch
from pyser.kaldi.tables import read_table
from pyser.nn.compute import ComputeConfig, compute
from pyser.nn.model_io import load_nnet3, model_file
from pyser.nn.nnet3 import Nnet3
from pyser.ser.folds import read_fold
from pyser.ser.frame_classifier import CHUNK, utterance_posteriors
from pyser.ser.frames import BY_SPEAKER, speech
from pyser.ser.network import EmotionNetwork, read_network
from pyser.ser.recording import Audio, Recording, naming, read_recording

AnyAudio = TypeVar("AnyAudio", bound=Audio)
Found = TypeVar("Found")
# A setting that no other system has -> the module that predicts with such ones.
PREDICTORS = {"fusion": "fusion_predict", "interaction": "cmgi_predict", "encoder_id": "regression_predict"}


@dataclass(frozen=True)
class Prediction:
    """The emotion with the largest posterior, and all posteriors (they sum to 1), of so many seconds; `converted` says how
    the recording was made to fit the network, '' if it did; transcript: the words that were heard, None where none are
    listened for."""

    emotion: str
    posteriors: dict[str, float]
    seconds: float
    converted: str = ""
    transcript: str | None = None


@dataclass(frozen=True)
class Ratings:
    """Of activation, valence and dominance, or those of them that the corpus has, on its scale; seconds and converted as a
    Prediction's."""

    ratings: dict[str, float]
    seconds: float
    converted: str = ""


@dataclass(frozen=True)
class FrontendConfig:
    """How the classifiers' input is made; ivector_mode is the one the training features had: carry-over, per-utterance, or
    none (a single recording always starts fresh)."""

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
    extractor: OnlineExtractor | None  # None for a network without i-vectors
    vad: VadConfig | None = None  # None where silence is not left out

    def seconds(self, frames: int) -> np.ndarray:
        """(frames,): the middle of the window of each of the first so many bottlenecks, in seconds."""
        first = self.mfcc.frame_length if self.mfcc.snip_edges else self.mfcc.frame_shift
        return (np.arange(frames) * self.config.subsampling * self.mfcc.frame_shift + first / 2) / 1000

    def new_speaker(self) -> SpeakerState | None:
        """For the utterances of one speaker to be called with, where i-vectors are carried over."""
        carried = self.extractor is not None and self.config.ivector_mode == "carry-over"
        return SpeakerState.new(self.extractor) if self.extractor is not None and carried else None

    def inputs(self, samples: np.ndarray, speaker: SpeakerState | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """MFCCs (T, D) and i-vectors (rows, D) of samples in int16 scale at self.mfcc.sample_frequency. The i-vectors go on
        from what `speaker` has said before, which this is added to."""
        feats = mfcc(samples, self.mfcc)
        if not len(feats):
            raise PyserError(f"{len(samples)} samples are less than one window of {self.mfcc.frame_length:g} ms")
        ivectors = None
        if self.extractor is not None:
            config = replace(self.extractor.config, ivector_period=self.config.ivector_period)
            state = speaker or SpeakerState.new(self.extractor)
            ivectors = extract_batch(self.extractor, [check_feats(self.extractor, feats)], [state], config)[0]
        return feats, ivectors

    def bottlenecks(self, feats: np.ndarray, ivectors: np.ndarray | None) -> np.ndarray:
        """(frames, D) of what `inputs` gives."""
        return compute(self.model, feats, ivectors, ComputeConfig(
            self.config.node, self.config.frames_per_chunk, self.config.subsampling, self.config.ivector_period))


@dataclass(frozen=True)
class Features:
    """folds: what the classifier of each takes, (frames, D). speech (frames,): which of them the decision is made of."""

    folds: tuple[np.ndarray, ...]
    speech: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """What `pyser.load` gives: front end and the networks of the folds, to call `predict` of."""

    frontend: Frontend
    networks: tuple[EmotionNetwork, ...]
    seen: frozenset[str] = frozenset()  # speakers that a fold was trained or selected on

    @property
    def labels(self) -> tuple[str, ...]:
        return self.networks[0].classifier.labels

    @property
    def rate(self) -> int:
        """Hz of the recordings that the network was trained on."""
        return self.frontend.mfcc.sample_frequency

    @overload
    def predict(self, audio: Audio) -> Prediction: ...

    @overload
    def predict(self, audio: list[AnyAudio]) -> list[Prediction]: ...

    def predict(self, audio: Audio | list[AnyAudio]) -> Prediction | list[Prediction]:
        """The emotion of a path or of (samples, rate), in any format and at any rate, as `read_recording` takes them; of a
        list of these, all their emotions."""
        if isinstance(audio, list):
            return [self.predict(one) for one in audio]
        recording = read_recording(audio, self.rate)
        return self.decide(recording, self.features(recording))

    def new_speaker(self) -> SpeakerState | None:
        """For the utterances of one speaker, where i-vectors are carried over."""
        return self.frontend.new_speaker()

    def of_speakers(self) -> str:
        """What is to be known of utterances whose speaker is; '' if nothing."""
        if self.frontend.extractor is None:
            return ""
        return ("i-vectors go on within a speaker, in the order of spk2utt" if self.new_speaker() else
                "the i-vectors of every utterance begin anew")

    def features(self, recording: Recording, speaker: SpeakerState | None = None) -> Features:
        """Of a recording at self.rate: bottlenecks of the front end, or of layers that have been trained with the fold."""
        with naming(recording.name):
            feats, ivectors = self.frontend.inputs(recording.samples, speaker)
            if all(network.trunk is None for network in self.networks):
                folds = (self.frontend.bottlenecks(feats, ivectors),) * len(self.networks)
            else:
                folds = tuple(n.trunk.bottlenecks(feats, ivectors) for n in self.networks if n.trunk is not None)
            mask = np.ones(len(feats)) if self.frontend.vad is None else voiced(feats, self.frontend.vad)
            return Features(folds, speech(mask, len(folds[0]), recording.name))

    @property
    def by_speaker(self) -> bool:
        """Whether features are normalised by all that a speaker says."""
        return self.networks[0].classifier.config.cmvn == "speaker"

    def decide(self, recording: Recording, feats: Features, cmvn: np.ndarray | None = None) -> Prediction:
        """The emotion of a recording with these features: the largest mean over the folds of its posteriors. cmvn (2, D + 1):
        statistics of all bottlenecks of its speaker, where self.by_speaker."""
        with naming(recording.name):
            if self.by_speaker and cmvn is None:
                raise PyserError("the classifiers were trained on features normalised by speaker: give a data directory with "
                                 "what each speaker says")
            folds = []
            for network, x in zip(self.networks, feats.folds, strict=True):
                rows = x[feats.speech] if cmvn is None else apply_cmvn(x[feats.speech], cmvn, BY_SPEAKER)
                folds.append(utterance_posteriors(network.classifier, rows))
        mean = np.mean(folds, axis=0)
        posteriors = {label: float(p) for label, p in zip(self.labels, mean, strict=True)}
        return Prediction(self.labels[int(np.argmax(mean))], posteriors, recording.seconds, recording.converted)

    def frame_posteriors(self, feats: Features) -> np.ndarray:
        """Posteriors (frames, K) of single frames, the mean over the folds; PyserError where only utterances have some."""
        folds = []
        with torch.no_grad():
            for network, rows in zip(self.networks, feats.folds, strict=True):
                folds.append(torch.cat([network.classifier(x).exp() for x in torch.from_numpy(rows).split(CHUNK)]))
        return np.asarray(torch.stack(folds).mean(dim=0))


class UtterancePredictor(ABC, Generic[Found]):
    """What `pyser.load` gives of a system that decides of each recording as a whole, and by itself: Prediction or Ratings."""

    seen: frozenset[str]

    @property
    def rate(self) -> int:
        """Hz of the recordings that it takes; those of speech encoders."""
        return 16000

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]: ...

    @abstractmethod
    def predict_recording(self, recording: Recording) -> Found:
        """Of one at self.rate."""

    def of_speakers(self) -> str:
        """What is to be known of utterances whose speaker is: nothing."""
        return ""

    @overload
    def predict(self, audio: Audio) -> Found: ...

    @overload
    def predict(self, audio: list[AnyAudio]) -> list[Found]: ...

    def predict(self, audio: Audio | list[AnyAudio]) -> Found | list[Found]:
        """Of a path or of (samples, rate), in any format and at any rate, as `read_recording` takes them; of a list of these,
        all that is found."""
        if isinstance(audio, list):
            return [self.predict(one) for one in audio]
        return self.predict_recording(read_recording(audio, self.rate))


def predictor_of(exp_dir: str | Path) -> str:
    """The module of pyser.ser that predicts with what is in `exp_dir`, an experiment or a fold of one."""
    exp_dir = Path(exp_dir)
    for directory in (exp_dir, exp_dir.parent):
        if (directory / "ser.json").is_file():
            config = read_json(directory / "ser.json", "config")["config"]
            return next((module for setting, module in PREDICTORS.items() if setting in config), "predict")
    return "predict"


def trained_folds(exp_dir: str | Path, missing: str, command: str) -> tuple[list[Path], Path]:
    """The models of an experiment's finished folds, or of the one fold that `exp_dir` is, and the experiment's front end."""
    exp_dir = Path(exp_dir)
    if (exp_dir / "final.safetensors").is_file():
        return [exp_dir / "final.safetensors"], exp_dir.parent / "frontend"
    paths = sorted(exp_dir.glob("fold*/final.safetensors"))
    if not paths:
        raise PyserError(f"{exp_dir}: {missing} in it (fold*/final.safetensors); run `{command}` first")
    return paths, exp_dir / "frontend"


def seen_speakers(paths: Sequence[Path]) -> frozenset[str]:
    """The speakers that these folds' models were trained or selected on; none where the lists are not beside them."""
    seen: set[str] = set()
    for path in paths:
        table = path.parent.parent / "utt2spk"
        if table.is_file() and (path.parent / "train.list").is_file() and (path.parent / "test.list").is_file():
            fold, speakers = read_fold(path.parent, path.parent.name), read_table(table)
            seen |= {speakers.get(utt, "") for utt in (*fold.train, *fold.valid)}
    return frozenset(seen - {""})


def load(exp_dir: str | Path) -> Predictor:
    """The classifiers of every finished fold in `exp_dir`, averaged; a fold's own directory gives that fold alone.

    On the corpus it was trained on this is no test: only a fold that did not see a speaker may be scored on him.
    """
    paths, frontend_dir = trained_folds(exp_dir, "no classifier", "pyser ser train")
    networks = tuple(read_network(path)[0] for path in paths)
    if len({(n.classifier.labels, n.trunk is None, n.classifier.config.cmvn) for n in networks}) > 1:
        raise PyserError(f"{exp_dir}: the folds have different labels or settings; train them again in a new directory")
    frontend = load_frontend(frontend_dir)
    dim, expected = frontend.model.dim(frontend.config.node), len(networks[0].classifier.mean)
    if dim != expected:
        raise PyserError(f"{exp_dir}: node {frontend.config.node} has {dim} dimensions, not {expected}; "
                         "run `pyser ser package-frontend` with the network and node they were trained on")
    if any(network.classifier.config.vad != (frontend.vad is not None) for network in networks):
        raise PyserError(f"{exp_dir}: silence was {'' if frontend.vad is None else 'not '}left out in training; run "
                         "`pyser ser package-frontend` with --vad-config exactly when it was")
    return Predictor(frontend, networks, seen_speakers(paths))


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
        extractor = load_extractor(directory / "ivector_extractor")
    model = load_nnet3(directory)
    vad = read_conf(directory / "vad.conf", VadConfig) if (directory / "vad.conf").is_file() else None
    return Frontend(config, read_conf(directory / "mfcc.conf", MfccConfig, dither=0.0), model, extractor, vad)


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
    vad_conf: str | Path | None = None,
) -> Path:
    """Copy network, extractor, MFCC and VAD configuration into exp_dir/frontend, for `load`; returns it."""
    chain_model, target = Path(chain_model), Path(exp_dir) / "frontend"
    chain_model = model_file(chain_model)
    model = load_nnet3(chain_model)
    model.dim(node)  # names the nodes there are, if this is none of them
    read_conf(mfcc_conf, MfccConfig)
    if vad_conf is not None:
        read_conf(vad_conf, VadConfig)
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
        if vad_conf is not None:
            shutil.copyfile(vad_conf, partial / "vad.conf")
        if extractor_dir is not None:
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
