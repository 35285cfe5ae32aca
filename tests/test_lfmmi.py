"""LF-MMI: pyser's compiled code, its torch and k2 against enumeration of every path and against each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pyser import native
from pyser.chain import Graph, LfMmi, LfMmiConfig, denominator, numerator
from pyser.chain.denominator import Denominator
from pyser.chain.intersection import total_scores as k2_scores
from pyser.errors import PyserError

try:
    import k2
except ImportError:
    k2 = None
needs_k2 = pytest.mark.skipif(k2 is None, reason="needs k2 (default stack)")
needs_library = pytest.mark.skipif(native.library is None, reason="needs a C++ compiler")
ENGINES = [pytest.param("compiled", marks=needs_library), "torch", pytest.param("k2", marks=needs_k2)]
NO_LEAK = LfMmiConfig(leaky_hmm_coefficient=0.0)

# (source, destination, pdf, weight); state 0 starts
PHONE_LOOP = ([(0, 0, 0, -0.3), (0, 1, 1, -1.2), (0, 2, 2, -0.7), (1, 1, 1, -0.1), (1, 0, 0, -0.4), (1, 2, 2, -0.9),
               (2, 2, 2, -0.2), (2, 0, 0, -0.6), (2, 1, 1, -1.1)], {0: -0.5, 1: -0.8, 2: 0.0})
# state 3 is entered by two pdfs and by parallel arcs, state 4 is a dead end
TANGLE = ([(0, 1, 0, -0.3), (0, 3, 2, 0.4), (1, 3, 1, -0.2), (1, 3, 1, -1.0), (1, 3, 2, -0.7), (3, 1, 0, -0.5),
           (3, 3, 1, -0.6), (3, 4, 2, -0.1), (3, 0, 2, -0.9)], {3: -0.5, 0: -2.0, 4: -np.inf})
ONE_TWO = ([(0, 0, 0, -0.3), (0, 1, 1, -1.2), (1, 1, 1, -0.1), (1, 2, 0, -0.4), (2, 2, 0, -0.3), (2, 3, 2, -0.7),
            (1, 3, 2, -0.9), (3, 3, 2, -0.2), (3, 4, 0, -0.6), (4, 4, 0, -0.3)], {3: 0.0, 4: -0.5})
TWO = ([(0, 0, 0, -0.3), (0, 1, 2, -0.7), (1, 1, 2, -0.2), (1, 2, 0, -0.6), (2, 2, 0, -0.3)], {1: 0.0, 2: -0.5})


def graph(description):
    arcs, finals = description
    final = np.full(max(max(a[:2]) for a in arcs) + 1, -np.inf)
    final[list(finals)] = list(finals.values())
    return Graph(np.array([a[:3] for a in arcs]), np.array([a[3] for a in arcs]), final)


def enumerate_paths(description, y):
    """Log of the sum over all paths; y (T, C) float64, differentiable."""
    arcs, finals = description
    total = []

    def walk(state, t, score):
        if t == len(y):
            if state in finals:
                total.append(score + finals[state])
            return
        for source, target, pdf, weight in arcs:
            if source == state:
                walk(target, t + 1, score + weight + y[t, pdf])
    walk(0, 0, torch.zeros((), dtype=torch.float64))
    return torch.logsumexp(torch.stack(total), 0) if total else torch.tensor(-float("inf"), dtype=torch.float64)


def random_graph(states, arcs, pdfs, seed):
    rng = np.random.default_rng(seed)
    ends = np.concatenate([np.arange(states).repeat(2), rng.integers(states, size=(arcs - 2 * states))])
    table = np.stack([ends, rng.integers(states, size=arcs), rng.integers(pdfs, size=arcs)], axis=1)
    finals = np.where(rng.random(states) < 0.5, -rng.exponential(size=states), -np.inf)
    finals[0] = -1.0
    return Graph(table, -rng.exponential(2.0, arcs), finals)


def make(engine, den, config, monkeypatch):
    if engine == "torch":
        monkeypatch.setattr(native, "library", None)
    return LfMmi(den, "k2" if engine == "k2" else "native", config)


def example(seed=0, lengths=(4, 6, 5)):
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(3, 6, 3, generator=generator) * 2
    xent = torch.randn(3, 6, 3, generator=generator).log_softmax(-1)
    return output, xent, torch.tensor(lengths), [ONE_TWO, TWO, ONE_TWO]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("description", [PHONE_LOOP, TANGLE, ONE_TWO])
def test_sums_over_paths(engine, description, monkeypatch):
    """As a denominator and as numerators."""
    y = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0)) * 3
    lengths = torch.tensor([4, 6, 2])
    lfmmi = make(engine, graph(description), NO_LEAK, monkeypatch)
    for scores, posteriors in (lfmmi.denominator_scores(y, lengths),
                               lfmmi.numerator_scores([graph(description)] * 3, y, lengths)):
        for n, length in enumerate(lengths):
            frames = y[n, :length].double().requires_grad_()
            expected = enumerate_paths(description, frames)
            expected.backward()
            assert scores[n].item() == pytest.approx(expected.item(), abs=1e-5)
            torch.testing.assert_close(posteriors[n, :length].double(), frames.grad, atol=1e-5, rtol=0)
            assert not posteriors[n, length:].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.filterwarnings("error")  # users would see them in every training
def test_loss_and_gradient(engine, warm_up, monkeypatch):
    output, xent, lengths, descriptions = example()
    graphs = [graph(description) for description in descriptions]
    lfmmi = make(engine, graph(PHONE_LOOP), LfMmiConfig(0.0, xent_regularize=0.1, l2_regularize=0.01), monkeypatch)
    output.requires_grad_()
    xent.requires_grad_()
    loss, stats = lfmmi(output, xent, lengths, graphs, warm_up)
    loss.backward()
    _, posteriors = lfmmi.numerator_scores(graphs, output.detach(), lengths)

    def reference(y, x):
        value = torch.zeros((), dtype=torch.float64)
        for n, length in enumerate(lengths):
            log_probs = y[n, :length].log_softmax(-1)
            value = value - enumerate_paths(descriptions[n], log_probs)
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
    assert stats["weight"] == 15 and stats["skipped"] == 0 and (stats["den"] == 0) == warm_up
    assert warm_up or stats["objf"] <= 0


@pytest.mark.parametrize("leak", [0.0, 0.1])
def test_gradcheck(leak):
    """In float64, torch computes."""
    output, xent, lengths, descriptions = example(1)
    lfmmi = LfMmi(graph(TANGLE), config=LfMmiConfig(leak, l2_regularize=0.01))
    output = output.double().requires_grad_()
    graphs = [graph(description) for description in descriptions]
    assert torch.autograd.gradcheck(lambda y: lfmmi(y, None, lengths, graphs)[0], (output,), atol=1e-7)


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_leak(engine, monkeypatch):
    """Kaldi's formulae with dense matrices, differentiated by torch."""
    den = graph(TANGLE)
    states, leak = den.num_states, 0.2
    y = (torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(3)) * 4).double().requires_grad_()
    lengths = torch.tensor([7, 3])
    initial = torch.from_numpy(den.probabilities())
    expected = []
    for n, length in enumerate(lengths):
        alpha = initial + leak * initial
        for t in range(length):
            transition = torch.zeros(states, states, dtype=torch.float64)
            for (source, target, pdf), weight in zip(den.arcs.tolist(), den.weights, strict=True):
                transition[source, target] += (weight + y[n, t, pdf]).exp()
            alpha = alpha @ transition
            alpha = alpha + leak * initial * alpha.sum()
        expected.append(alpha.sum().log())
    sum(expected).backward()
    lfmmi = make(engine, den, LfMmiConfig(leak), monkeypatch)
    scores, posteriors = lfmmi.denominator_scores(y.detach().float(), lengths)
    torch.testing.assert_close(scores, torch.stack(expected).detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(posteriors.double(), y.grad, atol=2e-6, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_engines_agree(seed, scale, monkeypatch):
    """Ragged batches that do not fill the vectors, through random graphs."""
    rng = np.random.default_rng(seed)
    num, frames, pdfs = int(rng.integers(1, 40)), int(rng.integers(5, 60)), int(rng.integers(2, 40))
    states = int(rng.integers(2, 30))
    den = random_graph(states, 5 * states, pdfs, seed)
    graphs = [random_graph(s, 4 * s, pdfs, n) for n, s in enumerate(rng.integers(2, 20, size=num).tolist())]
    y = torch.from_numpy(rng.standard_normal((num, frames, pdfs))).float() * scale
    lengths = torch.from_numpy(rng.integers(1, frames + 1, size=num))
    kaldi = Denominator(den)
    both = [(numerator.torch_scores(graphs, y, lengths), Denominator(den, 0.0).in_torch(y, lengths))]
    if native.library is not None:
        both.append((numerator.compiled_scores(graphs, y, lengths), Denominator(den, 0.0).compiled(y, lengths)))
        for ours, theirs in zip(kaldi.compiled(y, lengths), kaldi.in_torch(y, lengths), strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-6)
    if k2 is not None:
        fsas = k2.create_fsa_vec([g.to_k2() for g in graphs])
        both.append((k2_scores(fsas, y, lengths, 1000.0),
                     k2_scores(k2.create_fsa_vec([den.to_k2()]), y.clamp(-30, 30), lengths, 1000.0)))
    for others in both[1:]:
        for (scores, posteriors), (others_scores, others_posteriors) in zip(both[0], others, strict=True):
            torch.testing.assert_close(scores / lengths, others_scores / lengths, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(posteriors, others_posteriors, atol=1e-4, rtol=0)


# Two ways: the likely one (pdf 0) never ends, so that all that counts is the unlikely one (pdf 1).
GARDEN_PATH = ([(0, 1, 0, 0.0), (1, 1, 0, 0.0), (0, 2, 1, -0.5), (2, 2, 1, -0.5), (1, 2, 2, -80.0)], {2: -1.0})


@pytest.mark.parametrize("engine", ENGINES[:2])
@pytest.mark.parametrize("frames", [3, 10, 40])  # fits float32, double, only logarithms
def test_garden_path(engine, frames, monkeypatch):
    y = torch.zeros(2, frames, 3)
    y[..., 0], y[..., 1], y[..., 2] = 30.0, -30.0, -10000.0
    lengths = torch.tensor([frames, frames])
    y[1, :, 0] = -25.0  # an easy one beside it
    lfmmi = make(engine, graph(GARDEN_PATH), NO_LEAK, monkeypatch)
    scores, posteriors = lfmmi.numerator_scores([graph(GARDEN_PATH)] * 2, y, lengths)
    torch.testing.assert_close(scores, torch.full((2,), -30.5 * frames - 1.0, dtype=torch.float64))
    torch.testing.assert_close(posteriors[..., 1], torch.ones(2, frames))
    y[..., 2] = -30.0
    scores, posteriors = lfmmi.denominator_scores(y, lengths)
    exact = [enumerate_garden(row, frames) for row in y]
    torch.testing.assert_close(scores, torch.stack(exact).double(), atol=1e-3, rtol=1e-6)
    torch.testing.assert_close(posteriors.sum(-1), torch.ones(2, frames))


def enumerate_garden(y, frames):
    """GARDEN_PATH's paths by the frame at which they leave the likely way."""
    y = y.double()
    ways = [y[:, 1].sum() - 0.5 * frames]
    ways += [y[:at, 0].sum() + y[at, 2] - 80 + y[at + 1 :, 1].sum() - 0.5 * (frames - at - 1) for at in range(1, frames)]
    return torch.logsumexp(torch.stack(ways), 0) - 1.0


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_extreme_outputs(engine, monkeypatch):
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.standard_normal((4, 80, 10))).float() * 1000
    lengths, graphs = torch.tensor([80, 3, 50, 80]), [random_graph(12, 40, 10, seed) for seed in range(4)]
    lfmmi = make(engine, graphs[0], NO_LEAK, monkeypatch)
    for scores, posteriors in (lfmmi.numerator_scores(graphs, y, lengths), lfmmi.denominator_scores(y, lengths)):
        reached = torch.isfinite(scores)
        assert reached[[0, 2, 3]].all()
        for n in range(4):
            torch.testing.assert_close(posteriors[n].sum(-1)[: lengths[n]], torch.full((int(lengths[n]),), float(reached[n])))
    expected = numerator.torch_scores(graphs, y, lengths)[0]
    torch.testing.assert_close(lfmmi.numerator_scores(graphs, y, lengths)[0], expected, atol=1e-3, rtol=1e-7)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_path(engine, monkeypatch):
    two_frames = graph(([(0, 1, 1, 0.0), (1, 2, 2, 0.0)], {2: 0.0}))
    y = torch.randn(3, 3, 3)
    lengths = torch.tensor([2, 1, 3])
    lfmmi = make(engine, two_frames, NO_LEAK, monkeypatch)
    for scores, posteriors in (lfmmi.denominator_scores(y, lengths), lfmmi.numerator_scores([two_frames] * 3, y, lengths)):
        assert scores[0].item() == pytest.approx((y[0, 0, 1] + y[0, 1, 2]).item(), abs=1e-6)
        assert torch.isneginf(scores[1:]).all() and not posteriors[1:].any()


@pytest.mark.parametrize("engine", ENGINES)
def test_utterances_that_do_not_fit_are_masked(engine, monkeypatch):
    lfmmi = make(engine, graph(PHONE_LOOP), NO_LEAK, monkeypatch)
    output, xent, _, descriptions = example()
    graphs = [graph(description) for description in descriptions]
    output.requires_grad_()
    loss, stats = lfmmi(output, xent, torch.tensor([1, 6, 5]), graphs)  # "1 2" does not fit into one frame
    loss.backward()
    assert stats["skipped"] == 1 and stats["weight"] == 11
    assert not output.grad[0].any() and output.grad[1:].abs().sum() > 0
    expected = lfmmi(output[1:].detach(), xent[1:], torch.tensor([6, 5]), graphs[1:])[0]
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss, stats = lfmmi(output[::2], xent[::2], torch.tensor([1, 1]), graphs[::2])
    output.grad = None
    loss.backward()
    assert loss.item() == 0 and stats["weight"] == 0 and stats["skipped"] == 2 and not output.grad.any()


@pytest.mark.parametrize("engine", ENGINES[:2])
@pytest.mark.parametrize("leak", [0.0, 0.1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_numbers(engine, leak, value, monkeypatch):
    lfmmi = make(engine, graph(PHONE_LOOP), LfMmiConfig(leak), monkeypatch)
    output, xent, lengths, descriptions = example()
    graphs = [graph(description) for description in descriptions]
    expected = lfmmi(output[1:], xent[1:], lengths[1:], graphs[1:])[0]
    output[0, 2], xent[0, 2] = value, value
    output.requires_grad_()
    loss, stats = lfmmi(output, xent, lengths, graphs)
    loss.backward()
    assert stats["skipped"] == 4 and loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert not output.grad[0].any() and torch.isfinite(output.grad).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_autocast(engine, monkeypatch):
    """The network's outputs come in half precision; what is summed is not."""
    lfmmi = make(engine, graph(PHONE_LOOP), NO_LEAK, monkeypatch)
    output, xent, lengths, descriptions = example()
    graphs = [graph(description) for description in descriptions]
    output, xent = output.bfloat16(), xent.bfloat16()
    expected, _ = lfmmi(output.float(), xent.float(), lengths, graphs)
    output.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = lfmmi(output, xent, lengths, graphs)
    loss.backward()
    assert loss.dtype == torch.float32 and output.grad.dtype == torch.bfloat16
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


@needs_library
@pytest.mark.parametrize("frames", [1, 2, 10, 37, 64])
def test_little_memory(frames, monkeypatch):
    """Computed twice, the states' probabilities are the same to the last bit."""
    rng = np.random.default_rng(frames)
    den = Denominator(random_graph(20, 70, 9, frames))
    y, lengths = torch.from_numpy(rng.standard_normal((18, frames, 9))).float(), torch.randint(1, frames + 1, (18,))
    expected = den.compiled(y, lengths)
    monkeypatch.setattr(denominator, "MEMORY", 0.0)
    assert all(torch.equal(*pair) for pair in zip(den.compiled(y, lengths), expected, strict=True))


def test_mistakes():
    y, lengths, den = torch.randn(2, 4, 3), torch.tensor([4, 2]), Denominator(graph(PHONE_LOOP))
    with pytest.raises(PyserError, match="no arcs"):
        Denominator(Graph(np.zeros((0, 3)), np.zeros(0), np.zeros(1)))
    with pytest.raises(PyserError, match=r"k2 has no leak.* is 0.1: give LfMmiConfig\(leaky_hmm_coefficient=0\)"):
        LfMmi(graph(PHONE_LOOP), "k2")
    with pytest.raises(PyserError, match="native or k2"):
        LfMmi(graph(PHONE_LOOP), "kaldi")
    with pytest.raises(PyserError, match="leaky-hmm-coefficient"):
        LfMmi(graph(PHONE_LOOP), config=LfMmiConfig(1.0))
    for bad in (torch.tensor([4, 0]), torch.tensor([5, 1])):
        with pytest.raises(ValueError, match="lengths from"):
            den(y, bad)
    with pytest.raises(ValueError, match="3 pdfs, the network has 2"):
        den(y[..., :2], lengths)
    with pytest.raises(ValueError, match="1 graphs"):
        numerator.total_scores([graph(TWO)], y, lengths)
