"""Two processes on halves of a batch do what one does on the whole; kill -9 and resume change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pyser  # noqa: F401  (before torch)

# isort: split
import torch

from pyser.errors import PyserError
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.training import checkpoints, distributed
from pyser.training.loop import TrainConfig, set_seed, train

NETWORK = TdnnfConfig(feat_dim=4, ivector_dim=3, dim=12, bottleneck_dim=5, prefinal_dim=6, strides=(1, 0, 3), num_pdfs=6)
LRS = {"adamw": (1e-2, 1e-3), "ng-sgd": (2e-3, 2e-4)}


def batches(epoch, rank, size):
    """Four batches of 6 sequences whose 9 output frames say what the features say; each process takes its sequences."""
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(4):
        x = torch.randn(6, 5 + 27 + 5, 4, generator=generator)
        ivector = torch.randn(6, 3, generator=generator)
        y = (x[:, 5:32:3, 0] > 0).long() + 2 * (ivector[:, 0] > 0).long()[:, None]
        mine = slice(rank, None, size) if size > 1 else slice(None)
        if size > 1 and epoch == 2:
            mine = slice(0, 4) if rank == 0 else slice(4, None)  # parts of unequal size
        yield x[mine], ivector[mine], y[mine]


def work(exp, optimizer, stop_at=None):
    """A training, to be run in each process; stop_at: (epoch, step) to die at."""
    torch.set_num_threads(1)
    rank, size = distributed.rank(), distributed.world_size()

    def parts(epoch):
        for step, batch in enumerate(batches(epoch, rank, size)):
            if stop_at == (epoch, step):
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    def loss_fn(model, batch, progress):
        x, ivector, y = batch
        output, xent = model(x, ivector, subsampling=3)
        loss = torch.nn.functional.nll_loss(xent.flatten(0, 1), y.flatten()) + 0.01 * output.square().mean() + 0.1 * (
            output.log_softmax(2).flatten(0, 1)[:, 0].mean())
        return loss, {"weight": float(y.numel()), "right": float((xent.argmax(2) == y).sum())}

    set_seed(5, rank)  # of another model in each process, so that process 0's has to be taken
    model = TdnnF(NETWORK)
    with torch.no_grad():  # (an output layer of zeros leaves the others' first derivatives to rounding)
        model.chain.output.weight.normal_(std=0.3)
        model.xent.output.weight.normal_(std=0.3)
    config = TrainConfig(3, *LRS[optimizer], optimizer=optimizer, max_param_change=0.5)
    train(model, parts, 4, loss_fn, exp, config, after_step=TdnnF.constrain_orthonormal, components=model.components())


def work_twice(exp):
    for optimizer in LRS:
        work(exp / optimizer, optimizer)


def figures(exp):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads((exp / "history.json").read_text())]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A training in two processes with each optimiser."""
    exp = tmp_path_factory.mktemp("two")
    distributed.launch(work_twice, 2, exp)
    return exp


@pytest.mark.parametrize("optimizer", list(LRS))
def test_two_processes_equal_one(two, tmp_path, optimizer):
    work(tmp_path, optimizer)
    one, other = figures(tmp_path), figures(two / optimizer)
    assert len(one) == 3 and one[2]["loss"] < one[0]["loss"]
    for a, b in zip(one, other, strict=True):
        # AdamW's steps are as large where a derivative is but rounding.
        assert b == pytest.approx(a, rel=1e-4) if optimizer == "ng-sgd" else b == pytest.approx(a, rel=2e-3, abs=0.01)
    if optimizer == "adamw":
        return
    models = [checkpoints.load(exp / "epoch-3.pt")["model"] for exp in (tmp_path, two / optimizer)]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-3, atol=1e-3)


def test_killed_and_resumed_under_torchrun(two, tmp_path):
    """Two processes, killed in the second epoch and started again, give the losses of a run without a break."""
    with pytest.raises(PyserError, match="process . of 2 ended with"):
        distributed.launch(work, 2, tmp_path / "exp", "ng-sgd", (2, 1))
    assert checkpoints.numbers(tmp_path / "exp") == [1]
    script = tmp_path / "run.py"
    script.write_text("import sys, pathlib, pyser\nfrom pyser.training import distributed\nimport test_training_distributed\n"
                      "distributed.launch(test_training_distributed.work, 1, pathlib.Path(sys.argv[1]), 'ng-sgd')\n")
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script),
         str(tmp_path / "exp")],
        check=True, capture_output=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(pyser.__file__).parents[1])])},
    )
    assert figures(tmp_path / "exp") == figures(two / "ng-sgd")


def test_another_world_size_than_torchruns(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(PyserError, match="--world-size 2, but torchrun started 3"):
        distributed.launch(work_twice, 2)


def wait_for_the_end(folder):
    (folder / f"{os.getpid()}").touch()
    time.sleep(60)


def test_no_process_outlives_its_launcher(tmp_path):
    script = ("import sys, pathlib, pyser\nfrom pyser.training import distributed\nimport test_training_distributed as t\n"
              "if __name__ == '__main__':\n    distributed.launch(t.wait_for_the_end, 2, pathlib.Path(sys.argv[1]))\n")
    (tmp_path / "run.py").write_text(script)
    (tmp_path / "started").mkdir()
    head = subprocess.Popen([sys.executable, str(tmp_path / "run.py"), str(tmp_path / "started")],
                            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
    deadline = time.monotonic() + 40
    while len(list((tmp_path / "started").iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = [int(path.name) for path in (tmp_path / "started").iterdir()]
    assert len(workers) == 2
    head.kill()
    head.wait()
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, workers))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
