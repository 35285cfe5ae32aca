"""Utterances of data directories as encoders hear them."""

import numpy as np
import pytest
import soundfile

from pyser.encoders.waves import RATE, Waves
from pyser.errors import PyserError


def data_dir(path, **lists):
    path.mkdir()
    for name, lines in lists.items():
        (path / name.replace("wav_scp", "wav.scp")).write_text("".join(f"{line}\n" for line in lines))
    return path


def test_samples(tmp_path):
    """A stereo file at 8 kHz and parts of a file at 16 kHz."""
    rng = np.random.default_rng(0)
    mono = (0.5 * rng.standard_normal(RATE)).clip(-1, 1).astype(np.float32)
    time = np.arange(8000) / 8000
    tone = np.stack([np.sin(2 * np.pi * 440 * time), np.zeros(8000)], axis=1)
    soundfile.write(tmp_path / "mono.wav", mono, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", tone, 8000, subtype="FLOAT")
    waves = Waves(data_dir(tmp_path / "d", wav_scp=[f"m {tmp_path}/mono.wav", f"s {tmp_path}/stereo.wav"],
                           utt2spk=["u1 a", "u2 a", "u3 a"], segments=["u1 m 0.25 0.5", "u2 m 0.5 -1", "u3 s 0 1"],
                           utt2dur=["u1 0.25"]))
    assert waves.utterances == ["u1", "u2", "u3"] and len(waves) == 3
    np.testing.assert_allclose(waves["u1"], mono[4000:8000], atol=1e-6)
    np.testing.assert_allclose(waves["u2"], mono[8000:], atol=1e-6)
    assert waves["u3"].dtype == np.float32
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(waves["u3"][100:-100], expected[100:-100], atol=2e-3)
    assert [waves.seconds(utt) for utt in waves.utterances] == [0.25, 0.5, 1.0]


def test_errors_name_the_utterance(tmp_path):
    waves = Waves(data_dir(tmp_path / "d", wav_scp=["a none.wav", "b sph2pipe x.sph |"], utt2spk=["a x", "b x", "c x"],
                           utt2dur=["a long"]))
    for utt, reason in (("a", "no such audio file"), ("b", "--allow-pipes"), ("c", "no recording c")):
        with pytest.raises(PyserError, match=f"^{utt}: .*{reason}"):
            waves[utt]
    with pytest.raises(PyserError, match="utt2dur: a: 'long'"):
        waves.seconds("a")


def test_commands_and_short_segments(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(3200, 0.25), RATE)
    lists = {"utt2spk": ["a x", "b x"], "segments": ["a a 0.05 0.2", "b a 0.0 0.05"]}
    piped = Waves(data_dir(tmp_path / "d", wav_scp=[f"a cat {tmp_path}/a.wav |"], **lists), allow_pipes=True)
    plain = Waves(data_dir(tmp_path / "e", wav_scp=[f"a {tmp_path}/a.wav"], **lists))
    for waves in (piped, plain):
        assert len(waves["a"]) == 2400 and np.allclose(waves["a"], 0.25)
        with pytest.raises(PyserError, match="^b: .*shorter"):
            waves["b"]
