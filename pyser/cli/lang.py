"""pyser lang: from transcripts and a dictionary to the graphs."""

from __future__ import annotations

import click

from pyser.cli.options import Share


@click.group()
def group() -> None:
    """Lexicon, phone and word language models, decoding graph (lang directories are icefall's)."""


@group.command()
@click.option("--source", default="cmudict", show_default=True, help="a lexicon file, or cmudict")
@click.option("--max-oov", type=Share(), default="5%", show_default=True, help="running words without pronunciation")
@click.option("--whole", is_flag=True, help="all other words of the source too")
@click.argument("data_dirs", nargs=-1, required=True)
@click.argument("dict_dir")
def lexicon(source: str, max_oov: float, whole: bool, data_dirs: tuple[str, ...], dict_dir: str) -> None:
    """DICT_DIR/lexicon.txt for the words of DATA_DIRS."""
    from pyser.lang.lexicon import make_dict

    print(make_dict(source, data_dirs, dict_dir, max_oov, whole))


@group.command()
@click.option("--share-silence-phones", is_flag=True, help="one set of pdfs for all silence phones")
@click.argument("dict_dir")
@click.argument("lang_dir")
def prepare(share_silence_phones: bool, dict_dir: str, lang_dir: str) -> None:
    """Symbol tables, L.fst and phones/ for Kaldi, L.pt and L_disambig.pt for icefall; CTC topology."""
    from pyser.lang.lang import prepare

    print(prepare(dict_dir, lang_dir, share_silence_phones))


@group.command()
@click.option("--type", "kind", type=click.Choice(["chain", "ctc"]), default="chain", show_default=True)
@click.option("--context", type=click.Choice(["mono", "biphone"]), default="mono", show_default=True)
@click.option("--ci-silence", is_flag=True, help="silence phones do not look at the phone before them")
@click.option("--tie", metavar="SOURCE", help="pairs of phones that are rare in SOURCE (see phone-lm) share pdfs")
@click.option("--min-biphone-count", type=click.IntRange(1), help="with --tie: of a pair that is not rare  [default: 100]")
@click.argument("lang_dir")
def topo(kind: str, context: str, ci_silence: bool, tie: str | None, min_biphone_count: int | None, lang_dir: str) -> None:
    """topo and tree; the outputs of the network. Before graph, after prepare."""
    from pyser.lang.graphs import biphone_counts
    from pyser.lang.lang import topo

    if tie and context != "biphone":
        raise click.UsageError("--tie is for --context biphone")
    if min_biphone_count and not tie:
        raise click.UsageError("--min-biphone-count needs --tie, where pairs of phones are counted")
    counts = biphone_counts(lang_dir, tie) if tie else None
    rare = {"min_biphone_count": min_biphone_count} if min_biphone_count else {}
    print(topo(lang_dir, kind, context, ci_silence, counts, **rare))


@group.command("phone-lm")
@click.option("--order", default=2, show_default=True)
@click.option("--smoothing", type=click.Choice(["kneser-ney", "none"]), default="kneser-ney", show_default=True,
              help="none: Kaldi's chain-est-phone-lm, transcripts with unseen n-grams have no numerator")
@click.option("--no-prune-order", type=click.IntRange(1),
              help="without smoothing: n-grams of this order are all kept  [default: 3]")
@click.option("--num-extra-lm-states", type=click.IntRange(0),
              help="without smoothing: longer histories kept  [default: 2000]")
@click.argument("lang_dir")
@click.argument("source")
def phone_lm(
    order: int, smoothing: str, no_prune_order: int | None, num_extra_lm_states: int | None, lang_dir: str, source: str
) -> None:
    """P.fst.txt, from the transcripts of a data directory or from a file of phone numbers (`utterance 1 2 3`)."""
    from pyser.lang.graphs import phone_lm

    pruning = {"no_prune_order": no_prune_order, "num_extra_lm_states": num_extra_lm_states}
    given = {name: value for name, value in pruning.items() if value is not None}
    if given and smoothing != "none":
        raise click.UsageError("--no-prune-order and --num-extra-lm-states are for --smoothing none; a smoothed phone LM "
                               "keeps all its n-grams")
    print(phone_lm(lang_dir, source, order, smoothing, **given))


@group.command()
@click.argument("lang_dir")
@click.argument("out_dir")
def denominator(lang_dir: str, out_dir: str) -> None:
    """den.fst and normalization.fst for Kaldi."""
    from pyser.lang.denominator import write_denominator

    print(write_denominator(lang_dir, out_dir))


def _counts(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"'{value}' are no numbers such as 1,1,2") from None


@group.command("word-lm")
@click.option("--order", default=3, show_default=True)
@click.option("--min-counts", callback=_counts, metavar="N,N,…",
              help="of each order, how often an n-gram must occur to be in the model: 1,1,2  [default: once]")
@click.option("--dev", metavar="SOURCE", help="held-out transcripts: their perplexity is told")
@click.option("--out", metavar="FILE", help="write this ARPA file, not G.arpa and G.fst.txt: a larger model to rescore with")
@click.option("--arpa", help="an ARPA file (may be .gz) instead of SOURCES")
@click.argument("lang_dir")
@click.argument("sources", nargs=-1)
def word_lm(
    order: int, min_counts: tuple[int, ...], dev: str | None, out: str | None, arpa: str | None, lang_dir: str,
    sources: tuple[str, ...],
) -> None:
    """G.arpa and G.fst.txt, from the transcripts of data directories or from text files (may be .gz)."""
    from pyser.lang.graphs import word_lm

    if bool(sources) == bool(arpa):
        raise click.UsageError("give SOURCES or --arpa")
    if arpa and (min_counts or dev or out):
        raise click.UsageError("--min-counts, --dev and --out are for SOURCES")
    print(word_lm(lang_dir, list(sources), order, arpa, min_counts, dev, out))


@group.command()
@click.argument("lang_dir")
def graph(lang_dir: str) -> None:
    """HLG.pt, for the topology of LANG_DIR."""
    from pyser.lang.graphs import decoding_graph

    print(decoding_graph(lang_dir))
