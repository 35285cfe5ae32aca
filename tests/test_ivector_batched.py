"""Online i-vectors in torch, many speakers side by side, against Kaldi's numbers and the compiled loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_ivector import GOLDEN, SPEAKER, VARIANTS

from pyser.cli.ivector import group
from pyser.ivector import batched, dump, kernels
from pyser.ivector import online as compiled
from pyser.ivector.batched import extract_batch
from pyser.ivector.conjugate import conjugate_gradient, solve_exactly
from pyser.ivector.directory import OnlineIvectorConfig, load_extractor
from pyser.ivector.online import SpeakerState, check_feats, extract_speaker
from pyser.ivector.pairs import runs_of
from pyser.ivector.ubm import DiagGmm, posteriors
from pyser.ivector.ubm_em import likelihood_matrix, likelihood_terms
from pyser.kaldi.tables import MatrixWriter, read_mats


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "online.npz")) | dict(np.load(GOLDEN / "variants.npz"))


@pytest.fixture(scope="module")
def online():
    return load_extractor(GOLDEN / "extractor")


def _speaker(online, golden):
    return [check_feats(online, golden[f"feats/{utt}"]) for utt in SPEAKER]


def _close(ours, kaldis):
    difference = np.abs(ours - kaldis)
    return ours.shape == kaldis.shape and difference.mean() < 1e-4 and difference.max() < 0.02


@pytest.mark.parametrize("variant", VARIANTS)
def test_speaker_carry_over_as_kaldi(golden, online, variant):
    ours = extract_batch(online, _speaker(online, golden), [SpeakerState.new(online)] * 4, VARIANTS[variant])
    for utt, rows in zip(SPEAKER, ours, strict=True):
        assert rows.dtype == np.float32 and _close(rows, golden[f"{variant}/{utt}"]), utt


def test_single_utterances_as_kaldi(golden, online):
    utts = [*SPEAKER, "spk1-u4"]
    feats = [check_feats(online, golden[f"feats/{utt}"]) for utt in utts]
    ours = extract_batch(online, feats, [SpeakerState.new(online) for _ in utts], online.config)
    for utt, rows in zip(utts, ours, strict=True):
        assert _close(rows, golden[f"b_utt/{utt}"]), utt


def test_frame_weights_as_kaldi(golden, online):
    weights = [golden[f"weights/{utt}"] for utt in SPEAKER]
    ours = extract_batch(online, _speaker(online, golden), [SpeakerState.new(online)] * 4, online.config, weights)
    for utt, rows in zip(SPEAKER, ours, strict=True):
        assert _close(rows, golden[f"f_frame_weights/{utt}"]), utt
    weights[0] = np.zeros(10)  # (frames beyond the weights weigh nothing)
    states = [SpeakerState.new(online) for _ in SPEAKER]
    ours = extract_batch(online, _speaker(online, golden), states, online.config, weights)
    assert (ours[0] == 0).all() and np.isfinite(np.concatenate(ours)).all() and (ours[1] != 0).any()


def test_greedy_as_kaldi(golden, online):
    config = OnlineIvectorConfig(greedy_ivector_extractor=True)
    ours = extract_batch(online, _speaker(online, golden), [SpeakerState.new(online) for _ in SPEAKER], config)
    for utt, rows in zip(SPEAKER, ours, strict=True):
        assert len(rows) == len(golden[f"a_spk/{utt}"])
        assert np.abs(rows - golden[f"h_greedy_utt/{utt}"]).mean() < 1e-3


CONFIGS = [
    OnlineIvectorConfig(), OnlineIvectorConfig(repeat=True),
    OnlineIvectorConfig(max_count=5, max_remembered_frames=60, ivector_period=7),
    OnlineIvectorConfig(greedy_ivector_extractor=True, repeat=True), OnlineIvectorConfig(num_gselect=64, min_post=0.0),
    OnlineIvectorConfig(num_gselect=1, posterior_scale=0.05, online_cmvn_iextractor=True),
]


@pytest.mark.parametrize("cg_iters", [15, 0])
@pytest.mark.parametrize("config", CONFIGS)
def test_as_the_compiled_loops(golden, online, config, cg_iters, monkeypatch):
    """Four speakers of different lengths, between each other's utterances, in parts; and what the states become."""
    monkeypatch.setattr(batched, "PART_FRAMES", 500)
    monkeypatch.setattr(batched, "CHUNK", 160)
    monkeypatch.setattr(batched, "QUADRATICS", 9 * 900)
    config = replace(config, num_cg_iters=cg_iters)
    feats = _speaker(online, golden)
    feats = [*feats, *(one[: 15 + 37 * n] for n, one in enumerate(feats)), feats[1][:1], feats[2]]
    speaker = [0, 1, 2, 0, 3, 1, 0, 0, 2, 2]
    random = np.random.default_rng(0)
    weights = [random.choice([0, 0.3, 1, 1], len(one)).astype(np.float32) for one in feats]
    ours, others = [SpeakerState.new(online) for _ in range(4)], [SpeakerState.new(online) for _ in range(4)]
    for given in (None, weights):
        rows = extract_batch(online, feats, [ours[s] for s in speaker], config, given)
        wanted = compiled.extract_batch(online, feats, [others[s] for s in speaker], config, given)
        assert [one.shape for one in rows] == [one.shape for one in wanted]
        difference = np.abs(np.concatenate(rows) - np.concatenate(wanted))
        # The same to float32, but for what the solver makes of it, which stops before it has converged.
        assert difference.mean() < (5e-4 if cg_iters else 1e-5) and difference.max() < (0.02 if cg_iters else 1e-4)
        for one, other in zip(ours, others, strict=True):
            assert one.count == pytest.approx(other.count, rel=1e-6)
            assert np.array_equal(one.cmvn, other.cmvn)
            assert np.abs(one.linear - other.linear).max() < 1e-5 * np.abs(other.linear).max()
            assert np.abs(one.quadratic - other.quadratic).max() < 1e-5 * np.abs(other.quadratic).max()


def test_many_speakers_in_a_dump(golden, online, tmp_path, monkeypatch):
    """As on a GPU: batches across speakers, written in the order of the list."""
    order = {"spk2": ["spk2-u2", "spk2-u1", "spk2-u4"], "spk1": ["spk1-u4"], "again": ["spk2-u3"]}
    with MatrixWriter(f"ark,scp:{tmp_path}/f.ark,{tmp_path}/f.scp", compress=False) as writer:
        for utt in [*SPEAKER, "spk1-u4"]:
            writer.write(utt, golden[f"feats/{utt}"])
    (tmp_path / "spk2utt").write_text("".join(f"{spk} {' '.join(utts)}\n" for spk, utts in order.items()))
    tables = []
    for extract, size in ((extract_batch, 700), (extract_batch, 10**6), (compiled.extract_batch, 8192)):
        monkeypatch.setattr(dump, "_extraction", lambda use_gpu: (extract, size))  # noqa: B023 (called at once)
        dump.dump(online, f"scp:{tmp_path}/f.scp", f"ark:{tmp_path}/i.ark", online.config,
                  dump.DumpConfig(f"{tmp_path}/spk2utt", compress=False))
        tables.append(dict(read_mats(f"ark:{tmp_path}/i.ark")))
        assert list(tables[-1]) == sum(order.values(), [])
    for utt, rows in tables[-1].items():
        assert all(_close(table[utt], rows) for table in tables), utt


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path):
    for command in (["train", str(tmp_path), str(tmp_path / "x")], ["extract", str(GOLDEN / "extractor"), "ark:a", "ark:b"]):
        done = CliRunner().invoke(group, [*command, "--use-gpu=yes"])
        assert str(done.exception) == "no GPU here that torch can use; take --use-gpu no or optional"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(golden, online):
    feats = _speaker(online, golden)
    for config in CONFIGS:
        rows = extract_batch(online, feats, [SpeakerState.new(online)] * 4, config, device="cuda")
        wanted = compiled.extract_batch(online, feats, [SpeakerState.new(online)] * 4, config)
        assert np.abs(np.concatenate(rows) - np.concatenate(wanted)).mean() < 5e-4


def test_unusual_cmvn(golden, online):
    for cmvn in (replace(online.front_end.cmvn, norm_vars=True), replace(online.front_end.cmvn, skip_dims="0:3"),
                 replace(online.front_end.cmvn, cmn_window=100, speaker_frames=70, global_frames=30)):
        other = replace(online, front_end=replace(online.front_end, cmvn=cmvn))
        rows = extract_batch(other, _speaker(online, golden), [SpeakerState.new(online)] * 4, online.config)
        wanted = compiled.extract_batch(other, _speaker(online, golden), [SpeakerState.new(online)] * 4, online.config)
        assert np.abs(np.concatenate(rows) - np.concatenate(wanted)).mean() < 1e-4
        assert not _close(rows[0], golden["a_spk/spk2-u1"])


def test_a_damaged_utterance_stays_alone(golden, online):
    feats = _speaker(online, golden)
    alone = extract_batch(online, feats[1:], [SpeakerState.new(online) for _ in feats[1:]], online.config)
    together = extract_batch(
        online, [feats[0] * np.float32(1e20), *feats[1:]], [SpeakerState.new(online) for _ in feats], online.config)
    for one, other in zip(alone, together[1:], strict=True):
        assert np.abs(one - other).max() < 2e-3


@pytest.mark.skipif(not kernels.available, reason="needs the compiled library")
def test_posteriors_as_the_compiled_loops(golden, online):
    feats = golden["ubm_input"]
    random = np.random.default_rng(1)
    for num_gselect, min_post in ((5, 0.025), (2, 0.4), (64, 0.0)):
        weights = random.choice([0.0, 0.2, 1.0, 1.0], len(feats)).astype(np.float32)
        gaussians, post, count = posteriors(online.ubm, feats, weights, num_gselect, min_post, 0.1)
        used = np.arange(gaussians.shape[1]) < count[:, None]
        pairs = batched.posteriors(
            online.ubm, torch.from_numpy(feats), torch.from_numpy(weights), num_gselect, min_post, 0.1)
        dense, wanted = np.zeros((len(feats), 64)), np.zeros((len(feats), 64))
        dense[pairs.frame, pairs.gauss] = pairs.weight
        wanted[used.nonzero()[0], gaussians[used]] = post[used]
        assert ((dense > 1e-9) == (wanted > 1e-9)).all()
        assert np.abs(dense - wanted).max() < 1e-5


def test_likelihood_terms_by_hand():
    ubm = DiagGmm(np.array([0.25, 0.75]), np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 4.0], [0.5, 1.0]]))
    first = np.log(0.25) - np.log(2 * np.pi) - 0.5 * np.log(4.0) - 0.5 * (1 / 1 + 4 / 4)
    second = np.log(0.75) - np.log(2 * np.pi) - 0.5 * np.log(0.5) - 0.5 * (1 / 0.5 + 1 / 1)
    likes = likelihood_terms(torch.tensor([[1.0, -1.0]])) @ likelihood_matrix(ubm)
    assert np.allclose(likes, [[first, second]], atol=1e-5)


def test_runs():
    keys = torch.tensor([0, 0, 0, 2, 3, 3])
    key, place, valid = runs_of(keys, 5, 2)
    assert key.tolist() == [0, 0, 2, 3]
    assert [row[inside].tolist() for row, inside in zip(place, valid, strict=True)] == [[0, 1], [2], [3], [4, 5]]
    assert torch.equal(place[valid], torch.arange(6))
    assert len(runs_of(keys[:0], 5, 2)[0]) == 0


@pytest.mark.parametrize("size", [1, 4, 7, 21])
def test_solvers(size):
    random = np.random.default_rng(3)
    root = random.normal(size=(9, size, size))
    a, b = root @ root.transpose(0, 2, 1), random.normal(size=(9, size))
    prior = random.random(9) + 0.5
    exact = np.stack([np.linalg.solve(a[n] + prior[n] * np.eye(size), b[n]) for n in range(9)])
    given = [torch.from_numpy(one) for one in (a, prior, b)]
    x = torch.zeros(9, size, dtype=torch.float64)
    x[3] = torch.from_numpy(exact[3])  # one is there already: 0 / 0 must not come of it
    solved, grew = conjugate_gradient(*given, x, 60)
    assert not grew.any() and np.allclose(solved, exact, atol=1e-4)
    assert np.allclose(solve_exactly(*given), exact, atol=1e-9)
    assert np.abs(conjugate_gradient(*given, torch.zeros_like(x), 3)[0].numpy() - exact).max() > (1e-3 if size > 4 else -1)


def test_it_takes_the_place_of_the_compiled_loops(golden, online, monkeypatch):
    monkeypatch.setattr("pyser.ivector.kernels.available", False)
    ours = extract_speaker(online, [golden[f"feats/{utt}"] for utt in SPEAKER])
    for utt, rows in zip(SPEAKER, ours, strict=True):
        assert _close(rows, golden[f"a_spk/{utt}"]), utt
