"""pyser: train a Kaldi-style acoustic model on transcribed speech, transfer it to emotion recognition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyser import native as native  # before numpy and torch

if TYPE_CHECKING:
    from pathlib import Path

    from pyser.ser.predict import Prediction, Predictor, UtterancePredictor
    from pyser.ser.regression_predict import RegressionPredictor

__version__ = "0.1.0"


def load(exp_dir: str | Path) -> Predictor | UtterancePredictor[Prediction] | RegressionPredictor:
    """What `pyser ser train`, `pyser fusion train`, `pyser cmgi train` or `pyser sa2sr fine-tune` left in `exp_dir` (all
    folds, or one fold's directory), to predict with:

    >>> import pyser
    >>> pyser.load("exp/ser_tdnnf12").predict("some.wav").emotion                          # doctest: +SKIP
    'happy'
    >>> pyser.load("exp/avd_sa2sr").predict("some.wav").ratings["valence"]                 # doctest: +SKIP
    4.2
    """
    from importlib import import_module

    from pyser.ser.predict import predictor_of

    predictor: Predictor | UtterancePredictor[Prediction] | RegressionPredictor
    predictor = import_module(f"pyser.ser.{predictor_of(exp_dir)}").load(exp_dir)
    return predictor


def __getattr__(name: str) -> Any:
    """`pyser.kaldi` is there after `import pyser`, and costs nothing until it is used."""
    if name == "kaldi":
        import importlib

        return importlib.import_module("pyser.kaldi")
    raise AttributeError(f"module 'pyser' has no attribute '{name}'")
