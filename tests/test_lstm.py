"""Bidirectional LSTMs on padded sequences against loops in double precision, and torch's own on one sequence."""

import numpy as np
import pytest
import torch

from pyser.nn.lstm import BiLstm, turned

LENGTHS = torch.tensor([7, 0, 1, 4])


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def inputs(longest=7, fill=0.0):
    """Four sequences, the same ones whatever is behind their ends."""
    x = torch.full((4, longest, 3), fill)
    for n, length in enumerate(LENGTHS.tolist()):
        x[n, :length] = torch.randn(length, 3, generator=torch.Generator().manual_seed(n))
    return x


def direction(lstm, x):
    """One layer, (T, D) -> (T, units), as the equations say it."""
    names = [f"{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    w, u, a, b = (getattr(lstm, name).detach().double().numpy() for name in names)
    hidden = cell = np.zeros(u.shape[1])
    out = np.zeros((len(x), u.shape[1]))
    for t, frame in enumerate(x):
        i, f, g, o = np.split(w @ frame + u @ hidden + a + b, 4)
        cell = cell / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        hidden = out[t] = np.tanh(cell) / (1 + np.exp(-o))
    return out


def test_it_is_the_loop():
    lstm = BiLstm(3, 5, 2)
    found = lstm(inputs(), LENGTHS).detach().numpy()
    for n, length in enumerate(LENGTHS.tolist()):
        x = inputs()[n, :length].double().numpy()
        for ahead, back in zip(lstm.ahead, lstm.back, strict=True):
            x = np.concatenate([direction(ahead, x), direction(back, x[::-1])[::-1]], axis=1)
        assert np.allclose(found[n, :length], x, atol=1e-6) and not found[n, length:].any()


def test_padding_counts_for_nothing():
    """Neither how much there is nor what stands in it, in outputs and in gradients."""
    lstm, seen = BiLstm(3, 5, 2), []
    for longest, fill in ((7, 0.0), (11, torch.nan)):
        out = lstm(inputs(longest, fill), LENGTHS)
        assert out.shape == (4, longest, 10) and not out[:, 7:].any()
        seen.append([out[:, :7], *torch.autograd.grad(out.square().sum(), list(lstm.parameters()))])
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other)


def test_torchs_own():
    """Of the same parameters."""
    lstm, own = BiLstm(3, 5, 2), torch.nn.LSTM(3, 5, 2, batch_first=True, bidirectional=True)
    parts = {f"{name}_l{number}{suffix}": getattr(layer, f"{name}_l0")
             for suffix, layers in (("", lstm.ahead), ("_reverse", lstm.back)) for number, layer in enumerate(layers)
             for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    own.load_state_dict(parts)
    x = inputs()[:1]
    torch.testing.assert_close(lstm(x, LENGTHS[:1]), own(x)[0])


def test_turned():
    assert turned(LENGTHS, 7, torch.device("cpu")).tolist() == [
        [6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], [3, 2, 1, 0, 4, 5, 6]]
