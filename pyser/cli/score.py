"""pyser score: figures, tables, paired tests, word errors."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def group() -> None:
    """UA, WA, confusion, tables, layers, paired tests, WER."""


@group.command()
@click.argument("exp_dir")
def ser(exp_dir: str) -> None:
    """Score the folds of EXP_DIR: results.json, confusion.png, confusion.svg and a table."""
    import numpy as np

    from pyser.scoring.figures import FORMATS, plot_confusion
    from pyser.scoring.results import score_experiment
    from pyser.scoring.tables import fold_table, made_with, results_table

    results = score_experiment(exp_dir)
    missing = ", ".join(results["folds_missing"])
    title = f"{results['name']} (without fold {missing})" if missing else results["name"]
    counts = np.array([fold["confusion"] for fold in results["folds"]])
    paths = [Path(exp_dir) / f"confusion.{name}" for name in FORMATS]
    for path in paths:
        plot_confusion(counts, results["labels"], path, title)
    print(made_with(results), fold_table(results), results_table([results]), sep="\n\n")
    if missing:
        print(f"PARTIAL: without fold {missing}, which are not finished")
    print(f"written: {Path(exp_dir) / 'results.json'} {' '.join(map(str, paths))}")


@group.command()
@click.option("--format", "style", type=click.Choice(["text", "markdown", "latex"]), default="text", show_default=True)
@click.option("--markdown", is_flag=True, help="The same as --format markdown.")
@click.argument("results", nargs=-1, required=True)
def table(style: str, markdown: bool, results: tuple[str, ...]) -> None:
    """One table of several results.json; seeds of one system are summed up. LaTeX: with the package booktabs."""
    from pyser.scoring.results import read_results
    from pyser.scoring.tables import results_table

    print(results_table([read_results(path) for path in results], "markdown" if markdown else style))


@group.command()
@click.argument("out")
@click.argument("results", nargs=-1, required=True)
def layers(out: str, results: tuple[str, ...]) -> None:
    """Figure OUT.png or OUT.svg: UA by bottleneck node, of one result (or the same seeds) per node; and the node that each
    fold's validation speakers choose."""
    from pyser.scoring.figures import plot_layers
    from pyser.scoring.results import read_results
    from pyser.scoring.tables import layers_table

    read = [read_results(path) for path in results]
    plot_layers(read, out)
    print(f"{layers_table(read)}\nwritten: {out}")


@group.command()
@click.argument("results", nargs=-1, required=True)
def compare(results: tuple[str, ...]) -> None:
    """Is B better than A? A/results.json B/results.json, or the seeds of systems: McNemar and paired bootstrap.

    More than two systems: each further one against the first, and p-values corrected for their number after Holm.
    """
    from pyser.scoring.results import read_results
    from pyser.scoring.tables import comparisons, systems_of

    print(comparisons(systems_of([read_results(path) for path in results])))


@group.command()
@click.argument("exp_dir")
def ratings(exp_dir: str) -> None:
    """Score the folds of EXP_DIR, of activation, valence and dominance: results.json and a table of CCCs."""
    from pyser.scoring.ratings import fold_table, ratings_table, score_ratings

    results = score_ratings(exp_dir)
    print(fold_table(results), ratings_table([results]), sep="\n\n")
    if results["folds_missing"]:
        print(f"PARTIAL: without fold {', '.join(results['folds_missing'])}, which are not finished")
    print(f"written: {Path(exp_dir) / 'results.json'}")


@group.command("ratings-table")
@click.option("--format", "style", type=click.Choice(["text", "markdown", "latex"]), default="text", show_default=True)
@click.argument("results", nargs=-1, required=True)
def ratings_table_(style: str, results: tuple[str, ...]) -> None:
    """One table of several results.json of ratings; seeds of one system are summed up."""
    from pyser.scoring.ratings import ratings_table, read_ratings

    print(ratings_table([read_ratings(path) for path in results], style))


@group.command("ratings-compare")
@click.argument("results", nargs=-1, required=True)
def ratings_compare(results: tuple[str, ...]) -> None:
    """Is B's CCC higher than A's? A/results.json B/results.json, or the seeds of systems: paired bootstrap.

    More than two systems: each further one against the first, and p-values corrected for their number after Holm.
    """
    from pyser.scoring.ratings import comparisons, read_ratings
    from pyser.scoring.tables import systems_of

    print(comparisons(systems_of([read_ratings(path) for path in results])))


@group.command()
@click.option("--format", "style", type=click.Choice(["text", "markdown", "latex"]), default="text", show_default=True)
@click.option("--out", metavar="FILE", help="figure, FILE.png or FILE.svg")
@click.argument("data_dir")
def sentiment(style: str, out: str | None, data_dir: str) -> None:
    """Sentiment of the words by emotion of the voice, of DATA_DIR's utt2sentiment and utt2emo, and Spearman's rho."""
    from pyser.scoring.sentiment import as_text, plot_sentiment, sentiment_table

    table = sentiment_table(data_dir)
    print(as_text(table, style))
    if out:
        plot_sentiment(table, out)
        print(f"written: {out}")


def _bounds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in value.split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' are no numbers such as 1,11,21,31") from None


@group.command()
@click.option("--by", type=click.Choice(["emotion", "length", "emotion,length"]), help="tables of parts, with 95% intervals")
@click.option("--data", metavar="DATA_DIR", help="data directory whose utt2emo has the emotions")
@click.option("--bins", callback=_bounds, default="1,11,21,31", show_default=True, metavar="N,N,…",
              help="reference words where each bin of lengths begins; an utterance below the second is short")
@click.option("--out", metavar="DIR", help="write wer_by_*.csv, .png and .svg there")
@click.argument("texts", nargs=-1, required=True, metavar="DECODE_DIR | REF HYP")
def wer(by: str | None, data: str | None, bins: tuple[int, ...], out: str | None, texts: tuple[str, ...]) -> None:
    """Word error rate of the Kaldi-style text HYP against REF, or of DECODE_DIR/hyp.txt against its ref.txt; whole, and by
    emotion and length of the reference (Li, Bell & Lai 2022, Tables 1 and 2)."""
    from pyser.kaldi.tables import read_table
    from pyser.scoring.wer import score

    if len(texts) > 2:
        raise click.UsageError("give DECODE_DIR, or REF and HYP")
    if by is None and (data or out):
        raise click.UsageError("--data and --out are for --by")
    if by and ("emotion" in by) != bool(data):
        raise click.UsageError("--by emotion needs --data, --by length does not")
    ref, hyp = texts if len(texts) == 2 else (f"{texts[0]}/ref.txt", f"{texts[0]}/hyp.txt")
    refs, hyps = read_table(ref), read_table(hyp)
    print(score(refs, hyps)[1], end="")
    if by is None:
        return
    from pyser.files import write_text
    from pyser.scoring.figures import FORMATS
    from pyser.scoring.wer_analysis import analyse, as_csv, remarks, tables
    from pyser.scoring.wer_figure import plot_wer

    factors, emotions = by.split(","), read_table(f"{data}/utt2emo") if data else None
    analysis = analyse(refs, hyps, bins, emotions)
    found = tables(analysis, factors)
    print()
    print(*found.values(), "\n".join(remarks(analysis, refs, hyps, emotions)), sep="\n\n")
    if out:
        lists = {f"{out}/wer_by_{'_'.join(part)}.csv": as_csv(analysis, part) for part in found}
        for path, text in lists.items():
            write_text(path, text)
        figures = [f"{out}/wer_by_{'_'.join(factors)}.{name}" for name in FORMATS]
        for path in figures:
            plot_wer(analysis, factors, path, texts[-1])
        print(f"written: {' '.join([*lists, *figures])}")
