"""LF-MMI against enumeration of every path, and its gradient against finite differences of that enumeration."""

from __future__ import annotations

import itertools

import pytest
import torch

k2 = pytest.importorskip("k2", reason="needs k2 (default stack)")

from test_denominator import PHONE_LOOP, enumerate_paths  # noqa: E402

from pyser.chain.lfmmi import LfMmi, LfMmiConfig, total_scores  # noqa: E402

# (source, destination, label, score); state 0 starts, -1 leads to the final state
ONE_TWO = [(0, 0, 0, -0.3), (0, 1, 1, -1.2), (1, 1, 1, -0.1), (1, 2, 0, -0.4), (2, 2, 0, -0.3), (2, 3, 2, -0.7),
           (1, 3, 2, -0.9), (3, 3, 2, -0.2), (3, 4, 0, -0.6), (4, 4, 0, -0.3), (3, 5, -1, 0.0), (4, 5, -1, -0.5)]
TWO = [(0, 0, 0, -0.3), (0, 1, 2, -0.7), (1, 1, 2, -0.2), (1, 2, 0, -0.6), (2, 2, 0, -0.3), (1, 3, -1, 0.0),
       (2, 3, -1, -0.5)]


def fsa(arcs):
    lines = [f"{s} {d} {label} {score}" for s, d, label, score in sorted(arcs, key=lambda a: (a[0], a[1]))]
    return k2.arc_sort(k2.Fsa.from_str("\n".join([*lines, str(max(a[1] for a in arcs))])))


def example(seed=0, lengths=(4, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(3, 6, 3, generator=generator) * 2
    xent = torch.randn(3, 6, 3, generator=generator).log_softmax(-1)
    graphs = k2.create_fsa_vec([fsa(ONE_TWO), fsa(TWO), fsa(ONE_TWO)])
    return output, xent, torch.tensor(lengths), graphs, [ONE_TWO, TWO, ONE_TWO]


def test_total_scores_and_posteriors():
    output, _, lengths, graphs, arcs = example()
    scores, posteriors = total_scores(graphs, output, lengths, 1000.0)
    for n, length in enumerate(lengths):
        y = output[n, :length].double().requires_grad_()
        expected = enumerate_paths(arcs[n], y)
        expected.backward()
        assert scores[n].item() == pytest.approx(expected.item(), abs=1e-5)
        torch.testing.assert_close(posteriors[n, :length].double(), y.grad, atol=1e-5, rtol=0)
        assert not posteriors[n, length:].any()


@pytest.mark.parametrize("beam", [0.0, 1000.0])
@pytest.mark.parametrize("warm_up", [False, True])
def test_loss_and_gradient(warm_up, beam):
    output, xent, lengths, graphs, arcs = example()
    lfmmi = LfMmi(fsa(PHONE_LOOP), LfMmiConfig(xent_regularize=0.1, l2_regularize=0.01, den_output_beam=beam))
    output.requires_grad_()
    xent.requires_grad_()
    loss, stats = lfmmi(output, xent, lengths, graphs, warm_up)
    loss.backward()

    _, posteriors = total_scores(graphs, output.detach().log_softmax(-1), lengths, 1000.0)

    def reference(y, x):
        value = torch.zeros((), dtype=torch.float64)
        for n, length in enumerate(lengths):
            log_probs = y[n, :length].log_softmax(-1)
            value = value - enumerate_paths(arcs[n], log_probs)
            if not warm_up:
                value = value + enumerate_paths(PHONE_LOOP, log_probs)
            value = value - 0.1 * (posteriors[n, :length].double() * x[n, :length]).sum()
            value = value + 0.005 * y[n, :length].square().sum()
        return value / lengths.sum()

    y, x = output.detach().double().requires_grad_(), xent.detach().double().requires_grad_()
    expected = reference(y, x)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(output.grad.double(), y.grad, atol=2e-6, rtol=0)
    torch.testing.assert_close(xent.grad.double(), x.grad, atol=2e-6, rtol=0)
    for n, t, c in itertools.product(range(3), (0, 3, 5), range(3)):
        step = torch.zeros_like(y)
        step[n, t, c] = 1e-4
        with torch.no_grad():
            slope = (reference(y + step, x) - reference(y - step, x)) / 2e-4
        assert output.grad[n, t, c].item() == pytest.approx(slope.item(), abs=1e-5)
    assert stats["weight"] == 15 and stats["skipped"] == 0


def test_denominator_is_above_numerator():
    for seed in range(5):
        output, xent, lengths, graphs, _ = example(seed)
        _, stats = LfMmi(fsa(PHONE_LOOP))(output, xent, lengths, graphs)
        assert stats["den"] >= stats["num"] and stats["objf"] <= 0


def test_k2_and_own_denominator_agree():
    generator = torch.Generator().manual_seed(5)
    y = (torch.randn(4, 40, 3, generator=generator) * 5).log_softmax(-1)
    lengths = torch.tensor([7, 40, 1, 23])
    lfmmi = LfMmi(fsa(PHONE_LOOP))
    both = lfmmi.denominator(y, lengths), total_scores(lfmmi.den_graph, y, lengths, 1000.0)
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_log_softmax_cancels():
    output, xent, lengths, graphs, _ = example()
    lfmmi = LfMmi(fsa(PHONE_LOOP))
    shifted = output + torch.randn(3, 6, 1)
    assert lfmmi(output, xent, lengths, graphs)[1]["objf"] == pytest.approx(
        lfmmi(shifted, xent, lengths, graphs)[1]["objf"], abs=1e-4)


def test_too_short_utterances_are_masked():
    lfmmi = LfMmi(fsa(PHONE_LOOP))
    output, xent, _, graphs, _ = example()
    output.requires_grad_()
    loss, stats = lfmmi(output, xent, torch.tensor([1, 6, 5]), graphs)  # "1 2" does not fit into one frame
    loss.backward()
    assert stats["skipped"] == 1 and stats["weight"] == 11
    assert not output.grad[0].any() and output.grad[1:].abs().sum() > 0
    short = k2.create_fsa_vec([fsa(TWO), fsa(ONE_TWO)])
    expected = lfmmi(output[1:].detach(), xent[1:], torch.tensor([6, 5]), short)[0]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_nothing_fits():
    output, xent, _, graphs, _ = example()
    graphs = k2.create_fsa_vec([fsa(ONE_TWO)] * 3)
    output.requires_grad_()
    loss, stats = LfMmi(fsa(PHONE_LOOP))(output, xent, torch.tensor([1, 1, 1]), graphs)
    loss.backward()
    assert loss.item() == 0 and stats["weight"] == 0 and stats["skipped"] == 3 and not output.grad.any()
