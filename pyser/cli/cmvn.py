"""pyser cmvn: cepstral mean and variance normalisation of Kaldi archives."""

from __future__ import annotations

from typing import Any

import click

from pyser.cli import options
from pyser.cli.config_options import KaldiCommand, Value, config_options
from pyser.features.cmvn import CmvnConfig, OnlineCmvnConfig, SlidingCmvnConfig


@click.group()
def group() -> None:
    """Cepstral mean and variance: statistics, normalisation."""


@group.command(cls=KaldiCommand)
@click.option("--spk2utt", type=click.Path(), help="statistics of speakers instead of utterances")
@click.option("--binary", type=Value(bool), default="true", help="form of a file of global statistics  [true]")
@options.max_dropped
@options.allow_pipes
@click.argument("rspecifier")
@click.argument("target")
def compute(target: str, **arguments: Any) -> None:
    """Statistics of features to ark,scp:FILE.ark,FILE.scp, or those of all together to FILE."""
    from pyser.features.cmvn_tables import TABLE, compute_cmvn

    print_line(compute_cmvn(target=target, **arguments), target if TABLE.match(target) else f"ark:{target}")


@group.command(cls=KaldiCommand)
@click.option("--utt2spk", type=click.Path(), help="the statistics are of speakers")
@config_options(CmvnConfig)
@options.max_dropped
@options.allow_pipes
@click.argument("stats")
@click.argument("rspecifier")
@click.argument("wspecifier")
def apply(
    stats: str, rspecifier: str, wspecifier: str, utt2spk: str | None, max_dropped: float, allow_pipes: bool, **overrides: Any
) -> None:
    """Normalise features by the statistics scp:cmvn.scp (or a FILE of global ones)."""
    from pyser.config import read_conf
    from pyser.features.cmvn_tables import apply_cmvn

    conf = read_conf(None, CmvnConfig, **overrides)
    print_line(apply_cmvn(stats, rspecifier, wspecifier, conf, utt2spk, max_dropped, allow_pipes), wspecifier)


@group.command("apply-online", cls=KaldiCommand)
@click.option("--spk2utt", type=click.Path(), help="go on from a speaker's earlier utterances")
@config_options(OnlineCmvnConfig)
@options.max_dropped
@options.allow_pipes
@click.argument("global_stats")
@click.argument("rspecifier")
@click.argument("wspecifier")
def apply_online(
    global_stats: str, rspecifier: str, wspecifier: str, spk2utt: str | None, max_dropped: float, allow_pipes: bool,
    **overrides: Any,
) -> None:
    """Normalise features frame by frame, as online decoding does."""
    from pyser.config import read_conf
    from pyser.features.cmvn_tables import apply_online_cmvn

    conf = read_conf(None, OnlineCmvnConfig, **overrides)
    print_line(apply_online_cmvn(global_stats, rspecifier, wspecifier, conf, spk2utt, max_dropped, allow_pipes), wspecifier)


@group.command("apply-sliding", cls=KaldiCommand)
@config_options(SlidingCmvnConfig)
@options.max_dropped
@options.allow_pipes
@click.argument("rspecifier")
@click.argument("wspecifier")
def apply_sliding(rspecifier: str, wspecifier: str, max_dropped: float, allow_pipes: bool, **overrides: Any) -> None:
    """Normalise features by a window around or before each frame."""
    from pyser.config import read_conf
    from pyser.features.cmvn_tables import apply_sliding_cmvn

    conf = read_conf(None, SlidingCmvnConfig, **overrides)
    print_line(apply_sliding_cmvn(rspecifier, wspecifier, conf, max_dropped, allow_pipes), wspecifier)


def print_line(line: str, wspecifier: str) -> None:
    """The closing line, on stderr where the table goes to stdout."""
    from pyser.features.compute import log_of

    print(line, file=log_of(wspecifier))
