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
@click.option("--pooling", type=click.Choice(["sum", "log", "statistics", "attention"]), help="frames to utterances")
@click.option("--cmvn", type=click.Choice(["none", "speaker"]), help="of the bottlenecks, by DATA_DIR/cmvn.scp")
@click.option("--class-balanced/--no-class-balanced", default=None, help="weights with which every class counts the same")
@click.option("--seed", type=int)
@click.option("--fold", "folds", multiple=True, help="only this fold (may be repeated)")
@click.option("--am", help="layers of this acoustic model learn too; DATA_DIR then holds its features, not bottlenecks")
@click.option("--node", default="tdnnf12", show_default=True, help="of --am, below the classifier")
@click.option("--train-above", default="lda", show_default=True, help="of --am, layers above it learn: lda all, --node none")
@click.option("--subsampling", default=1, show_default=True, help="of --am, every n-th frame is computed")
@click.option("--ivector-dir", help="of --am")
@click.option("--learning-rate-factor", type=float, help="of --am's layers, beside the classifier's; overrides the conf file")
@click.option("--vad-scp", help="of the acoustic model's features (pyser vad compute): silence is left out")
@options.max_dropped
@click.argument("data_dir")
@click.argument("folds_dir")
@click.argument("exp_dir")
def train(
    conf: str | None, selection: str | None, pooling: str | None, cmvn: str | None, class_balanced: bool | None,
    seed: int | None, folds: tuple[str, ...], am: str | None, node: str, train_above: str, subsampling: int,
    ivector_dir: str | None, learning_rate_factor: float | None, vad_scp: str | None, max_dropped: float, data_dir: str,
    folds_dir: str, exp_dir: str,
) -> None:
    """One classifier per fold of FOLDS_DIR on the features of DATA_DIR, into EXP_DIR/fold*."""
    from pyser.config import read_conf
    from pyser.ser.frame_classifier import SerConfig
    from pyser.ser.train import train_folds
    from pyser.ser.trunk import TrunkConfig

    config = read_conf(conf, SerConfig, selection=selection, pooling=pooling, cmvn=cmvn, class_balanced=class_balanced,
                       seed=seed, learning_rate_factor=learning_rate_factor, vad=vad_scp is not None or None)
    trunk = None if am is None else TrunkConfig(am, node, train_above, subsampling)
    train_folds(data_dir, folds_dir, exp_dir, config, folds, max_dropped, trunk, ivector_dir, vad_scp)


@group.command("package-frontend")
@click.option("--node", required=True, help="the node that the classifiers were trained on, e.g. tdnnf12")
@click.option("--subsampling", default=1, show_default=True)
@click.option("--frames-per-chunk", default=150, show_default=True)
@click.option("--extractor", type=click.Path(), help="i-vector extractor directory")
@click.option("--ivector-period", default=10, show_default=True)
@click.option("--ivector-mode", type=click.Choice(["carry-over", "per-utterance"]),
              help="how the training features' i-vectors were made; reported with the results")
@click.option("--vad-config", type=click.Path(), help="of the training's vad, where silence was left out")
@click.argument("exp_dir")
@click.argument("model")
@click.argument("mfcc_conf")
def package(
    node: str, subsampling: int, frames_per_chunk: int, extractor: str | None, ivector_period: int,
    ivector_mode: str | None, vad_config: str | None, exp_dir: str, model: str, mfcc_conf: str,
) -> None:
    """Copy all that comes before the classifiers into EXP_DIR/frontend."""
    from pyser.ser.predict import package_frontend

    if (extractor is None) != (ivector_mode is None):
        raise click.UsageError("--extractor and --ivector-mode belong together: give both or neither")
    print(package_frontend(exp_dir, model, extractor, mfcc_conf, node, subsampling, frames_per_chunk, ivector_period,
                           ivector_mode or "none", vad_config))


model_option = click.option("--model", "exp_dir", type=click.Path(), required=True,
                            help="experiment (the mean of its folds), or one fold of it")


@group.command()
@model_option
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="json: an object a line")
@options.allow_pipes
@click.argument("sources", nargs=-1, required=True)
def predict(exp_dir: str, form: str, allow_pipes: bool, sources: tuple[str, ...]) -> None:
    """Emotion and posteriors, or ratings, of SOURCES: audio files (any format, rate, channels), Kaldi data directories, `-`
    for the bytes of an audio file from standard input.

    What cannot be read is said on stderr, all else is predicted; then the exit status is 1.
    """
    import sys

    import pyser
    from pyser.ser.listing import print_predictions

    sys.exit(print_predictions(pyser.load(exp_dir), sources, form, allow_pipes) > 0)


@group.command()
@model_option
@click.argument("recording")
@click.argument("png", metavar="OUT.png|OUT.svg")
def plot(exp_dir: str, recording: str, png: str) -> None:
    """Spectrogram of RECORDING (a file, or DATA_DIR:UTTERANCE) and the posteriors over its time."""
    import pyser
    from pyser.ser.plot import plot_posteriors

    if converted := plot_posteriors(pyser.load(exp_dir), recording, png):
        click.echo(f"{recording}: {converted}", err=True)
