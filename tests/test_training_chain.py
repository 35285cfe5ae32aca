"""Options of the training loop on the toy language of test_chain: processes, natural gradient, precision, volume."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_chain import CONFIG, data_of, run, toy, write_data  # noqa: F401

from pyser.chain.align import align_equal
from pyser.chain.data import ChainData, scale_volume
from pyser.chain.train import ChainConfig, train
from pyser.cli import cli
from pyser.config import write_conf
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.kaldi.manifests import read_cuts
from pyser.lang import lang
from pyser.training import checkpoints


def config_of(**values):
    return ChainConfig(**{**vars(CONFIG), **values})


def curve(exp):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads((exp / "history.json").read_text())]


def test_two_processes_equal_one(toy, tmp_path):  # noqa: F811
    """Halves of the same batches, as large as the whole together; without dropout, whose dice differ."""
    (tmp_path / "conf").write_text(write_conf(config_of(dropout_schedule="0", lr_initial=3e-3, perturb_volume=True)))
    for exp, *options in (("one",), ("two", "--world-size", "2", "--max-duration", str(CONFIG.max_duration / 2))):
        words = ["chain", "train", "--conf", tmp_path / "conf", "--num-epochs", 2, *options, toy / "train", toy / "test",
                 toy / "lang", toy / "train/iv", toy / "test/iv", tmp_path / exp]
        assert CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False).exit_code == 0
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == 2 and one[0]["weight"] > 1000
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=5e-3)


def test_natural_gradient_learns(toy, tmp_path):  # noqa: F811
    run(toy, tmp_path, config_of(optimizer="ng-sgd", lr_initial=2e-2, lr_final=4e-3))
    rows = curve(tmp_path)
    assert rows[-1]["valid_objf"] > -0.2 and rows[-1]["valid_loss"] < rows[0]["valid_loss"] / 2
    best = min(rows, key=lambda row: row["valid_loss"])
    assert checkpoints.load(tmp_path / checkpoints.BEST)["epoch"] == best["epoch"]


def test_bfloat16(toy, tmp_path):  # noqa: F811
    run(toy, tmp_path / "a", config_of(num_epochs=3))
    run(toy, tmp_path / "b", config_of(num_epochs=3, precision="bfloat16"))
    full, half = curve(tmp_path / "a"), curve(tmp_path / "b")
    assert half[-1]["loss"] == pytest.approx(full[-1]["loss"], rel=0.3) and half[-1]["loss"] != full[-1]["loss"]


def test_processes_share_a_batch(toy):  # noqa: F811
    data = data_of(toy, training=True)
    whole = list(data.batches(1))
    parts = [list(type(data)(**{**vars(data), "rank": rank, "world_size": 2, "max_duration": 5.0}).batches(1))
             for rank in range(2)]
    whole = [batch for batch in whole if len(batch.ids) > 1]
    assert len(whole) == len(parts[0]) == len(parts[1]) > 3
    for batch, a, b in zip(whole, *parts, strict=True):
        assert (a.ids, b.ids) == (batch.ids[::2], batch.ids[1::2])
        assert torch.equal(batch.feats[1::2], b.feats) and torch.equal(batch.lengths[::2], a.lengths)


def test_order_of_lengths(tmp_path):
    """Of utterances in buckets: another in each epoch and for each seed, the small rests of the buckets anywhere in it."""
    cuts = read_cuts(write_data(tmp_path / "many", 130, seed=4))
    frames = np.sort([cut.num_frames for cut in cuts])
    middle = frames[np.searchsorted(frames.cumsum(), frames.sum() / 2)] / 3  # between the two buckets

    def batches(epoch, seed=0, **options):
        return list(ChainData(cuts, 5, 4, 3, options.pop("max_duration", 6.0), seed, True, **options).batches(epoch))

    def order(whole):
        return [int(batch.lengths.max()) > middle for batch in whole]

    epochs = [batches(epoch) for epoch in range(1, 7)]
    for whole in epochs:
        assert sorted(utt for batch in whole for utt in batch.ids) == sorted(cut.id for cut in cuts)
    assert len({tuple(order(whole)[:10]) for whole in (*epochs, batches(1, seed=1))}) == 7
    rests = [len(whole) - int(np.argmin([sum(batch.lengths) for batch in whole])) for whole in epochs]
    assert max(rests) > 5
    assert [batch.ids for batch in batches(3)] == [batch.ids for batch in epochs[2]]
    parts = [batches(3, max_duration=3.0, rank=rank, world_size=2) for rank in (0, 1)]
    shared = [batch.ids for batch in epochs[2] if len(batch.ids) > 1]
    assert [[batch.ids for batch in part] for part in parts] == [[ids[rank::2] for ids in shared] for rank in (0, 1)]


def test_volume_moves_c0_alone(toy):  # noqa: F811
    config = MfccConfig(num_mel_bins=40, num_ceps=40, high_freq=-400.0, low_freq=20.0, dither=0.0, use_energy=False)
    samples = 1000 * np.random.default_rng(0).standard_normal(16000)
    feats = mfcc(samples, config)
    for gain in (0.125, 0.7, 2.0):
        np.testing.assert_allclose(scale_volume(feats, gain), mfcc(gain * samples, config), atol=2e-4)
    data = data_of(toy, training=True)
    before, after = (next(type(data)(**{**vars(data), "perturb_volume": on}).batches(1)) for on in (False, True))
    moved = after.feats - before.feats
    assert (moved[..., 1:] == 0).all()
    assert moved[..., 0].std(dim=1).max() < 1e-4 and moved[:, 0, 0].std() > 0.5
    valid = data_of(toy, training=False)
    assert torch.equal(next(type(valid)(**{**vars(valid), "perturb_volume": True}).batches(0)).feats,
                       next(valid.batches(0)).feats)


def test_free_after_the_alignment(toy, tmp_path):  # noqa: F811
    """The first epoch near an alignment and then as without one, which goes on after that epoch."""
    shutil.copytree(toy / "lang", tmp_path / "lang")
    lang.topo(tmp_path / "lang", "chain", "mono")
    align_equal(tmp_path / "lang", toy / "train", tmp_path / "ali")
    lists = toy / "train", toy / "test", tmp_path / "lang", toy / "train/iv", toy / "test/iv"

    def rows(exp, ali_epochs, ali_dir):
        config = config_of(num_epochs=2, warmup=0.0, leaky_hmm_coefficient=0.1, ali_epochs=ali_epochs)
        train(*lists, tmp_path / exp, config, ali_dir)
        return curve(tmp_path / exp)

    near, freed = rows("near", 0, tmp_path / "ali"), rows("freed", 1, tmp_path / "ali")
    assert freed[0] == near[0] and freed[1] != near[1]
    (tmp_path / "without").mkdir()
    shutil.copy(tmp_path / "near/epoch-1.pt", tmp_path / "without")
    assert rows("without", 0, None) == freed
