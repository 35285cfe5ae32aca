"""pyser sa2sr: encoders pretrained to read speech and its sentiment, and emotion regressors on them."""

from __future__ import annotations

import click


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
