"""pyser corpus: from a corpus as it is distributed to manifests and data directories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pyser.cli import options
from pyser.errors import PyserError

if TYPE_CHECKING:
    from pyser.corpora.corpus import Corpus

TRANSCRIBED = ("tedlium2", "librispeech", "kaldi")  # without emotions, or as they come
NAMES = (*TRANSCRIBED, "iemocap", "msp-podcast", "ravdess", "cremad", "emodb", "esd", "savee", "tess")


@click.group()
def group() -> None:
    """Corpora to Lhotse manifests and Kaldi data directories."""


@group.command()
@click.option("--label-set", help="emotions: iemocap 5531|5500|4936, msp-podcast 8|4|all, ravdess 8|4, emodb 7|4, savee 7|4, "
                                  "tess 7|4, cremad 6|4, esd 5|4  [default: the first]")
@click.option("--subset", help="iemocap all|improvised|scripted, esd english|mandarin|all  [default: the first]")
@options.max_dropped
@click.argument("name", type=click.Choice(NAMES))
@click.argument("corpus_dir")
@click.argument("data_dir")
def prepare(label_set: str | None, subset: str | None, max_dropped: float, name: str, corpus_dir: str, data_dir: str) -> None:
    """Prepare corpus NAME: DATA_DIR/<set>, DATA_DIR/manifests, DATA_DIR/<set>/folds.

    For `kaldi` CORPUS_DIR is any Kaldi data directory with transcripts, and DATA_DIR its checked copy; if it has utt2emo,
    with folds: CORPUS_DIR/folds, or else five of its speakers.
    """
    if label_set and name in TRANSCRIBED:
        raise PyserError(f"corpus prepare {name}: it has no label sets; leave --label-set out")
    if subset and name not in ("iemocap", "esd"):
        raise PyserError(f"corpus prepare {name}: --subset is for iemocap and esd; leave it out")
    if name in TRANSCRIBED:
        print(_prepare_transcribed(name, corpus_dir, data_dir, max_dropped))
        return
    from pyser.corpora.corpus import write_corpus

    chosen = {key: value for key, value in (("label_set", label_set), ("subset", subset)) if value}
    print(write_corpus(_prepare_emotional(name, corpus_dir, chosen), data_dir, max_dropped))


def _prepare_transcribed(name: str, corpus_dir: str, data_dir: str, max_dropped: float) -> str:
    from pyser.corpora.kaldi_dir import prepare_kaldi_dir
    from pyser.corpora.librispeech import prepare_librispeech
    from pyser.corpora.tedlium2 import prepare_tedlium2

    prepare = {"kaldi": prepare_kaldi_dir, "librispeech": prepare_librispeech, "tedlium2": prepare_tedlium2}[name]
    return prepare(corpus_dir, data_dir, max_dropped)


def _prepare_emotional(name: str, corpus_dir: str, chosen: dict[str, str]) -> Corpus:
    from pyser.corpora.cremad import prepare_cremad
    from pyser.corpora.emodb import prepare_emodb
    from pyser.corpora.esd import prepare_esd
    from pyser.corpora.iemocap import prepare_iemocap
    from pyser.corpora.msp_podcast import prepare_msp_podcast
    from pyser.corpora.ravdess import prepare_ravdess
    from pyser.corpora.savee import prepare_savee
    from pyser.corpora.tess import prepare_tess

    preparers: dict[str, Callable[..., Corpus]] = {
        "cremad": prepare_cremad, "emodb": prepare_emodb, "esd": prepare_esd, "iemocap": prepare_iemocap,
        "msp-podcast": prepare_msp_podcast, "ravdess": prepare_ravdess, "savee": prepare_savee, "tess": prepare_tess,
    }
    return preparers[name](corpus_dir, **chosen)


@group.command()
@click.argument("data_dir")
def circumplex(data_dir: str) -> None:
    """Write DATA_DIR/utt2avd by the places of its categories (utt2emo) on Russell's circle, for corpora that nobody rated:
    activation and valence that are derived from the categories, and results will say so."""
    from pyser.corpora.circumplex import write_placements

    print(write_placements(data_dir))


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
