"""Predictions of many utterances, one after the other, as a table or as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.features.cmvn import cmvn_stats
from pyser.ser.predict import Features, Prediction, Predictor, Ratings, UtterancePredictor
from pyser.ser.recording import Recording
from pyser.ser.utterances import Utterance, utterances

_WIDTH = 5  # of a posterior or a rating


def print_predictions(
    predictor: Predictor | UtterancePredictor[Any], sources: Sequence[str], form: str = "table", allow_pipes: bool = False
) -> int:
    """Print the predictions of `sources` (see `utterances`), and to stderr what was converted and what is wrong; returns how
    many could not be predicted. form: table, or json for an object a line."""
    found: list[Utterance] = []
    failed = 0
    for source in sources:
        try:
            some = utterances(source, allow_pipes)
        except PyserError as error:
            failed += _complain(error)
            continue
        if some[0].speaker and predictor.of_speakers():
            _say(source, predictor.of_speakers())
        seen = sum(one.speaker in predictor.seen for one in some)
        if seen:
            _say(source, f"{seen} of {len(some)} utterances are of speakers that the model was trained on: this is no test")
        found += some
    width = max(len(name) for name in ("utterance", *(one.name for one in found)))
    headed = form == "json"
    said: set[tuple[str, str]] = set()
    for utterance, result in predictions(predictor, found):
        if isinstance(result, PyserError):
            failed += _complain(result)
            continue
        about = (utterance.source, result.converted)
        if result.converted and about not in said:
            said.add(about)
            _say(*about)
        if not headed:
            print(_header(result, width))
            headed = True
        print(_row(utterance.name, result, width) if form == "table" else _json(utterance.name, result), flush=True)
    return failed


def predictions(
    predictor: Predictor | UtterancePredictor[Any], found: Sequence[Utterance]
) -> Iterator[tuple[Utterance, Prediction | Ratings | PyserError]]:
    """Each utterance and its emotion or ratings, or what is wrong with it. i-vectors are carried over from one utterance of a
    speaker to his next where those of the training features were; features are normalised by all his utterances where those
    were."""
    if isinstance(predictor, UtterancePredictor):
        yield from _each_alone(predictor, found)
        return
    for _, group in groupby(found, key=lambda one: (one.source, one.speaker or one)):
        state = predictor.new_speaker()
        heard: list[tuple[Utterance, Recording, Features]] = []
        for utterance in group:
            try:
                recording = utterance.read(predictor.rate)
                feats = predictor.features(recording, state)
                if predictor.by_speaker and utterance.speaker:
                    heard.append((utterance, recording, feats))
                else:
                    yield utterance, predictor.decide(recording, feats)
            except PyserError as error:
                yield utterance, error
        if heard:
            cmvn = sum(cmvn_stats(feats.folds[0]) for _, _, feats in heard)
            for utterance, recording, feats in heard:
                yield utterance, predictor.decide(recording, feats, np.asarray(cmvn))


def _each_alone(
    predictor: UtterancePredictor[Any], found: Sequence[Utterance]
) -> Iterator[tuple[Utterance, Prediction | Ratings | PyserError]]:
    for utterance in found:
        try:
            yield utterance, predictor.predict_recording(utterance.read(predictor.rate))
        except PyserError as error:
            yield utterance, error


def _say(source: str, what: str) -> None:
    print(f"{source}: {what}", file=sys.stderr, flush=True)


def _complain(error: PyserError) -> int:
    _say("pyser", str(error))
    return 1


def _values(found: Prediction | Ratings) -> dict[str, float]:
    return found.ratings if isinstance(found, Ratings) else found.posteriors


def _emotion_width(found: Prediction) -> int:
    return max(map(len, (*found.posteriors, "emotion")))


def _header(found: Prediction | Ratings, width: int) -> str:
    emotion = "" if isinstance(found, Ratings) else f"  {'emotion':{_emotion_width(found)}}"
    return f"{'utterance':{width}}{emotion}  seconds" + "".join(f"  {label:>{_WIDTH}}" for label in _values(found))


def _row(name: str, found: Prediction | Ratings, width: int) -> str:
    emotion = "" if isinstance(found, Ratings) else f"  {found.emotion:{_emotion_width(found)}}"
    heard = "" if isinstance(found, Ratings) or found.transcript is None else f"  {found.transcript}"
    return f"{name:{width}}{emotion}  {found.seconds:7.2f}" + "".join(
        f"  {value:{max(_WIDTH, len(label))}.3f}" for label, value in _values(found).items()) + heard


def _json(name: str, found: Prediction | Ratings) -> str:
    line: dict[str, Any] = {"utterance": name}
    if isinstance(found, Ratings):
        line |= {"ratings": found.ratings, "seconds": found.seconds}
    else:
        line |= {"emotion": found.emotion, "posteriors": found.posteriors, "seconds": found.seconds}
        line |= {} if found.transcript is None else {"transcript": found.transcript}
    return json.dumps(line, ensure_ascii=False)
