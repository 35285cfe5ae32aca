"""pyser chain: acoustic models trained with LF-MMI."""

from __future__ import annotations

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """Train a TDNN-F with LF-MMI, average, decode."""


@group.command()
@click.option("--conf", type=click.Path(), help="conf/tdnn.conf: sizes and schedule, see ChainConfig")
@click.option("--seed", type=int, help="overrides the conf file")
@click.option("--num-epochs", type=int, help="overrides the conf file")
@click.option("--spec-augment-schedule", help="overrides the conf file")
@click.option("--dropout-schedule", help="overrides the conf file")
@click.option("--start-epoch", type=int, help="go on after the one before it, deleting later ones  [default: after the last]")
@click.option("--max-duration", type=float, help="seconds of speech in each process's batch; overrides the conf file")
@click.option("--world-size", type=int, default=1, show_default=True, help="processes, where torchrun starts none")
@click.option("--num-threads", type=int, help="overrides the conf file")
@click.option("--ali-dir", help="phones.ctm of DATA_DIR (pyser chain align): phones are learnt near these times")
@click.option("--mfcc-config", help="for --perturb-speed of the conf file")
@click.option("--extractor", help="of DATA_DIR's i-vectors, for --perturb-speed")
@click.option("--init", metavar="EXP_DIR", help="begin with the layers of this model, but for those of another size")
@click.argument("data_dir")
@click.argument("valid_data_dir")
@click.argument("lang_dir")
@click.argument("ivector_dir")
@click.argument("valid_ivector_dir")
@click.argument("exp_dir")
def train(
    conf: str | None, seed: int | None, num_epochs: int | None, spec_augment_schedule: str | None,
    dropout_schedule: str | None, start_epoch: int | None, max_duration: float | None, world_size: int,
    num_threads: int | None, ali_dir: str | None, mfcc_config: str | None, extractor: str | None, init: str | None,
    data_dir: str, valid_data_dir: str, lang_dir: str, ivector_dir: str, valid_ivector_dir: str, exp_dir: str,
) -> None:
    """Train on DATA_DIR, validate on VALID_DATA_DIR; a broken-off run goes on after its last epoch.

    '-' instead of both i-vector directories trains without i-vectors.
    """
    from pyser.chain.train import ChainConfig
    from pyser.chain.train import train as run
    from pyser.config import read_conf
    from pyser.training.distributed import launch

    config = read_conf(conf, ChainConfig, seed=seed, num_epochs=num_epochs, spec_augment_schedule=spec_augment_schedule,
                       dropout_schedule=dropout_schedule, start_epoch=start_epoch, max_duration=max_duration,
                       num_threads=num_threads)
    ivector_dirs = none(ivector_dir), none(valid_ivector_dir)
    launch(run, world_size, data_dir, valid_data_dir, lang_dir, *ivector_dirs, exp_dir, config, ali_dir, init, mfcc_config,
           extractor)


@group.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--ivectors", help="scp:exp/ivectors/ivector_online.scp")
@click.argument("model")
@click.argument("feats_rspecifier")
@click.argument("out")
def init(seed: int, ivectors: str | None, model: str, feats_rspecifier: str, out: str) -> None:
    """Write OUT, a network like MODEL with random parameters; scp:feats.scp is for its batch normalisation."""
    from pyser.nn.untrained import untrained

    path = options.path_of(ivectors) if ivectors else None
    print(untrained(model, out, options.path_of(feats_rspecifier), path, seed))


@group.command()
@click.option("--avg", type=int, default=2, show_default=True, help="how many epochs")
@click.option("--epoch", type=int, help="the last of them  [default: the last that there is]")
@click.argument("exp_dir")
def average(avg: int, epoch: int | None, exp_dir: str) -> None:
    """Average the last epochs into EXP_DIR/final.safetensors."""
    from pyser.chain.average import average as run

    print(run(exp_dir, avg, epoch))


@group.command()
@click.option("--ivectors", help="the data directory's i-vectors")
@click.option("--search-beam", type=float, help="nats; larger is slower and misses less  [default: 20]")
@click.option("--max-active", type=int, help="states alive at a frame  [default: 10000]")
@click.option("--acoustic-scale", type=float, help="of the network's log-probabilities  [default: 1]")
@click.option("--nbest", type=int, help="how many word sequences go to OUT_DIR/nbest (k2)  [default: 0]")
@click.option("--engine", type=click.Choice(["k2", "kaldi-decoder"]), help="[default: k2 if it is installed]")
@click.argument("exp_dir")
@click.argument("lang_dir")
@click.argument("data_dir")
@click.argument("out_dir")
def decode(
    ivectors: str | None, search_beam: float | None, max_active: int | None, acoustic_scale: float | None,
    nbest: int | None, engine: str | None, exp_dir: str, lang_dir: str, data_dir: str, out_dir: str,
) -> None:
    """Decode DATA_DIR with LANG_DIR/HLG.safetensors; hyp.txt, ref.txt and wer.txt go to OUT_DIR."""
    from pyser.chain.decode import DecodeConfig
    from pyser.chain.decode import decode as run
    from pyser.config import read_conf

    config = read_conf(
        None, DecodeConfig, search_beam=search_beam, max_active=max_active, acoustic_scale=acoustic_scale, nbest=nbest
    )
    print(run(exp_dir, lang_dir, data_dir, ivectors, out_dir, config, engine))


@group.command()
@click.option("--lm", help="an ARPA file in place of LANG_DIR/G.arpa")
@click.option("--lm-scale", type=float, help="of the graph's scores; a tenth of Kaldi's LMWT")
@click.option("--insertion-penalty", type=float, help="for each word, with --lm-scale  [default: 0]")
@click.option("--posterior-scale", type=float,
              help="of all scores, for minimum Bayes risk instead of the best score, with --lm-scale")
@click.option("--scales-of", metavar="DIR", help="all three as chosen for a development set, the OUT_DIR of its rescoring")
@click.argument("lang_dir")
@click.argument("decode_dirs", nargs=-1, required=True, metavar="DECODE_DIR...")
@click.argument("out_dir")
def rescore(
    lm: str | None, lm_scale: float | None, insertion_penalty: float | None, posterior_scale: float | None,
    scales_of: str | None, lang_dir: str, decode_dirs: tuple[str, ...], out_dir: str,
) -> None:
    """Choose again from the n-best lists of DECODE_DIR (decode --nbest); those of several systems for one data set are
    combined by the mean of their posteriors.

    Without scales those are taken that give DECODE_DIR the fewest errors, be it by the best score or by minimum Bayes risk:
    for development sets.
    """
    from pyser.chain.rescore import Scales
    from pyser.chain.rescore import rescore as run

    if lm_scale is not None and scales_of:
        raise click.UsageError("give --lm-scale or --scales-of")
    if lm_scale is None and (insertion_penalty is not None or posterior_scale is not None):
        raise click.UsageError("--insertion-penalty and --posterior-scale go with --lm-scale: give it too (1 leaves the "
                               "graph's scores as they are), or none of the three, to have them chosen")
    scales = None if lm_scale is None else Scales(lm_scale, insertion_penalty or 0.0, posterior_scale or 0.0)
    print(run(decode_dirs, out_dir, scales, f"{lang_dir}/G.arpa", lm, scales_of))


@group.command()
@click.option("--ivectors", help="the data directory's i-vectors")
@click.option("--max-dropped", type=options.Share(), default="5%", show_default=True, help="utterances that do not fit")
@click.argument("exp_dir")
@click.argument("lang_dir")
@click.argument("data_dir")
@click.argument("out_dir")
def align(ivectors: str | None, max_dropped: float, exp_dir: str, lang_dir: str, data_dir: str, out_dir: str) -> None:
    """phones.ctm, words.ctm and ali.scp (pdfs) of the transcripts of DATA_DIR."""
    from pyser.chain.align import align as run

    print(run(exp_dir, lang_dir, data_dir, ivectors, out_dir, max_dropped))


@group.command("align-equal")
@click.option("--max-dropped", type=options.Share(), default="5%", show_default=True, help="utterances that do not fit")
@click.argument("lang_dir")
@click.argument("data_dir")
@click.argument("out_dir")
def align_equal(max_dropped: float, lang_dir: str, data_dir: str, out_dir: str) -> None:
    """phones.ctm with the phones of each transcript spread evenly: where a flat start begins."""
    from pyser.chain.align import align_equal as run

    print(run(lang_dir, data_dir, out_dir, max_dropped))


def none(directory: str) -> str | None:
    return None if directory == "-" else directory
