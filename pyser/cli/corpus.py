"""pyser corpus: from a corpus as it is distributed to manifests and data directories."""

from __future__ import annotations

import click

from pyser.cli import options
from pyser.errors import PyserError

NAMES = ("tedlium2", "iemocap", "ravdess", "emodb", "kaldi")


@click.group()
def group() -> None:
    """Corpora to Lhotse manifests and Kaldi data directories."""


@group.command()
@click.option("--label-set", type=click.Choice(["5531", "5500", "4936"]), help="of IEMOCAP  [default: 5531]")
@click.option("--subset", type=click.Choice(["all", "improvised", "scripted"]), help="of IEMOCAP  [default: all]")
@options.max_dropped
@click.argument("name", type=click.Choice(NAMES))
@click.argument("corpus_dir")
@click.argument("data_dir")
def prepare(label_set: str | None, subset: str | None, max_dropped: float, name: str, corpus_dir: str, data_dir: str) -> None:
    """Prepare corpus NAME: DATA_DIR/<set>, DATA_DIR/manifests, DATA_DIR/<set>/folds.

    For `kaldi` CORPUS_DIR is any Kaldi data directory with transcripts, and DATA_DIR its checked copy.
    """
    if name != "iemocap" and (label_set or subset):
        raise PyserError(f"corpus prepare {name}: --label-set and --subset are for iemocap; leave them out")
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
        corpus = prepare_iemocap(corpus_dir, label_set or "5531", subset or "all")
    else:
        corpus = {"ravdess": prepare_ravdess, "emodb": prepare_emodb}[name](corpus_dir)
    print(write_corpus(corpus, data_dir, max_dropped))


@group.command("export-manifests")
@click.argument("data_dir")
@click.argument("out_dir")
def export_manifests(data_dir: str, out_dir: str) -> None:
    """Kaldi DATA_DIR -> Lhotse manifests OUT_DIR/<name>_{recordings,supervisions}.jsonl.gz.

    The emotion of utt2emo is supervision.custom["emotion"].
    """
    from pathlib import Path

    from pyser.kaldi.manifests import read_data_dir, write_manifests

    recordings, supervisions = read_data_dir(data_dir)
    name = Path(data_dir).resolve().name
    write_manifests(recordings, supervisions, out_dir, name)
    print(f"{out_dir}/{name}_*.jsonl.gz: {len(recordings)} recordings, {len(supervisions)} supervisions")


@group.command("import-manifests")
@click.argument("recordings")
@click.argument("supervisions")
@click.argument("data_dir")
def import_manifests(recordings: str, supervisions: str, data_dir: str) -> None:
    """Lhotse manifests RECORDINGS and SUPERVISIONS (.jsonl.gz) -> Kaldi DATA_DIR."""
    from pathlib import Path

    from lhotse import RecordingSet, SupervisionSet

    from pyser.kaldi.datadir import validate
    from pyser.kaldi.manifests import write_data_dir

    for path in (recordings, supervisions):
        if not Path(path).is_file():
            raise PyserError(f"{path}: no such manifest")
    write_data_dir(RecordingSet.from_file(recordings), SupervisionSet.from_file(supervisions), data_dir)
    print(validate(data_dir, need_text=Path(data_dir, "text").exists()))
