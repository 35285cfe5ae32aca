"""What is learnt of an utterance: its emotion, or its activation, valence and dominance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.scoring.metrics import concordance, unweighted_accuracy, weighted_accuracy

DIMENSIONS = ("activation", "valence", "dominance")
NOT_RATED = "-"


class Targets(Protocol):
    """table: the list of a data directory that has them; outputs: the file that a fold's network leaves of its test list;
    figure: by which epochs are compared, the higher the better."""

    table: str
    outputs: str
    figure: str

    def labels(self, values: Mapping[str, str]) -> list[str]:
        """Names of the network's outputs, by the lines of the table."""

    def parse(self, values: Mapping[str, str], labels: Sequence[str]) -> dict[str, Any]:
        """What the network is to give for each utterance."""

    def evaluate(self, outputs: Tensor, target: np.ndarray) -> dict[str, float]:
        """Figures of outputs (U, K) for targets (U,) or (U, K); loss is one of them."""

    def say(self, value: float) -> str:
        """The figure with its name."""


class Emotions:
    """The class of each utterance, by utt2emo."""

    table, outputs, figure = "utt2emo", "test_posteriors.txt", "ua"

    def labels(self, values: Mapping[str, str]) -> list[str]:
        return sorted(set(values.values()))

    def parse(self, values: Mapping[str, str], labels: Sequence[str]) -> dict[str, Any]:
        return {utt: labels.index(value) for utt, value in values.items()}

    def evaluate(self, outputs: Tensor, target: np.ndarray) -> dict[str, float]:
        """UA and WA over utterances, and their mean loss."""
        counts = np.zeros((outputs.shape[1], outputs.shape[1]), dtype=np.int64)
        np.add.at(counts, (target, outputs.argmax(dim=1).numpy()), 1)
        right = outputs[torch.arange(len(outputs)), torch.from_numpy(target)]
        loss = float(-right.clamp_min(1e-30).log().mean())
        return {"ua": unweighted_accuracy(counts), "wa": weighted_accuracy(counts), "loss": loss}

    def say(self, value: float) -> str:
        return f"UA {100 * value:.1f}"


class Ratings:
    """`activation valence dominance` of each utterance, by utt2avd, in which - is one that there is none of: a dimension that
    some utterance lacks is not learnt."""

    table, outputs, figure = "utt2avd", "test_ratings.txt", "ccc"

    def labels(self, values: Mapping[str, str]) -> list[str]:
        rows = [self._numbers(utt, value) for utt, value in values.items()]
        rated = [name for name, column in zip(DIMENSIONS, zip(*rows, strict=True), strict=True) if None not in column]
        if not rated:
            raise PyserError("utt2avd: in every dimension some utterance has no rating; mend it")
        return rated

    def parse(self, values: Mapping[str, str], labels: Sequence[str]) -> dict[str, Any]:
        places = [DIMENSIONS.index(label) for label in labels]
        return {utt: [self._numbers(utt, value)[place] for place in places] for utt, value in values.items()}

    def _numbers(self, utt: str, value: str) -> list[float | None]:
        try:
            numbers = [None if word == NOT_RATED else float(word) for word in value.split()]
        except ValueError:
            numbers = []
        if len(numbers) != len(DIMENSIONS) or not all(number is None or np.isfinite(number) for number in numbers):
            raise PyserError(f"utt2avd: {utt}: expected {', '.join(DIMENSIONS)}, numbers or -, found '{value[:40]}'; mend it")
        return numbers

    def evaluate(self, outputs: Tensor, target: np.ndarray) -> dict[str, float]:
        """The mean of the CCC of all dimensions over the whole list; loss is minus that."""
        ccc = float(np.mean([concordance(outputs[:, d].numpy(), target[:, d]) for d in range(target.shape[1])]))
        return {"ccc": ccc, "loss": -ccc}

    def say(self, value: float) -> str:
        return f"CCC {value:.3f}"


EMOTIONS, RATINGS = Emotions(), Ratings()
