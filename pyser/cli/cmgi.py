"""pyser cmgi: emotion from speech and the words that it is heard to say."""

from __future__ import annotations

import click

from pyser.cli import options
from pyser.cli.config_options import Value


@click.group()
def group() -> None:
    """HuBERT, CTC and BERT with cross-modal gated interaction, fold by fold."""


@group.command()
@click.argument("exp")
def rows(exp: str) -> None:
    """Rows of EXP (table1, table2 or one row), one per line: its name, that of its first stage or -, what it is."""
    from pyser.ser.cmgi_rows import ROWS, rows_of

    for name in rows_of(exp):
        print(name, ROWS[name].first or "-", ROWS[name].what)


@group.command()
@click.option("--row", required=True, help="of Tables 1 and 2: 1 … 10, cmgi, … (pyser cmgi rows table1)")
@click.option("--conf", type=click.Path(), help="options such as --lr-initial=1e-5, one per line. The paper prints the "
              "learning rate 10e-5; the default is 1e-5 for the encoders and ten times that (--head-factor) for new layers")
@click.option("--hubert", default="facebook/hubert-large-ll60k", show_default=True, help="speech encoder, name or directory")
@click.option("--w2v2", default="facebook/wav2vec2-base-960h", show_default=True, help="speech encoder of row 6")
@click.option("--bert", default="bert-base-uncased", show_default=True, help="text encoder, name or directory")
@click.option("--hyp", default="", help="words of another recogniser, 'utterance words' per line, for row 5; "
              "what it was trained on must lack the test speakers and their words")
@click.option("--init", default="", help="experiment of the first stage, of rows that have one")
@click.option("--lm", help="ARPA file of the CTC beam search; none: greedy")
@click.option("--words", help="what the search can find, with --lm")
@click.option("--gradient-checkpointing", type=Value(bool), help="true: less memory, slower")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16"]))
@click.option("--selection", type=click.Choice(["valid", "last"]), help="best epoch on valid.list, or the last")
@click.option("--seed", type=int)
@click.option("--fold", "folds", multiple=True, help="only this fold (may be repeated)")
@options.max_dropped
@click.argument("data_dir")
@click.argument("folds_dir")
@click.argument("exp_dir")
def train(
    row: str, conf: str | None, hubert: str, w2v2: str, bert: str, hyp: str, init: str, lm: str | None, words: str | None,
    gradient_checkpointing: bool | None, precision: str | None, selection: str | None, seed: int | None,
    folds: tuple[str, ...], max_dropped: float, data_dir: str, folds_dir: str, exp_dir: str,
) -> None:
    """One model per fold of FOLDS_DIR, of the utterances of DATA_DIR, into EXP_DIR/fold*."""
    from pyser.config import read_options
    from pyser.errors import PyserError
    from pyser.ser.cmgi import train_cmgi
    from pyser.ser.cmgi_model import CmgiTraining
    from pyser.ser.cmgi_rows import settings

    given = dict(lm=lm, words=words, gradient_checkpointing=gradient_checkpointing, precision=precision, selection=selection,
                 seed=seed)
    read = read_options(conf, CmgiTraining) if conf else {}
    for name in ("speech", "text", "transcript", "interaction", "freeze", "init"):
        if name in read:
            raise PyserError(f"{conf}: --{name} is what a row says; take it out")
    config = CmgiTraining(**{
        **read, **settings(row, hubert, w2v2, bert, hyp, init),
        **{name: value for name, value in given.items() if value is not None}})
    train_cmgi(data_dir, folds_dir, exp_dir, config, folds, max_dropped)
