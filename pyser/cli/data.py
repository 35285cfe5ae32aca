"""pyser data: Kaldi data directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pyser.cli import options
from pyser.errors import PyserError
from pyser.kaldi import datadir


@click.group()
def group() -> None:
    """Kaldi data directories, as Kaldi's utils/*_data_dir.sh; utt2emo and every other list are carried along."""


@group.command()
@click.option("--text/--no-text", default=True, help="require and check text")
@click.option("--feats/--no-feats", default=True, help="require feats.scp")
@click.option("--wav/--no-wav", default=True, help="require wav.scp")
@click.option("--no-spk-sort", is_flag=True, help="utt2spk need not be in the order of the speakers")
@click.option("--non-print", is_flag=True, help="allow non-printable characters in text")
@click.argument("directory")
def validate(text: bool, feats: bool, wav: bool, no_spk_sort: bool, non_print: bool, directory: str) -> None:
    """Check DIRECTORY; one line says what is in it or what is wrong. What is there is checked, required or not, but for a
    text that is not required."""
    print(datadir.validate(directory, text, feats, wav, not no_spk_sort, not non_print))


@group.command()
@click.option("--utt-extra-files", default="", help="further files keyed by utterance (any utt2* is one)")
@click.option("--spk-extra-files", default="", help="further files keyed by speaker (any spk2* is one)")
@click.argument("directory")
def fix(utt_extra_files: str, spk_extra_files: str, directory: str) -> None:
    """Sort the lists and keep the utterances that they agree on; the old files go to DIRECTORY/.backup."""
    print(datadir.fix(directory, utt_extra_files.split(), spk_extra_files.split()))


@group.command()
@click.option("--per-utt", is_flag=True, help="split speakers too; the parts lie in DIR/splitNutt")
@click.option("--nj", type=click.IntRange(1), help="number of parts of the second form")
@click.argument("paths", nargs=2, metavar="{DIR NJ | --nj NJ SOURCE TARGET}")
def split(per_utt: bool, nj: int | None, paths: tuple[str, str]) -> None:
    """Split by speaker (or by utterance): DIR into DIR/splitNJ/1 … NJ unless those are newer, or SOURCE into TARGET/1 …"""
    source, target = paths
    if nj is None:
        nj = _number(target, "data split")
        target = f"{source}/split{nj}" + "utt" * per_utt
        if datadir.is_split(source, target, nj):
            return
    print(datadir.split(source, target, nj, per_utt))


@group.command()
@click.option("--first", "how", flag_value="first", help="the first N utterances")
@click.option("--last", "how", flag_value="last", help="the last N utterances")
@click.option("--shortest", "how", flag_value="shortest", help="the N shortest utterances")
@click.option("--per-spk", "how", flag_value="per-spk", help="N utterances of each speaker")
@click.option("--speakers", "how", flag_value="speakers", help="random speakers with N utterances or a little more")
@click.option("--num", type=click.IntRange(1), help="another way to give N")
@click.option("--spk-list", help="the speakers that are the first words of this file (no N)")
@click.option("--utt-list", "--list", "utt_list", help="the utterances that are the first words of this file (no N)")
@click.argument("args", nargs=-1, metavar="SOURCE [N] TARGET")
def subset(how: str | None, num: int | None, spk_list: str | None, utt_list: str | None, args: tuple[str, ...]) -> None:
    """Some of the utterances: without another option, N of them evenly spread."""
    listed = spk_list or utt_list
    if sum(map(bool, (how, spk_list, utt_list))) > 1 or len(args) != (2 if num or listed else 3) or num and listed:
        raise PyserError("data subset: give SOURCE N TARGET with at most one of --first, --last, --shortest, --per-spk and "
                         "--speakers, or SOURCE TARGET with --spk-list or --utt-list")
    source, target = args[0], args[-1]
    if spk_list or utt_list:
        utts = datadir.listed_utterances(source, spk_list, utt_list)
    else:
        utts = datadir.some_utterances(source, num or _number(args[1], "data subset"), how)
    print(datadir.subset(source, target, utts))


def _number(text: str, command: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise PyserError(f"{command}: '{text}' is not a number above 0")
    return int(text)


@group.command()
@click.option("--extra-files", default="", help="further files to combine (any utt2*, spk2* and reco2* is combined)")
@click.option("--skip-fix", type=bool, default=False, help="true: do not drop the utterances that the lists do not agree on")
@click.argument("target")
@click.argument("sources", nargs=-1, required=True)
def combine(extra_files: str, skip_fix: bool, target: str, sources: tuple[str, ...]) -> None:
    """The union of SOURCES; lists that not all of them have are left out, but for utt2uniq and segments, which are made."""
    print(datadir.combine(target, sources, extra_files.split(), skip_fix))


@group.command()
@click.option("--utt-prefix", default="")
@click.option("--utt-suffix", default="")
@click.option("--spk-prefix", default="")
@click.option("--spk-suffix", default="")
@click.option("--feats/--no-feats", default=True, help="carry feats.scp, utt2num_frames, cmvn.scp and vad.scp")
@click.option("--validate-opts", default="", help="options of validate for the copy, such as '--no-wav --non-print'")
@click.argument("source")
@click.argument("target")
@click.pass_context
def copy(ctx: click.Context, feats: bool, validate_opts: str, source: str, target: str, **affixes: Any) -> None:
    """All lists, under other ids where a prefix or suffix is given; the copy is checked."""
    datadir.copy(source, target, datadir.Affixes(**affixes), feats)
    lacking = [] if Path(target, "text").exists() else ["--no-text"]
    checks = validate.make_context("validate", [*lacking, "--no-feats", *validate_opts.split(), target], parent=ctx)
    validate.invoke(checks)


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
