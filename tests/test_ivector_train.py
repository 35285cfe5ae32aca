"""Training of UBM and extractor against numbers that came out of Kaldi's programs (golden/ivector)."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pyser.cli.ivector import group
from pyser.errors import PyserError
from pyser.features.cmvn import apply_online_cmvn, read_stats
from pyser.features.splice import splice
from pyser.ivector.em import ExtractorConfig, accumulate, add_scatter, explained_variance, update, utterance_stats
from pyser.ivector.extractor import read_extractor
from pyser.ivector.online import OnlineIvectorConfig, extract_speaker, load_extractor
from pyser.ivector.pairs import Pairs
from pyser.ivector.pca import estimate_lda, estimate_pca, read_transform
from pyser.ivector.train import TrainConfig, train
from pyser.ivector.ubm import DiagGmm
from pyser.ivector.ubm_em import UbmConfig, em_step, initialise_ubm, train_ubm
from pyser.kaldi.tables import INTEGERS, MatrixWriter, TableWriter, load_mat, read_mats, read_scp

GOLDEN = Path(__file__).parent / "golden" / "ivector"
SPEAKER = [f"spk2-u{n}" for n in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "online.npz"))


def test_three_iterations_of_extractor_training_as_kaldi():
    data = np.load(GOLDEN / "training.npz")
    utts = sorted(name.split("/")[1] for name in data if name.startswith("feats/"))
    extractor = read_extractor(GOLDEN / "0.ie")
    feats = torch.from_numpy(np.concatenate([data[f"feats/{utt}"] for utt in utts]))
    indices = np.concatenate([data[f"indices/{utt}"] for utt in utts]).astype(np.int32)
    post = np.concatenate([data[f"post/{utt}"] for utt in utts])
    pairs = Pairs.of((indices, post, np.full(len(feats), indices.shape[1], np.int32)))
    edges = np.cumsum([0, *(len(data[f"feats/{utt}"]) for utt in utts)])
    stats = utterance_stats(feats, pairs, edges, len(extractor.weights))
    scatters = torch.zeros(extractor.sigma_inv.shape, dtype=torch.float64)
    add_scatter(scatters, feats, pairs)
    config = ExtractorConfig(ivector_dim=6)
    auxfs, offsets, explained = [], [], []
    for iteration in (1, 2, 3):
        sums = accumulate(extractor, stats, scatters, batch=5)
        extractor = update(extractor, sums, scatters, config)
        auxfs.append(sums.auxf / float(sums.gamma.sum()))
        offsets.append(extractor.prior_offset)
        explained.append(explained_variance(extractor, sums.gamma))
        if iteration != 2:
            _same_model(extractor, read_extractor(GOLDEN / f"{iteration}.ie"))
    assert np.allclose(auxfs, [-108.898, -92.3802, -91.778], rtol=1e-5)
    assert np.allclose(offsets, [17.5091, 18.1909, 26.1942], rtol=1e-5)
    assert np.allclose(explained, [0.120746, 0.17474, 0.181652], rtol=1e-5)
    fixed = update(extractor, sums, scatters, ExtractorConfig(ivector_dim=6, update_variances=False))
    assert np.array_equal(fixed.sigma_inv, extractor.sigma_inv)


def _same_model(ours, kaldis):
    """The basis may be mirrored: M M' decides."""
    product = [np.einsum("gds,hes->gdhe", one.projections, one.projections) for one in (ours, kaldis)]
    assert np.linalg.norm(product[0] - product[1]) < 1e-4 * np.linalg.norm(product[1])
    assert np.allclose(ours.sigma_inv, kaldis.sigma_inv, rtol=1e-4, atol=1e-6)


def test_ubm_training_finds_the_mixture():
    random = np.random.default_rng(0)
    centres = np.array([[-6.0, 0.0], [0.0, 6.0], [6.0, 0.0], [0.0, -6.0]])
    frames = np.concatenate([centre + random.normal(size=(500, 2)) for centre in centres])
    frames = torch.from_numpy(frames.astype(np.float32))
    lines = []
    config = UbmConfig(num_gauss=4)
    ubm = initialise_ubm(frames, config, lines.append)
    assert len(lines) == 20 and len(ubm.weights) == 4
    ubm = train_ubm(ubm, lambda: iter([frames[:700], frames[700:]]), config, lines.append)
    assert len(lines) == 24
    order = [int(np.argmin(((ubm.means - centre) ** 2).sum(1))) for centre in centres]
    assert np.allclose(ubm.means[order], centres, atol=0.3)
    assert np.allclose(ubm.weights, 0.25, atol=0.03)


def test_em_never_gets_worse():
    frames = np.random.default_rng(1).standard_t(3, size=(2000, 5)).astype(np.float32)
    ubm = DiagGmm(np.full(3, 1 / 3), frames[:3].astype(np.float64), np.ones((3, 5)))
    frames = torch.from_numpy(frames)
    likes = []
    for _ in range(8):
        ubm, like = em_step(ubm, [frames[:1500], frames[1500:]], UbmConfig(num_gauss=3))
        likes.append(like)
    assert (np.diff(likes) > -1e-4).all() and likes[-1] > likes[0]


def test_rare_gaussians_go_only_where_asked():
    frames = torch.from_numpy(np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32))
    ubm = DiagGmm(np.array([0.5, 0.5]), np.array([[0.0, 0.0], [90.0, 90.0]]), np.ones((2, 2)))
    kept, _ = em_step(ubm, [frames], UbmConfig(num_gauss=2), remove=False)
    assert np.array_equal(kept.means[1], ubm.means[1]) and kept.weights[1] == pytest.approx(1e-4)
    removed, _ = em_step(ubm, [frames], UbmConfig(num_gauss=2))
    assert len(removed.weights) == 1 and removed.weights[0] == 1


def test_variances_are_floored():
    frames = torch.zeros(100, 3)
    ubm, _ = em_step(DiagGmm(np.ones(1), np.zeros((1, 3)), np.ones((1, 3))), [frames], UbmConfig(num_gauss=1))
    assert (ubm.vars == 1e-3).all()


def test_pca_whitens():
    random = np.random.default_rng(2)
    x = random.normal(size=(5000, 6)) @ random.normal(size=(6, 6)) + 3
    matrix = estimate_pca(len(x), torch.from_numpy(x.sum(0)), torch.from_numpy(x.T @ x), 4)
    y = x @ matrix[:, :-1].T + matrix[:, -1]
    assert matrix.shape == (4, 7)
    assert np.allclose(y.mean(0), 0, atol=1e-8) and np.allclose(np.cov(y.T, bias=True), np.eye(4), atol=1e-8)


def _data_dir(path, golden):
    with MatrixWriter(f"ark,scp:{path}/feats.ark,{path}/feats.scp", compress=False) as writer:
        for utt in SPEAKER:
            writer.write(utt, golden[f"feats/{utt}"])
    (path / "spk2utt").write_text("spk2 " + " ".join(SPEAKER) + "\n")
    return path


def test_train_and_extract(tmp_path, golden, capsys):
    data, out = _data_dir(tmp_path, golden), tmp_path / "extractor"
    train(data, out, TrainConfig(num_gauss=2, ivector_dim=5, num_iters=2))
    assert "iteration 2 of 2" in capsys.readouterr().out
    assert (out / "final.ie.id").read_text() == hashlib.md5((out / "final.ie").read_bytes()).hexdigest() + "\n"
    table = json.loads((out / "iterations.json").read_text())
    assert list(table) == ["1", "2"] and table["2"]["auxf_per_frame"] > table["1"]["auxf_per_frame"]
    assert 0 < table["2"]["explained_variance"] < 1
    run = CliRunner().invoke(group, ["extract", "--spk2utt", f"{data}/spk2utt", str(out),
                                     f"scp:{data}/feats.scp", f"ark,scp:{tmp_path}/i.ark,{tmp_path}/i.scp"])
    assert run.exit_code == 0 and "4 utterances" in run.output
    rows = {utt: load_mat(entry) for utt, entry in read_scp(tmp_path / "i.scp").items()}
    wanted = extract_speaker(load_extractor(out), [golden[f"feats/{utt}"] for utt in SPEAKER], OnlineIvectorConfig())
    for utt, one in zip(SPEAKER, wanted, strict=True):
        assert rows[utt].shape == one.shape
        assert np.abs(rows[utt] - one).max() < 0.02 * np.ptp(one)  # (the archive is compressed)


def test_pca_takes_every_utterance_alone(tmp_path, golden):
    data = _data_dir(tmp_path, golden)
    train(data, tmp_path / "x", TrainConfig(num_gauss=2, ivector_dim=3, num_iters=1))
    stats = read_stats(tmp_path / "x" / "global_cmvn.stats")
    x = np.concatenate([splice(apply_online_cmvn(golden[f"feats/{utt}"], stats), 3, 3)[::2] for utt in SPEAKER])
    matrix = read_transform(tmp_path / "x" / "final.mat")
    y = x @ matrix[:, :-1].T + matrix[:, -1]
    assert np.allclose(np.cov(y.T, bias=True), np.eye(40), atol=1e-4)


def test_online_cmvn_iextractor_is_remembered(tmp_path, golden):
    data = _data_dir(tmp_path, golden)
    config = TrainConfig(num_gauss=2, ivector_dim=3, num_iters=1)
    train(data, tmp_path / "raw", config)
    train(data, tmp_path / "cmvn", TrainConfig(num_gauss=2, ivector_dim=3, num_iters=1, online_cmvn_iextractor=True))
    assert not load_extractor(tmp_path / "raw").config.online_cmvn_iextractor
    assert load_extractor(tmp_path / "cmvn").config.online_cmvn_iextractor
    assert (tmp_path / "raw/final.dubm").read_bytes() == (tmp_path / "cmvn/final.dubm").read_bytes()
    assert (tmp_path / "raw/final.ie").read_bytes() != (tmp_path / "cmvn/final.ie").read_bytes()


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


def test_bad_input(tmp_path, golden):
    data = _data_dir(tmp_path, golden)
    with pytest.raises(PyserError, match="cannot train 1000 Gaussians; lower --num-gauss"):
        train(data, tmp_path / "big", TrainConfig(num_gauss=1000))
    bad = golden["feats/spk2-u1"].copy()
    bad[0, 0] = np.inf
    with MatrixWriter(f"ark,scp:{data}/feats.ark,{data}/feats.scp", compress=False) as writer:
        writer.write("spk2-u1", golden["feats/spk2-u1"])
        writer.write("spk2-u2", golden["feats/spk2-u2"][:, :13])
    with pytest.raises(PyserError, match=r"spk2-u2: features of shape \(334, 13\), others have 40 columns"):
        train(data, tmp_path / "mixed", TrainConfig(num_gauss=2))


def test_lda_separates_the_classes():
    """Within-class covariance I, between-class covariance diagonal and falling, and the best direction the classes' own."""
    random = np.random.default_rng(3)
    classes = random.integers(0, 4, 4000)
    mixing, means = random.normal(size=(5, 5)), random.normal(size=(4, 5)) * [5, 2, 0, 0, 0]
    x = (means[classes] + random.normal(size=(4000, 5))) @ mixing.T
    counts = np.bincount(np.append(classes, 6), minlength=8) - (np.arange(8) == 6)  # (classes without frames do no harm)
    first = np.stack([x[classes == c].sum(0) for c in range(8)])
    counts, first, second = (torch.from_numpy(one.astype(float)) for one in (counts, first, x.T @ x))
    lda = estimate_lda(counts, first, second, 3)
    y = x @ lda.T
    centred = y - np.stack([y[classes == c].mean(0) if c in classes else y[0] for c in range(4)])[classes]
    np.testing.assert_allclose(centred.T @ centred / 4000, np.eye(3), atol=1e-8)
    between = np.cov(np.stack([y[classes == c].mean(0) for c in range(4)])[classes].T, bias=True)
    np.testing.assert_allclose(between, np.diag(np.diag(between)), atol=1e-8)
    assert (np.diff(np.diag(between)) < 0).all() and between[0, 0] > 2 and between[2, 2] < 0.01
    with pytest.raises(PyserError, match="4 classes and 4000 frames cannot estimate an LDA to 4 dimensions"):
        estimate_lda(counts, first, second, 4)


def test_train_with_alignments(tmp_path, golden):
    _data_dir(tmp_path, golden)
    lengths = {utt: len(feats) for utt, feats in read_mats(f"scp:{tmp_path}/feats.scp")}
    random = np.random.default_rng(0)
    with TableWriter(f"ark,t:{tmp_path}/ali.txt", INTEGERS) as writer:
        for utt, length in lengths.items():
            writer.write(utt, random.integers(0, 60, length).astype(np.int32))
    config = TrainConfig(num_gauss=2, ivector_dim=3, num_iters=1, ali=f"ark:{tmp_path}/ali.txt")
    train(tmp_path, tmp_path / "out", config)
    assert read_transform(tmp_path / "out" / "final.mat").shape == (40, 280)
    assert load_extractor(tmp_path / "out").extractor.dim == 3
    (tmp_path / "ali.txt").write_text("".join(f"{utt} 1 2 3\n" for utt in lengths))
    with pytest.raises(PyserError, match="3 classes for .* frames; align these features"):
        train(tmp_path, tmp_path / "again", config)


@pytest.mark.parametrize("option", ["--ivector-dim=0", "--num-iters=0", "--num-gauss=0", "--num-utts=-3"])
def test_sizes_must_be_positive(option, tmp_path):
    done = CliRunner().invoke(group, ["train", option, str(tmp_path), str(tmp_path / "out")])
    assert isinstance(done.exception, PyserError) and str(done.exception) == f"{option}: expected a positive number"
    assert not (tmp_path / "out").exists()


def test_the_smallest_extractor(tmp_path, golden):
    data = _data_dir(tmp_path, golden)
    train(data, tmp_path / "x", TrainConfig(num_gauss=1, ivector_dim=1, num_iters=1))
    rows = extract_speaker(load_extractor(tmp_path / "x"), [golden["feats/spk2-u1"]])[0]
    assert rows.shape[1] == 1 and np.isfinite(rows).all()


def test_the_same_without_the_compiled_loops(tmp_path, golden, monkeypatch):
    """The way a GPU goes."""
    data = _data_dir(tmp_path, golden)
    config = TrainConfig(num_gauss=2, ivector_dim=5, num_iters=2)
    train(data, tmp_path / "compiled", config)
    monkeypatch.setattr("pyser.ivector.kernels.available", False)
    train(data, tmp_path / "torch", config)
    one, other = (read_extractor(tmp_path / name / "final.ie") for name in ("compiled", "torch"))
    assert one.prior_offset == pytest.approx(other.prior_offset, rel=1e-3)
    assert np.allclose(one.sigma_inv, other.sigma_inv, rtol=1e-2, atol=1e-2)
    tables = [json.loads((tmp_path / name / "iterations.json").read_text())["2"] for name in ("compiled", "torch")]
    assert tables[0]["auxf_per_frame"] == pytest.approx(tables[1]["auxf_per_frame"], rel=1e-4)


def test_scatter_by_hand():
    random = np.random.default_rng(4)
    feats, gauss = random.normal(size=(200, 3)).astype(np.float32), random.integers(0, 4, (200, 2)).astype(np.int32)
    post, count = random.random((200, 2)).astype(np.float32), random.integers(0, 3, 200).astype(np.int32)
    total = torch.zeros(5, 3, 3, dtype=torch.float64)
    add_scatter(total, torch.from_numpy(feats), Pairs.of((gauss, post, count)))
    wanted = np.zeros((5, 3, 3))
    for t in range(200):
        for j in range(count[t]):
            wanted[gauss[t, j]] += float(post[t, j]) * np.outer(feats[t], feats[t]).astype(np.float64)
    assert np.allclose(total, wanted, rtol=1e-5, atol=1e-5)
