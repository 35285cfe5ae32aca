"""Energy VAD, and what training and prediction make of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from ser_corpus import make_corpus

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.features.vad import VadConfig, voiced
from pyser.kaldi.tables import VECTOR, MatrixWriter, TableWriter, load_mat, load_vec, read_scp
from pyser.ser.frame_classifier import SerConfig
from pyser.ser.frames import load_frames, speech
from pyser.ser.train import train_folds


def by_hand(feats, config):
    """compute-vad's rule, frame by frame."""
    energy = feats[:, 0]
    threshold = config.vad_energy_threshold + config.vad_energy_mean_scale * energy.mean()
    found = []
    for t in range(len(feats)):
        near = energy[max(t - config.vad_frames_context, 0) : t + config.vad_frames_context + 1]
        found.append((near > threshold).sum() >= len(near) * config.vad_proportion_threshold)
    return found


@pytest.mark.parametrize("config", [
    VadConfig(), VadConfig(5.5, 0.5, 2, 0.12), VadConfig(0.0, 1.0, 5, 0.6), VadConfig(8.0, 0.0, 1, 0.9),
])
def test_kaldis_rule(config):
    feats = np.random.default_rng(0).normal(9, 3, size=(200, 3)).astype(np.float32)
    mask = voiced(feats, config)
    assert mask.tolist() == by_hand(feats, config) and 0.02 < mask.mean() < 0.98
    assert voiced(feats[:1], config).shape == (1,) and voiced(feats[:0], config).shape == (0,)


def test_command(tmp_path):
    rng = np.random.default_rng(1)
    with MatrixWriter(f"ark,scp:{tmp_path}/f.ark,{tmp_path}/f.scp") as writer:
        for n in range(3):
            writer.write(f"u{n}", rng.normal(10, 4, size=(50 + n, 4)).astype(np.float32))
    (tmp_path / "vad.conf").write_text("--vad-energy-threshold=5.5\n--vad-frames-context=2\n")
    words = ["vad", "compute", "--config", f"{tmp_path}/vad.conf", "--vad-proportion-threshold", "0.3",
             f"scp:{tmp_path}/f.scp", f"ark,scp:{tmp_path}/v.ark,{tmp_path}/v.scp"]
    run = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert run.exit_code == 0 and "3 utterances, 0 dropped;" in run.output and "% of 153 frames are speech" in run.output
    feats, vad = read_scp(tmp_path / "f.scp"), read_scp(tmp_path / "v.scp")
    for utt, rxfilename in feats.items():
        expected = voiced(load_mat(rxfilename), VadConfig(5.5, 0.5, 2, 0.3))
        assert load_vec(vad[utt]).tolist() == expected.astype(float).tolist()
    with pytest.raises(PyserError, match="--vad-proportion-threshold must be between 0 and 1"):
        VadConfig(vad_proportion_threshold=1.0)


def test_frames_of_a_node():
    vad = np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 0], np.float32)
    assert speech(vad, 10, "u").tolist() == (vad > 0).tolist()
    assert speech(vad, 4, "u").tolist() == [False, True, True, False]  # frames 0, 3, 6, 9
    assert speech(np.zeros(10), 4, "u").all()  # nothing would be left
    with pytest.raises(PyserError, match="u: 10 frames of vad, 11 of features"):
        speech(vad, 11, "u")


def test_training_leaves_silence_out(tmp_path):
    """Silence that looks like another emotion spoils the sum of posteriors, unless it is left out."""
    data, folds = make_corpus(tmp_path)
    feats, rng = read_scp(data / "feats.scp"), np.random.default_rng(0)
    with MatrixWriter(f"ark,scp:{tmp_path}/n.ark,{tmp_path}/n.scp", compress=False) as writer, TableWriter(
        f"ark,scp:{tmp_path}/v.ark,{tmp_path}/v.scp", VECTOR
    ) as vad:
        for utt, rxfilename in feats.items():
            matrix = load_mat(rxfilename)
            noise = rng.normal(0, 8, size=(len(matrix), matrix.shape[1]))
            writer.write(utt, np.concatenate([noise, matrix]).astype(np.float32))
            vad.write(utt, np.repeat([0.0, 1.0], len(matrix)).astype(np.float32))
    (tmp_path / "n.scp").rename(data / "feats.scp")
    noisy, vads = read_scp(data / "feats.scp"), read_scp(tmp_path / "v.scp")
    kept = load_frames(list(noisy)[:2], noisy, dict.fromkeys(noisy, 0), 2, "x", vads)
    expected = np.concatenate([load_mat(feats[utt])[::2] for utt in list(noisy)[:2]])
    np.testing.assert_allclose(kept.feats.astype(float), expected, atol=0.15)
    config = SerConfig(hidden_dim=16, num_epochs=4, batch_frames=128, lr_initial=1e-2, lr_final=1e-3)
    train_folds(data, folds, tmp_path / "with", replace(config, vad=True), ["1"], vad_scp=tmp_path / "v.scp")
    train_folds(data, folds, tmp_path / "without", config, ["1"])
    loss = [json.loads((tmp_path / name / "fold1/history.json").read_text())[-1]["loss"]
            for name in ("with", "without")]
    assert loss[0] < loss[1] - 0.1
    with pytest.raises(PyserError, match="--vad=true and --vad-scp FILE belong together"):
        train_folds(data, folds, tmp_path / "x", replace(config, vad=True))
