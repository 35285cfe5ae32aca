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
    """Figure OUT.png or OUT.svg: UA by bottleneck node, of one result (or the same seeds) per node."""
    from pyser.scoring.figures import plot_layers
    from pyser.scoring.results import read_results

    plot_layers([read_results(path) for path in results], out)
    print(f"written: {out}")


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
@click.argument("ref")
@click.argument("hyp")
def wer(ref: str, hyp: str) -> None:
    """Word error rate of the Kaldi-style text HYP against REF."""
    from pyser.kaldi.tables import read_table
    from pyser.scoring.wer import score

    print(score(read_table(ref), read_table(hyp))[1], end="")
