"""A classifier, and the layers below it where these learn with it; as one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from torch import nn

from pyser.errors import PyserError
from pyser.nn import model_io
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.ser.frame_classifier import FrameClassifier, SerConfig, read_classifier, save_classifier
from pyser.ser.trunk import Trunk, TrunkConfig

KIND = "pyser emotion network"


class EmotionNetwork(nn.Module):
    """trunk: None where the classifier's input is read from files, or made by one network for all folds."""

    def __init__(self, classifier: FrameClassifier, trunk: Trunk | None = None):
        super().__init__()
        self.classifier, self.trunk = classifier, trunk


def save_network(path: str | Path, network: EmotionNetwork, extra: dict[str, str]) -> None:
    """Write both with their configs; `extra` (strings) goes into the metadata too."""
    classifier, trunk = network.classifier, network.trunk
    if trunk is None:
        save_classifier(path, classifier, extra)
        return
    parts = {"labels": list(classifier.labels), "trunk": asdict(trunk.config), "tdnnf": asdict(trunk.network.config)}
    texts = {name: json.dumps(value) for name, value in parts.items()}
    model_io.save(path, network, classifier.config, {"kind": KIND, **texts, **extra})


def read_network(path: str | Path) -> tuple[EmotionNetwork, dict[str, str]]:
    """In eval mode, with the metadata; PyserError if the file is missing, damaged or another model's."""
    state, metadata = model_io.read(path)
    if metadata.get("kind") != KIND:
        classifier, metadata = read_classifier(path)
        return EmotionNetwork(classifier).eval(), metadata
    try:
        trunk = Trunk(TdnnF(TdnnfConfig(**json.loads(metadata["tdnnf"]))), TrunkConfig(**json.loads(metadata["trunk"])))
        classifier = FrameClassifier(trunk.dim, json.loads(metadata["labels"]), SerConfig(**json.loads(metadata["config"])))
        network = EmotionNetwork(classifier, trunk)
        network.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, PyserError) as error:
        raise PyserError(f"{path}: not readable ({str(error).splitlines()[0][:80]}); train this fold again") from None
    return network.eval(), metadata
