"""pyser fbank: mel filterbanks into Kaldi archives."""

from __future__ import annotations

from typing import Any

import click

from pyser.cli.config_options import KaldiCommand
from pyser.cli.features import compute_options, run
from pyser.features.fbank import FbankConfig


@click.group()
def group() -> None:
    """Mel filterbanks into Kaldi archives."""


@group.command(cls=KaldiCommand)
@compute_options(FbankConfig)
def compute(**arguments: Any) -> None:
    """Filterbanks of scp:wav.scp (or ark:WAVS) to ark,scp:FILE.ark,FILE.scp.

    The options with defaults in brackets are those of Kaldi's compute-fbank-feats.
    """
    run(FbankConfig, **arguments)
