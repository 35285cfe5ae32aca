"""What the figures say: numbers and captions, read from the comments that matplotlib leaves beside the glyphs of an SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.scoring.figures import plot_confusion, plot_layers
from pyser.scoring.layers import chosen_on_validation, same_but_node
from pyser.scoring.tables import layers_table

FOLDS = np.array([[[9, 1], [0, 2]], [[1, 1], [1, 1]]])  # UA: 95 % and 50 %; WA: 11/12 and 1/2


def texts(path):
    ElementTree.parse(path)  # it is XML
    return re.findall(r"<!-- (.*?) -->", re.sub(r"\s+", " ", path.read_text()))


def result(node, seed, ua, **more):
    name = f"ser_{node}" + (f"_seed{seed}" if seed else "")
    return {
        "name": name, "system": f"ser_{node}", "node": node, "seed": seed, "corpus": "made-up", "label_set": "3",
        "subset": "not stated", "selection": "valid", "ivector_mode": "carry-over", "labels": ["ang", "neu", "sad", "xyz"],
        "folds": [{}, {}], "folds_missing": [], "pooled": {"n": 2}, "config": {"seed": seed, "hidden_dim": 8},
        "mean": {"ua": ua}, "std": {"ua": 0.05}, "decisions": {"u1": ["1", "ang", "ang"], "u2": ["2", "sad", "sad"]},
    } | more


def test_confusion_is_the_mean_over_folds(tmp_path):
    path = tmp_path / "confusion.svg"
    plot_confusion(FOLDS, ["ang", "sad"], path, "a system")
    found = texts(path)
    # rows of the folds: 9/10 and 1/2; 2/2 and 1/2. The counts are those of the pool
    assert found[:4] == ["ang", "sad", "recognised as", "ang (12)"]
    assert {"70.0", "30.0", "25.0", "75.0", "10", "2", "1", "3"} <= set(found)
    assert "UA 72.5 ± 31.8 % WA 70.8 ± 29.5 %" in found
    assert "mean over 2 folds of the share of the row in %; below it the utterances, 16 in all" in " ".join(found)


def test_confusion_of_one_fold_has_no_spread(tmp_path):
    plot_confusion(FOLDS[:1], ["ang", "sad"], tmp_path / "one.svg")
    found = texts(tmp_path / "one.svg")
    assert "UA 95.0 % WA 91.7 %" in found and "folds" not in " ".join(found) and "±" not in " ".join(found)


def test_equal_figures_are_equal_files_of_the_asked_format(tmp_path):
    for suffix, start in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        files = [tmp_path / f"{name}.{suffix}" for name in "ab"]
        for path in files:
            plot_confusion(FOLDS, ["ang", "sad"], path)
        assert files[0].read_bytes().startswith(start) and files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(PyserError, match="written as .png or .svg"):
        plot_confusion(FOLDS, ["ang", "sad"], tmp_path / "a.tif")
    with pytest.raises(PyserError, match="confusion counts of shape"):
        plot_confusion(FOLDS, ["ang", "neu", "sad"], tmp_path / "a.png")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".png", ".png", ".svg", ".svg"]


def test_layers_in_the_networks_order_with_the_spread_over_seeds(tmp_path):
    nodes = ("prefinal-l", "tdnnf13", "tdnnf2", "lda", "tdnn1", "tdnnf10")
    results = [result(node, seed, 0.4 + 0.1 * seed) for node in nodes for seed in (0, 1, 2)]
    layers = same_but_node(results)
    assert [layer.node for layer in layers] == ["lda", "tdnn1", "tdnnf2", "tdnnf10", "tdnnf13", "prefinal-l"]
    assert all(layer.ua == pytest.approx(0.5) and layer.std == pytest.approx(0.1) for layer in layers)
    plot_layers(results, tmp_path / "layers.svg")
    found = texts(tmp_path / "layers.svg")
    assert found[:6] == [layer.node for layer in layers] and found.count("50.0") == 6 and "chance 25.0" in found
    caption = " ".join(found)
    assert "mean over 2 folds and seeds 0 1 2; error bars: standard deviation over the seeds" in caption
    assert "no node was chosen" in caption and "made-up 3" in found


def test_layers_of_one_seed_have_the_spread_over_folds(tmp_path):
    results = [result("lda", 0, 0.4), result("tdnnf2", 0, 0.5)]
    assert [layer.std for layer in same_but_node(results)] == [0.05, 0.05]
    plot_layers(results, tmp_path / "layers.svg")
    caption = " ".join(texts(tmp_path / "layers.svg"))
    assert "mean over 2 folds, seed 0; error bars: standard deviation over the folds" in caption


def folds(*pairs):
    return [{"name": str(number), "valid_ua": valid, "ua": test} for number, (valid, test) in enumerate(pairs, start=1)]


def test_the_node_is_chosen_on_validation_speakers():
    """Fold 1 chooses tdnnf2 by the mean over seeds, fold 2 lda; what the test says does not count."""
    results = [
        result("lda", 0, 0.5, folds=folds((0.6, 0.9), (0.8, 0.5))),
        result("lda", 1, 0.5, folds=folds((0.5, 0.9), (0.8, 0.7))),
        result("tdnnf2", 0, 0.5, folds=folds((0.5, 0.2), (0.7, 0.9))),
        result("tdnnf2", 1, 0.5, folds=folds((0.8, 0.4), (0.7, 0.9))),
    ]
    choice = chosen_on_validation(results)
    assert choice.nodes == {"1": "tdnnf2", "2": "lda"}
    assert choice.ua == pytest.approx(0.45) and choice.std == pytest.approx(np.std([0.35, 0.55], ddof=1))
    one = chosen_on_validation(results[::2])
    assert one.nodes == {"1": "lda", "2": "lda"} and one.ua == pytest.approx(0.7)
    assert one.std == pytest.approx(np.std([0.9, 0.5], ddof=1))
    table = layers_table(results)
    assert "UA 45.0 ± 14.1 (fold 1 tdnnf2, fold 2 lda)" in table and "67.5" in table.splitlines()[1]
    results[0]["folds"][0]["valid_ua"] = None
    assert chosen_on_validation(results) is None and "nothing was validated" in layers_table(results)


def test_layers_that_differ_in_more_are_refused():
    lda = result("lda", 0, 0.4)
    for other, message in (
        (result("lda", 0, 0.5, name="ser_b", system="ser_b"), "ser_lda and ser_b are two systems of node lda"),
        (result("lda", 0, 0.5), "seed 0 of ser_lda is given twice"),
        (result("tdnnf2", 1, 0.5), "differ in more than the node: seeds 0 and 1"),
        (result("tdnnf2", 0, 0.5, selection="last"), "selection valid and last"),
        (result("tdnnf2", 0, 0.5, config={"seed": 0, "hidden_dim": 9}), "hidden_dim 8 and 9"),
        (result("tdnnf2", 0, 0.5, folds_missing=["3"]), "folds 2 and 2 of 3"),
        (result("tdnnf2", 0, 0.5, decisions={"u1": [], "u3": []}), "not tested on the same utterances .u2."),
        (result("not stated", 0, 0.5), "does not state its node"),
    ):
        with pytest.raises(PyserError, match=message):
            same_but_node([lda, other])
