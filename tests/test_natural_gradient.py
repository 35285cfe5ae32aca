"""Kaldi's online natural gradient against its definition, in the network's layers, and on an ill-conditioned problem."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pyser.nn.tdnnf import Affine
from pyser.training.natural_gradient import NaturalGradientConfig, OnlineNaturalGradient, rows_sums
from pyser.training.ng_sgd import NgSgd, NgSgdConfig


@pytest.fixture(autouse=True)
def one_thread():
    """Products as small as these wait for one another on several threads of a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Definition:
    """The formulas at the head of natural-gradient-online.h, in float64, with F and its inverse written out."""

    def __init__(self, dim, rank, alpha=4.0, history=2000.0, period=4):
        self.alpha, self.history, self.period, self.t = alpha, history, period, 0
        self.r = np.zeros((rank, dim))
        for row in range(rank):
            self.r[row, row::rank] = 1
            self.r[row, row] = 1.1
        self.r /= np.linalg.norm(self.r, axis=1, keepdims=True)
        self.d, self.rho = np.full(rank, 1e-10), 1e-10

    def fisher(self):
        return self.r.T @ np.diag(self.d) @ self.r + self.rho * np.eye(self.r.shape[1])

    def update(self, x):
        rank, dim = self.r.shape
        eta = min(0.9, 1 - math.exp(-len(x) / self.history))
        t = eta * x.T @ x / len(x) + (1 - eta) * self.fisher()
        y = self.r @ t
        c, u = np.linalg.eigh(y @ y.T)
        c, u = c[::-1], u[:, ::-1]
        self.r = np.diag(c**-0.5) @ u.T @ y
        rho = (np.trace(t) - np.sqrt(c).sum()) / (dim - rank)
        floor = max(1e-10, 5e-4 * np.sqrt(c).max())
        self.d, self.rho = np.maximum(np.sqrt(c) - rho, floor), max(rho, floor)

    def precondition(self, x):
        if self.t == 0:
            for _ in range(3):
                self.update(x)
        fisher = self.fisher()
        changed = x @ np.linalg.inv(fisher + self.alpha / x.shape[1] * np.trace(fisher) * np.eye(x.shape[1]))
        changed *= np.linalg.norm(x) / np.linalg.norm(changed)
        if self.t <= 10 or (self.t - 10) % self.period == 0:
            self.update(x)
        self.t += 1
        return changed


def batches(num, rows=400, dim=30, seed=0):
    """Gaussian rows, whose first directions are strong, and which drift."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0] * np.geomspace(10, 0.1, dim)[:, None]
    for _ in range(num):
        basis += 0.01 * rng.standard_normal(basis.shape)
        yield rng.standard_normal((rows, dim)) @ basis


def apply(state, x):
    rows = torch.from_numpy(x).float()
    if state.t == 0:
        state.start(lambda w: rows_sums(rows, w))
    sums = rows_sums(rows, state.w, state.updating)
    changed = state.scale(sums) * state.precondition(rows)
    state.step(sums)
    return changed.double().numpy()


@pytest.mark.parametrize("rank,period,alpha", [(6, 4, 4.0), (20, 1, 1.0)])
def test_is_what_its_formulas_say(rank, period, alpha):
    ours = OnlineNaturalGradient(30, NaturalGradientConfig(rank, alpha, update_period=period))
    definition = Definition(30, rank, alpha, period=period)
    for x in batches(25):
        expected, found = definition.precondition(x), apply(ours, x)
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(x)
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(x), rel=1e-5)
        assert np.linalg.norm(found - x) > 0.1 * np.linalg.norm(x)
    assert np.abs(definition.d / ours.d.double().numpy() - 1).max() < 1e-3
    r = ours.w.double() / ours.w.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(r @ r.t(), torch.eye(rank).double(), rtol=0, atol=1e-3)


def test_update_period():
    state, seen = OnlineNaturalGradient(30, NaturalGradientConfig(5)), []
    for x in batches(20):
        before = state.w.clone()
        apply(state, x)
        seen.append(not torch.equal(before, state.w))
    assert [t for t, updated in enumerate(seen) if updated] == [*range(11), 14, 18]


def test_zeros_few_rows_and_one_column():
    state = OnlineNaturalGradient(30, NaturalGradientConfig(5))
    for _ in range(3):
        assert (apply(state, np.zeros((4, 30))) == 0).all()
    for x in batches(5, rows=3):  # fewer than the rank, after nothing
        assert np.linalg.norm(apply(state, x)) == pytest.approx(np.linalg.norm(x), rel=1e-4)
    one = OnlineNaturalGradient(1)
    assert (apply(one, np.ones((4, 1))) == 1).all()
    wide = OnlineNaturalGradient(3)
    assert wide.rank == 2 and np.isfinite(apply(wide, np.ones((4, 3)))).all()


def test_spoilt_rows_are_made_orthogonal_again():
    state = OnlineNaturalGradient(30, NaturalGradientConfig(8))
    rng = np.random.default_rng(0)
    for scale in (1.0, 1.0, 1e4, 1e4, 1e4, 1.0, 1.0):  # one direction far above the rounding of the others
        x = rng.standard_normal((400, 30))
        x[:, 0] *= scale
        apply(state, x)
        r = state.w.double() / state.w.double().norm(dim=1, keepdim=True)
        torch.testing.assert_close(r @ r.t(), torch.eye(8).double(), rtol=0, atol=2e-3)


def preconditioned_by_rows(affine, x, g, inputs, outputs):
    """Kaldi's way: the rows of input (with a one) and of derivative, each preconditioned, then multiplied."""
    span = g.shape[1]
    taps = [x[:, x.shape[1] - span :]] if affine.kernel_size[0] == 1 else [x[:, :span], x[:, x.shape[1] - span :]]
    rows = torch.cat([tap.reshape(-1, x.shape[2]) for tap in taps], dim=1)
    if affine.bias is not None:
        rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    derivative = g.reshape(-1, g.shape[2])
    changed = [torch.from_numpy(apply(state, part.double().numpy())) for state, part in
               ((inputs, rows), (outputs, derivative))]
    return changed[1].t() @ changed[0]  # (outputs, inputs + 1)


@pytest.mark.parametrize("stride,bias", [(0, True), (3, True), (1, False)])
def test_layer_equals_rows(stride, bias):
    """Layer and optimiser change the summed gradient; Kaldi changes its rows. Both are the same."""
    torch.manual_seed(1)
    affine = Affine(7, 9, stride, bias=bias)
    config = NgSgdConfig(max_param_change=0.0)
    optimizer = NgSgd([(affine, {"max_change": 0.0, "l2_regularize": 0.0})], lr=1e-5, config=config)
    size = 7 * affine.kernel_size[0] + bias
    inputs = OnlineNaturalGradient(size, NaturalGradientConfig(min(20, (size + 1 - bias) // 2)))
    outputs = OnlineNaturalGradient(9, NaturalGradientConfig(5))
    for _ in range(14):
        x = torch.randn(4, 40, 7) * torch.linspace(0.1, 3, 7)
        before = [p.detach().clone() for p in affine.parameters()]
        y = affine(x)
        spread = torch.linspace(0.2, 2, 9)
        g = 2 * spread**2 * y.detach()
        optimizer.zero_grad()
        (spread * y).square().sum().backward()
        optimizer.step()
        expected = preconditioned_by_rows(affine, x, g, inputs, outputs)
        delta = (before[0] - affine.weight).permute(0, 2, 1).reshape(9, -1)
        if bias:
            delta = torch.cat([delta, (before[1] - affine.bias)[:, None]], dim=1)
        torch.testing.assert_close(delta.detach().double() / 1e-5, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def regression(optimizer_of, steps=150):
    """A linear regression whose inputs have a condition number of 1e4."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(40, 40))[0] * torch.logspace(0, -2, 40)[:, None]
    truth = torch.randn(40, 10) * 10
    affine = Affine(40, 10, zero=True)
    optimizer = optimizer_of(affine)
    for _ in range(steps):
        x = torch.randn(256, 40) @ basis
        loss = F.mse_loss(affine(x[:, None])[:, 0], x @ truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss)


def test_beats_plain_sgd_where_it_is_ill_conditioned():
    def natural(lr):
        return regression(lambda m: NgSgd([(m, {"max_change": 0.0, "l2_regularize": 0.0})], lr, NgSgdConfig(0.0)))

    rates = (0.3, 1.0, 3.0, 10.0)
    plain = min(loss for lr in rates if math.isfinite(
        loss := regression(lambda m, lr=lr: torch.optim.SGD(m.parameters(), lr))))
    best = min(loss for lr in rates if math.isfinite(loss := natural(lr)))
    assert best < plain / 2


def test_max_change_and_l2():
    torch.manual_seed(0)
    first, second = Affine(5, 6), Affine(6, 4)
    options = [{"max_change": 0.1, "l2_regularize": 0.0}, {"max_change": 10.0, "l2_regularize": 0.0}]
    optimizer = NgSgd(list(zip((first, second), options, strict=True)), lr=1.0, config=NgSgdConfig(0.25))
    old = [torch.cat([p.detach().flatten().clone() for p in m.parameters()]) for m in (first, second)]
    (100 * second(first(torch.randn(3, 20, 5)))).square().sum().backward()
    optimizer.step()
    change = [float((torch.cat([p.detach().flatten() for p in m.parameters()]) - o).norm()) for m, o in
              zip((first, second), old, strict=True)]
    assert math.hypot(*change) == pytest.approx(0.25, rel=1e-4)  # of all together
    assert change[0] / change[1] == pytest.approx(0.1 / 10.0, rel=1e-4)  # after that of each

    affine = Affine(5, 6)
    before = affine.weight.detach().clone()
    optimizer = NgSgd([(affine, {"max_change": 0.0, "l2_regularize": 0.01, "learning_rate_factor": 2.0})], 0.1,
                      NgSgdConfig(0.0))
    (affine(torch.randn(3, 20, 5)) * 0).sum().backward()
    optimizer.step()  # ApplyL2Regularization: -2 * l2 * learning rate * number of sequences
    torch.testing.assert_close(affine.weight.detach(), before * (1 - 2 * 0.01 * 0.2 * 3))


def test_state_goes_on():
    """Saved and loaded after any step, the estimates go on to the last bit."""
    def run(saved_after):
        torch.manual_seed(0)
        affine = Affine(5, 6, 1)
        optimizer = NgSgd([(affine, {})], 0.01)
        for step in range(16):
            if step == saved_after:
                weights, state = affine.state_dict(), optimizer.state_dict()
                affine = Affine(5, 6, 1)
                affine.load_state_dict(weights)
                optimizer = NgSgd([(affine, {})], 0.01)
                optimizer.load_state_dict(state)
            torch.manual_seed(step)
            optimizer.zero_grad()
            affine(torch.randn(3, 20, 5)).square().sum().backward()
            optimizer.step()
        return affine.weight
    expected = run(None)
    assert all(torch.equal(run(at), expected) for at in (1, 9, 12))
