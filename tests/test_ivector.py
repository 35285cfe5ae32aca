"""UBM, extractor and online i-vectors against numbers that came out of Kaldi's programs (golden/ivector)."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pyser.cli.ivector import group
from pyser.errors import PyserError
from pyser.ivector.em import ExtractorConfig, UtteranceStats, accumulate, add_scatter, update
from pyser.ivector.extractor import read_extractor, write_extractor
from pyser.ivector.online import OnlineIvectorConfig, conjugate_gradient, extract_speaker, extract_utterance, load_extractor
from pyser.ivector.pca import estimate_pca, transform
from pyser.ivector.train import TrainConfig, train
from pyser.ivector.ubm import DiagGmm, UbmConfig, em_step, posteriors, read_diag_gmm, train_ubm, write_diag_gmm
from pyser.kaldi.tables import MatrixWriter, load_matrix, read_scp

GOLDEN = Path(__file__).parent / "golden" / "ivector"
SPEAKER = [f"spk2-u{n}" for n in (1, 2, 3, 4)]
VARIANTS = {
    "a_spk": OnlineIvectorConfig(),
    "c2_maxcount20": OnlineIvectorConfig(max_count=20),
    "d_period5": OnlineIvectorConfig(ivector_period=5),
    "g_remember150": OnlineIvectorConfig(max_remembered_frames=150),
}


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "online.npz"))


@pytest.fixture(scope="module")
def online():
    return load_extractor(GOLDEN / "extractor")


@pytest.mark.parametrize("variant", VARIANTS)
def test_speaker_carry_over_as_kaldi(golden, online, variant):
    ours = extract_speaker(online, [golden[f"feats/{utt}"] for utt in SPEAKER], VARIANTS[variant])
    for utt, rows in zip(SPEAKER, ours, strict=True):
        difference = np.abs(rows - golden[f"{variant}/{utt}"])
        assert difference.mean() < 1e-3 and difference.max() < 0.02, utt


@pytest.mark.parametrize("utt", [*SPEAKER, "spk1-u4"])
def test_single_utterances_as_kaldi(golden, online, utt):
    rows = extract_utterance(online, golden[f"feats/{utt}"])
    assert rows.shape == golden[f"b_utt/{utt}"].shape
    assert np.abs(rows - golden[f"b_utt/{utt}"]).max() < 0.01


def test_carry_over_changes_the_numbers(golden, online):
    first, second = (golden[f"feats/{utt}"] for utt in SPEAKER[:2])
    carried = extract_speaker(online, [first, second], OnlineIvectorConfig())
    assert np.array_equal(carried[0], extract_utterance(online, first))
    assert np.abs(carried[1] - extract_utterance(online, second)).max() > 0.1


def test_three_iterations_of_extractor_training_as_kaldi():
    data = np.load(GOLDEN / "training.npz")
    utts = sorted(name.split("/")[1] for name in data if name.startswith("feats/"))
    extractor = read_extractor(GOLDEN / "0.ie")
    stats, scatters = [], np.zeros(extractor.sigma_inv.shape)
    for utt in utts:
        feats, indices, post = (data[f"{kind}/{utt}"].astype(kind_of) for kind, kind_of in
                                (("feats", np.float64), ("indices", int), ("post", np.float64)))
        stats.append(UtteranceStats.of(feats, indices, post, len(extractor.weights)))
        add_scatter(scatters, feats, indices, post)
    config = ExtractorConfig(ivector_dim=6)
    auxfs, offsets = [], []
    for iteration in (1, 2, 3):
        sums = accumulate(extractor, stats, scatters, batch=5)
        extractor = update(extractor, sums, scatters, config)
        auxfs.append(sums.auxf / sums.gamma.sum())
        offsets.append(extractor.prior_offset)
        if iteration != 2:
            _same_model(extractor, read_extractor(GOLDEN / f"{iteration}.ie"))
    assert np.allclose(auxfs, [-108.898, -92.3802, -91.778], rtol=1e-5)
    assert np.allclose(offsets, [17.5091, 18.1909, 26.1942], rtol=1e-5)


def _same_model(ours, kaldis):
    """The basis may be mirrored: M M' decides."""
    product = [np.einsum("gds,hes->gdhe", one.projections, one.projections) for one in (ours, kaldis)]
    assert np.linalg.norm(product[0] - product[1]) < 1e-4 * np.linalg.norm(product[1])
    assert np.allclose(ours.sigma_inv, kaldis.sigma_inv, rtol=1e-4, atol=1e-6)


def test_posteriors_are_pruned_and_renormalised():
    likes = np.log(np.array([[0.60, 0.30, 0.08, 0.014, 0.006], [1.0, 1e-9, 1e-9, 1e-9, 1e-9]]))
    indices, post = posteriors(likes, num_gselect=3, min_post=0.025)
    assert indices[0].tolist() == [0, 1, 2]
    assert np.allclose(post[0], np.array([0.60, 0.30, 0.08]) / 0.98)
    assert np.allclose(post[1], [1, 0, 0])


def test_loglikes_by_hand():
    ubm = DiagGmm(np.array([0.25, 0.75]), np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 4.0], [0.5, 1.0]]))
    x = np.array([[1.0, -1.0]])
    first = np.log(0.25) - np.log(2 * np.pi) - 0.5 * np.log(4.0) - 0.5 * (1 / 1 + 4 / 4)
    second = np.log(0.75) - np.log(2 * np.pi) - 0.5 * np.log(0.5) - 0.5 * (1 / 0.5 + 1 / 1)
    assert np.allclose(ubm.loglikes(x), [[first, second]])


def test_ubm_training_finds_the_mixture():
    random = np.random.default_rng(0)
    centres = np.array([[-6.0, 0.0], [0.0, 6.0], [6.0, 0.0], [0.0, -6.0]])
    frames = np.concatenate([centre + random.normal(size=(500, 2)) for centre in centres]).astype(np.float32)
    lines = []
    ubm = train_ubm(frames, UbmConfig(num_gauss=4, num_iters=20), lines.append)
    assert len(lines) == 20 and len(ubm.weights) == 4
    order = [int(np.argmin(((ubm.means - centre) ** 2).sum(1))) for centre in centres]
    assert np.allclose(ubm.means[order], centres, atol=0.3)
    assert np.allclose(ubm.weights, 0.25, atol=0.03)


def test_em_never_gets_worse():
    frames = np.random.default_rng(1).standard_t(3, size=(2000, 5)).astype(np.float32)
    ubm = DiagGmm(np.full(3, 1 / 3), frames[:3].astype(np.float64), np.ones((3, 5)))
    likes = []
    for _ in range(8):
        ubm, like = em_step(ubm, [frames[:1500], frames[1500:]], UbmConfig(num_gauss=3))
        likes.append(like)
    assert (np.diff(likes) > -1e-4).all() and likes[-1] > likes[0]


def test_pca_whitens():
    random = np.random.default_rng(2)
    x = random.normal(size=(5000, 6)) @ random.normal(size=(6, 6)) + 3
    matrix = estimate_pca(len(x), x.sum(0), x.T @ x, 4)
    y = transform(matrix, x)
    assert matrix.shape == (4, 7)
    assert np.allclose(y.mean(0), 0, atol=1e-8) and np.allclose(np.cov(y.T, bias=True), np.eye(4), atol=1e-8)


def test_conjugate_gradient_stops_early_and_converges_late():
    random = np.random.default_rng(3)
    root = random.normal(size=(20, 20))
    a, b = root @ root.T + np.eye(20), random.normal(size=20)
    exact = np.linalg.solve(a, b)
    assert np.abs(conjugate_gradient(a, b, np.zeros(20), 3) - exact).max() > 1e-3
    assert np.allclose(conjugate_gradient(a, b, np.zeros(20), 25), exact, atol=1e-6)


def test_files_round_trip(tmp_path, online):
    write_extractor(online.extractor, tmp_path / "final.ie")
    again = read_extractor(tmp_path / "final.ie")
    assert np.array_equal(again.projections, online.extractor.projections)
    assert np.array_equal(again.sigma_inv, online.extractor.sigma_inv)
    write_extractor(read_extractor(GOLDEN / "1.ie"), tmp_path / "1.ie")
    assert (tmp_path / "1.ie").read_bytes() == (GOLDEN / "1.ie").read_bytes()  # as Kaldi wrote it
    write_diag_gmm(online.ubm, tmp_path / "final.dubm")
    assert np.allclose(read_diag_gmm(tmp_path / "final.dubm").means, online.ubm.means, rtol=1e-5, atol=1e-5)


def _data_dir(path, golden):
    with MatrixWriter(f"ark,scp:{path}/feats.ark,{path}/feats.scp", compress=False) as writer:
        for utt in SPEAKER:
            writer.write(utt, golden[f"feats/{utt}"])
    (path / "spk2utt").write_text("spk2 " + " ".join(SPEAKER) + "\n")
    return path


def test_train_and_extract(tmp_path, golden, capsys):
    data = _data_dir(tmp_path, golden)
    config = TrainConfig(num_gauss=2, ivector_dim=5, num_iters=2)
    train(data, tmp_path / "extractor", config)
    assert "iteration 2 of 2" in capsys.readouterr().out
    run = CliRunner().invoke(group, ["extract", "--spk2utt", f"{data}/spk2utt", f"{tmp_path}/extractor",
                                     f"scp:{data}/feats.scp", f"ark,scp:{tmp_path}/i.ark,{tmp_path}/i.scp"])
    assert run.exit_code == 0 and "4 utterances" in run.output
    table = {utt: load_matrix(entry) for utt, entry in read_scp(tmp_path / "i.scp").items()}
    online = load_extractor(tmp_path / "extractor")
    wanted = extract_speaker(online, [golden[f"feats/{utt}"] for utt in SPEAKER], OnlineIvectorConfig())
    for utt, rows in zip(SPEAKER, wanted, strict=True):
        assert table[utt].shape == rows.shape
        assert np.abs(table[utt] - rows).max() < 0.02 * np.ptp(rows)  # (the archive is compressed)


def test_training_goes_on_where_it_stopped(tmp_path, golden, capsys):
    data = _data_dir(tmp_path, golden)
    config = TrainConfig(num_gauss=2, ivector_dim=5, num_iters=3)
    train(data, tmp_path / "whole", config)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    (tmp_path / "stopped" / "final.ie").unlink()
    capsys.readouterr()
    train(data, tmp_path / "stopped", config)
    assert "UBM" not in capsys.readouterr().out  # final.dubm was finished
    assert (tmp_path / "stopped/final.ie").read_bytes() == (tmp_path / "whole/final.ie").read_bytes()
    train(data, tmp_path / "stopped", TrainConfig(num_gauss=1, ivector_dim=5, num_iters=3))
    assert "UBM of 1 Gaussians" in capsys.readouterr().out  # another model's steps are not taken for this one's


def test_bad_input(tmp_path, golden, online):
    with pytest.raises(PyserError, match="final.ie: no such file; an extractor directory holds"):
        load_extractor(tmp_path)
    shutil.copytree(GOLDEN / "extractor", tmp_path / "mixed")
    shutil.copyfile(GOLDEN / "2.dubm", tmp_path / "mixed" / "final.dubm")
    with pytest.raises(PyserError, match="must come from one training"):
        load_extractor(tmp_path / "mixed")
    with pytest.raises(PyserError, match=r"features of shape \(10, 13\), the extractor wants 40 columns"):
        extract_utterance(online, np.zeros((10, 13)))
    data = _data_dir(tmp_path, golden)
    with pytest.raises(PyserError, match="cannot train 1000 Gaussians; lower --num-gauss"):
        train(data, tmp_path / "big", TrainConfig(num_gauss=1000))
