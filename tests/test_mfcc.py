"""MFCC against Kaldi's compute-mfcc-feats and against kaldi-native-fbank.

golden/mfcc/spk1-u4.npz: 0.3 s of synthetic speech (int16, 16 kHz) and what Kaldi 5.5 makes of it with HIRES;
golden/mfcc/variants.npz: the same speech with other options, speech that begins after digital silence, speech at 22050 Hz.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.features.compute import features
from pyser.features.fbank import FbankConfig
from pyser.features.mel import BLOCK
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.features.streaming import OnlineFeatures
from pyser.kaldi.resample import resample

GOLDEN = Path(__file__).parent / "golden" / "mfcc"
HIRES = MfccConfig(use_energy=False, num_mel_bins=40, num_ceps=40, low_freq=20, high_freq=-400)
NO_ENERGY = MfccConfig(use_energy=False)
VARIANTS = {
    "nosnip": replace(HIRES, snip_edges=False),
    "mfcc13": NO_ENERGY,
    "energy": MfccConfig(energy_floor=1.0),
    "vtln": replace(NO_ENERGY, vtln_warp=1.1),
    "hamming": MfccConfig(use_energy=False, window_type="hamming", frame_length=20, frame_shift=12.5, remove_dc_offset=False,
                          preemphasis_coefficient=0.9, cepstral_lifter=0),
    "down8k": replace(HIRES, allow_downsample=True, sample_frequency=8000, low_freq=40, high_freq=-200),
}


@pytest.fixture(scope="module")
def speech():
    with np.load(GOLDEN / "spk1-u4.npz") as arrays:
        return arrays["samples"].astype(np.float32), arrays["mfcc"]


@pytest.fixture(scope="module")
def variants():
    with np.load(GOLDEN / "variants.npz") as arrays:
        return dict(arrays)


def assert_close(found, expected, mean=1e-3, most=0.02):
    assert found.shape == expected.shape and found.dtype == np.float32
    difference = np.abs(found.astype(np.float64) - expected)
    assert difference.mean() <= mean and difference.max() <= most, (difference.mean(), difference.max())


def by_knf(samples, config):
    """Its frames as they become known, of samples in pieces of 0.1 s."""
    online = OnlineFeatures(config)
    pieces = [online.accept(samples[start : start + 1600]) for start in range(0, len(samples), 1600)]
    return np.concatenate([*pieces, online.finish()])


def test_equals_kaldi(speech):
    assert_close(mfcc(speech[0], HIRES), speech[1], mean=5e-4, most=0.01)


@pytest.mark.parametrize("name", VARIANTS)
def test_other_options_equal_kaldi(speech, variants, name):
    assert_close(features(speech[0], 16000, VARIANTS[name]), variants[name], mean=5e-4, most=0.01)


def test_digital_silence_and_resampled_speech_equal_kaldi(variants):
    assert_close(mfcc(variants["silence_samples"].astype(np.float32), HIRES), variants["silence_hires"], most=0.3)
    found = features(variants["rate22050_samples"].astype(np.float32), 22050, replace(HIRES, allow_downsample=True))
    assert_close(found[:45], variants["rate22050_hires"])


@pytest.mark.parametrize("options", [
    {"window_type": "blackman", "blackman_coeff": 0.4, "raw_energy": False},
    {"window_type": "hanning", "round_to_power_of_two": False, "energy_floor": 1e9},
    {"window_type": "rectangular", "snip_edges": False, "frame_shift": 40.0},  # (frames do not even touch)
    {"htk_compat": True}, {"htk_compat": True, "use_energy": False}, {"sample_frequency": 8000, "frame_length": 32.0},
], ids=str)
def test_rarer_options_equal_kaldi_native_fbank(speech, options):
    config = MfccConfig(**options)
    assert_close(mfcc(speech[0], config), by_knf(speech[0], config), mean=5e-4)


@pytest.mark.parametrize("config", [HIRES, FbankConfig(num_mel_bins=80), FbankConfig(use_energy=True),
                                    FbankConfig(snip_edges=False, use_power=False)])
def test_streams(speech, config):
    assert_close(features(speech[0], 16000, config), by_knf(speech[0], config), mean=5e-4)


def test_streams_have_no_warps():
    with pytest.raises(PyserError, match="^--vtln-warp: not for streams"):
        OnlineFeatures(MfccConfig(vtln_warp=1.1))


def test_sine_window_and_mean_subtraction(speech):
    rectangular = MfccConfig(window_type="rectangular", preemphasis_coefficient=0, remove_dc_offset=False, raw_energy=False)
    sine = np.sin(np.pi * np.arange(400) / 399).astype(np.float32)
    expected = mfcc(speech[0][:400] * sine, rectangular)
    np.testing.assert_allclose(mfcc(speech[0][:400], replace(rectangular, window_type="sine")), expected, atol=1e-3)
    centred = mfcc(speech[0], replace(HIRES, subtract_mean=True))
    assert np.abs(centred.mean(axis=0)).max() < 1e-4
    np.testing.assert_allclose(np.diff(centred, axis=0), np.diff(mfcc(speech[0], HIRES), axis=0), atol=1e-3)


def test_long_recordings_in_blocks(speech):
    """A frame's numbers do not depend on what else is computed with it."""
    samples = np.tile(speech[0], 10)  # 298 frames
    found = mfcc(samples, HIRES)
    assert len(found) > BLOCK
    for t in (0, BLOCK - 1, BLOCK, len(found) - 1):
        np.testing.assert_allclose(found[t : t + 1], mfcc(samples[160 * t : 160 * t + 400], HIRES), atol=1e-3)


def test_number_of_frames():
    noise = np.random.default_rng(0).normal(0, 1000, 1200).astype(np.float32)
    for length, frames in ((0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (1200, 6)):
        assert mfcc(noise[:length], MfccConfig()).shape == (frames, 13)
    for length, frames in ((0, 0), (79, 0), (80, 1), (1200, 8)):  # (length + 80) // 160, reflected more than once when short
        assert mfcc(noise[:length], MfccConfig(snip_edges=False)).shape == (frames, 13)
    assert len(mfcc(noise, MfccConfig(sample_frequency=8000))) == 13  # (1200 - 200) // 80 + 1


def test_energy_replaces_c0():
    """Raw log-energy: of the window's samples less their mean, before pre-emphasis."""
    samples = np.random.default_rng(1).normal(300, 1000, 400).astype(np.float32)
    with_energy, without = mfcc(samples, MfccConfig()), mfcc(samples, NO_ENERGY)
    assert with_energy[0, 0] == pytest.approx(np.log(((samples - samples.mean()).astype(np.float64) ** 2).sum()), abs=1e-3)
    np.testing.assert_array_equal(with_energy[:, 1:], without[:, 1:])


def test_dither_repeats_and_has_its_size(speech):
    silence = np.zeros(16000, np.float32)
    dithered = mfcc(silence, MfccConfig(dither=3.0))
    np.testing.assert_array_equal(dithered, mfcc(silence, MfccConfig(dither=3.0)))
    assert dithered[:, 0].mean() == pytest.approx(np.log(400 * 9), abs=0.1)  # the energy of 400 samples of variance 9
    assert dithered[:, 0].std() > 0.01  # every frame draws its own
    assert not np.array_equal(mfcc(speech[0], replace(HIRES, dither=1.0)), mfcc(speech[0], HIRES))


@pytest.mark.parametrize("options, message", [
    ({"num_ceps": 24}, "--num-ceps=24 is more than --num-mel-bins=23"),
    ({"window_type": "hann"}, "--window-type=hann: expected one of povey"),
    ({"low_freq": 9000}, "--low-freq=9000 --high-freq=0 is no band below the Nyquist frequency, 8000 Hz"),
    ({"high_freq": 8001}, "no band below"), ({"frame_length": 0}, "--frame-length=0"),
    ({"frame_shift": 0.01}, "--frame-shift=0.01"),
    ({"frame_length": float("nan")}, "--frame-length=nan: expected a finite number"), ({"num_mel_bins": 2}, "3 at least"),
    ({"preemphasis_coefficient": 1.5}, "not between 0 and 1"), ({"vtln_warp": 0.9, "vtln_low": 10}, "--vtln-low=10"),
])
def test_impossible_options_are_named(options, message):
    with pytest.raises(PyserError, match=message):
        MfccConfig(**options)


def test_too_many_mel_bins():
    with pytest.raises(PyserError, match="--num-mel-bins=200: a bin would have no point of the 512-point spectrum"):
        mfcc(np.zeros(400, np.float32), MfccConfig(num_mel_bins=200))


@pytest.mark.parametrize("rate_in, rate_out", [(48000, 16000), (44100, 16000), (8000, 16000), (16000, 17600)])
def test_resampling_keeps_a_tone_and_removes_what_does_not_fit(rate_in, rate_out):
    ratio, count = Fraction(rate_out, rate_in), 40000
    tone = np.sin(2 * np.pi * 1000 * np.arange(count) / rate_in)
    found = resample(tone, ratio)
    assert found.dtype == np.float32 and len(found) == -(-count * rate_out // rate_in)
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(found)) / rate_out)
    assert np.abs(found - expected)[50:-50].max() < 0.01
    if rate_out < rate_in:
        high = np.sin(2 * np.pi * 0.47 * rate_in * np.arange(count) / rate_in)
        assert np.abs(resample(high, ratio))[50:-50].max() < 0.01


@pytest.mark.parametrize("rate, milliseconds, samples", [
    (8000, 10, 80), (10000, 10, 100), (16000, 10, 160), (22050, 10, 220), (44100, 10, 441), (8000, 12.5, 100),
    (22050, 12.5, 275), (16000, 3.3, 52), (10000, 3.3, 32), (20000, 3.3, 65), (10000, 9.7, 96), (20000, 33.3, 665),
    (44100, 3.3, 145), (16000, 25, 400), (22050, 25, 551), (11025, 25, 275), (44100, 25, 1102),
])
def test_lengths_in_samples_as_kaldi_rounds_them(rate, milliseconds, samples):
    """static_cast<int32>(samp_freq * 0.001 * ms) of floats: 3.3 is 3.29999995, and 10 kHz times that are 32 samples."""
    assert MfccConfig(sample_frequency=rate, high_freq=0, frame_shift=milliseconds).shift == samples
    if samples % 2 == 0:
        assert MfccConfig(sample_frequency=rate, frame_length=milliseconds, round_to_power_of_two=False, num_mel_bins=3,
                          num_ceps=3).size == samples
