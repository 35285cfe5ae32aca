"""CMVN statistics and online CMVN against hand-computed and Kaldi's numbers."""

from pathlib import Path

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.features.cmvn import OnlineCmvnConfig, apply_online_cmvn, cmvn_stats, read_stats, write_stats
from pyser.features.splice import splice

GOLDEN = Path(__file__).parent / "golden" / "ivector"
SPEAKER = [f"spk2-u{n}" for n in (1, 2, 3, 4)]


def test_stats_by_hand():
    assert cmvn_stats(np.array([[1.0, 2.0], [3.0, -4.0]])).tolist() == [[4, -2, 2], [10, 20, 0]]


def test_window_speaker_and_global_frames_by_hand():
    feats = np.array([[1.0], [2.0], [6.0], [3.0]])
    config = OnlineCmvnConfig(cmn_window=3, speaker_frames=1, global_frames=1)
    global_stats = np.array([[50.0, 10.0], [0.0, 0.0]])  # mean 5
    speaker = np.array([[14.0, 2.0], [0.0, 0.0]])  # mean 7
    means = [(1 + 7 + 5) / 3, (1 + 2 + 7) / 3, 9 / 3, 11 / 3]
    assert np.allclose(apply_online_cmvn(feats, global_stats, speaker, config)[:, 0], feats[:, 0] - means)
    means = [(1 + 5) / 2, (3 + 5) / 3, 3, 11 / 3]
    assert np.allclose(apply_online_cmvn(feats, global_stats, None, config)[:, 0], feats[:, 0] - means)


@pytest.mark.parametrize("name", ["cmvn", "cmvn_alt"])
def test_online_cmvn_as_kaldi(name):
    golden = np.load(GOLDEN / "online.npz")
    stats = read_stats(GOLDEN / "extractor" / "global_cmvn.stats")
    alternative = OnlineCmvnConfig(cmn_window=100, speaker_frames=60, global_frames=30, norm_vars=True)
    config = alternative if name == "cmvn_alt" else OnlineCmvnConfig()
    earlier = None
    for utt in SPEAKER:
        feats = golden[f"feats/{utt}"]
        ours = apply_online_cmvn(feats, stats, earlier, config)[::20]
        assert np.abs(ours - golden[f"{name}/{utt}"]).max() < 1e-4, utt
        earlier = cmvn_stats(feats) + (0 if earlier is None else earlier)


def test_stats_file_round_trip(tmp_path):
    stats = cmvn_stats(np.random.default_rng(0).normal(size=(50, 3)))
    write_stats(tmp_path / "global_cmvn.stats", stats)
    assert np.allclose(read_stats(tmp_path / "global_cmvn.stats"), stats, rtol=1e-9)


def test_damaged_stats(tmp_path):
    (tmp_path / "stats").write_text(" [\n 1 2 3\n 4 5 ]\n")
    with pytest.raises(PyserError, match="stats: not a text matrix of two rows"):
        read_stats(tmp_path / "stats")


def test_splice_repeats_the_edges():
    assert splice(np.array([[1], [2], [3]]), 1, 2).tolist() == [[1, 1, 2, 3], [1, 2, 3, 3], [2, 3, 3, 3]]
