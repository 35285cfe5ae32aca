"""pyser bottleneck: dump nodes of networks."""

from __future__ import annotations

from typing import Any

import click

from pyser.cli import options
from pyser.errors import PyserError


@click.group()
def group() -> None:
    """Outputs of any node of a network, for whole corpora."""


@group.command()
@click.option("--node", default="tdnnf12", show_default=True, help="Kaldi node name, e.g. tdnnf12 or tdnnf12.linear")
@click.option("--ivectors", help="scp:exp/ivectors/ivector_online.scp; the file ivector_period beside it is read")
@click.option("--frames-per-chunk", type=click.IntRange(1), default=50, show_default=True,
              help="one i-vector for each chunk, as nnet3-compute")
@click.option("--subsampling", type=click.IntRange(1), default=1, show_default=True, help="every n-th frame only")
@click.option("--compress/--no-compress", default=True, show_default=True)
@options.max_dropped
@options.network_device
@click.argument("model")
@click.argument("feats_rspecifier")
@click.argument("wspecifier")
def dump(
    node: str, ivectors: str | None, frames_per_chunk: int, subsampling: int, compress: bool, max_dropped: float,
    model: str, feats_rspecifier: str, wspecifier: str, fast: bool, **device: Any,
) -> None:
    """Dump NODE of MODEL for scp:feats.scp to ark,scp:FILE.ark,FILE.scp; broken off, it goes on where it was."""
    from pathlib import Path

    from pyser.kaldi.specifier import Wspecifier
    from pyser.nn.bottleneck import Device
    from pyser.nn.bottleneck import dump as run
    from pyser.nn.compute import ComputeConfig, read_period

    ivectors_scp = options.path_of(ivectors) if ivectors else None
    period = read_period(Path(ivectors_scp).parent) if ivectors_scp else 10
    target = Wspecifier.parse(wspecifier)
    if not target.scp or not target.binary or target.ark in ("", "-", target.scp) or "|" in wspecifier:
        raise PyserError(f"'{wspecifier}': a dump goes to two files, ark,scp:FILE.ark,FILE.scp")
    config = ComputeConfig(node, frames_per_chunk, subsampling, period, fast)
    print(run(model, options.path_of(feats_rspecifier), target.ark, target.scp, ivectors_scp, config, compress, max_dropped,
              Device(**device)))


@group.command()
@click.option("--total", type=int, required=True, help="utterances of all of them together")
@click.argument("arks", nargs=-1, required=True)
def watch(total: int, arks: tuple[str, ...]) -> None:
    """A progress bar for the dumps that write ARKS, until all are there (or it is killed)."""
    from pyser.kaldi.resumable import watch as run

    run(arks, total)
