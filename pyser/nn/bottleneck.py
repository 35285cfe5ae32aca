"""Dump a node of a network for every utterance of an scp file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from pyser.errors import Dropped, PyserError
from pyser.kaldi.tables import MatrixWriter, load_matrix, read_scp
from pyser.nn.compute import compute
from pyser.nn.model_io import load_tdnnf

REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class BottleneckConfig:
    """subsampling 1: 100 Hz, as Kaldi's make_bottleneck_features.sh dumps even chain models; 3: their own 33 Hz."""

    node: str = "tdnnf12"
    frames_per_chunk: int = 150
    subsampling: int = 1
    compress: bool = True


def dump(
    model_path: str | Path,
    feats_scp: str | Path,
    wspecifier: str,
    ivectors_scp: str | Path | None,
    period: int,
    config: BottleneckConfig,
    max_dropped: float = 0.05,
) -> str:
    """Write the node's outputs to `ark,scp:A,B` and return the closing line."""
    model = load_tdnnf(model_path)
    model.full_name(config.node)  # a wrong name fails here, before any work
    feats, ivectors = read_scp(feats_scp), read_scp(ivectors_scp) if ivectors_scp else {}
    dropped = Dropped(f"{config.node} of {feats_scp}", max_dropped)
    reported = time.monotonic()
    with MatrixWriter(wspecifier, config.compress) as writer:
        for done, (utt, rxfilename) in enumerate(feats.items()):
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                print(f"{done}/{len(feats)} utterances", flush=True)
            if ivectors_scp and utt not in ivectors:
                dropped.add(utt, "without i-vectors")
                continue
            try:
                rows = load_matrix(ivectors[utt]) if ivectors_scp else None
                output = compute(model, load_matrix(rxfilename), rows, config.node, period, config.frames_per_chunk,
                                 config.subsampling)
            except PyserError as error:
                raise PyserError(f"{utt}: {error}") from None
            writer.write(utt, output)
        line = dropped.finish(len(feats))
    return line
