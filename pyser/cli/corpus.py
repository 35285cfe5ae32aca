"""pyser corpus: from a corpus as it is distributed to manifests and data directories."""

from __future__ import annotations

import click

from pyser.cli import options

NAMES = ("tedlium2", "iemocap", "ravdess", "emodb", "kaldi")


@click.group()
def group() -> None:
    """Corpora to Lhotse manifests and Kaldi data directories."""


@group.command()
@click.option("--label-set", type=click.Choice(["5531", "5500", "4936"]), default="5531", help="of IEMOCAP")
@click.option("--subset", type=click.Choice(["all", "improvised", "scripted"]), default="all", help="of IEMOCAP")
@options.max_dropped
@click.argument("name", type=click.Choice(NAMES))
@click.argument("corpus_dir")
@click.argument("data_dir")
def prepare(label_set: str, subset: str, max_dropped: float, name: str, corpus_dir: str, data_dir: str) -> None:
    """Prepare corpus NAME: DATA_DIR/<set>, DATA_DIR/manifests, DATA_DIR/<set>/folds.

    For `kaldi` CORPUS_DIR is any Kaldi data directory with transcripts, and DATA_DIR its checked copy.
    """
    if name == "kaldi":
        from pyser.corpora.kaldi_dir import prepare_kaldi_dir

        print(prepare_kaldi_dir(corpus_dir, data_dir, max_dropped))
        return
    if name == "tedlium2":
        from pyser.corpora.tedlium2 import prepare_tedlium2

        print(prepare_tedlium2(corpus_dir, data_dir, max_dropped))
        return
    from pyser.corpora.corpus import write_corpus
    from pyser.corpora.emodb import prepare_emodb
    from pyser.corpora.iemocap import prepare_iemocap
    from pyser.corpora.ravdess import prepare_ravdess

    if name == "iemocap":
        corpus = prepare_iemocap(corpus_dir, label_set, subset)
    else:
        corpus = {"ravdess": prepare_ravdess, "emodb": prepare_emodb}[name](corpus_dir)
    print(write_corpus(corpus, data_dir, max_dropped))
