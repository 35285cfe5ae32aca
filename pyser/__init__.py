"""pyser: train a Kaldi-style acoustic model on transcribed speech, transfer it to emotion recognition."""

from typing import Any

from pyser import native as native  # before numpy and torch

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`pyser.kaldi` is there after `import pyser`, and costs nothing until it is used."""
    if name == "kaldi":
        import importlib

        return importlib.import_module("pyser.kaldi")
    raise AttributeError(f"module 'pyser' has no attribute '{name}'")
