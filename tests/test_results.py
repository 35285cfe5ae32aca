"""results.json: what is in it, what is refused; tables, comparisons and the score commands."""

import doctest
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file
from ser_corpus import make_corpus

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.scoring import tables
from pyser.scoring.results import by_system, read_results, score_experiment
from pyser.scoring.tables import comparison, comparisons, fold_table, format_table, made_with, results_table, systems_of
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


def restate(path, **metadata):
    """The same checkpoint with other metadata; None takes an entry out."""
    model, before = read_classifier(path)
    save_classifier(path, model, {key: value for key, value in (before | metadata).items() if value is not None})


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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


def test_acoustic_models_part_the_seeds(corpus, exp):
    """Two experiments of one name and setting are two systems if their bottlenecks are of two networks."""
    shutil.copytree(corpus / "ser_a_seed1", exp.parent / "ser_a_seed1")
    read = []
    for name, values in (("ser_a", np.zeros(2)), ("ser_a_seed1", np.ones(2))):
        (exp.parent / name / "frontend").mkdir()
        save_file({"weight": values}, exp.parent / name / "frontend/final.safetensors")
        (exp.parent / name / "frontend/frontend.json").write_text(json.dumps({"node": "tdnnf2", "subsampling": 3}))
        read.append(score_experiment(exp.parent / name))
    assert read[0]["acoustic_model"] != read[1]["acoustic_model"] and len(read[0]["acoustic_model"]) == 12
    table = results_table(read)
    assert "2 seeds" not in table and read[1]["acoustic_model"] in table and "subsampling" not in table
    assert "subsampling 3" in made_with(read[0])
    assert systems_of([*read, read_results(corpus / "ser_b")])[:2] == [[read[0]], [read[1]]]


def test_order_of_the_utterances_is_said(exp):
    """Each speaker of the made-up corpus says the three emotions in turn."""
    assert score_experiment(exp)["order"]["by_previous"] > 0.9
    assert "WARNING" not in CliRunner().invoke(cli, ["score", "ser", str(exp)]).output
    (exp / "frontend").mkdir()
    (exp / "frontend/frontend.json").write_text(json.dumps({"node": "tdnnf2", "ivector_mode": "carry-over"}))
    assert "WARNING: the order of a speaker's" in CliRunner().invoke(cli, ["score", "ser", str(exp)]).output


def test_random_parameters_are_one_system(corpus, exp):
    """Each seed's own network, in place of the same trained one."""
    for name in ("ser_a_seed1", "ser_a_seed2"):
        shutil.copytree(corpus / name, exp.parent / name)
    read = []
    for name, trained in (("ser_a", "abc"), ("ser_a_seed1", "abc"), ("ser_a_seed2", "def")):
        (exp.parent / name / "frontend").mkdir()
        values = {"weight": np.full(2, len(read))}
        save_file(values, exp.parent / name / "frontend/final.safetensors", metadata={"untrained": trained})
        read.append(score_experiment(exp.parent / name))
    assert [one["acoustic_model"] for one in read] == [f"{trained}, random parameters" for trained in ("abc", "abc", "def")]
    assert [len(system) for system in systems_of(read)] == [2, 1]


def test_validation_is_that_of_the_epoch_taken(corpus):
    for fold in read_results(corpus / "ser_a")["folds"]:
        rows = json.loads((corpus / f"ser_a/fold{fold['name']}/history.json").read_text())
        assert fold["valid_ua"] == max(row["valid_ua"] for row in rows)


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
    digests = json.loads(read_classifier(path)[1]["digests"])
    restate(path, selected_on=digests["test"])
    with pytest.raises(PyserError, match="selected or trained on the test list of fold 1"):
        score_experiment(exp)
    restate(path, selected_on=digests["valid"], digests=json.dumps(digests | {"valid": digests["test"]}))
    with pytest.raises(PyserError, match="selected or trained on the test list of fold 1"):
        score_experiment(exp)
    for nothing in ({"selected_on": None}, {"digests": "[]"}, {"digests": "7"}, {"fold": None}):
        restate(path, **({"selected_on": digests["valid"], "digests": json.dumps(digests), "fold": "1"} | nothing))
        with pytest.raises(PyserError, match="does not say what it was selected on|not selected on|another train.list"):
            score_experiment(exp)


def test_swapped_lists_are_refused(exp):
    fold = exp / "fold1"
    (fold / "test.list").rename(fold / "aside")
    (fold / "valid.list").rename(fold / "test.list")
    (fold / "aside").rename(fold / "valid.list")
    with pytest.raises(PyserError, match="selected or trained on the test list of fold 1"):
        score_experiment(exp)


def test_renamed_folds_are_refused(exp):
    (exp / "fold1").rename(exp / "aside")
    (exp / "fold2").rename(exp / "fold1")
    (exp / "aside").rename(exp / "fold2")
    with pytest.raises(PyserError, match="fold1/final.safetensors: the checkpoint of fold 2, not of fold 1"):
        score_experiment(exp)


def test_fold_of_another_seed_is_refused(corpus, exp):
    # the same lists and labels: the better of two seeds on the test speakers of every fold would be selection on test
    shutil.rmtree(exp / "fold1")
    shutil.copytree(corpus / "ser_a_seed1" / "fold1", exp / "fold1")
    with pytest.raises(PyserError, match="fold1/final.safetensors: made with seed 1, but ser.json says 0"):
        score_experiment(exp)


def test_fold_of_other_features_is_refused(exp):
    restate(exp / "fold2" / "final.safetensors", features="another node")
    with pytest.raises(PyserError, match="folds 1 and 2 were trained on different features"):
        score_experiment(exp)


def test_posteriors_of_another_checkpoint_are_refused(corpus, exp):
    shutil.copy(corpus / "ser_b" / "fold1" / "test_posteriors.txt", exp / "fold1" / "test_posteriors.txt")
    with pytest.raises(PyserError, match="fold1/test_posteriors.txt: not what the checkpoint beside it gave"):
        score_experiment(exp)
    shutil.copy(corpus / "ser_a" / "fold1" / "test_posteriors.txt", exp / "fold1" / "test_posteriors.txt")
    restate(exp / "fold2" / "final.safetensors", posteriors=None)
    with pytest.raises(PyserError, match="fold2/test_posteriors.txt: not what the checkpoint beside it gave"):
        score_experiment(exp)


def test_hidden_fold_is_refused(exp):
    edit(exp / "ser.json", lambda settings: settings["folds"].pop("3"))
    with pytest.raises(PyserError, match="fold3 is not among the folds of ser.json"):
        score_experiment(exp)


def test_other_claims_than_the_checkpoints_are_refused(exp):
    whole = (exp / "ser.json").read_text()
    for change, message in (
        (lambda settings: settings["config"].update(selection="last"), "made with selection valid, but ser.json says last"),
        (lambda settings: settings["config"].update(class_balanced=False), "made with class_balanced True, but"),
        (lambda settings: settings["config"].pop("dropout"), "made with dropout 0.2, but ser.json says None"),
        (lambda settings: settings["labels"].reverse(), "made with labels"),
    ):
        (exp / "ser.json").write_text(whole)
        edit(exp / "ser.json", change)
        with pytest.raises(PyserError, match=message):
            score_experiment(exp)


def test_trained_layers_are_what_the_checkpoint_says(exp):
    edit(exp / "ser.json", lambda settings: settings["config"].update(trunk_node="tdnnf2", trunk_model="am"))
    with pytest.raises(PyserError, match="made with trunk_model None, but ser.json says am"):
        score_experiment(exp)
    for fold in "1234":
        restate(exp / f"fold{fold}" / "final.safetensors", trunk=json.dumps({"node": "tdnnf2", "model": "am"}))
    results = score_experiment(exp)
    assert results["node"] == "tdnnf2" and "trunk_model am" in made_with(results)


def test_emotions_changed_after_training_are_refused(exp):
    path = exp / "utt2emo"
    whole = path.read_text()
    path.write_text(whole.replace("spk1-00 ang", "spk1-00 sad"))
    with pytest.raises(PyserError, match="made with other emotions than .*utt2emo says"):
        score_experiment(exp)
    path.write_text(whole.replace("spk1-00 ang\n", ""))
    with pytest.raises(PyserError, match="utt2emo: spk1-00 of fold 1 is not in it"):
        score_experiment(exp)


def test_last_means_the_last_epoch(exp):
    def last(settings):
        settings["config"]["selection"] = "last"

    edit(exp / "ser.json", last)
    config = json.dumps(json.loads((exp / "ser.json").read_text())["config"])
    for fold in "1234":
        restate(exp / f"fold{fold}" / "final.safetensors", selection="last", selected_on="", config=config, epoch="2")
    assert score_experiment(exp)["selection"] == "last"
    restate(exp / "fold2" / "final.safetensors", epoch="1")
    with pytest.raises(PyserError, match="epoch 1 of 2, but it says that none was selected"):
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
    assert len(lines) == 1 + 4 + 1 + 2 and lines[5].startswith("ser_a, 3 seeds") and "over folds" in lines[-1]
    mean = np.mean([100 * seed["mean"]["ua"] for seed in seeds])
    assert f"{mean:.1f} ± " in lines[5] and "made-up 3 all" in lines[5] and "hidden_dim" not in lines[0]
    markdown = results_table(seeds, "markdown").splitlines()
    assert markdown[0].startswith("| system") and set(markdown[1]) <= set("|-: ")
    assert "mean ± std" in fold_table(seeds[0]) and "pooled" in fold_table(seeds[0])
    with pytest.raises(PyserError, match="seed 0 of ser_a is given twice"):
        results_table([*seeds, seeds[0]])


def test_paths_in_tables_are_short(corpus):
    a = read_results(corpus / "ser_a")
    made_of = ({"text": "/models/bert", "init": "/a/exp/one"}, {"text": "/models/roberta", "init": "/b/exp/one"}, {})
    results = [{**a, "name": f"{i}", "config": {**a["config"], **paths}} for i, paths in enumerate(made_of)]
    table = results_table(results)
    assert re.search(r"^0 .* bert +a/exp/one ", table, re.M) and re.search(r"^1 .* roberta +b/exp/one ", table, re.M)
    assert "/models" not in table and "/a/" not in table


def test_what_was_not_stated_is_not_printed(corpus):
    a = read_results(corpus / "ser_a")
    said = made_with(a)
    assert "not stated" not in said + results_table([a]) and "ivector" not in said  # no front end was packaged
    assert "selection valid" in said and "class_balanced true" in said and "hidden_dim 8" in said


def test_settings_that_differ_get_a_column_and_part_the_seeds(corpus):
    a, b = read_results(corpus / "ser_a"), read_results(corpus / "ser_a_seed1")
    b["config"] |= {"class_balanced": False, "pooling": "attentive"}  # (a field that the older result does not know)
    lines = results_table([a, b]).splitlines()
    assert lines[0].split()[3:7] == ["i-vectors", "class_balanced", "pooling", "folds"]
    assert "false" in lines[2] and "attentive" in lines[2] and "attentive" not in lines[1] and lines[3] == ""


def test_seeds_of_random_parameters_are_one_system(corpus):
    seeds = [read_results(corpus / name) for name in ("ser_a", "ser_a_seed1")]
    for result, name in zip(seeds, ("random", "random_seed1"), strict=True):
        result["config"] |= {"trunk_model": f"exp/{name}.safetensors"}
    assert [[one["seed"] for one in system] for system in by_system(seeds)] == [[0, 1]]
    seeds[1]["config"] |= {"trunk_model": "exp/random_seed1/other.safetensors"}
    assert len(by_system(seeds)) == 2


def test_latex():
    table = format_table(("system", "UA"), [("a_b, 50% & {more}", "51.4 ± 2.9"), ("mean ± std~\\", "-")], "latex")
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"system & UA \\",
        r"\midrule",
        r"a\_b, 50\% \& \{more\} & $51.4 \pm 2.9$ \\",
        r"mean $\pm$ std\textasciitilde{}\textbackslash{} & - \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_comparison(corpus):
    a, b = read_results(corpus / "ser_a"), read_results(corpus / "ser_b")
    text, differences = comparison([a], [b])
    assert "48 utterances in common" in text and "McNemar" in text and "3 seeds or more" in text
    assert differences["ua"].value == pytest.approx(b["pooled"]["ua"] - a["pooled"]["ua"])
    assert "p = 1 (paired bootstrap" in comparison([a], [a])[0]
    b["decisions"] = {utt: [fold, ref, ref] for utt, (fold, ref, _) in b["decisions"].items()}  # B is always right
    wrong = sum(ref != hyp for _, ref, hyp in a["decisions"].values())
    assert f"only A right 0, only B right {wrong}" in comparison([a], [b])[0]
    seeds = [read_results(corpus / name) for name in ("ser_a_seed2", "ser_a", "ser_a_seed1")]
    first, second = systems_of([*seeds, b])
    assert [result["seed"] for result in first] == [0, 1, 2] and second == [b]
    mean = np.mean([seed["pooled"]["ua"] for seed in seeds])
    assert comparison(first, second)[1]["ua"].value == pytest.approx(1 - mean)  # the mean over seeds
    with pytest.raises(PyserError, match="3 results of one system"):
        systems_of(seeds)
    b["decisions"]["spk1-00"][1] = "sad"
    with pytest.raises(PyserError, match="spk1-00 is ang in ser_a but sad in ser_b"):
        comparison([a], [b])


def test_several_comparisons_are_corrected(corpus):
    a, b, c = (read_results(corpus / name) for name in ("ser_a", "ser_b", "ser_b"))
    c |= {"name": "ser_c", "system": "ser_c", "decisions": {u: [f, r, r] for u, (f, r, _) in c["decisions"].items()}}
    systems = systems_of([a, b, c])
    text = comparisons(systems)
    p = [comparison([a], [other])[1]["ua"].p for other in (b, c)]
    assert p[1] < p[0] and f"UA of ser_c: p = {2 * p[1]:.3g}" in text and f"UA of ser_b: p = {p[0]:.3g}" in text
    assert "Holm" not in comparisons(systems[:2])


def test_commands(exp, corpus, tmp_path):
    run = CliRunner().invoke
    done = run(cli, ["score", "ser", str(exp)], catch_exceptions=False)
    assert done.exit_code == 0 and "pooled" in done.output
    assert (exp / "confusion.png").read_bytes().startswith(b"\x89PNG") and (exp / "confusion.svg").exists()
    for options, start in ((["--markdown"], "| system"), (["--format", "markdown"], "| system"), ([], "system "),
                           (["--format", "latex"], "% UA, WA")):
        done = run(cli, ["score", "table", *options, str(exp / "results.json")], catch_exceptions=False)
        assert done.output.startswith(start)
    done = run(cli, ["score", "compare", str(exp), str(corpus / "ser_b")], catch_exceptions=False)
    assert "paired bootstrap" in done.output
    edit(exp / "results.json", lambda results: results.update(node="tdnnf2"))
    done = run(cli, ["score", "layers", str(tmp_path / "x.svg"), str(exp)], catch_exceptions=False)
    assert done.output.endswith(f"written: {tmp_path / 'x.svg'}\n") and (tmp_path / "x.svg").exists()
    assert "chosen on each fold's validation speakers: UA" in done.output and "fold 4 tdnnf2" in done.output
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
