"""pyser ivector: extractors and online i-vectors."""

from __future__ import annotations

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """UBM, i-vector extractor, online i-vectors."""


@group.command()
@click.option("--num-gauss", default=512, show_default=True, help="Gaussians of the diagonal UBM")
@click.option("--ivector-dim", default=100, show_default=True)
@click.option("--num-iters", default=10, show_default=True, help="iterations of extractor training")
@click.option("--num-utts", default=20_000, show_default=True, help="use a random choice if there are more")
@click.option("--seed", default=0, show_default=True)
@click.argument("data_dir")
@click.argument("extractor_dir")
def train(
    num_gauss: int, ivector_dim: int, num_iters: int, num_utts: int, seed: int, data_dir: str, extractor_dir: str
) -> None:
    """PCA, UBM and extractor from the features of DATA_DIR, as Kaldi's files in EXTRACTOR_DIR."""
    from pyser.ivector.train import TrainConfig
    from pyser.ivector.train import train as run

    run(data_dir, extractor_dir, TrainConfig(num_gauss, ivector_dim, num_iters, num_utts, seed=seed))


@group.command()
@click.option("--spk2utt", help="a speaker's utterances go on from each other, in this order (else each is alone)")
@click.option("--utts-per-spk-max", type=int, help="split speakers into pseudo-speakers of at most so many utterances")
@click.option("--max-count", default=0.0, show_default=True, help="scaled frames past which the prior grows; 0: never")
@click.option("--period", "--ivector-period", default=10, show_default=True, help="frames from one i-vector to the next")
@click.option("--compress/--no-compress", default=True, show_default=True)
@click.argument("extractor_dir")
@click.argument("feats_rspecifier")
@click.argument("wspecifier")
def extract(
    spk2utt: str | None, utts_per_spk_max: int | None, max_count: float, period: int, compress: bool,
    extractor_dir: str, feats_rspecifier: str, wspecifier: str,
) -> None:
    """Online i-vectors of scp:feats.scp to ark,scp:FILE.ark,FILE.scp."""
    from pyser.ivector.dump import dump
    from pyser.ivector.online import OnlineIvectorConfig

    config = OnlineIvectorConfig(ivector_period=period, max_count=max_count)
    print(dump(extractor_dir, options.path_of(feats_rspecifier), wspecifier, config, spk2utt, utts_per_spk_max, compress))
