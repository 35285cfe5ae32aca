"""pyser fusion: emotion from MFCC, a speech encoder's hidden states and words."""

from __future__ import annotations

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """Train fusions of streams fold by fold."""


@group.command()
@click.option("--conf", type=click.Path(), help="options such as --num-epochs=100, one per line")
@click.option("--fusion", type=click.Choice(["concat", "coattention", "hierarchical"]))
@click.option("--stream", "streams", multiple=True, required=True, metavar="NAME=SCP",
              help="matrices of a stream, in the order of the fusion (repeated): mfcc=F hidden=F text=F")
@click.option("--speech", help="this encoder (name or directory) computes the stream hidden=- and learns too, with CTC")
@click.option("--layer", type=int, help="of --speech: 0 is the input of the first")
@click.option("--freeze", type=click.Choice(["features", "none"]), help="of --speech")
@click.option("--asr-weight", type=float, help="of CTC with --speech, the emotions having the rest")
@click.option("--selection", type=click.Choice(["valid", "last"]), help="best epoch on valid.list, or the last")
@click.option("--seed", type=int)
@click.option("--fold", "folds", multiple=True, help="only this fold (may be repeated)")
@options.max_dropped
@click.argument("data_dir")
@click.argument("folds_dir")
@click.argument("exp_dir")
def train(
    conf: str | None, fusion: str | None, streams: tuple[str, ...], speech: str | None, layer: int | None, freeze: str | None,
    asr_weight: float | None, selection: str | None, seed: int | None, folds: tuple[str, ...], max_dropped: float,
    data_dir: str, folds_dir: str, exp_dir: str,
) -> None:
    """One fusion per fold of FOLDS_DIR, of the utterances of DATA_DIR, into EXP_DIR/fold*."""
    from pyser.config import read_conf
    from pyser.ser.fusion import FusionTraining, train_fusion

    pairs = [stream.partition("=") for stream in streams]
    odd = next((name for name, equals, path in pairs if not (name and equals and path)), None)
    if odd is not None or len({name for name, _, _ in pairs}) < len(pairs):
        raise click.UsageError("--stream is NAME=SCP, each name once")
    config = read_conf(conf, FusionTraining, fusion=fusion, speech=speech, layer=layer, freeze=freeze, asr_weight=asr_weight,
                       selection=selection, seed=seed)
    train_fusion(data_dir, folds_dir, exp_dir, config, {name: path for name, _, path in pairs}, folds, max_dropped)


@group.command()
@click.option("--layer", default=-1, show_default=True, help="of the hidden states: 0 is the input of the first, -1 the last")
@click.option("--lm", default="", help="ARPA file of the CTC beam search; none: greedy")
@click.option("--words", default="", help="what the search can find, with --lm")
@click.argument("exp_dir")
@click.argument("speech")
@click.argument("text")
@click.argument("mfcc_conf")
def package(layer: int, lm: str, words: str, exp_dir: str, speech: str, text: str, mfcc_conf: str) -> None:
    """Note in EXP_DIR/frontend the encoders and the MFCC configuration that made its streams, for pyser ser predict."""
    from pyser.ser.fusion_predict import package as run

    print(run(exp_dir, speech, text, mfcc_conf, layer, lm, words))
