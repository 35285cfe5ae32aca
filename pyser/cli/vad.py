"""pyser vad: speech or silence."""

from __future__ import annotations

from typing import Any

import click

from pyser.cli import options
from pyser.cli.config_options import KaldiCommand, config_options
from pyser.features.vad import VadConfig


@click.group()
def group() -> None:
    """Which frames are speech, by their energy."""


@group.command(cls=KaldiCommand)
@options.allow_pipes
@options.max_dropped
@config_options(VadConfig)
@click.argument("feats_rspecifier")
@click.argument("wspecifier")
def compute(allow_pipes: bool, max_dropped: float, feats_rspecifier: str, wspecifier: str, **overrides: Any) -> None:
    """Kaldi's compute-vad: a vector of ones and zeros for each utterance."""
    from pyser.config import read_conf
    from pyser.features.compute import log_of
    from pyser.features.vad import compute_vad

    line = compute_vad(feats_rspecifier, wspecifier, read_conf(None, VadConfig, **overrides), max_dropped, allow_pipes)
    print(line, file=log_of(wspecifier))
