"""pyser mfcc: cepstra into Kaldi archives."""

from __future__ import annotations

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """Hires MFCC into Kaldi archives."""


@group.command()
@click.option("--config", type=click.Path(), help="Kaldi conf file, e.g. conf/mfcc_hires.conf")
@click.option("--segments", type=click.Path(), help="cut these segments out of the recordings")
@click.option("--dither", type=float, help="overrides the config (0: numbers repeat)")
@click.option("--allow-pipes", is_flag=True, help="let wav.scp run commands")
@options.max_dropped
@click.argument("wav_rspecifier")
@click.argument("wspecifier")
def compute(
    config: str | None, segments: str | None, dither: float | None, allow_pipes: bool, max_dropped: float,
    wav_rspecifier: str, wspecifier: str,
) -> None:
    """MFCC of scp:wav.scp to ark,scp:FILE.ark,FILE.scp."""
    from pyser.config import read_conf
    from pyser.features.mfcc import MfccConfig, compute_mfcc

    conf = read_conf(config, MfccConfig, dither=dither)
    print(compute_mfcc(options.path_of(wav_rspecifier), wspecifier, conf, segments, max_dropped, allow_pipes))
