"""Online i-vectors against numbers that came out of Kaldi's programs (golden/ivector)."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pyser.cli.ivector import group
from pyser.errors import PyserError
from pyser.ivector import kernels
from pyser.ivector.extractor import read_extractor, write_extractor
from pyser.ivector.kernels import conjugate_gradient, solve_exactly
from pyser.ivector.online import (
    OnlineIvectorConfig,
    SpeakerState,
    check_feats,
    extract_batch,
    extract_speaker,
    extract_utterance,
    load_extractor,
)
from pyser.ivector.pca import read_transform
from pyser.ivector.ubm import DiagGmm, posteriors, read_diag_gmm, write_diag_gmm
from pyser.kaldi.binary import Writer
from pyser.kaldi.tables import MatrixWriter, read_mats

GOLDEN = Path(__file__).parent / "golden" / "ivector"
SPEAKER = [f"spk2-u{n}" for n in (1, 2, 3, 4)]
VARIANTS = {
    "a_spk": OnlineIvectorConfig(),
    "c_maxcount100": OnlineIvectorConfig(max_count=100),
    "c2_maxcount20": OnlineIvectorConfig(max_count=20),
    "d_period5": OnlineIvectorConfig(ivector_period=5),
    "e_cmvn_iextractor": OnlineIvectorConfig(online_cmvn_iextractor=True),
    "g_remember150": OnlineIvectorConfig(max_remembered_frames=150),
}
compiled = pytest.mark.skipif(not kernels.available, reason="needs the compiled library")


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "online.npz")) | dict(np.load(GOLDEN / "variants.npz"))


@pytest.fixture(scope="module")
def online():
    return load_extractor(GOLDEN / "extractor")


def _speaker(golden):
    return [golden[f"feats/{utt}"] for utt in SPEAKER]


def _close(ours, kaldis):
    difference = np.abs(ours - kaldis)
    return ours.shape == kaldis.shape and difference.mean() < 1e-4 and difference.max() < 0.02


@pytest.mark.parametrize("variant", VARIANTS)
def test_speaker_carry_over_as_kaldi(golden, online, variant):
    ours = extract_speaker(online, _speaker(golden), VARIANTS[variant])
    for utt, rows in zip(SPEAKER, ours, strict=True):
        assert _close(rows, golden[f"{variant}/{utt}"]), utt


def test_variants_differ(golden):
    """A test that a wrong option would pass is no test."""
    for name in VARIANTS:
        if name not in ("a_spk", "d_period5", "c_maxcount100"):  # (here too little speech for a count of 100)
            assert np.abs(golden[f"{name}/spk2-u4"] - golden["a_spk/spk2-u4"]).max() > 0.02, name


def test_frame_weights_as_kaldi(golden, online):
    state = SpeakerState.new(online)
    feats, weights = _speaker(golden), [golden[f"weights/{utt}"] for utt in SPEAKER]
    ours = extract_batch(online, feats, [state] * len(feats), online.config, weights)
    for utt, rows in zip(SPEAKER, ours, strict=True):
        assert _close(rows, golden[f"f_frame_weights/{utt}"]), utt
    assert not _close(ours[0], golden["a_spk/spk2-u1"])


def test_silence_only_is_the_prior(golden, online):
    feats = golden["feats/spk2-u1"]
    (rows,) = extract_batch(online, [feats], [SpeakerState.new(online)], online.config, [np.zeros(len(feats))])
    assert (rows == 0).all()


@pytest.mark.parametrize("utt", SPEAKER)
def test_greedy_as_kaldi(golden, online, utt):
    (rows,) = extract_speaker(online, [golden[f"feats/{utt}"]], OnlineIvectorConfig(greedy_ivector_extractor=True))
    assert len(rows) == len(golden[f"a_spk/{utt}"])
    assert np.abs(rows - golden[f"h_greedy_utt/{utt}"]).mean() < 1e-3


@pytest.mark.parametrize("utt", [*SPEAKER, "spk1-u4"])
def test_single_utterances_as_kaldi(golden, online, utt):
    assert _close(extract_utterance(online, golden[f"feats/{utt}"]), golden[f"b_utt/{utt}"])


def test_batches_change_nothing(golden, online):
    """Speakers between each other's utterances, and one by one."""
    feats = [check_feats(online, one) for one in _speaker(golden)]
    states = [SpeakerState.new(online) for _ in range(2)]
    order = [0, 1, 0, 1]
    mixed = extract_batch(online, feats, [states[i] for i in order], online.config)
    for speaker in (0, 1):
        alone = SpeakerState.new(online)
        for number in (speaker, speaker + 2):
            (rows,) = extract_batch(online, [feats[number]], [alone], online.config)
            assert np.abs(rows - mixed[number]).max() < 2e-3


def test_repeat_gives_every_frame_its_row(golden, online):
    feats = golden["feats/spk2-u1"]
    (rows,) = extract_speaker(online, [feats], OnlineIvectorConfig(repeat=True))
    every = extract_utterance(online, feats)
    assert np.array_equal(rows, every[np.arange(len(feats)) // 10])


def test_carry_over_changes_the_numbers(golden, online):
    first, second = _speaker(golden)[:2]
    carried = extract_speaker(online, [first, second])
    assert np.abs(carried[1] - extract_utterance(online, second)).max() > 0.1


@compiled
def test_norm_vars_is_followed(golden, online):
    """The fast way is for means only; other configurations go through pyser.features.cmvn."""
    feats = golden["feats/spk2-u1"]
    front = online.front_end
    fast, exact = np.empty_like(feats), front.normalise(feats)
    front.normalise_into(feats, np.zeros_like(front.global_stats), fast)
    assert np.abs(fast - exact).max() < 1e-4
    other = replace(front, cmvn=replace(front.cmvn, norm_vars=True))
    other.normalise_into(feats, np.zeros_like(front.global_stats), fast)
    assert np.abs(fast - exact).max() > 1 and np.abs(fast - other.normalise(feats)).max() < 1e-4


@compiled
def test_posteriors_as_kaldi(golden, online):
    feats = golden["ubm_input"]
    gaussians, post, count = posteriors(online.ubm, feats, np.ones(len(feats), np.float32))
    assert np.array_equal(count, golden["post_count"])
    used = np.arange(gaussians.shape[1]) < count[:, None]
    assert np.array_equal(gaussians[used], golden["post_gaussians"])
    assert np.abs(post[used] - golden["post_values"]).max() < 1e-4


def _select(probabilities, num_gselect, min_post, scale=1.0):
    likes = np.zeros((3, 16), np.float32)  # of one frame, whose only dimension is 0
    likes[2, : len(probabilities)] = np.log(probabilities)
    gaussians, post = np.zeros((1, num_gselect), np.int32), np.zeros((1, num_gselect), np.float32)
    count = np.zeros(1, np.int32)
    kernels.posteriors(np.zeros((1, 1), np.float32), likes, len(probabilities), np.array([min_post], np.float32),
                       np.array([scale], np.float32), gaussians, post, count)
    return gaussians[0, : count[0]].tolist(), post[0, : count[0]]


@compiled
def test_posteriors_are_pruned_and_renormalised():
    gaussians, post = _select([0.08, 0.60, 0.014, 0.30, 0.006], 3, 0.025)
    assert gaussians == [1, 3, 0] and np.allclose(post, np.array([0.60, 0.30, 0.08]) / 0.98)
    gaussians, post = _select([1e-9, 1.0, 1e-9], 3, 0.025, scale=0.1)
    assert gaussians == [1] and np.allclose(post, 0.1)
    # 0.047 and 0.051 of the best are above 0.025, but not 0.025 of what all sum to before any of them goes
    gaussians, _ = _select([1.0, 0.862, 0.098, 0.0512, 0.047], 5, 0.025)
    assert gaussians == [0, 1, 2]
    assert _select([0.5, 0.5], 2, 0.025, scale=0.0)[0] == []


def test_loglikes_by_hand():
    ubm = DiagGmm(np.array([0.25, 0.75]), np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[1.0, 4.0], [0.5, 1.0]]))
    x = np.array([[1.0, -1.0]])
    first = np.log(0.25) - np.log(2 * np.pi) - 0.5 * np.log(4.0) - 0.5 * (1 / 1 + 4 / 4)
    second = np.log(0.75) - np.log(2 * np.pi) - 0.5 * np.log(0.5) - 0.5 * (1 / 0.5 + 1 / 1)
    assert np.allclose(np.concatenate([x, x**2, [[1.0]]], axis=1) @ ubm.likes_matrix[:, :2], [[first, second]], atol=1e-5)


@compiled
@pytest.mark.parametrize("size", [1, 4, 7, 21])
def test_solvers(size):
    random = np.random.default_rng(3)
    root = random.normal(size=(size, size))
    a, b = root @ root.T, random.normal(size=size)
    packed, exact = a[np.tril_indices(size)], np.linalg.solve(a + 0.5 * np.eye(size), b)
    x = np.zeros(size)
    assert conjugate_gradient(packed, 0.5, b, x, 40) and np.allclose(x, exact, atol=1e-5)
    solve_exactly(packed, 0.5, b, x)
    assert np.allclose(x, exact, atol=1e-9)
    if size > 4:
        x[:] = 0
        conjugate_gradient(packed, 0.5, b, x, 3)
        assert np.abs(x - exact).max() > 1e-3


def test_exact_solution_is_near_but_not_kaldis(golden, online):
    feats = _speaker(golden)
    kaldi, exact = (extract_speaker(online, feats, OnlineIvectorConfig(num_cg_iters=n)) for n in (15, 0))
    difference = np.abs(np.concatenate(kaldi) - np.concatenate(exact)).max()
    assert 1e-4 < difference < 0.05


def test_files_round_trip(tmp_path, online):
    write_extractor(online.extractor, tmp_path / "final.ie")
    again = read_extractor(tmp_path / "final.ie")
    assert np.array_equal(again.projections, online.extractor.projections)
    assert np.array_equal(again.sigma_inv, online.extractor.sigma_inv)
    write_extractor(read_extractor(GOLDEN / "1.ie"), tmp_path / "1.ie")
    assert (tmp_path / "1.ie").read_bytes() == (GOLDEN / "1.ie").read_bytes()  # as Kaldi wrote it
    write_diag_gmm(online.ubm, tmp_path / "final.dubm")
    assert np.allclose(read_diag_gmm(tmp_path / "final.dubm").means, online.ubm.means, rtol=1e-5, atol=1e-5)


def test_text_files(tmp_path):
    extractor, ubm = read_extractor(GOLDEN / "1.ie"), read_diag_gmm(GOLDEN / "2.dubm")
    write_extractor(extractor, tmp_path / "1.ie", binary=False)
    write_diag_gmm(ubm, tmp_path / "2.dubm", binary=False)
    assert (tmp_path / "1.ie").read_text().startswith("<IvectorExtractor> <w>  [ ]\n<w_vec>  [ ")
    again = read_extractor(tmp_path / "1.ie")
    assert np.allclose(again.projections, extractor.projections, rtol=1e-5, atol=1e-6)
    assert np.allclose(again.sigma_inv, extractor.sigma_inv, rtol=1e-5, atol=1e-6)
    assert np.allclose(read_diag_gmm(tmp_path / "2.dubm").vars, ubm.vars, rtol=1e-5)
    writer = Writer(binary=False)
    writer.matrix(read_transform(GOLDEN / "extractor" / "final.mat"), "FM")
    writer.save(tmp_path / "final.mat")
    assert read_transform(tmp_path / "final.mat").shape == (40, 281)


def test_weights_that_depend_on_the_ivector_are_refused(tmp_path):
    writer = Writer()
    writer.token("<IvectorExtractor>", "<w>")
    writer.matrix(np.ones((4, 6)))
    writer.save(tmp_path / "final.ie")
    with pytest.raises(PyserError, match="--use-weights=false"):
        read_extractor(tmp_path / "final.ie")


CONF = """--cmvn-config=cmvn.conf  # beside this file
--splice-config=splice.conf
--lda-matrix={0}/final.mat
--global-cmvn-stats={0}/global_cmvn.stats
--diag-ubm={0}/final.dubm
--ivector-extractor={0}/final.ie
--ivector-period=5
--num-gselect=5
--min-post=0.025
--posterior-scale=0.1
--max-remembered-frames=150
--max-count=0
--use-most-recent-ivector=true
"""


def test_conf_files(tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(GOLDEN / "extractor", kept)
    conf = tmp_path / "online" / "conf" / "ivector_extractor.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(CONF.format(kept))
    (conf.parent / "cmvn.conf").write_text("--cmn-window=700\n")
    (conf.parent / "splice.conf").write_text("--left-context=3\n--right-context=3\n")
    wanted = OnlineIvectorConfig(ivector_period=5, max_remembered_frames=150)
    for path in (conf, tmp_path / "online"):
        online = load_extractor(path)
        assert online.config == wanted and online.front_end.cmvn.cmn_window == 700
    (tmp_path / "more.conf").write_text("--max-count=100\n--ivector-period=10\n")
    assert load_extractor(conf, tmp_path / "more.conf").config == replace(wanted, max_count=100.0, ivector_period=10)
    assert load_extractor(kept).config == OnlineIvectorConfig()
    (kept / "online_cmvn_iextractor").touch()
    assert load_extractor(kept).config == OnlineIvectorConfig(online_cmvn_iextractor=True)
    conf.write_text(CONF.format(kept).replace("--diag-ubm", "--no-such"))
    with pytest.raises(PyserError, match="unknown option --no-such"):
        load_extractor(conf)
    conf.write_text("--lda-matrix=final.mat\n")
    with pytest.raises(PyserError, match="has no --ivector-extractor"):
        load_extractor(conf)
    conf.write_text(CONF.format(tmp_path / "gone"))
    with pytest.raises(PyserError, match="gone/final.ie: no such file"):
        load_extractor(conf)


def _tables(path, golden):
    with MatrixWriter(f"ark,scp:{path}/feats.ark,{path}/feats.scp", compress=False) as writer:
        for utt in SPEAKER:
            writer.write(utt, golden[f"feats/{utt}"])
    (path / "spk2utt").write_text("spk2 " + " ".join(SPEAKER) + "\n")


def _extract(*arguments):
    return CliRunner().invoke(group, ["extract", *map(str, arguments)])


def test_command_line(tmp_path, golden):
    _tables(tmp_path, golden)
    scp, out = f"scp:{tmp_path}/feats.scp", f"ark,scp:{tmp_path}/i.ark,{tmp_path}/i.scp"
    run = _extract("--spk2utt", f"ark:{tmp_path}/spk2utt", "--max-count=20", "--no-compress", GOLDEN / "extractor", scp, out)
    assert run.exit_code == 0 and "4 utterances, 0 with errors" in run.output, run.output
    table = dict(read_mats(f"scp:{tmp_path}/i.scp"))
    assert list(table) == SPEAKER
    for utt, rows in table.items():
        assert _close(rows, golden[f"c2_maxcount20/{utt}"])
    run = _extract("--no-compress", GOLDEN / "extractor", f"ark:{tmp_path}/feats.ark", f"ark,t:{tmp_path}/b.txt")
    assert run.exit_code == 0
    for utt, rows in read_mats(f"ark:{tmp_path}/b.txt"):
        assert _close(rows, golden[f"b_utt/{utt}"])
    run = _extract("--spk2utt", f"{tmp_path}/spk2utt", "--utts-per-spk-max=1", "--no-compress", GOLDEN / "extractor",
                   scp, out)
    assert run.exit_code == 0
    for utt, rows in read_mats(f"scp:{tmp_path}/i.scp"):
        assert _close(rows, golden[f"b_utt/{utt}"])


def test_frame_weights_on_the_command_line(tmp_path, golden):
    _tables(tmp_path, golden)
    lines = [f"{utt} [ {' '.join(f'{w:g}' for w in golden[f'weights/{utt}'])} ]\n" for utt in SPEAKER]
    (tmp_path / "weights").write_text("".join(lines[:3]))
    arguments = ["--no-compress", f"--spk2utt={tmp_path}/spk2utt", f"--frame-weights-rspecifier=ark:{tmp_path}/weights",
                 GOLDEN / "extractor", f"scp:{tmp_path}/feats.scp", f"ark:{tmp_path}/i.ark"]
    run = _extract(*arguments)
    assert run.exit_code == 0 and "3 utterances, 1 with errors" in run.output and "no frame weights" in run.output
    for utt, rows in read_mats(f"ark:{tmp_path}/i.ark"):
        assert _close(rows, golden[f"f_frame_weights/{utt}"])
    short = [line.replace(" ]", "", 1).rsplit(" ", 1)[0] + " ]\n" for line in lines]
    (tmp_path / "weights").write_text("".join(short))
    assert _extract("--length-tolerance=1", *arguments).exit_code == 0
    run = _extract(*arguments)
    assert isinstance(run.exception, PyserError) and "no i-vectors estimated, 4 utterances with errors" in str(run.exception)


def test_listed_utterances_without_features_are_counted(tmp_path, golden):
    _tables(tmp_path, golden)
    (tmp_path / "spk2utt").write_text("spk2 spk2-u1 spk2-u9 spk2-u2\n")
    run = _extract("--spk2utt", tmp_path / "spk2utt", GOLDEN / "extractor", f"scp:{tmp_path}/feats.scp",
                   f"ark:{tmp_path}/i.ark")
    assert run.exit_code == 0 and "2 utterances, 1 with errors" in run.output
    assert "WARNING: spk2-u9: in " in run.output


def test_bad_input(tmp_path, golden, online):
    with pytest.raises(PyserError, match="final.ie: no such file; an extractor directory holds"):
        load_extractor(tmp_path)
    shutil.copytree(GOLDEN / "extractor", tmp_path / "mixed")
    shutil.copyfile(GOLDEN / "2.dubm", tmp_path / "mixed" / "final.dubm")
    with pytest.raises(PyserError, match="must come from one training"):
        load_extractor(tmp_path / "mixed")
    with pytest.raises(PyserError, match="features of 13 dimensions, the extractor was trained on 40"):
        extract_utterance(online, np.zeros((10, 13)))
    with pytest.raises(PyserError, match="no features"):
        extract_utterance(online, np.zeros((0, 40)))
    bad = golden["feats/spk2-u1"].copy()
    bad[7, 3] = np.nan
    with pytest.raises(PyserError, match="not a number"):
        extract_utterance(online, bad)
    with pytest.raises(PyserError, match="--min-post=0.7: out of range"):
        OnlineIvectorConfig(min_post=0.7)
    (tmp_path / "feats.txt").write_text("good [\n" + "\n".join(" 1" * 40 for _ in range(20)) + " ]\nwrong [ 1 2 3 ]\n")
    run = _extract(GOLDEN / "extractor", f"ark:{tmp_path}/feats.txt", f"ark:{tmp_path}/i.ark")
    assert str(run.exception) == "wrong: features of 3 dimensions, the extractor was trained on 40; use those features"
    assert not (tmp_path / "i.ark").exists()


def test_pitch_is_cut_off(golden, online):
    feats = golden["feats/spk2-u1"]
    wider = np.concatenate([feats, np.full((len(feats), 3), 7.0, np.float32)], axis=1)
    assert np.array_equal(extract_utterance(online, wider), extract_utterance(online, feats))


def test_cutting_pitch_is_said_once(golden, tmp_path):
    wider = np.zeros((30, 43), np.float32)
    with MatrixWriter(f"ark:{tmp_path}/feats.ark", compress=False) as writer:
        for utt in ("a", "b"):
            writer.write(utt, wider)
    run = _extract(GOLDEN / "extractor", f"ark:{tmp_path}/feats.ark", f"ark:{tmp_path}/i.ark")
    assert run.exit_code == 0 and run.output.count("a: 43 dimensions, the last 3 taken for pitch") == 1
    assert "WARNING: b" not in run.output


@compiled
def test_batches_and_order_do_not_matter(golden, online):
    """To the last bit: conjugate gradients would make much of it."""
    feats = [check_feats(online, golden[f"feats/{utt}"][: 60 + 37 * n]) for n, utt in enumerate(SPEAKER)]
    alone = [extract_batch(online, [one], [SpeakerState.new(online)], online.config)[0] for one in feats]
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        together = extract_batch(online, [feats[i] for i in order], [SpeakerState.new(online) for _ in order], online.config)
        for i, rows in zip(order, together, strict=True):
            np.testing.assert_array_equal(rows, alone[i])


def test_booleans_as_kaldi_writes_them(tmp_path, golden):
    with MatrixWriter(f"ark:{tmp_path}/f.ark", compress=False) as writer:
        writer.write("u", golden["feats/spk2-u1"])
    rows = {}
    for option in ("--greedy-ivector-extractor=true", "--greedy-ivector-extractor", "--greedy-ivector-extractor=false"):
        files = [str(GOLDEN / "extractor"), f"ark:{tmp_path}/f.ark", f"ark:{tmp_path}/{option[-4:]}.ark"]
        done = CliRunner().invoke(group, ["extract", "--no-compress", option, *files])
        assert done.exit_code == 0
        rows[option[-4:]] = dict(read_mats(f"ark:{tmp_path}/{option[-4:]}.ark"))["u"]
    assert np.array_equal(rows["true"][0], rows["true"][-1]) and np.array_equal(rows["true"], rows["ctor"])
    assert not np.array_equal(rows["alse"][0], rows["alse"][-1])
