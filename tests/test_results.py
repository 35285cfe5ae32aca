"""results.json: what is in it, what is refused; tables, comparisons and the score commands."""

import doctest
import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from ser_corpus import make_corpus

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.scoring import tables
from pyser.scoring.results import read_results, score_experiment
from pyser.scoring.tables import comparison, fold_table, results_table, two_systems
from pyser.ser.frame_classifier import SerConfig, read_classifier, save_classifier
from pyser.ser.train import train_folds

SMALL = {"hidden_dim": 8, "num_epochs": 2, "batch_frames": 128, "lr_initial": 1e-2, "lr_final": 1e-3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    data, folds = make_corpus(root, noise=12.0)
    (folds / "info.json").write_text(json.dumps({"corpus": "made-up", "label_set": "3", "subset": "all"}))
    for seed in range(3):
        train_folds(data, folds, root / f"ser_a{f'_seed{seed}' if seed else ''}", SerConfig(**SMALL, seed=seed))
    train_folds(data, folds, root / "ser_b", SerConfig(**SMALL, seed=7))
    for name in ("ser_a", "ser_a_seed1", "ser_a_seed2", "ser_b"):
        score_experiment(root / name)
    return root


@pytest.fixture
def exp(corpus, tmp_path):
    shutil.copytree(corpus / "ser_a", tmp_path / "ser_a")
    return tmp_path / "ser_a"


def test_results_hold_everything(corpus):
    results = read_results(corpus / "ser_a")
    assert results["labels"] == ["ang", "neu", "sad"] and results["selection"] == "valid" and results["seed"] == 0
    assert (results["corpus"], results["label_set"], results["subset"]) == ("made-up", "3", "all")
    assert results["label_counts"] == {"ang": 16, "neu": 16, "sad": 16} and results["folds_missing"] == []
    uas = [fold["ua"] for fold in results["folds"]]
    assert results["mean"]["ua"] == pytest.approx(np.mean(uas))
    assert results["std"]["ua"] == pytest.approx(np.sqrt(np.sum((uas - np.mean(uas)) ** 2) / 3))
    counts = np.sum([fold["confusion"] for fold in results["folds"]], axis=0)
    assert results["pooled"]["confusion"] == counts.tolist() and counts.sum() == len(results["decisions"]) == 48
    assert results["pooled"]["wa"] == pytest.approx(
        np.mean([ref == hyp for _, ref, hyp in results["decisions"].values()]))
    fold = results["folds"][0]
    assert fold["utterances"] == {"train": 24, "valid": 12, "test": 12} and fold["speakers"]["test"] == 1
    assert (corpus / "ser_a" / fold["lists"]["test"]).exists() and len(fold["sha256"]["test"]) == 64


def test_partial_experiment_says_so(exp):
    shutil.rmtree(exp / "fold3")
    assert score_experiment(exp)["folds_missing"] == ["3"]
    assert "3 of 4" in results_table([read_results(exp)])


def test_speaker_leak_is_refused(exp):
    path = exp / "utt2spk"
    path.write_text(path.read_text().replace("spk3-00 spk3", "spk3-00 spk1"))
    with pytest.raises(PyserError, match="speaker spk1 of the test list is also in"):
        score_experiment(exp)


def test_checkpoint_selected_on_the_test_fold_is_refused(exp):
    path = exp / "fold1" / "final.safetensors"
    model, metadata = read_classifier(path)
    extra = {key: value for key, value in metadata.items() if key not in ("kind", "config", "labels")}
    save_classifier(path, model, extra | {"selected_on": json.loads(extra["digests"])["test"]})
    with pytest.raises(PyserError, match="selected or trained on the test list of fold 1"):
        score_experiment(exp)
    save_classifier(path, model, {key: value for key, value in extra.items() if key != "selected_on"})
    with pytest.raises(PyserError, match="does not say what it was selected on"):
        score_experiment(exp)


def test_checkpoint_of_another_fold_is_refused(exp):
    # fold 1's model was trained on speaker 3, whom fold 3 tests
    shutil.copy(exp / "fold1" / "final.safetensors", exp / "fold3" / "final.safetensors")
    with pytest.raises(PyserError, match="fold3"):
        score_experiment(exp)


def test_edited_lists_and_posteriors_are_refused(exp):
    path = exp / "fold1" / "test.list"
    whole = path.read_text()
    path.write_text(whole.split("\n", 1)[1])
    with pytest.raises(PyserError, match="made with another test.list"):
        score_experiment(exp)
    path.write_text(whole)
    path = exp / "fold1" / "test_posteriors.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    with pytest.raises(PyserError, match="differ from test.list, e.g. spk1-00"):
        score_experiment(exp)
    path.write_text("spk1-00 nan 0 1\n" + "".join(lines[1:]))
    with pytest.raises(PyserError, match="expected 3 numbers"):
        score_experiment(exp)


def test_tables(corpus):
    assert doctest.testmod(tables).failed == 0
    seeds = [read_results(corpus / name) for name in ("ser_a", "ser_a_seed1", "ser_a_seed2")]
    lines = results_table([*seeds, read_results(corpus / "ser_b")]).splitlines()
    assert len(lines) == 1 + 4 + 1 and lines[-1].startswith("ser_a, 3 seeds")
    mean = np.mean([100 * seed["mean"]["ua"] for seed in seeds])
    assert f"{mean:.1f} ± " in lines[-1] and "made-up 3 all" in lines[-1]
    markdown = results_table(seeds, markdown=True).splitlines()
    assert markdown[0].startswith("| system") and set(markdown[1]) <= set("|-: ")
    assert "mean ± std" in fold_table(seeds[0]) and "pooled" in fold_table(seeds[0])


def test_comparison(corpus):
    a, b = read_results(corpus / "ser_a"), read_results(corpus / "ser_b")
    text = comparison([a], [b])
    assert "48 utterances in common" in text and "McNemar" in text and "3 seeds or more" in text
    assert "p = 1 (paired bootstrap" in comparison([a], [a])
    b["decisions"] = {utt: [fold, ref, ref] for utt, (fold, ref, _) in b["decisions"].items()}  # B is always right
    wrong = sum(ref != hyp for _, ref, hyp in a["decisions"].values())
    assert f"only A right 0, only B right {wrong}" in comparison([a], [b])
    seeds = [read_results(corpus / name) for name in ("ser_a_seed2", "ser_a", "ser_a_seed1")]
    first, second = two_systems([*seeds, b])
    assert [result["seed"] for result in first] == [0, 1, 2] and second == [b]
    with pytest.raises(PyserError, match="3 results of 1 systems"):
        two_systems(seeds)
    b["decisions"]["spk1-00"][1] = "sad"
    with pytest.raises(PyserError, match="spk1-00 is ang in ser_a but sad in ser_b"):
        comparison([a], [b])


def test_commands(exp, corpus, tmp_path):
    run = CliRunner().invoke
    done = run(cli, ["score", "ser", str(exp)], catch_exceptions=False)
    assert done.exit_code == 0 and "pooled" in done.output
    assert (exp / "confusion.png").read_bytes().startswith(b"\x89PNG")
    done = run(cli, ["score", "table", "--markdown", str(exp / "results.json")], catch_exceptions=False)
    assert done.output.startswith("| system")
    done = run(cli, ["score", "compare", str(exp), str(corpus / "ser_b")], catch_exceptions=False)
    assert "paired bootstrap" in done.output
    (tmp_path / "ref").write_text("u1 a b c\nu2 d\n")
    (tmp_path / "hyp").write_text("u1 a x c\nu2 d\n")
    done = run(cli, ["score", "wer", str(tmp_path / "ref"), str(tmp_path / "hyp")], catch_exceptions=False)
    assert "%WER 25.00 [ 1 / 4, 0 ins, 0 del, 1 sub ]" in done.output


def test_train_command(corpus, tmp_path):
    (tmp_path / "ser.conf").write_text("--hidden-dim=8\n--num-epochs=1\n")
    data = corpus / "data"
    arguments = ["ser", "train", "--conf", str(tmp_path / "ser.conf"), "--selection", "last", "--fold", "1", str(data),
                 str(data / "folds"), str(tmp_path / "exp")]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "fold 1: the last epoch, 12 test utterances" in done.output
    assert (tmp_path / "exp" / "fold1" / "test_posteriors.txt").exists()
