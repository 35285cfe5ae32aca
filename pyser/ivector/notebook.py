"""An i-vector extractor to call on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyser.ivector.online import extract_speaker, load_extractor


class Extractor:
    """An extractor read by `pyser.kaldi.load_extractor`. dim : columns of its i-vectors; feat_dim : of its features."""

    def __init__(self, path: str | Path):
        self.path = str(path)
        self.online = load_extractor(path)
        self.dim, self.feat_dim = self.online.extractor.dim, self.online.front_end.feat_dim

    def __call__(self, feats: np.ndarray, **options: Any) -> np.ndarray:
        """Online i-vectors of an utterance on its own: (ceil(T / ivector_period), dim) float32, row i of frames 0 …
        i * ivector_period, as ivector-extract-online2 gives them.

        feats : (T, feat_dim)
        options : of OnlineIvectorConfig, such as ivector_period=10 or max_count=100.0

        PyserError if the features do not fit.
        """
        return self.speaker([feats], **options)[0]

    def speaker(self, utterances: Sequence[np.ndarray], **options: Any) -> list[np.ndarray]:
        """The same for a speaker's utterances, each of which goes on from those before it."""
        feats = [np.asarray(one, np.float32) for one in utterances]
        return extract_speaker(self.online, feats, replace(self.online.config, **options))

    def __repr__(self) -> str:
        return f"Extractor({self.path!r}: {self.feat_dim} -> {self.dim})"
