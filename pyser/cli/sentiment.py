"""pyser sentiment: of transcripts, by a text model."""

from __future__ import annotations

import click

from pyser.cli import options


@click.group()
def group() -> None:
    """The sentiment of what is said."""


@group.command()
@click.option("--model", default="cardiffnlp/twitter-roberta-base-sentiment-latest", show_default=True,
              help="a sequence classifier of Hugging Face's (name or directory), or vader: a lexicon, offline")
@click.option("--use-gpu", type=click.Choice(["yes", "no", "optional", "wait"]), default="no", show_default=True)
@options.max_dropped
@click.argument("data_dir")
def label(model: str, use_gpu: str, max_dropped: float, data_dir: str) -> None:
    """Write DATA_DIR/utt2sentiment: negative, neutral or positive and the three probabilities, of DATA_DIR/text."""
    from pyser.ser.sentiment import write_sentiment

    print(write_sentiment(data_dir, model, use_gpu, max_dropped))
