"""CMVN, splicing, deltas and transforms against hand-computed and Kaldi's numbers.

golden/cmvn/cmvn.npz: one utterance of hires MFCC, its and its speaker's statistics and what apply-cmvn makes of it; a short
one and what apply-cmvn-sliding, splice-feats, add-deltas and subsample-feats make of it (every fourth row of splice33).
"""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.features.cmvn import (
    CmvnConfig,
    OnlineCmvnConfig,
    SlidingCmvnConfig,
    apply_cmvn,
    apply_online_cmvn,
    apply_sliding_cmvn,
    cmvn_stats,
    read_stats,
    write_stats,
)
from pyser.features.deltas import add_deltas
from pyser.features.splice import splice
from pyser.features.transform import subsample, transform
from pyser.kaldi.tables import MatrixWriter, read_mats

GOLDEN = Path(__file__).parent / "golden"
SPEAKER = [f"spk2-u{n}" for n in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "cmvn/cmvn.npz") as arrays:
        return dict(arrays)


def test_stats_by_hand():
    assert cmvn_stats(np.array([[1.0, 2.0], [3.0, -4.0]])).tolist() == [[4, -2, 2], [10, 20, 0]]


def test_stats_as_kaldi(golden):
    np.testing.assert_allclose(cmvn_stats(golden["feats"]), golden["utterance_stats"], rtol=1e-6)


def test_normalisation_as_kaldi(golden):
    found = apply_cmvn(golden["feats"], golden["speaker_stats"])
    assert found.dtype == np.float32 and np.abs(found - golden["mean"]).max() < 1e-4
    both = CmvnConfig(norm_vars=True)
    found = apply_cmvn(golden["feats"], golden["speaker_stats"], both)
    assert np.abs(found - golden["mean_and_variance"]).max() < 1e-4
    back = apply_cmvn(found, golden["speaker_stats"], CmvnConfig(norm_vars=True, reverse=True))
    assert np.abs(back - golden["feats"]).max() < 1e-3
    skipped = apply_cmvn(golden["feats"], golden["speaker_stats"], CmvnConfig(norm_vars=True, skip_dims="0:39"))
    np.testing.assert_array_equal(skipped[:, [0, 39]], golden["feats"][:, [0, 39]])
    np.testing.assert_array_equal(skipped[:, 1:39], found[:, 1:39])


def test_normalisation_refuses_what_does_not_fit(golden):
    with pytest.raises(PyserError, match="statistics of 12 dimensions, but features of 40"):
        apply_cmvn(golden["feats"], np.ones((2, 13)))
    with pytest.raises(PyserError, match="statistics of 0 frames"):
        apply_cmvn(golden["feats"], np.zeros((2, 41)))
    with pytest.raises(PyserError, match="--skip-dims: 40 is not below the 40 dimensions"):
        apply_cmvn(golden["feats"], golden["speaker_stats"], CmvnConfig(skip_dims="40"))
    for config in (CmvnConfig, OnlineCmvnConfig):
        with pytest.raises(PyserError, match="the variance is not normalised without the mean"):
            config(norm_means=False, norm_vars=True)
    with pytest.raises(PyserError, match="--skip-dims=1,2: expected dimensions with colons"):
        CmvnConfig(skip_dims="1,2")


def test_sliding_window_as_kaldi(golden):
    config = SlidingCmvnConfig(cmn_window=100, center=True, norm_vars=True)
    assert np.abs(apply_sliding_cmvn(golden["sliding_feats"], config) - golden["sliding"]).max() < 1e-4


@pytest.mark.parametrize("center, window, least, expected", [
    (True, 4, 9, [(0, 4), (0, 4), (0, 4), (1, 5), (2, 6), (3, 7), (3, 7)]),
    (False, 3, 1, [(0, 1), (0, 2), (0, 3), (0, 4), (1, 5), (2, 6), (3, 7)]),
    (False, 3, 3, [(0, 3), (0, 3), (0, 3), (0, 4), (1, 5), (2, 6), (3, 7)]),
    (False, 99, 99, [(0, 7)] * 7),
])
def test_sliding_windows_by_hand(center, window, least, expected):
    feats = np.random.default_rng(0).normal(size=(7, 2))
    config = SlidingCmvnConfig(cmn_window=window, min_cmn_window=least, center=center)
    means = [feats[start:end].mean(axis=0) for start, end in expected]
    np.testing.assert_allclose(apply_sliding_cmvn(feats, config), feats - means, atol=1e-6)
    scaled = apply_sliding_cmvn(feats, SlidingCmvnConfig(window, least, norm_vars=True, center=center))
    deviations = [feats[start:end].std(axis=0) if end - start > 1 else np.full(2, np.inf) for start, end in expected]
    np.testing.assert_allclose(scaled, (feats - means) / deviations, atol=1e-5)


def test_window_speaker_and_global_frames_by_hand():
    feats = np.array([[1.0], [2.0], [6.0], [3.0]])
    config = OnlineCmvnConfig(cmn_window=3, speaker_frames=1, global_frames=1)
    global_stats = np.array([[50.0, 10.0], [0.0, 0.0]])  # mean 5
    speaker = np.array([[14.0, 2.0], [0.0, 0.0]])  # mean 7
    means = [(1 + 7 + 5) / 3, (1 + 2 + 7) / 3, 9 / 3, 11 / 3]
    assert np.allclose(apply_online_cmvn(feats, global_stats, speaker, config)[:, 0], feats[:, 0] - means)
    means = [(1 + 5) / 2, (3 + 5) / 3, 3, 11 / 3]
    assert np.allclose(apply_online_cmvn(feats, global_stats, None, config)[:, 0], feats[:, 0] - means)
    with pytest.raises(PyserError, match="--global-frames=2 --speaker-frames=1"):
        OnlineCmvnConfig(speaker_frames=1, global_frames=2)


@pytest.mark.parametrize("name", ["cmvn", "cmvn_alt"])
def test_online_cmvn_as_kaldi(name):
    golden = np.load(GOLDEN / "ivector/online.npz")
    stats = read_stats(GOLDEN / "ivector/extractor/global_cmvn.stats")
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
    write_stats(tmp_path / "global_cmvn.stats", stats, binary=True)
    np.testing.assert_array_equal(read_stats(tmp_path / "global_cmvn.stats"), stats)


@pytest.mark.parametrize("text, message", [
    (" [\n 1 2 3\n 4 5 ]\n", "stats: byte .*: expected rows"), (" [\n 1 2 3 ]\n", "stats: not a matrix of two rows"),
    (" [\n 1 2 0\n 3 4 0 ]\n", "stats: CMVN statistics of no frames"),
])
def test_damaged_stats(tmp_path, text, message):
    (tmp_path / "stats").write_text(text)
    with pytest.raises(PyserError, match=message):
        read_stats(tmp_path / "stats")


def test_splice_deltas_and_subsampling_as_kaldi(golden):
    feats = golden["sliding_feats"]
    np.testing.assert_array_equal(splice(feats, 3, 3)[::4], golden["splice33"])
    assert np.abs(add_deltas(golden["mfcc13"]) - golden["deltas"]).max() < 1e-4
    np.testing.assert_array_equal(subsample(feats, 3), golden["subsample3"])


def test_splice_repeats_the_edges():
    assert splice(np.array([[1], [2], [3]]), 1, 2).tolist() == [[1, 1, 2, 3], [1, 2, 3, 3], [2, 3, 3, 3]]


def test_deltas_are_slopes():
    ramp = np.arange(20.0)[:, None] ** 2
    deltas = add_deltas(ramp, order=2, window=3)
    np.testing.assert_allclose(deltas[6:14, 1], 2 * np.arange(6, 14), rtol=1e-5)  # d/dt t² = 2t
    np.testing.assert_allclose(deltas[6:14, 2], 2, rtol=1e-5)


def test_transforms_and_thinning():
    feats = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert transform(feats, np.array([[1.0, 1.0]])).tolist() == [[3], [7], [11]]
    assert transform(feats, np.array([[1.0, 1.0, 0.5]])).tolist() == [[3.5], [7.5], [11.5]]
    assert subsample(feats, 2, offset=1).tolist() == [[3, 4]]
    assert subsample(feats, -2)[:3].tolist() == [[1, 2], [1, 2], [3, 4]]
    with pytest.raises(PyserError, match="4 columns does not fit features of 2 dimensions"):
        transform(feats, np.ones((1, 4)))
    with pytest.raises(PyserError, match="--n=0"):
        subsample(feats, 0)


# the command line


@pytest.fixture
def archive(tmp_path):
    """Features of two speakers, and their lists."""
    random = np.random.default_rng(1)
    feats = {utt: random.normal(3, 2, (frames, 3)).astype(np.float32) for utt, frames in (("a1", 40), ("a2", 30), ("b1", 50))}
    with MatrixWriter(f"ark,scp:{tmp_path}/feats.ark,{tmp_path}/feats.scp", compress=False) as writer:
        for utt, matrix in feats.items():
            writer.write(utt, matrix)
    (tmp_path / "spk2utt").write_text("a a1 a2\nb b1\n")
    (tmp_path / "utt2spk").write_text("a1 a\na2 a\nb1 b\n")
    return tmp_path, feats


def call(command, *arguments):
    result = CliRunner().invoke(cli, ["cmvn", *command.split(), *(str(argument) for argument in arguments)])
    if result.exception:
        raise result.exception
    return result.output


def test_statistics_and_normalisation_of_speakers(archive):
    path, feats = archive
    said = call("compute --spk2utt", path / "spk2utt", f"scp:{path}/feats.scp", f"ark,scp:{path}/cmvn.ark,{path}/cmvn.scp")
    assert said == f"cmvn of scp:{path}/feats.scp: 3 utterances, 0 dropped\n"
    stats = dict(read_mats(f"scp:{path}/cmvn.scp", dtype=np.float64))
    assert list(stats) == ["a", "b"]
    np.testing.assert_array_equal(stats["a"], cmvn_stats(feats["a1"]) + cmvn_stats(feats["a2"]))
    assert b"DM " in (path / "cmvn.ark").read_bytes()  # as Kaldi: in double precision
    call("apply --norm-vars --utt2spk", f"ark:{path}/utt2spk", f"scp:{path}/cmvn.scp", f"scp:{path}/feats.scp",
         f"ark:{path}/out.ark")
    out = dict(read_mats(f"ark:{path}/out.ark"))
    both = np.concatenate([out["a1"], out["a2"]])
    np.testing.assert_allclose([both.mean(0), both.std(0)], [[0] * 3, [1] * 3], atol=1e-5)
    call("apply --norm-means=false", f"scp:{path}/none.scp", f"scp:{path}/feats.scp", f"ark:{path}/out.ark")
    np.testing.assert_array_equal(dict(read_mats(f"ark:{path}/out.ark"))["b1"], feats["b1"])


def test_statistics_of_utterances_and_of_all(archive):
    path, feats = archive
    call("compute", f"scp:{path}/feats.scp", f"ark:{path}/cmvn.ark")
    assert list(dict(read_mats(f"ark:{path}/cmvn.ark"))) == list(feats)
    call("compute --binary=false", f"scp:{path}/feats.scp", path / "global.stats")
    assert (path / "global.stats").read_text().startswith(" [\n")
    everything = sum(cmvn_stats(matrix) for matrix in feats.values())
    np.testing.assert_allclose(read_stats(path / "global.stats"), everything, rtol=1e-8)
    call("apply", path / "global.stats", f"scp:{path}/feats.scp", f"ark:{path}/out.ark")
    out = np.concatenate([matrix for _, matrix in read_mats(f"ark:{path}/out.ark")])
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    with pytest.raises(PyserError, match="--spk2utt gives a table of speakers"):
        call("compute --spk2utt", path / "spk2utt", f"scp:{path}/feats.scp", path / "global.stats")


def test_online_with_and_without_speakers(archive):
    path, feats = archive
    write_stats(path / "global.stats", cmvn_stats(np.zeros((100, 3))))
    (path / "online.conf").write_text("--cmn-window=60\n--global-frames=10\n--speaker-frames=50\n")
    config = OnlineCmvnConfig(60, 50, 10, norm_vars=True)
    call("apply-online --norm-vars --config", path / "online.conf", path / "global.stats", f"scp:{path}/feats.scp",
         f"ark:{path}/out.ark")
    out = dict(read_mats(f"ark:{path}/out.ark"))
    stats = read_stats(path / "global.stats")
    np.testing.assert_allclose(out["a2"], apply_online_cmvn(feats["a2"], stats, None, config), rtol=1e-6)
    call("apply-online --norm-vars=true --config", path / "online.conf", "--spk2utt", path / "spk2utt", path / "global.stats",
         f"scp:{path}/feats.scp", f"ark:{path}/out.ark")
    out = dict(read_mats(f"ark:{path}/out.ark"))
    expected = apply_online_cmvn(feats["a2"], stats, cmvn_stats(feats["a1"]), config)
    np.testing.assert_allclose(out["a2"], expected, rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_large_numbers_make_no_noise(archive):
    """1e30 is normalised; what comes out too large for single precision is refused in one line."""
    path, feats = archive
    with MatrixWriter(f"ark:{path}/large.ark", compress=False) as writer:
        writer.write("u", feats["a1"] * np.float32(1e30))
    for command in (f"compute ark:{path}/large.ark ark:{path}/stats.ark",
                    f"apply --norm-vars ark:{path}/stats.ark ark:{path}/large.ark ark:{path}/out.ark",
                    f"apply-sliding --norm-vars ark:{path}/large.ark ark:{path}/out.ark"):
        call(command)
    with pytest.raises(PyserError, match="^u: not a number or infinite in what goes to .*out.ark; check the input"):
        call(f"apply --norm-vars --reverse ark:{path}/stats.ark ark:{path}/large.ark ark:{path}/out.ark")


def test_sliding_command(archive):
    path, feats = archive
    call("apply-sliding --center --cmn-window=20 --norm-vars=true", f"scp:{path}/feats.scp", f"ark:{path}/out.ark")
    out = dict(read_mats(f"ark:{path}/out.ark"))
    expected = apply_sliding_cmvn(feats["b1"], SlidingCmvnConfig(20, norm_vars=True, center=True))
    np.testing.assert_array_equal(out["b1"], expected)


def test_utterances_without_statistics_or_features_are_dropped(archive):
    path, _ = archive
    (path / "spk2utt").write_text("a a1\n")
    call("compute --spk2utt", path / "spk2utt", f"scp:{path}/feats.scp", f"ark:{path}/cmvn.ark")
    said = call("apply --max-dropped 50% --utt2spk", path / "utt2spk", f"ark:{path}/cmvn.ark", f"scp:{path}/feats.scp",
                f"ark:{path}/out.ark")
    assert said.endswith("3 utterances, 1 dropped: 1 without statistics (e.g. b1)\n")
    (path / "spk2utt").write_text("a a1 a9\n")
    with pytest.raises(PyserError, match=r"1 without features \(e.g. a9\): more than --max-dropped"):
        call("compute --spk2utt", path / "spk2utt", f"scp:{path}/feats.scp", f"ark:{path}/cmvn.ark")
