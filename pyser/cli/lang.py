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
@click.argument("data_dirs", nargs=-1, required=True)
@click.argument("dict_dir")
def lexicon(source: str, max_oov: float, data_dirs: tuple[str, ...], dict_dir: str) -> None:
    """DICT_DIR/lexicon.txt for the words of DATA_DIRS."""
    from pyser.lang.lexicon import make_dict

    print(make_dict(source, data_dirs, dict_dir, max_oov))


@group.command()
@click.argument("dict_dir")
@click.argument("lang_dir")
def prepare(dict_dir: str, lang_dir: str) -> None:
    """tokens.txt, words.txt, L.pt and L_disambig.pt."""
    from pyser.lang.lang import prepare

    print(prepare(dict_dir, lang_dir))


@group.command("phone-lm")
@click.option("--order", default=2, show_default=True)
@click.argument("lang_dir")
@click.argument("data_dir")
def phone_lm(order: int, lang_dir: str, data_dir: str) -> None:
    """P.arpa and P.fst.txt, from the transcripts of DATA_DIR."""
    from pyser.lang.graphs import phone_lm

    print(phone_lm(lang_dir, data_dir, order))


@group.command("word-lm")
@click.option("--order", default=3, show_default=True)
@click.argument("lang_dir")
@click.argument("sources", nargs=-1, required=True)
def word_lm(order: int, lang_dir: str, sources: tuple[str, ...]) -> None:
    """G.arpa and G.fst.txt, from the transcripts of data directories or from text files."""
    from pyser.lang.graphs import word_lm

    print(word_lm(lang_dir, list(sources), order))


@group.command()
@click.argument("lang_dir")
def graph(lang_dir: str) -> None:
    """HLG.pt."""
    from pyser.lang.graphs import decoding_graph

    print(decoding_graph(lang_dir))
