"""pyser bottleneck: dump nodes of a network."""

from __future__ import annotations

from pathlib import Path

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """Outputs of any node of a network, into Kaldi archives."""


@group.command()
@click.option("--node", default="tdnnf12", show_default=True, help="Kaldi node name, e.g. tdnnf12 or tdnnf12.linear")
@click.option("--ivectors", help="scp:exp/ivectors/ivector_online.scp")
@click.option("--frames-per-chunk", type=click.IntRange(1), default=150, show_default=True,
              help="one i-vector for each chunk, as nnet3-compute")
@click.option("--subsampling", type=click.IntRange(1), default=1, show_default=True, help="every n-th frame only")
@click.option("--compress/--no-compress", default=True, show_default=True)
@options.max_dropped
@click.argument("model")
@click.argument("feats_rspecifier")
@click.argument("wspecifier")
def compute(
    node: str, ivectors: str | None, frames_per_chunk: int, subsampling: int, compress: bool, max_dropped: float,
    model: str, feats_rspecifier: str, wspecifier: str,
) -> None:
    """Dump NODE of MODEL (a .safetensors file or its directory) for scp:feats.scp to ark,scp:FILE.ark,FILE.scp."""
    import torch

    from pyser.nn.bottleneck import BottleneckConfig, dump
    from pyser.nn.compute import read_period

    torch.set_num_threads(1)  # the jobs are the parallelism
    ivectors_scp = options.path_of(ivectors) if ivectors else None
    period = read_period(Path(ivectors_scp).parent) if ivectors_scp else 10
    config = BottleneckConfig(node, frames_per_chunk, subsampling, compress)
    print(dump(model, options.path_of(feats_rspecifier), wspecifier, ivectors_scp, period, config, max_dropped))
