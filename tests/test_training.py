"""The training loop: exact resume, damaged checkpoints, losses that are not finite, averaging."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from pyser.errors import PyserError
from pyser.files import write_json
from pyser.training import checkpoints
from pyser.training.loop import TrainConfig, best_epoch, train

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


def test_killed_behind_the_last_checkpoint(tmp_path, monkeypatch):
    """The history on disk gets its last row all the same."""
    with monkeypatch.context() as patch:
        patch.setattr("pyser.training.loop.write_json", lambda path, history: (_ for _ in ()).throw(Stop())
                      if len(history) == CONFIG.num_epochs else write_json(path, history))
        with pytest.raises(Stop):
            train(model_(), batches, 4, loss_fn, tmp_path, CONFIG)
    assert len(json.loads((tmp_path / "history.json").read_text())) == CONFIG.num_epochs - 1
    history = train(model_(), batches, 4, loss_fn, tmp_path, CONFIG)
    assert json.loads((tmp_path / "history.json").read_text()) == history and len(history) == CONFIG.num_epochs


@pytest.mark.parametrize("damage", [False, True])
def test_resume_equals_uninterrupted(tmp_path, damage, capsys):
    whole, broken = model_(), model_()
    expected = train(whole, batches, 4, loss_fn, tmp_path / "a", CONFIG)
    with pytest.raises(Stop):
        train(broken, until(3, 2), 4, loss_fn, tmp_path / "b", CONFIG)
    if damage:
        newest = tmp_path / "b/epoch-2.pt"
        newest.write_bytes(newest.read_bytes()[:1000])
        (tmp_path / "b/epoch-9.pt").write_bytes(b"")
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
    assert not checkpoints.numbers(tmp_path)


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
    assert checkpoints.numbers(tmp_path) == [3, 4]
    assert checkpoints.latest(tmp_path) == checkpoints.path_of(tmp_path, 4)
    paths = [checkpoints.path_of(tmp_path, e) for e in (3, 4)]
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


def icefall_load_checkpoint(path, model, optimizer):
    """What icefall.checkpoint.load_checkpoint does."""
    checkpoint = torch.load(path, map_location="cpu")
    model.load_state_dict(checkpoint.pop("model"), strict=False)
    optimizer.load_state_dict(checkpoint.pop("optimizer"))
    assert all(checkpoint[name] is None for name in ("scheduler", "grad_scaler", "sampler"))
    return checkpoint


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_icefall_reads_checkpoints(tmp_path, name):
    config = TrainConfig(4, 1e-2, 1e-3, weight_decay=1e-2, seed=3, optimizer=name)
    losses = iter([3.0, 1.0, 2.0, 1.5])
    trained, model = model_(), model_()
    history = train(trained, batches, 4, loss_fn, tmp_path, config, valid_fn=lambda m: {"loss": next(losses)})
    optimizer = (torch.optim.Adam if name == "adam" else torch.optim.AdamW)(model.parameters())
    rest = icefall_load_checkpoint(tmp_path / "epoch-4.pt", model, optimizer)
    assert same(trained, model) and rest["epoch"] == 4
    assert float(rest["best_valid_loss"]) == 1.0 and rest["best_valid_epoch"] == 2
    assert float(rest["best_train_loss"]) == pytest.approx(min(row["loss"] for row in history))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(history[-1]["lr"])
    for batch in batches(5):
        loss_fn(model, batch, 1.0)[0].backward()
        optimizer.step()
    assert checkpoints.load(tmp_path / checkpoints.BEST)["epoch"] == 2
    assert not same(trained, model)


def test_reads_icefalls_checkpoints(tmp_path):
    """Of a model in torch's DistributedDataParallel too."""
    state = {f"module.{name}": value for name, value in model_().state_dict().items()}
    torch.save({"model": state, "optimizer": None, "best_train_loss": 1.5, "batch_idx_train": 7}, tmp_path / "epoch-1.pt")
    if torch.__version__.startswith("1."):  # whose safe reader knows no floats
        torch.save({"model": state, "optimizer": None, "batch_idx_train": 7}, tmp_path / "epoch-1.pt")
    read = model_()
    with torch.no_grad():
        read[0].weight.zero_()
    read.load_state_dict(checkpoints.load_model(tmp_path / "epoch-1.pt"))
    assert same(read, model_())


def test_start_epoch(tmp_path):
    """Goes on after the epoch before it, whatever there is beyond."""
    expected = train(model_(), batches, 4, loss_fn, tmp_path, CONFIG)
    again = train(model_(), batches, 4, loss_fn, tmp_path, replace(CONFIG, start_epoch=3))
    assert rows(again) == rows(expected)
    with pytest.raises(Stop):
        train(model_(), until(1, 2), 4, loss_fn, tmp_path, replace(CONFIG, start_epoch=1))
    assert checkpoints.numbers(tmp_path) == []
    with pytest.raises(PyserError, match="epoch-2.pt: no such checkpoint"):
        train(model_(), batches, 4, loss_fn, tmp_path, replace(CONFIG, start_epoch=3))


def test_start_epoch_deletes_last(tmp_path):
    """What it cannot go on from costs no checkpoint; best-valid-loss.pt is one of those that are left."""
    losses = iter([0.3, 0.2, 0.4, 0.1, 0.5, 0.6])

    def run(epochs=CONFIG.num_epochs, start=0, steps=batches):
        train(model_(), steps, 4, loss_fn, tmp_path, replace(CONFIG, num_epochs=epochs, start_epoch=start),
              valid_fn=lambda m: {"loss": next(losses)})

    run()
    best = tmp_path / checkpoints.BEST
    assert checkpoints.load(best)["epoch"] == 4
    with pytest.raises(PyserError, match="num_epochs 4 -> 8.: the learning rate falls over all epochs"):
        run(epochs=8, start=3)
    (tmp_path / "epoch-1.pt").rename(tmp_path / "aside")
    with pytest.raises(PyserError, match="epoch-1.pt: no such checkpoint"):
        run(start=2)
    assert checkpoints.numbers(tmp_path) == [2, 3, 4] and checkpoints.load(best)["epoch"] == 4
    run(start=3)
    assert checkpoints.numbers(tmp_path) == [2, 3, 4] and checkpoints.load(best)["epoch"] == 2
    with pytest.raises(Stop):
        run(start=1, steps=until(1, 2))
    assert checkpoints.numbers(tmp_path) == [] and not best.exists()


def test_max_param_change(tmp_path):
    model, changes = model_(), []
    before = [p.detach().clone() for p in model.parameters()]

    def after(model):
        changes.append(float(torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).norm()))
        before[:] = [p.detach().clone() for p in model.parameters()]
    train(model, batches, 4, loss_fn, tmp_path / "a", TrainConfig(1, 1e-2, 1e-5, max_param_change=0.01), after_step=after)
    assert changes[:2] == pytest.approx([0.01, 0.01], rel=1e-3) and changes[3] < 0.005  # a short step is left alone


@pytest.mark.parametrize("values,message", [
    ({"optimizer": "sgd"}, "optimizer is sgd; it must be one of adam, adamw, ng-sgd"),
    ({"precision": "int8"}, "precision is int8"),
    ({"precision": "float16", "optimizer": "ng-sgd"}, "float16 needs"),
    ({"start_epoch": 9}, "start_epoch is 9"),
    ({"lr_final": 0.0}, "both must be above 0"),
])
def test_settings_that_cannot_be(values, message):
    with pytest.raises(PyserError, match=message):
        replace(CONFIG, **values)


def test_ng_sgd_needs_layers(tmp_path):
    with pytest.raises(PyserError, match="ng-sgd needs a network of affine layers"):
        train(model_(), batches, 4, loss_fn, tmp_path, replace(CONFIG, optimizer="ng-sgd"))


def test_lines_tell_the_rate_and_the_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pyser.training.progress.REPORT_SECONDS", 0.0)
    train(model_(), batches, 4, loss_fn, tmp_path, TrainConfig(2, 1e-2, 1e-3, counted="utterances"))
    line = capsys.readouterr().out.splitlines()[1]
    told = r"  epoch 1 step 2/4: loss [\d.]+ progress 0.0625 lr 0.0075 \d+ utterances/s eta 0:00:0\d"
    assert re.fullmatch(told, line), line


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    history = train(model_(), batches, 4, loss_fn, tmp_path, TrainConfig(2, 1e-2, 1e-3))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(8))
    assert [event.value for event in events.Scalars("epoch/loss")] == pytest.approx([row["loss"] for row in history])


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in model.parameters()]


def test_accumulated_batches_make_one_step(tmp_path):
    """Their mean by weight, whatever the weights; a rest at the end of an epoch is a step as well."""
    torch.manual_seed(0)
    start = nn.Linear(5, 3)
    model, seen = nn.Linear(5, 3), []
    model.load_state_dict(start.state_dict())
    x, label = torch.randn(7, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    parts = [slice(0, 3), slice(3, 4), slice(4, 4), slice(4, 7)]

    def loss_of(model, part, progress):
        if part.start == part.stop:
            return model.weight.sum() * 0, {"weight": 0.0}
        return nn.functional.cross_entropy(model(x[part]), label[part]), {"weight": float(part.stop - part.start)}

    def record(model):
        seen.append([p.grad.clone() for p in model.parameters()])

    config = TrainConfig(1, 1e-30, 1e-30, max_grad_norm=1e9, accumulate=3)  # (nothing moves: gradients can be compared)
    history = train(model, lambda epoch: parts, 4, loss_of, tmp_path, config, after_step=record)
    assert len(seen) == 2 and history[0]["weight"] == 7
    for got, wanted in zip(seen, (slice(0, 4), slice(4, 7)), strict=True):
        for a, b in zip(got, gradients(start, nn.functional.cross_entropy(start(x[wanted]), label[wanted])), strict=True):
            torch.testing.assert_close(a, b)
    loss = nn.functional.cross_entropy(start(x), label).item()
    assert history[0]["loss"] == pytest.approx(loss)


def test_learning_rate_factors(tmp_path):
    """Of Adam's first step, which moves each parameter by its learning rate."""
    config = replace(CONFIG, optimizer="adam", weight_decay=0.0, learning_rate_factors=(("0.", 10.0), ("4.bias", 0.1)))
    model, before = model_(), dict(model_().named_parameters())
    train(model, lambda epoch: list(batches(epoch))[:1], 1, loss_fn, tmp_path, replace(config, num_epochs=1))
    moved = {name: float((p - before[name]).abs().max()) for name, p in model.named_parameters()}
    for name, factor in {"0.weight": 10, "1.weight": 1, "4.weight": 1, "4.bias": 0.1}.items():
        assert moved[name] == pytest.approx(1e-2 * factor, rel=1e-3)
    expected = train(model_(), batches, 4, loss_fn, tmp_path / "a", config)
    with pytest.raises(Stop):
        train(model_(), until(3, 2), 4, loss_fn, tmp_path / "b", config)
    assert rows(train(model_(), batches, 4, loss_fn, tmp_path / "b", config)) == rows(expected)
    with pytest.raises(PyserError, match="knows no learning rate factors"):
        replace(config, optimizer="ng-sgd")


def test_a_checkpoint_without_later_settings(tmp_path):
    """One that was written when there were fewer goes on, as with their defaults."""
    train(model_(), batches, 4, loss_fn, tmp_path, CONFIG)
    state = checkpoints.load(tmp_path / "epoch-4.pt")
    for name in ("accumulate", "learning_rate_factors"):
        del state["config"][name]
    checkpoints.save(tmp_path / "epoch-4.pt", state)
    assert len(train(model_(), batches, 4, loss_fn, tmp_path, CONFIG)) == 4
    with pytest.raises(PyserError, match="accumulate 1 -> 2"):
        train(model_(), batches, 4, loss_fn, tmp_path, replace(CONFIG, accumulate=2))


def test_it_ends_when_a_figure_stops_rising(tmp_path):
    """After two epochs in which it has not, by all epochs if it is interrupted in between; an equal one is no rise."""
    figures = [0.1, 0.5, 0.4, 0.5, 0.4, 0.3, 0.9]
    losses = [1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0]
    config = replace(CONFIG, num_epochs=7, keep_best="score", patience=2)

    def valid_fn(start):
        later = iter(zip(figures[start:], losses[start:], strict=True))
        return lambda model: dict(zip(("score", "loss"), next(later), strict=True))

    history = train(model_(), batches, 4, loss_fn, tmp_path / "a", config, valid_fn=valid_fn(0))
    assert [row["valid_score"] for row in history] == figures[:4]
    assert best_epoch(history, "score")["epoch"] == 4  # of equal ones that of the lower loss
    train(model_(), batches, 4, loss_fn, tmp_path / "b", replace(config, patience=1), valid_fn=valid_fn(0))
    assert checkpoints.numbers(tmp_path / "b") == [1, 2, 3]
    again = train(model_(), batches, 4, loss_fn, tmp_path / "b", config, valid_fn=valid_fn(3))  # patience may change
    assert rows(again) == rows(history)
    with pytest.raises(PyserError, match="needs a figure to look at"):
        replace(CONFIG, patience=2)
