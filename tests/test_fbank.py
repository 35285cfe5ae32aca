"""Filterbanks against Kaldi's compute-fbank-feats (golden/fbank/spk1-u4.npz: 0.3 s of speech and two ways of options)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyser.features.fbank import FbankConfig, fbank
from pyser.features.mel import mel_banks, mel_scale
from pyser.features.mfcc import MfccConfig, dct_matrix, mfcc


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden/fbank/spk1-u4.npz") as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays}


def test_equals_kaldi(golden):
    found = fbank(golden["samples"], FbankConfig(num_mel_bins=80))
    assert found.shape == (28, 80) and found.dtype == np.float32
    difference = np.abs(found - golden["fbank80"])
    assert difference.mean() <= 1e-4 and difference.max() <= 0.01


def test_linear_magnitude_with_energy_equals_kaldi(golden):
    """Magnitudes reach 4e5, so that the tolerance is relative."""
    found = fbank(golden["samples"], FbankConfig(use_energy=True, use_log_fbank=False, use_power=False))
    assert found.shape == (28, 24)
    difference = np.abs(found - golden["linear"]) / np.maximum(np.abs(golden["linear"]), 1)
    assert difference.mean() <= 1e-4 and difference.max() <= 2e-3


def test_energy_in_front_or_behind(golden):
    plain = fbank(golden["samples"], FbankConfig())
    front = fbank(golden["samples"], FbankConfig(use_energy=True))
    behind = fbank(golden["samples"], FbankConfig(use_energy=True, htk_compat=True))
    np.testing.assert_array_equal(front[:, 1:], plain)
    np.testing.assert_array_equal(behind[:, :-1], plain)
    np.testing.assert_array_equal(behind[:, -1], front[:, 0])
    assert fbank(golden["samples"][:399], FbankConfig(use_energy=True)).shape == (0, 24)


def test_cepstra_are_the_cosine_transform(golden):
    config = MfccConfig(use_energy=False)
    expected = fbank(golden["samples"], FbankConfig()) @ dct_matrix(config)
    np.testing.assert_allclose(mfcc(golden["samples"], config), expected, atol=1e-3)
    matrix = dct_matrix(replace(config, num_ceps=23, cepstral_lifter=0))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(23), atol=1e-6)


def test_mel_filters_are_triangles_that_add_up_to_one():
    filters = mel_banks(FbankConfig(num_mel_bins=10))
    assert filters.shape == (257, 10) and not filters[-1].any()
    peaks = filters.argmax(axis=0)
    hertz = np.arange(257) * 31.25
    inside = (hertz > hertz[peaks[0]]) & (hertz < hertz[peaks[-1]])
    np.testing.assert_allclose(filters[inside].sum(axis=1), 1, atol=1e-4)
    assert np.ptp(np.diff(mel_scale(hertz[peaks]))) < 50  # evenly spaced in mel, but for the grid of the transform


@pytest.mark.parametrize("warp", [0.85, 1.2])
def test_warping_moves_the_filters_within_the_band(warp):
    plain, warped = mel_banks(FbankConfig()), mel_banks(FbankConfig(vtln_warp=warp))
    middle = 10
    assert (warped[:, middle].argmax() < plain[:, middle].argmax()) == (warp > 1)  # the centre goes to f / warp
    ratio = plain[:, middle].argmax() / warped[:, middle].argmax()
    assert ratio == pytest.approx(warp, abs=0.04)
    assert np.flatnonzero(warped.any(axis=1))[[0, -1]].tolist() == np.flatnonzero(plain.any(axis=1))[[0, -1]].tolist()
