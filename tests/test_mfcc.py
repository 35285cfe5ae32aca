"""MFCC against Kaldi's compute-mfcc-feats, and the stage that writes them.

golden/mfcc/spk1-u4.npz: 0.3 s of synthetic speech (int16, 16 kHz) and what Kaldi 5.5 makes of it with GOLDEN.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig, compute_mfcc, mfcc
from pyser.kaldi.tables import read_matrices

GOLDEN = MfccConfig(use_energy=False, num_mel_bins=40, num_ceps=40, low_freq=20, high_freq=-400)


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden/mfcc/spk1-u4.npz") as arrays:
        return arrays["samples"], arrays["mfcc"]


@pytest.fixture
def recording(golden, tmp_path):
    """wav.scp of the golden utterance."""
    soundfile.write(tmp_path / "u.wav", golden[0], 16000)
    (tmp_path / "wav.scp").write_text(f"u {tmp_path}/u.wav\n")
    return tmp_path


def assert_compressed(found, expected):
    """Equal but for compression: a column has 63 codes at least between its extremes, rounding loses half of one."""
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= np.ptp(expected, axis=0) / 63 / 2 + 0.02).all()


def run(path, **options):
    options = {"segments": None, "max_dropped": 0.9, **options}
    line = compute_mfcc(path / "wav.scp", f"ark,scp:{path}/out.ark,{path}/out.scp", GOLDEN, **options)
    return line, dict(read_matrices(f"scp:{path}/out.scp"))


def test_equals_kaldi(golden):
    samples, expected = golden
    found = mfcc(samples.astype(np.float32), GOLDEN)
    assert found.shape == expected.shape == (28, 40) and found.dtype == np.float32
    difference = np.abs(found.astype(np.float64) - expected)
    assert difference.mean() <= 1e-3 and difference.max() <= 0.02


def test_number_of_frames():
    noise = np.random.default_rng(0).normal(0, 1000, 1200).astype(np.float32)
    for length, frames in ((0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (1200, 6)):
        assert mfcc(noise[:length], MfccConfig()).shape == (frames, 13)
    assert len(mfcc(noise, MfccConfig(snip_edges=False))) == 8  # (1200 + 80) // 160
    assert len(mfcc(noise, MfccConfig(sample_frequency=8000, high_freq=0))) == 13  # (1200 - 200) // 80 + 1


def test_energy_replaces_c0():
    """Raw log-energy: of the window's samples less their mean, before pre-emphasis."""
    samples = np.random.default_rng(1).normal(300, 1000, 400).astype(np.float32)
    with_energy, without = mfcc(samples, MfccConfig()), mfcc(samples, MfccConfig(use_energy=False))
    assert with_energy[0, 0] == pytest.approx(np.log(((samples - samples.mean()).astype(np.float64) ** 2).sum()), abs=1e-3)
    np.testing.assert_array_equal(with_energy[:, 1:], without[:, 1:])


def test_more_cepstra_than_bins():
    with pytest.raises(PyserError, match="--num-ceps=24 is more than --num-mel-bins=23"):
        MfccConfig(num_ceps=24)


def test_stage_writes_golden(recording, golden):
    line, feats = run(recording)
    assert line == f"mfcc of {recording}/wav.scp: 1 utterances, 0 dropped"
    assert_compressed(feats["u"], golden[1])


def test_other_sampling_rate_is_resampled(recording, golden):
    """The same speech at 48 kHz is 0.33 away; a rate that is 3% wrong would be 5 away."""
    from scipy.signal import resample_poly

    soundfile.write(recording / "u.wav", resample_poly(golden[0] / 32768, 3, 1), 48000)
    _, feats = run(recording)
    assert feats["u"].shape == (28, 40)
    assert np.abs(feats["u"] - golden[1]).mean() < 0.6


def test_too_short_and_unreadable_are_dropped(recording, golden, capsys):
    soundfile.write(recording / "short.wav", golden[0][:399], 16000)
    with (recording / "wav.scp").open("a") as scp:
        scp.write(f"v {recording}/short.wav\nw {recording}/none.wav\n")
    line, feats = run(recording)
    assert list(feats) == ["u"] and "w: " in capsys.readouterr().out
    assert line.endswith("3 utterances, 2 dropped: 1 shorter than one window of 25 ms (e.g. v); 1 unreadable (e.g. w)")
    with pytest.raises(PyserError, match="more than --max-dropped 5%"):
        run(recording, max_dropped=0.05)


def test_segments(recording, golden):
    """A part starting at a whole frame has that frame's numbers; -1 is the end."""
    (recording / "segments").write_text("b u 0.1 -1\na u 0.0 0.105\nc u 0.25 0.26\nd x 0 1\ne u 2 3\n")
    line, feats = run(recording, segments=recording / "segments")
    assert sorted(feats) == ["a", "b"] and "5 utterances, 3 dropped" in line
    assert "shorter than one window of 25 ms (e.g. c)" in line and "without recording in wav.scp (e.g. d)" in line
    assert_compressed(feats["a"], golden[1][:9])
    assert_compressed(feats["b"], golden[1][10:])
    (recording / "segments").write_text("a u 0.0\n")
    with pytest.raises(PyserError, match="a: expected 'recording start end', found 'u 0.0'"):
        run(recording, segments=recording / "segments")
