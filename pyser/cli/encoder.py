"""pyser encoder: speech encoders of Hugging Face."""

from __future__ import annotations

import click


@click.group()
def group() -> None:
    """Speech encoders (wav2vec 2.0, HuBERT, WavLM): train with CTC, dump, decode."""


@group.command()
@click.option("--like", type=click.Choice(["tiny", "small", "base"]), default="small", show_default=True,
              help="small: for a few hours of speech on a processor; base: wav2vec2-base")
@click.option("--type", "model_type", type=click.Choice(["wav2vec2", "hubert", "wavlm"]), default="wav2vec2",
              show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.argument("out_dir")
def init(like: str, model_type: str, seed: int, out_dir: str) -> None:
    """Write OUT_DIR, a model with random parameters that reads English characters."""
    from pyser.encoders.untrained import init_speech

    print(init_speech(out_dir, like, model_type, seed))


@group.command("train-ctc")
@click.option("--conf", type=click.Path(), help="conf/ctc.conf: schedule and batches, see CtcConfig")
@click.option("--freeze", type=click.Choice(["none", "features", "encoder"]), help="what keeps its parameters: the "
              "convolutions, or all but the CTC head; overrides the conf file")
@click.option("--num-epochs", type=int, help="overrides the conf file")
@click.option("--max-duration", type=float, help="seconds of speech in each process's batch; overrides the conf file")
@click.option("--seed", type=int, help="overrides the conf file")
@click.option("--world-size", type=int, default=1, show_default=True, help="processes, where torchrun starts none")
@click.option("--num-threads", type=int, help="overrides the conf file")
@click.argument("model_dir")
@click.argument("data_dir")
@click.argument("dev_dir")
@click.argument("exp_dir")
def train_ctc(
    conf: str | None, freeze: str | None, num_epochs: int | None, max_duration: float | None, seed: int | None,
    world_size: int, num_threads: int | None, model_dir: str, data_dir: str, dev_dir: str, exp_dir: str,
) -> None:
    """Train the model of MODEL_DIR, or of a name on Hugging Face's hub, on the transcripts of DATA_DIR.

    EXP_DIR becomes a directory of Hugging Face's. A broken-off run goes on after its last epoch.
    """
    from pyser.config import read_conf
    from pyser.encoders.ctc import CtcConfig
    from pyser.encoders.ctc import train as run
    from pyser.training.distributed import launch

    config = read_conf(conf, CtcConfig, freeze=freeze, num_epochs=num_epochs, max_duration=max_duration, seed=seed,
                       num_threads=num_threads)
    launch(run, world_size, model_dir, data_dir, dev_dir, exp_dir, config)


from pyser.cli import encoder_dump as encoder_dump  # noqa: E402  (adds its commands to the group)
