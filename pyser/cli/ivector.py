"""pyser ivector: extractors and online i-vectors."""

from __future__ import annotations

import click

from pyser.cli.config_options import KaldiCommand, Value

use_gpu = click.option("--use-gpu", type=click.Choice(["yes", "no", "optional", "wait"]), default="no", show_default=True,
                       help="optional: if there is one")


@click.group()
def group() -> None:
    """UBM, i-vector extractor, online i-vectors."""


@group.command()
@click.option("--num-gauss", default=512, show_default=True, help="Gaussians of the diagonal UBM")
@click.option("--ivector-dim", default=100, show_default=True)
@click.option("--num-iters", default=10, show_default=True, help="iterations of extractor training")
@click.option("--num-utts", default=20_000, show_default=True, help="use a random choice if there are more")
@click.option("--ali", metavar="RSPECIFIER", default="", help="alignments, a class for each frame: LDA instead of PCA")
@click.option("--update-variances/--no-update-variances", default=True, show_default=True)
@click.option("--online-cmvn-iextractor/--no-online-cmvn-iextractor", default=False, show_default=True,
              help="statistics of normalised features")
@click.option("--seed", default=0, show_default=True)
@use_gpu
@click.argument("data_dir")
@click.argument("extractor_dir")
def train(
    num_gauss: int, ivector_dim: int, num_iters: int, num_utts: int, ali: str, update_variances: bool,
    online_cmvn_iextractor: bool, seed: int, use_gpu: str, data_dir: str, extractor_dir: str,
) -> None:
    """PCA or LDA, UBM and extractor from the features of DATA_DIR, as Kaldi's files in EXTRACTOR_DIR."""
    from pyser.device import choose_device
    from pyser.ivector.train import TrainConfig
    from pyser.ivector.train import train as run

    run(data_dir, extractor_dir, TrainConfig(
        num_gauss, ivector_dim, num_iters, num_utts, ali=ali, update_variances=update_variances,
        online_cmvn_iextractor=online_cmvn_iextractor, seed=seed), choose_device(use_gpu))


@group.command(cls=KaldiCommand)
@click.option("--spk2utt", metavar="FILE",
              help="a speaker's utterances go on from each other, in this order (else each is alone)")
@click.option("--utts-per-spk-max", type=click.IntRange(1),
              help="split speakers into pseudo-speakers of at most so many utterances")
@click.option("--config", metavar="FILE", help="a Kaldi conf file, on top of what EXTRACTOR_DIR says")
@click.option("--period", "--ivector-period", "ivector_period", type=int, help="frames from one i-vector to the next  [10]")
@click.option("--num-gselect", type=int, help="Gaussians kept of each frame  [5]")
@click.option("--min-post", type=float, help="share of the posterior below which a Gaussian is not kept  [0.025]")
@click.option("--posterior-scale", type=float, help="weight of a frame  [0.1]")
@click.option("--max-count", type=float, help="scaled frames past which the prior grows; 0: never  [0]")
@click.option("--max-remembered-frames", type=float, help="weight of a speaker's earlier utterances  [1000]")
@click.option("--online-cmvn-iextractor", type=Value(bool),
              help="statistics of normalised features  [if the extractor has a file of that name]")
@click.option("--greedy-ivector-extractor", type=Value(bool), help="every i-vector is that of the whole utterance  [false]")
@click.option("--repeat", type=Value(bool), help="one row for every frame  [false]")
@click.option("--solver", type=click.Choice(["kaldi", "exact"]), default="kaldi", show_default=True,
              help="Kaldi's conjugate gradient, which stops before it converges, or the exact solution")
@click.option("--frame-weights-rspecifier", metavar="RSPECIFIER", help="vectors of frame weights, such as scp:vad.scp")
@click.option("--length-tolerance", default=0, show_default=True, help="frames by which weights may be too long or short")
@click.option("--compress/--no-compress", default=True, show_default=True)
@click.option("--allow-pipes", is_flag=True, help="run the commands in rspecifiers and scp files")
@use_gpu
@click.argument("extractor_dir")
@click.argument("feats_rspecifier")
@click.argument("wspecifier")
def extract(
    extractor_dir: str, feats_rspecifier: str, wspecifier: str, config: str | None, spk2utt: str | None,
    utts_per_spk_max: int | None, frame_weights_rspecifier: str | None, length_tolerance: int, compress: bool,
    allow_pipes: bool, use_gpu: str, solver: str, **options: int | float | bool | None,
) -> None:
    """Online i-vectors of scp:feats.scp to ark,scp:FILE.ark,FILE.scp.

    EXTRACTOR_DIR is a directory of Kaldi's (final.ie, final.dubm, …) or an ivector_extractor.conf.
    """
    from dataclasses import replace

    from pyser.ivector.directory import load_extractor
    from pyser.ivector.dump import DumpConfig, dump

    online = load_extractor(extractor_dir, config)
    given = {name: value for name, value in options.items() if value is not None}
    if solver == "exact":
        given["num_cg_iters"] = 0
    how = DumpConfig(spk2utt, utts_per_spk_max, frame_weights_rspecifier, length_tolerance, compress, allow_pipes,
                     use_gpu)
    line = dump(online, feats_rspecifier, wspecifier, replace(online.config, **given), how)  # type: ignore[arg-type]
    click.echo(line, err=wspecifier.partition(":")[2] == "-")
