"""The training loop: exact resume, damaged checkpoints, losses that are not finite, averaging."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from pyser.errors import PyserError
from pyser.training import checkpoints
from pyser.training.loop import TrainConfig, train

CONFIG = TrainConfig(num_epochs=4, lr_initial=1e-2, lr_final=1e-3, weight_decay=1e-2, seed=3)


def model_():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(4):
        x = torch.randn(6, 5, generator=generator)
        yield x, (x[:, 0] > 0).long()


def loss_fn(model, batch, progress):
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    return loss, {"weight": float(len(batch[1])), "progress": progress * len(batch[1])}


def same(a, b):
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


def rows(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


class Stop(Exception):
    pass


def until(epoch, steps):
    """`batches` that break off in the middle of `epoch`."""
    def cut(e):
        for i, batch in enumerate(batches(e)):
            if e == epoch and i == steps:
                raise Stop
            yield batch
    return cut


def test_learns_and_decays(tmp_path):
    history = train(model_(), batches, 4, loss_fn, tmp_path, CONFIG, valid_fn=lambda m: {"training": m.training})
    assert history[-1]["loss"] < history[0]["loss"]
    assert [row["valid_training"] for row in history] == [0.0] * 4
    assert history[0]["progress"] == pytest.approx(1.5 / 16)
    assert history[-1]["lr"] == pytest.approx(1e-2 * 0.1 ** (15 / 16))
    assert rows(json.loads((tmp_path / "history.json").read_text())) == rows(history)
    assert history[0]["weight"] == 24


@pytest.mark.parametrize("damage", [False, True])
def test_resume_equals_uninterrupted(tmp_path, damage, capsys):
    whole, broken = model_(), model_()
    expected = train(whole, batches, 4, loss_fn, tmp_path / "a", CONFIG)
    with pytest.raises(Stop):
        train(broken, until(3, 2), 4, loss_fn, tmp_path / "b", CONFIG)
    if damage:
        newest = tmp_path / "b/checkpoints/epoch-2.pt"
        newest.write_bytes(newest.read_bytes()[:1000])
        (tmp_path / "b/checkpoints/epoch-9.pt").write_bytes(b"")
    resumed = model_()
    history = train(resumed, batches, 4, loss_fn, tmp_path / "b", CONFIG)
    assert same(whole, resumed) and not same(whole, broken)
    assert rows(history) == rows(expected)
    assert ("epoch-2.pt: not a whole checkpoint" in capsys.readouterr().out) == damage


def test_finished_run_is_left_alone(tmp_path):
    first, again = model_(), model_()
    train(first, batches, 4, loss_fn, tmp_path, CONFIG)
    train(again, until(1, 0), 4, loss_fn, tmp_path, CONFIG)
    assert same(first, again)


def test_other_settings_or_model_is_an_error(tmp_path):
    train(model_(), batches, 4, loss_fn, tmp_path, CONFIG)
    with pytest.raises(PyserError, match="num_epochs 4 -> 9"):
        train(model_(), batches, 4, loss_fn, tmp_path, TrainConfig(9, 1e-2, 1e-3, weight_decay=1e-2, seed=3))
    with pytest.raises(PyserError, match="another model"):
        train(nn.Sequential(nn.Linear(5, 3)), batches, 4, loss_fn, tmp_path, CONFIG)


def test_nan_names_the_batch(tmp_path):
    def bad(epoch):
        yield torch.full((6, 5), float("nan")), torch.zeros(6, dtype=torch.long)
    with pytest.raises(PyserError, match="loss is nan on utt7"):
        train(model_(), bad, 4, loss_fn, tmp_path, CONFIG, describe=lambda batch: "utt7")
    with pytest.raises(PyserError, match="no batches"):
        train(model_(), lambda epoch: [], 4, loss_fn, tmp_path, CONFIG)
    assert not (tmp_path / "checkpoints").exists()


def test_infinite_gradient_is_an_error(tmp_path):
    def infinite(model, batch, progress):
        x = model[0].weight.sum() * 0.0
        return torch.sqrt(x.abs()).sum() + model(batch[0]).sum() * 0.0, {"weight": 1.0}
    with pytest.raises(PyserError, match="gradient is not finite"):
        train(model_(), batches, 4, infinite, tmp_path, CONFIG)


def test_weightless_batches_change_nothing(tmp_path):
    def nothing_second(model, batch, progress):
        loss, stats = loss_fn(model, batch, progress)
        return loss, stats if progress < 0.01 else {"weight": 0.0}
    history = train(model_(), batches, 4, nothing_second, tmp_path, TrainConfig(1, 1e-2, 1e-3))
    assert history[0]["weight"] == 6


def test_keep_and_average(tmp_path):
    model = model_()
    train(model, batches, 4, loss_fn, tmp_path, TrainConfig(4, 1e-2, 1e-3, keep_checkpoints=2))
    folder = tmp_path / "checkpoints"
    assert checkpoints.numbers(folder) == [3, 4]
    assert checkpoints.latest(folder) == checkpoints.path_of(folder, 4)
    paths = [checkpoints.path_of(folder, e) for e in (3, 4)]
    third, fourth = (checkpoints.load(p)["model"] for p in paths)
    mean = checkpoints.average(paths)
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(mean[name], (third[name] + fourth[name]) / 2)
    assert mean["1.num_batches_tracked"] == 16
    model.load_state_dict(mean)


def test_load_runs_no_pickled_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))
    torch.save({"epoch": Evil()}, tmp_path / "epoch-1.pt")
    with pytest.raises(PyserError, match="not a whole checkpoint"):
        checkpoints.load(tmp_path / "epoch-1.pt")
    torch.save({"epoch": 1}, tmp_path / "epoch-1.pt")
    with pytest.raises(PyserError, match="not a training checkpoint"):
        checkpoints.load(tmp_path / "epoch-1.pt")
    with pytest.raises(PyserError, match="no such checkpoint"):
        checkpoints.load(tmp_path / "epoch-2.pt")
    assert checkpoints.latest(tmp_path) is None
