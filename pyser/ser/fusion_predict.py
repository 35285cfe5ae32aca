"""Emotion of a recording by a fusion, and the words that it heard:

    audio -> 16 kHz mono -> MFCC                                             \
                         -> speech encoder -> hidden states                  -> fusions of all folds -> emotion
                                           -> words -> text encoder         /

exp/frontend says which encoders these are; they stay where they are, or on the hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pyser.config import read_conf
from pyser.encoders.decode import BeamConfig, Search, load_search
from pyser.encoders.huggingface import absolute
from pyser.encoders.speech import SpeechEncoder, load_speech
from pyser.encoders.text import TextEncoder, load_text
from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.files import read_json, write_json, write_text
from pyser.kaldi.wav import INT16
from pyser.ser.fusion import HIDDEN, FusionModel, read_fusion
from pyser.ser.predict import Prediction, UtterancePredictor, seen_speakers, trained_folds
from pyser.ser.recording import Recording, naming
from pyser.ser.streams import StreamExamples

MADE = "mfcc", HIDDEN, "text"  # streams that can be made of a recording


@dataclass(frozen=True)
class FusionFrontend:
    """What the streams of the training were made by. speech and text: directories or names on the hub; layer: of the hidden
    states; lm and words: files of the search, "" for none."""

    speech: str
    text: str
    layer: int
    lm: str = ""
    words: str = ""


@dataclass(frozen=True)
class FusionPredictor(UtterancePredictor[Prediction]):
    """What `pyser.load` gives of a fusion, to call `predict` of."""

    frontend: FusionFrontend
    models: tuple[FusionModel, ...]
    mfcc: MfccConfig
    speech: SpeechEncoder
    search: Search
    text: TextEncoder | None
    seen: frozenset[str] = frozenset()  # speakers that a fold was trained or selected on

    @property
    def labels(self) -> tuple[str, ...]:
        return self.models[0].labels

    def predict_recording(self, recording: Recording) -> Prediction:
        """The largest mean over the folds of the posteriors, and what the speech encoder of the front end hears."""
        with naming(recording.name), torch.no_grad():
            wave = recording.samples / np.float32(INT16)
            output = self.speech([wave])
            assert output.logits is not None
            transcript = self.search(output.logits[0].float().log_softmax(dim=1).numpy())
            streams: dict[str, Sequence[np.ndarray]] = {}
            names = self.models[0].network.config.streams
            if "mfcc" in names:
                streams["mfcc"] = [mfcc(recording.samples, self.mfcc)]
            if HIDDEN in names:
                streams[HIDDEN] = [output.hidden[self.frontend.layer][0].numpy()]
            if self.text is not None:
                streams["text"] = self.text.features([transcript])
            folds = []
            for model in self.models:
                if model.speech is None:
                    examples = StreamExamples(np.zeros(1, np.int64), streams)
                else:
                    read = {name: stream for name, stream in streams.items() if name != HIDDEN}
                    examples = StreamExamples(np.zeros(1, np.int64), read, [wave])
                folds.append(model(examples, [0])[0][0].double().exp())
            mean = torch.stack(folds).mean(dim=0).tolist()
        posteriors = dict(zip(self.labels, mean, strict=True))
        emotion = max(posteriors, key=lambda label: posteriors[label])
        return Prediction(emotion, posteriors, recording.seconds, recording.converted, transcript)


def load(exp_dir: str | Path) -> FusionPredictor:
    """The fusions of every finished fold in `exp_dir`, averaged; a fold's own directory gives that fold alone.

    On the corpus it was trained on this is no test: only a fold that did not see a speaker may be scored on him.
    """
    paths, directory = trained_folds(exp_dir, "no fusion", "pyser fusion train")
    models = tuple(read_fusion(path)[0] for path in paths)
    if len({(model.labels, tuple(model.network.config.streams.items())) for model in models}) > 1:
        raise PyserError(f"{exp_dir}: the folds have different labels or streams; train them again in a new directory")
    if not (directory / "frontend.json").is_file():
        raise PyserError(f"{directory}: no front end in it; run `pyser fusion package` first")
    try:
        frontend = FusionFrontend(**read_json(directory / "frontend.json"))
    except TypeError as error:
        raise PyserError(f"{directory}/frontend.json: not readable ({error}); run `pyser fusion package` again") from None
    streams = models[0].network.config.streams
    speech = load_speech(frontend.speech)
    if speech.vocabulary is None:
        raise PyserError(f"{frontend.speech}: has no CTC head, so no words are heard; give the encoder of the training")
    search, _ = load_search(speech.vocabulary, frontend.lm or None, frontend.words or None, BeamConfig(),
                            spare=False)
    text = load_text(frontend.text) if "text" in streams else None
    config = read_conf(directory / "mfcc.conf", MfccConfig, dither=0.0)
    dims = {"mfcc": config.num_ceps, HIDDEN: speech.dim, "text": 0 if text is None else text.dim}
    odd = next((name for name, dim in streams.items() if dims.get(name) != dim), None)
    if odd is not None:
        raise PyserError(f"{exp_dir}: the stream '{odd}' of {streams[odd]} dimensions is not what {directory} makes"
                         + ("; no recording gives it" if odd not in MADE else "; run `pyser fusion package` again"))
    return FusionPredictor(frontend, models, config, speech, search, text, seen_speakers(paths))


def package(
    exp_dir: str | Path, speech: str, text: str, mfcc_conf: str | Path, layer: int = -1, lm: str | Path = "",
    words: str | Path = "",
) -> Path:
    """Write exp_dir/frontend for `load`: which encoders, by their absolute directories or their names, and the MFCC
    configuration; returns it."""
    target = Path(exp_dir) / "frontend"
    read_conf(mfcc_conf, MfccConfig)
    speech, text, *files = (absolute(str(one)) for one in (speech, text, lm, words))
    for path in files:
        if path and not Path(path).is_file():
            raise PyserError(f"{path}: no such file")
    write_text(target / "mfcc.conf", Path(mfcc_conf).read_text())
    write_json(target / "frontend.json", asdict(FusionFrontend(speech, text, layer, *files)))
    return target
