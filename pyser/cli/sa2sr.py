"""pyser sa2sr: encoders pretrained to read speech and its sentiment, and emotion regressors on them."""

from __future__ import annotations

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """Pretrain an encoder (ASR, SA2SR, CPC); fine-tune it to activation, valence and dominance."""


@group.command()
@click.option("--conf", type=click.Path(), help="conf/pretrain.conf: sizes, schedule and batches, see PretrainConfig")
@click.option("--objective", type=click.Choice(["asr", "sa2sr", "cpc"]), help="overrides the conf file")
@click.option("--seed", type=int, help="overrides the conf file")
@click.option("--num-threads", type=int, help="overrides the conf file")
@click.argument("data_dir")
@click.argument("dev_dir")
@click.argument("exp_dir")
def pretrain(
    conf: str | None, objective: str | None, seed: int | None, num_threads: int | None, data_dir: str, dev_dir: str,
    exp_dir: str,
) -> None:
    """Train on the filterbanks, text and utt2sentiment of DATA_DIR; those of DEV_DIR choose the epoch.

    A broken-off run goes on after its last epoch.
    """
    from pyser.config import read_conf
    from pyser.ser.pretraining import PretrainConfig
    from pyser.ser.pretraining import pretrain as run

    run(data_dir, dev_dir, exp_dir, read_conf(conf, PretrainConfig, objective=objective, seed=seed, num_threads=num_threads))


@group.command("fine-tune")
@click.option("--conf", type=click.Path(), help="conf/regression.conf: sizes, schedule and batches, see RegressionConfig")
@click.option("--encoder", help="a directory of pyser sa2sr pretrain; none: an encoder of random parameters")
@click.option("--freeze/--no-freeze", default=None, help="the encoder keeps its parameters")
@click.option("--selection", type=click.Choice(["valid", "last"]), help="best epoch on valid.list, or the last")
@click.option("--seed", type=int)
@click.option("--fold", "folds", multiple=True, help="only this fold (may be repeated)")
@options.max_dropped
@click.argument("data_dir")
@click.argument("folds_dir")
@click.argument("exp_dir")
def fine_tune(
    conf: str | None, encoder: str | None, freeze: bool | None, selection: str | None, seed: int | None,
    folds: tuple[str, ...], max_dropped: float, data_dir: str, folds_dir: str, exp_dir: str,
) -> None:
    """One regressor per fold of FOLDS_DIR on the filterbanks and utt2avd of DATA_DIR, into EXP_DIR/fold*."""
    from pyser.config import read_conf
    from pyser.ser.regression import RegressionConfig
    from pyser.ser.regression import fine_tune as run

    config = read_conf(conf, RegressionConfig, encoder=encoder, freeze=freeze, selection=selection, seed=seed)
    run(data_dir, folds_dir, exp_dir, config, folds, max_dropped)


@group.command()
@click.argument("exp_dir")
@click.argument("fbank_conf")
def package(exp_dir: str, fbank_conf: str) -> None:
    """Copy FBANK_CONF, how the filterbanks of the training were made, into EXP_DIR/frontend, for `pyser ser predict`."""
    from pyser.ser.regression_predict import package as run

    print(run(exp_dir, fbank_conf))
