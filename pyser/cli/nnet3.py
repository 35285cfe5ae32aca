"""pyser nnet3: Kaldi's networks, and those trained here as Kaldi's."""

from __future__ import annotations

import sys
from typing import Any

import click

from pyser.cli import options
from pyser.cli.config_options import KaldiCommand, Value, without_effect
from pyser.errors import PyserError


@click.group()
def group() -> None:
    """Compute, show, import and export nnet3 networks."""


@group.command(cls=KaldiCommand)
@click.option("--output-node", "node", default="output", show_default=True, help="any node: output, tdnnf12, tdnnf12.linear")
@click.option("--online-ivectors", help="rspecifier of i-vectors, a matrix for each utterance")
@click.option("--online-ivector-period", type=click.IntRange(1), default=10, show_default=True)
@click.option("--ivectors", help="rspecifier of i-vectors, a vector for each utterance (or speaker)")
@click.option("--utt2spk", metavar="FILE", help="--ivectors are of speakers")
@click.option("--frames-per-chunk", type=click.IntRange(1), default=50, show_default=True,
              help="one i-vector for each chunk, as in Kaldi")
@click.option("--frame-subsampling-factor", type=click.IntRange(1), default=1, show_default=True)
@click.option("--use-priors", type=Value(bool), default="false", help="subtract the model's log priors  [false]")
@click.option("--acoustic-scale", type=float, default=1.0, show_default=True, help="multiply the output, after priors")
@click.option("--apply-exp", type=Value(bool), default="false", help="exponentiate the output  [false]")
@click.option("--compress/--no-compress", default=False, show_default=True)
@without_effect(int, ["extra-left-context", "extra-right-context", "extra-left-context-initial", "extra-right-context-final"])
@without_effect(bool, ["debug-computation"])
@options.max_dropped
@options.allow_pipes
@options.network_device
@click.argument("model")
@click.argument("feats_rspecifier")
@click.argument("wspecifier")
def compute(
    node: str, online_ivectors: str | None, online_ivector_period: int, ivectors: str | None, utt2spk: str | None,
    frames_per_chunk: int, frame_subsampling_factor: int, use_priors: bool, acoustic_scale: float, apply_exp: bool,
    compress: bool, max_dropped: float, allow_pipes: bool, model: str, feats_rspecifier: str, wspecifier: str, **device: Any,
) -> None:
    """Outputs of MODEL (a .mdl, a .raw or an experiment directory) for features, as nnet3-compute gives them."""
    from pyser.nn.bottleneck import Device, IvectorTable, Output, compute_table, load
    from pyser.nn.compute import ComputeConfig

    if online_ivectors and ivectors or utt2spk and not ivectors:
        raise PyserError("nnet3 compute: give either --online-ivectors or --ivectors, and --utt2spk with the latter")
    fast = device.pop("fast")
    config = ComputeConfig(node, frames_per_chunk, frame_subsampling_factor, online_ivector_period, fast)
    network = load(model, Device(**device))
    table = IvectorTable.open(online_ivectors, ivectors, utt2spk, allow_pipes)
    output = Output(compress, use_priors, acoustic_scale, apply_exp)
    line = compute_table(network, feats_rspecifier, wspecifier, table, config, output, max_dropped, allow_pipes)
    print(line, file=sys.stderr)  # (stdout may be the archive)


@group.command()
@click.argument("model")
def info(model: str) -> None:
    """Context, nodes and components of MODEL."""
    from pyser.nn.model_io import load_nnet3

    print(load_nnet3(model).info())


@group.command(name="import")
@click.argument("source")
@click.argument("exp_dir")
def import_(source: str, exp_dir: str) -> None:
    """Kaldi's SOURCE (a .mdl, a .raw or a directory with one, binary or text) as EXP_DIR/final.safetensors."""
    from pyser.nn.model_io import import_nnet3

    print(import_nnet3(source, exp_dir))


@group.command()
@click.option("--transition-model", type=click.Path(), help="a final.mdl or transition model, to write a .mdl with")
@click.option("--text", is_flag=True, help="Kaldi's text form")
@click.argument("model")
@click.argument("out")
def export(transition_model: str | None, text: bool, model: str, out: str) -> None:
    """MODEL as Kaldi's OUT: a .mdl (needs a transition model) or, by any other name, a .raw."""
    from pyser.nn.model_io import export_nnet3

    print(export_nnet3(model, out, transition_model, not text))
