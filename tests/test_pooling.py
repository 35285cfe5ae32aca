"""From frames to utterances: the four poolings of the classifier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ser_corpus import make_corpus

from pyser.errors import PyserError
from pyser.features.cmvn import cmvn_stats
from pyser.kaldi.datadir import read_table
from pyser.kaldi.tables import MatrixWriter, load_mat, read_scp
from pyser.scoring.results import score_experiment
from pyser.ser.frame_classifier import POOLINGS, FrameClassifier, SerConfig, utterance_posteriors
from pyser.ser.train import train_folds

CONFIG = SerConfig(hidden_dim=16, num_epochs=12, batch_frames=128, batch_utterances=8, lr_initial=1e-2, lr_final=1e-3)
LABELS = ("a", "b", "c")


def classifier(pooling, dim=5):
    torch.manual_seed(0)
    model = FrameClassifier(dim, LABELS, replace(CONFIG, pooling=pooling))
    model.mean[:] = torch.arange(float(dim))
    model.std[:] = 2.0
    for _ in range(3):  # running means and variances of their own
        model.utterances(3 * torch.randn(60, dim), torch.arange(6).repeat_interleave(10), 6)
    return model.eval()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_utterances_of_a_batch_do_not_meet(pooling):
    model = classifier(pooling)
    feats = [torch.randn(n, 5) + n for n in (7, 1, 20)]
    utt = torch.arange(3).repeat_interleave(torch.tensor([7, 1, 20]))
    together = model.utterances(torch.cat(feats), utt, 3).exp().double().detach().numpy()
    alone = [utterance_posteriors(model, x.numpy()) for x in feats]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)


def test_definitions():
    """Against the formulas, frame by frame."""
    x = torch.randn(30, 5) * torch.linspace(0.5, 3, 5) + torch.arange(5.0)
    by = {pooling: classifier(pooling) for pooling in POOLINGS}
    with torch.no_grad():
        frames = by["sum"](x)
        np.testing.assert_allclose(utterance_posteriors(by["sum"], x.numpy()), frames.exp().mean(dim=0), atol=1e-6)
        logs = by["log"](x).mean(dim=0).exp()
        np.testing.assert_allclose(utterance_posteriors(by["log"], x.numpy()), logs / logs.sum(), atol=1e-6)
        normalised = (x - torch.arange(5.0)) / 2
        even = torch.full((30, 1), 1 / 30)
        learnt = by["attention"].attention(normalised).softmax(dim=0)
        assert learnt.max() > 1.2 * learnt.min()
        for pooling, share in (("statistics", even), ("attention", learnt)):
            model = by[pooling]
            mean = (share * normalised).sum(dim=0)
            std = (share * (normalised - mean) ** 2).sum(dim=0).sqrt()
            pooled = model.statistics(torch.cat([mean, std])[None])
            expected = model.output(model.batchnorm(model.hidden(pooled).relu())).softmax(dim=1)[0]
            np.testing.assert_allclose(utterance_posteriors(model, x.numpy()), expected, atol=1e-6)


def test_attention_of_large_scores(recwarn):
    """Each utterance's largest is taken off its scores, which exp would overflow with; nothing warns of it."""
    model, lengths = classifier("attention"), (7, 1, 20)
    with torch.no_grad():
        model.attention[2].weight *= 4000
    x, utt = torch.randn(28, 5) + 5, torch.arange(3).repeat_interleave(torch.tensor(lengths))
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        found = model._pool(x, utt, 3)
    finally:
        torch.set_warn_always(always)
    assert not list(recwarn) and model.attention(x).abs().max() > 200
    for n, row in zip(x.split(lengths), found, strict=True):
        share = model.attention(n).softmax(dim=0)
        mean = (share * n).sum(dim=0)
        std = (share * (n - mean) ** 2).sum(dim=0).clamp_min(1e-4).sqrt()
        expected = model.statistics(torch.cat([mean, std])[None])[0]
        np.testing.assert_allclose(row.detach(), expected.detach(), rtol=1e-4, atol=1e-5)


def test_no_frame_posteriors_where_utterances_are_classified():
    with pytest.raises(PyserError, match="--pooling=attention has posteriors of utterances"):
        classifier("attention")(torch.zeros(3, 5))
    with pytest.raises(PyserError, match="--pooling=max; known: sum log statistics attention"):
        SerConfig(pooling="max")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_learns(tmp_path, pooling):
    data, folds = make_corpus(tmp_path)
    train_folds(data, folds, tmp_path / "exp", replace(CONFIG, pooling=pooling, num_epochs=30), ["1", "2"])
    assert score_experiment(tmp_path / "exp")["pooled"]["ua"] > 0.8


def test_what_only_statistics_tell(tmp_path):
    """Emotions whose frames have the same mean but other spreads, all frames of an utterance to the same side."""
    data, folds = make_corpus(tmp_path)
    rng = np.random.default_rng(3)
    spread = {"ang": (0.2, 1.0), "neu": (1.0, 0.2), "sad": (0.4, 0.4)}
    with MatrixWriter(f"ark,scp:{data}/feats.ark,{data}/feats.scp", compress=False) as writer:
        for utt, emotion in read_table(data / "utt2emo").items():
            centre = rng.normal(size=2)
            writer.write(utt, (centre + spread[emotion] * rng.normal(size=(60, 2))).astype(np.float32))
    uas = {}
    for pooling in POOLINGS:
        train_folds(data, folds, tmp_path / pooling, replace(CONFIG, pooling=pooling, num_epochs=30), ["1", "2"])
        uas[pooling] = score_experiment(tmp_path / pooling)["pooled"]["ua"]
    assert min(uas["statistics"], uas["attention"]) > 0.8 > 0.7 > max(uas["sum"], uas["log"])


def test_normalised_by_speaker(tmp_path):
    """Speakers that are further apart than their emotions; their statistics bring them together."""
    data, folds = make_corpus(tmp_path, num_speakers=6)
    rng, utt2spk = np.random.default_rng(3), read_table(data / "utt2spk")
    far = {speaker: (8 * rng.normal(size=8), rng.uniform(0.3, 3, size=8)) for speaker in sorted(set(utt2spk.values()))}
    feats = {utt: load_mat(rxfilename) for utt, rxfilename in read_scp(data / "feats.scp").items()}
    stats = {speaker: np.zeros((2, 9)) for speaker in far}
    with MatrixWriter(f"ark,scp:{tmp_path}/s.ark,{tmp_path}/s.scp", compress=False) as writer:
        for utt, matrix in feats.items():
            moved = (matrix * far[utt2spk[utt]][1] + far[utt2spk[utt]][0]).astype(np.float32)
            writer.write(utt, moved)
            stats[utt2spk[utt]] += cmvn_stats(moved)
    (tmp_path / "s.scp").rename(data / "feats.scp")
    with pytest.raises(PyserError, match="cmvn.scp: missing"):
        train_folds(data, folds, tmp_path / "x", replace(CONFIG, cmvn="speaker"))
    with MatrixWriter(f"ark,scp:{tmp_path}/c.ark,{data}/cmvn.scp", compress=False, dtype=np.float64) as writer:
        for speaker, value in stats.items():
            writer.write(speaker, value)
    uas = {}
    for cmvn in ("none", "speaker"):
        train_folds(data, folds, tmp_path / cmvn, replace(CONFIG, cmvn=cmvn), ["1", "2", "3"])
        uas[cmvn] = score_experiment(tmp_path / cmvn)["pooled"]["ua"]
    assert uas["speaker"] > 0.9 > 0.75 > uas["none"]
    with pytest.raises(PyserError, match="--cmvn=utterance; known: none speaker"):
        replace(CONFIG, cmvn="utterance")
