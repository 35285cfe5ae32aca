"""What the commands that write features share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pyser.cli import options
from pyser.cli.config_options import config_options

Command = TypeVar("Command", bound=Callable[..., Any])


def compute_options(kind: type) -> Callable[[Command], Command]:
    """Arguments and options of a compute command; every field of the config dataclass `kind` is one of them."""
    decorators = [
        click.option("--segments", type=click.Path(), help="cut these segments out of the recordings"),
        click.option("--vtln-map", type=click.Path(), help="warp factor of each utterance (with --utt2spk: speaker)"),
        click.option("--utt2spk", type=click.Path(), help="utterance to speaker, for --vtln-map"),
        click.option("--write-utt2dur", type=click.Path(), help="ark,t:FILE of durations in seconds"),
        click.option("--write-num-frames", type=click.Path(), help="ark,t:FILE of numbers of frames"),
        click.option("--compress/--no-compress", default=True, show_default=True, help="store 8 bits per number"),
        options.allow_pipes,
        options.max_dropped,
        config_options(kind),
        click.argument("wav_rspecifier"),
        click.argument("wspecifier"),
    ]

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def run(
    kind: Any, segments: str | None, vtln_map: str | None, utt2spk: str | None,
    write_utt2dur: str | None, write_num_frames: str | None, compress: bool, allow_pipes: bool, max_dropped: float,
    wav_rspecifier: str, wspecifier: str, **overrides: Any,
) -> None:
    """Compute the features that `kind` configures and print the closing line."""
    from pyser.config import read_conf
    from pyser.features.compute import Lists, compute_features, log_of

    lists = Lists(segments, vtln_map, utt2spk, write_utt2dur, write_num_frames)
    line = compute_features(wav_rspecifier, wspecifier, read_conf(None, kind, **overrides), lists, max_dropped,
                            allow_pipes, compress)
    print(line, file=log_of(wspecifier))
