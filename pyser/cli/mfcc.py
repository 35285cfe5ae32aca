"""pyser mfcc: cepstra into Kaldi archives."""

from __future__ import annotations

from typing import Any

import click

from pyser.cli.config_options import KaldiCommand
from pyser.cli.features import compute_options, run
from pyser.features.mfcc import MfccConfig


@click.group()
def group() -> None:
    """MFCC into Kaldi archives."""


@group.command(cls=KaldiCommand)
@compute_options(MfccConfig)
def compute(**arguments: Any) -> None:
    """MFCC of scp:wav.scp (or ark:WAVS) to ark,scp:FILE.ark,FILE.scp.

    The options with defaults in brackets are those of Kaldi's compute-mfcc-feats.
    """
    run(MfccConfig, **arguments)
