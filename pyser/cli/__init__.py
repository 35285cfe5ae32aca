"""`pyser GROUP COMMAND …`: one click group per file here, each command a thin wrapper over one function."""

from __future__ import annotations

import importlib
import io
import sys

import click

from pyser import __version__
from pyser.errors import PyserError

GROUPS = {
    "corpus": "prepare a corpus: manifests and Kaldi data directories",
    "table": "copy Kaldi archives and scp files between their forms",
    "data": "Kaldi data directories: validate, split, subset, perturb",
    "mfcc": "MFCC into Kaldi archives",
    "fbank": "mel filterbanks into Kaldi archives",
    "cmvn": "cepstral mean and variance normalisation of Kaldi archives",
    "vad": "speech or silence by energy",
    "ivector": "UBM, i-vector extractor, online i-vectors",
    "lang": "lexicon, phone and word language models, decoding graph",
    "chain": "train a TDNN-F with LF-MMI, average, decode",
    "nnet3": "compute, show, import and export Kaldi's networks",
    "bottleneck": "dump a node of a network, going on where it was broken off",
    "encoder": "speech and text encoders of Hugging Face: train with CTC, dump, decode",
    "ser": "train and apply emotion classifiers",
    "fusion": "emotion from MFCC, hidden states of a speech encoder and words",
    "cmgi": "emotion from speech and the words that it is heard to say",
    "sentiment": "of transcripts, by a text model",
    "sa2sr": "activation, valence and dominance by an encoder pretrained on speech, its words and their sentiment",
    "score": "UA, WA, confusion, tables, figures, WER",
}


class LazyGroup(click.Group):
    """Imports a group's file only when that group is called: `pyser --help` loads neither torch nor k2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(GROUPS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in GROUPS:
            return None
        return importlib.import_module(f"pyser.cli.{cmd_name}").group  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(GROUPS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Kaldi-style acoustic models, transferred to speech emotion recognition."""


def main() -> None:
    """Entry point: a PyserError becomes one line on stderr and exit code 1. Names of files are printed byte by byte."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        cli()
    except PyserError as error:
        sys.exit(f"pyser: {error}")
    except OSError as error:
        sys.exit(f"pyser: {error.filename or 'input or output'}: {error.strerror or error}; check path and space")
