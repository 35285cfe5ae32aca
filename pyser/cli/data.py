"""pyser data: Kaldi data directories."""

from __future__ import annotations

import click

from pyser.cli import options
from pyser.errors import PyserError
from pyser.files import read_lines
from pyser.kaldi import datadir


@click.group()
def group() -> None:
    """Kaldi data directories; utt2emo and every other list are carried along."""


@group.command()
@click.option("--text/--no-text", default=False, help="require text")
@click.option("--feats/--no-feats", default=False, help="require feats.scp")
@click.argument("directory")
def validate(text: bool, feats: bool, directory: str) -> None:
    """Check DIRECTORY; one line says what is in it or what is wrong."""
    print(datadir.validate(directory, text, feats))


@group.command()
@click.argument("directory")
def fix(directory: str) -> None:
    """Sort the lists and keep the utterances that all of them have."""
    print(datadir.fix(directory))


@group.command()
@click.option("--nj", type=click.IntRange(1), required=True, help="number of parts")
@click.argument("source")
@click.argument("target")
def split(nj: int, source: str, target: str) -> None:
    """Split by speaker into TARGET/1 … TARGET/NJ."""
    datadir.split(source, target, nj)


@group.command()
@click.option("--num", type=click.IntRange(1), help="this many utterances, evenly spread")
@click.option("--list", "list_", type=click.Path(), help="the utterances named in this file")
@click.argument("source")
@click.argument("target")
def subset(num: int | None, list_: str | None, source: str, target: str) -> None:
    """Some of the utterances."""
    if (num is None) == (list_ is None):
        raise PyserError("data subset: give either --num or --list")
    utts = datadir.first(source, num) if num else [line.split()[0] for line in read_lines(str(list_)) if line.strip()]
    datadir.subset(source, target, utts)


@group.command()
@click.argument("target")
@click.argument("sources", nargs=-1, required=True)
def combine(target: str, sources: tuple[str, ...]) -> None:
    """The union of SOURCES."""
    datadir.combine(target, sources)


@group.command()
@click.argument("source")
@click.argument("target")
def copy(source: str, target: str) -> None:
    """All lists but those about features."""
    datadir.copy(source, target)


@group.command("perturb-speed")
@click.option("--factors", default="0.9,1.0,1.1", show_default=True)
@click.argument("source")
@click.argument("target")
def perturb_speed(factors: str, source: str, target: str) -> None:
    """Copies at each speed (wav.scp gets Kaldi's sox forms, which pyser computes itself)."""
    try:
        speeds = [float(factor) for factor in factors.split(",")]
    except ValueError:
        raise PyserError(f"--factors {factors}: expected numbers with commas, such as 0.9,1.0,1.1") from None
    datadir.perturb_speed(source, target, speeds)


@group.command("perturb-volume")
@click.option("--seed", default=0, show_default=True)
@click.argument("source")
@click.argument("target")
def perturb_volume(seed: int, source: str, target: str) -> None:
    """Every recording at a volume drawn between 1/8 and 2."""
    datadir.perturb_volume(source, target, seed)


@group.command()
@options.max_dropped
@click.argument("directory")
@click.argument("scps", nargs=-1, required=True)
def feats(max_dropped: float, directory: str, scps: tuple[str, ...]) -> None:
    """Join SCPS into DIRECTORY/feats.scp and utt2num_frames; utterances without features are dropped and counted."""
    print(datadir.collect_feats(directory, scps, max_dropped))
