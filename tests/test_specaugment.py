"""SpecAugment of MFCCs, seen in the mel energies that they stand for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyser.chain import specaugment
from pyser.chain.data import ChainData
from pyser.chain.specaugment import frequency_mask, spec_augment, time_mask
from pyser.features.fbank import FbankConfig, fbank
from pyser.features.mfcc import MfccConfig, mfcc

MEL = {"num_mel_bins": 40, "low_freq": 20.0, "high_freq": -400.0, "dither": 0.0}


def test_masks_of_mel_energies():
    samples = 1000 * np.random.default_rng(0).standard_normal(32000)
    feats = mfcc(samples, MfccConfig(**MEL, num_ceps=40, use_energy=False))
    mel = fbank(samples, FbankConfig(**MEL))
    mean = mel.mean(axis=0)
    masked = spec_augment(feats, np.random.default_rng(7))
    seen = masked @ np.linalg.inv(specaugment._transforms(40)[0])
    rows = np.abs(seen - mean).max(axis=1) < 1e-2
    bins = np.abs(seen - mean).max(axis=0) < 1e-2
    assert 0.02 < rows.mean() < 0.5 and 1 <= bins.sum() <= 20
    np.testing.assert_allclose(seen[~rows][:, ~bins], mel[~rows][:, ~bins], atol=1e-2)
    assert masked.dtype == np.float32 and masked.shape == feats.shape


def test_nothing_masked_is_nothing_changed():
    feats = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32)
    same = spec_augment(feats, np.random.default_rng(1), 0.0)
    np.testing.assert_allclose(same, feats, atol=1e-4)


def test_shares():
    rng = np.random.default_rng(0)
    bands = np.array([frequency_mask(40, 0.5, rng) for _ in range(4000)])
    widths = bands.sum(axis=1)
    assert np.bincount(widths, minlength=21).min() > 100 and widths.max() == 20  # 0 to 20, alike
    assert bands.mean(axis=0) == pytest.approx(0.25, abs=0.04)
    assert all(np.abs(np.diff(band.astype(int), append=band[0])).sum() <= 2 for band in bands)  # one band, round the end
    mask = time_mask(200_000, 0.2, 20, rng)
    assert mask.mean() == pytest.approx(0.2, abs=0.01)
    ends = np.flatnonzero(np.diff(mask.astype(int), prepend=2, append=2))
    assert np.diff(ends)[mask[ends[:-1]]].max() == 20
    assert not time_mask(100, 0.0, 20, rng).any()
    assert time_mask(3, 0.9, 20, np.random.default_rng(0)).shape == (3,)


def test_only_in_training(monkeypatch):
    """ChainData masks each utterance anew in each epoch, as much as this asks for, the same way when it comes again."""
    feats = np.random.default_rng(0).standard_normal((90, 40)).astype(np.float32)
    monkeypatch.setattr("pyser.chain.data.features_of", lambda cut: feats)
    monkeypatch.setattr("pyser.chain.data.ivectors_of", lambda cut: None)
    monkeypatch.setattr("pyser.chain.data.text_of", lambda cut: "a")

    class Cut:
        id, num_frames = "u", 90

    data = ChainData([], 0, 0, 1, 10.0, 0, training=True, spec_augment=lambda epoch: 0.5 * (epoch < 3))
    first, again, second = (data._load([Cut()], epoch).feats for epoch in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert not torch.allclose(first[0], torch.from_numpy(feats), atol=0.1)
    assert torch.equal(data._load([Cut()], 3).feats[0], torch.from_numpy(feats))  # that epoch's share is 0
    assert torch.equal(replace(data, training=False)._load([Cut()], 1).feats[0], torch.from_numpy(feats))
