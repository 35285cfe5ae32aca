"""Layers of the acoustic model that are computed and learn with an emotion classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ser_corpus import make_corpus

from pyser.errors import PyserError
from pyser.kaldi.tables import MatrixWriter, load_mat, read_scp
from pyser.nn import model_io
from pyser.nn.compute import ComputeConfig, compute
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.scoring.results import score_experiment
from pyser.ser.frame_classifier import SerConfig
from pyser.ser.network import read_network
from pyser.ser.train import train_folds
from pyser.ser.trunk import TrunkConfig, load_trunk, node_names

NETWORK = TdnnfConfig(8, 3, 24, 8, 12, (1, 0, 3), num_pdfs=10)
CONFIG = SerConfig(hidden_dim=16, num_epochs=3, batch_utterances=8, lr_initial=5e-3, lr_final=1e-3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network whose batch normalisation has seen something."""
    torch.manual_seed(0)
    network = TdnnF(NETWORK).train()
    for _ in range(5):
        network(2 * torch.randn(4, 40, 8), torch.randn(4, 3))
    path = tmp_path_factory.mktemp("am") / "final.safetensors"
    model_io.save(path, network, NETWORK)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    data, folds = make_corpus(root)
    rng = np.random.default_rng(5)
    (root / "iv").mkdir()
    with MatrixWriter(f"ark,scp:{root}/iv/iv.ark,{root}/iv/ivector_online.scp", compress=False) as writer:
        for utt, rxfilename in read_scp(data / "feats.scp").items():
            rows = -(-len(load_mat(rxfilename)) // 10)
            writer.write(utt, np.tile(rng.normal(size=3), (rows, 1)).astype(np.float32))
    return data, folds, root / "iv"


@pytest.mark.parametrize("node", ["tdnn1", "tdnnf2", "tdnnf4", "prefinal-l"])
@pytest.mark.parametrize("subsampling", [1, 3])
def test_the_same_frames_as_bottlenecks_in_files(model, node, subsampling):
    trunk = load_trunk(TrunkConfig(str(model), node, subsampling=subsampling)).eval()
    rng = np.random.default_rng(0)
    feats = [rng.normal(size=(length, 8)).astype(np.float32) for length in (31, 7, 1)]
    ivectors = rng.normal(size=(3, 3)).astype(np.float32)
    with torch.no_grad():
        rows, utt = trunk.rows(feats, torch.from_numpy(ivectors))
    network, config = model_io.load_nnet3(model), ComputeConfig(node, 50, subsampling, 10)
    for number, matrix in enumerate(feats):
        expected = compute(network, matrix, np.tile(ivectors[number], (4, 1)), config)
        np.testing.assert_allclose(rows[utt == number], expected, atol=2e-5)
        again = trunk.bottlenecks(matrix, np.tile(ivectors[number], (4, 1)))
        np.testing.assert_allclose(again, expected, atol=2e-5)
    assert trunk.dim == rows.shape[1]


@pytest.mark.parametrize("pooling", ["sum", "statistics"])
def test_layers_above_a_node_learn(model, corpus, tmp_path, pooling):
    data, folds, ivectors = corpus
    trunk = TrunkConfig(str(model), "tdnnf4", "tdnnf2")
    config = replace(CONFIG, pooling=pooling, num_epochs=20)
    train_folds(data, folds, tmp_path, config, ["1"], trunk=trunk, ivector_dir=ivectors)
    results = score_experiment(tmp_path)
    assert results["folds"][0]["ua"] > 0.6
    assert results["node"] == "tdnnf4" and results["config"]["trunk_train_above"] == "tdnnf2"
    network, _ = read_network(tmp_path / "fold1/final.safetensors")
    before, after = model_io.load_tdnnf(model).state_dict(), network.trunk.network.state_dict()
    changed = {name.rsplit(".", 1)[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"layers.{n}.{part}" for n in (1, 2) for part in ("linear", "affine", "batchnorm")}
    # what is read again gives the posteriors that were written
    lines = dict(line.split(maxsplit=1) for line in (tmp_path / "fold1/test_posteriors.txt").read_text().splitlines())
    feats, rows = read_scp(data / "feats.scp"), read_scp(ivectors / "ivector_online.scp")
    for utt in list(lines)[:3]:
        x = torch.from_numpy(network.trunk.bottlenecks(load_mat(feats[utt]), load_mat(rows[utt])))
        with torch.no_grad():
            found = network.classifier.utterances(x, torch.zeros(len(x), dtype=torch.long), 1)[0].exp()
        np.testing.assert_allclose(found, [float(p) for p in lines[utt].split()], atol=1e-5)


@pytest.mark.parametrize("pooling", ["sum", "attention"])
def test_layers_learn_in_bfloat16(model, corpus, tmp_path, pooling):
    data, folds, ivectors = corpus
    for precision in ("bfloat16", "float32"):
        config = replace(CONFIG, pooling=pooling, num_epochs=20, precision=precision)
        train_folds(data, folds, tmp_path / precision, config, ["1"], trunk=TrunkConfig(str(model), "tdnnf4"),
                    ivector_dir=ivectors)
        assert score_experiment(tmp_path / precision)["folds"][0]["ua"] > 0.6
    rounded, exact = (tmp_path / name / "fold1/test_posteriors.txt" for name in ("bfloat16", "float32"))
    assert rounded.read_text() != exact.read_text()
    network, _ = read_network(tmp_path / "bfloat16/fold1/final.safetensors")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        said = network.classifier.utterances(torch.randn(9, network.trunk.dim), torch.tensor([0] * 4 + [1] * 5), 2)
    assert said.dtype in (torch.float32, torch.float64)
    np.testing.assert_allclose(said.detach().exp().sum(dim=1), 1, atol=1e-5)


def test_augmented_and_the_same_each_time(model, corpus, tmp_path):
    data, folds, ivectors = corpus
    trunk, curves = TrunkConfig(str(model), "tdnnf3"), []
    for name, masked in (("a", 0.5), ("b", 0.5), ("c", 0.0)):
        train_folds(data, folds, tmp_path / name, replace(CONFIG, num_epochs=2, spec_augment=masked), ["2"], trunk=trunk,
                    ivector_dir=ivectors)
        curves.append((tmp_path / name / "fold2/test_posteriors.txt").read_text())
    assert curves[0] == curves[1] != curves[2]


def test_layers_learn_slower_than_the_classifier(model, corpus, tmp_path):
    """Adam's steps are as long as the learning rate, whatever the gradient is."""
    data, folds, ivectors = corpus
    moved = {}
    for factor in (1.0, 0.01):
        config = replace(CONFIG, num_epochs=1, lr_final=CONFIG.lr_initial, learning_rate_factor=factor)
        train_folds(data, folds, tmp_path / str(factor), config, ["1"], trunk=TrunkConfig(str(model), "tdnnf3"),
                    ivector_dir=ivectors)
        network, _ = read_network(tmp_path / str(factor) / "fold1/final.safetensors")
        moved[factor] = (network.trunk.network.affine1.weight - model_io.load_tdnnf(model).affine1.weight).norm().item()
        moved[factor, "classifier"] = network.classifier.hidden.weight.std().item()
    assert 0.005 < moved[0.01] / moved[1.0] < 0.02
    assert moved[0.01, "classifier"] == pytest.approx(moved[1.0, "classifier"], rel=0.1)
    with pytest.raises(PyserError, match="--learning-rate-factor=0; it must be above 0"):
        replace(CONFIG, learning_rate_factor=0.0)


def test_a_bottleneck_that_does_not_learn_can_be_augmented(model, corpus, tmp_path):
    """--train-above the node itself: no layer changes, and what the classifier learns is another if frames are masked."""
    data, folds, ivectors = corpus
    trunk, said = TrunkConfig(str(model), "tdnnf3", "tdnnf3"), []
    for name, masked in (("plain", 0.0), ("masked", 0.5)):
        config = replace(CONFIG, spec_augment=masked)
        train_folds(data, folds, tmp_path / name, config, ["1"], trunk=trunk, ivector_dir=ivectors)
        said.append((tmp_path / name / "fold1/test_posteriors.txt").read_text())
        before, after = (read.state_dict() for read in (
            model_io.load_tdnnf(model), read_network(tmp_path / name / "fold1/final.safetensors")[0].trunk.network))
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert said[0] != said[1]


def test_bad_input(model, corpus, tmp_path):
    data, folds, ivectors = corpus
    assert node_names(model_io.load_tdnnf(model)) == ["lda", "tdnn1", "tdnnf2", "tdnnf3", "tdnnf4", "prefinal-l"]
    for config, message in (
        (TrunkConfig(str(model), "tdnnf9"), "has no node 'tdnnf9' to train at; it has lda tdnn1"),
        (TrunkConfig(str(model), "tdnnf3", "tdnnf4"), "the node must be tdnn1 or above, and not below --train-above"),
        (TrunkConfig(str(model), "lda", "lda"), "the node must be tdnn1 or above"),
        (TrunkConfig(str(tmp_path / "none"), "tdnnf3"), "no such acoustic model"),
    ):
        with pytest.raises(PyserError, match=message):
            load_trunk(config)
    with pytest.raises(PyserError, match="no i-vector, the network was trained with"):
        train_folds(data, folds, tmp_path / "x", CONFIG, ["1"], trunk=TrunkConfig(str(model), "tdnnf3"))
    train_folds(data, folds, tmp_path / "y", CONFIG, ["1"], trunk=TrunkConfig(str(model), "tdnnf3"), ivector_dir=ivectors)
    with pytest.raises(PyserError, match="trunk_train_above lda -> tdnn1"):
        train_folds(data, folds, tmp_path / "y", CONFIG, ["1"], trunk=TrunkConfig(str(model), "tdnnf3", "tdnn1"),
                    ivector_dir=ivectors)
    damaged = tmp_path / "y/fold1/final.safetensors"
    Path(damaged).write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(PyserError, match="final.safetensors"):
        read_network(damaged)
