"""The exact denominator against enumeration of every path and its derivative."""

from __future__ import annotations

import pytest
import torch

from pyser.chain.denominator import Denominator
from pyser.errors import PyserError

# (source, destination, label, score); state 0 starts, -1 leads to the final state
PHONE_LOOP = [(0, 0, 0, -0.3), (0, 1, 1, -1.2), (0, 2, 2, -0.7), (1, 1, 1, -0.1), (1, 0, 0, -0.4), (1, 2, 2, -0.9),
              (2, 2, 2, -0.2), (2, 0, 0, -0.6), (2, 1, 1, -1.1), (0, 3, -1, -0.5), (1, 3, -1, -0.8), (2, 3, -1, 0.0)]
# state 3 is entered by two labels and by parallel arcs, state 4 is a dead end
TANGLE = [(0, 1, 0, -0.3), (0, 3, 2, 0.4), (1, 3, 1, -0.2), (1, 3, 1, -1.0), (1, 3, 2, -0.7), (3, 1, 0, -0.5),
          (3, 3, 1, -0.6), (3, 4, 2, -0.1), (3, 0, 2, -0.9), (3, 5, -1, -0.5), (0, 5, -1, -2.0)]


def enumerate_paths(arcs, y):
    """Log of the sum over all label sequences and all state sequences; y (T, C) float64, differentiable."""
    total = []

    def walk(state, t, score):
        for s, d, label, weight in arcs:
            if s != state:
                continue
            if label == -1 and t == len(y):
                total.append(score + weight)
            elif label >= 0 and t < len(y):
                walk(d, t + 1, score + weight + y[t, label])
    walk(0, 0, torch.zeros((), dtype=torch.float64))
    return torch.logsumexp(torch.stack(total), 0) if total else torch.tensor(-float("inf"), dtype=torch.float64)


def denominator(arcs):
    return Denominator(torch.tensor([a[:3] for a in arcs]), torch.tensor([a[3] for a in arcs], dtype=torch.float64))


@pytest.mark.parametrize("arcs", [PHONE_LOOP, TANGLE])
def test_scores_and_posteriors(arcs):
    y = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0)) * 3
    lengths = torch.tensor([4, 6, 1])
    scores, posteriors = denominator(arcs)(y, lengths)
    for n, length in enumerate(lengths):
        frames = y[n, :length].double().requires_grad_()
        expected = enumerate_paths(arcs, frames)
        expected.backward()
        assert scores[n].item() == pytest.approx(expected.item(), abs=1e-9)
        torch.testing.assert_close(posteriors[n, :length].double(), frames.grad, atol=1e-6, rtol=0)
        assert not posteriors[n, length:].any()


def test_extreme_outputs():
    y = torch.zeros(1, 300, 3)
    y[..., 1] = 200.0  # a trained network is sure of itself; the loop lets it
    scores, posteriors = denominator(PHONE_LOOP)(y.log_softmax(-1), torch.tensor([300]))
    assert scores.item() == pytest.approx(-1.2 - 299 * 0.1 - 0.8, abs=1e-3)
    torch.testing.assert_close(posteriors[0, :, 1], torch.ones(300))


def test_no_path():
    arcs = [(0, 1, 1, 0.0), (1, 2, 2, 0.0), (2, 3, -1, 0.0)]  # two frames exactly
    y = torch.randn(3, 3, 3)
    scores, posteriors = denominator(arcs)(y, torch.tensor([2, 1, 3]))
    assert scores[0].item() == pytest.approx((y[0, 0, 1] + y[0, 1, 2]).item(), abs=1e-6)
    assert torch.isneginf(scores[1:]).all() and not posteriors[1:].any()
    with pytest.raises(PyserError, match="no arcs"):
        denominator([(0, 1, -1, 0.0)])
