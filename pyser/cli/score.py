"""pyser score: figures, tables, paired tests, word errors."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def group() -> None:
    """UA, WA, confusion, tables, paired tests, WER."""


@group.command()
@click.argument("exp_dir")
def ser(exp_dir: str) -> None:
    """Score the folds of EXP_DIR: results.json, confusion.png and a table."""
    import numpy as np

    from pyser.scoring.figures import plot_confusion
    from pyser.scoring.results import score_experiment
    from pyser.scoring.tables import fold_table, results_table

    results = score_experiment(exp_dir)
    path = Path(exp_dir) / "confusion.png"
    plot_confusion(np.array(results["pooled"]["confusion"]), results["labels"], path, results["name"])
    print(fold_table(results), results_table([results]), sep="\n\n")
    if results["folds_missing"]:
        print(f"PARTIAL: without fold {', '.join(results['folds_missing'])}, which are not finished")
    print(f"written: {Path(exp_dir) / 'results.json'} {path}")


@group.command()
@click.option("--markdown", is_flag=True)
@click.argument("results", nargs=-1, required=True)
def table(markdown: bool, results: tuple[str, ...]) -> None:
    """One table of several results.json; seeds of one system are summed up."""
    from pyser.scoring.results import read_results
    from pyser.scoring.tables import results_table

    print(results_table([read_results(path) for path in results], markdown))


@group.command()
@click.argument("results", nargs=-1, required=True)
def compare(results: tuple[str, ...]) -> None:
    """Is B better than A? A/results.json B/results.json, or the seeds of two systems: McNemar and paired bootstrap."""
    from pyser.scoring.results import read_results
    from pyser.scoring.tables import comparison, two_systems

    print(comparison(*two_systems([read_results(path) for path in results])))


@group.command()
@click.argument("ref")
@click.argument("hyp")
def wer(ref: str, hyp: str) -> None:
    """Word error rate of the Kaldi-style text HYP against REF."""
    from pyser.kaldi.tables import read_table
    from pyser.scoring.wer import score

    print(score(read_table(ref), read_table(hyp))[1], end="")
