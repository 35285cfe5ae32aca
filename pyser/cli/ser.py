"""pyser ser: emotion classifiers on bottleneck features."""

from __future__ import annotations

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """Train emotion classifiers fold by fold, and apply them."""


@group.command()
@click.option("--conf", type=click.Path(), help="options such as --hidden-dim=256, one per line")
@click.option("--selection", type=click.Choice(["valid", "last"]), help="best epoch on valid.list, or the last")
@click.option("--seed", type=int)
@click.option("--fold", "folds", multiple=True, help="only this fold (may be repeated)")
@options.max_dropped
@click.argument("data_dir")
@click.argument("folds_dir")
@click.argument("exp_dir")
def train(
    conf: str | None, selection: str | None, seed: int | None, folds: tuple[str, ...], max_dropped: float,
    data_dir: str, folds_dir: str, exp_dir: str,
) -> None:
    """One classifier per fold of FOLDS_DIR on the features of DATA_DIR, into EXP_DIR/fold*."""
    from pyser.config import read_conf
    from pyser.ser.frame_classifier import SerConfig
    from pyser.ser.train import train_folds

    config = read_conf(conf, SerConfig, selection=selection, seed=seed)
    train_folds(data_dir, folds_dir, exp_dir, config, folds, max_dropped)


@group.command("package-frontend")
@click.option("--node", required=True, help="the node that the classifiers were trained on, e.g. tdnnf12")
@click.option("--subsampling", default=1, show_default=True)
@click.option("--frames-per-chunk", default=150, show_default=True)
@click.option("--extractor", type=click.Path(), help="i-vector extractor directory")
@click.option("--ivector-period", default=10, show_default=True)
@click.option("--ivector-mode", type=click.Choice(["carry-over", "per-utterance"]), default="carry-over",
              show_default=True, help="how the training features' i-vectors were made; reported with the results")
@click.argument("exp_dir")
@click.argument("model")
@click.argument("mfcc_conf")
def package(
    node: str, subsampling: int, frames_per_chunk: int, extractor: str | None, ivector_period: int, ivector_mode: str,
    exp_dir: str, model: str, mfcc_conf: str,
) -> None:
    """Copy all that comes before the classifiers into EXP_DIR/frontend."""
    from pyser.ser.predict import package_frontend

    print(package_frontend(exp_dir, model, extractor, mfcc_conf, node, subsampling, frames_per_chunk, ivector_period,
                           ivector_mode))


@group.command()
@click.option("--model", "exp_dir", type=click.Path(), required=True, help="experiment (mean of its folds) or one fold")
@click.argument("recordings", nargs=-1, required=True)
def predict(exp_dir: str, recordings: tuple[str, ...]) -> None:
    """Emotion and posteriors of RECORDINGS (any format, rate, channels), one line each."""
    from pyser.ser.predict import load_predictor

    predictor = load_predictor(exp_dir)
    for recording in recordings:
        found = predictor(recording)
        print(recording, found.emotion, *(f"{label}={p:.3f}" for label, p in found.posteriors.items()), flush=True)
