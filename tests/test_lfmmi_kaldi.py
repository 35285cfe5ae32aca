"""Kaldi's own values and derivatives of the chain objective (tests/golden/lfmmi; derivatives there are in millionths)."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pyser import native
from pyser.chain import Graph, LfMmi, LfMmiConfig, numerator
from pyser.chain.denominator import Denominator

GOLDEN = Path(__file__).parent / "golden/lfmmi"
CASES = ["mono_e2e", "mono_e2e_clamp", "mono_ali", "biphone_e2e"]


def den_text(case):
    return gzip.decompress((GOLDEN / f"den_{case.split('_')[0]}.txt.gz").read_bytes()).decode()


class Case:
    def __init__(self, name):
        data = dict(np.load(GOLDEN / f"{name}.npz"))
        self.den = Graph.from_text(den_text(name))
        self.output = torch.from_numpy(data["output"])  # (N, T, C)
        self.lengths = torch.full((len(self.output),), self.output.shape[1])
        self.graphs = [Graph.from_text(text) for text in data["supervision"].tolist()]
        self.initial = data["initial"]
        self.scalars = str(data["scalars"])
        self.step = 5 if name == "biphone_e2e" else 1  # every fifth frame is kept
        self.derivatives = {key: torch.from_numpy(value * 1e-6) for key, value in data.items() if value.dtype == np.int32}
        if len(self.graphs) < len(self.output):  # one graph for all utterances, one after the other
            self.joined, self.joined_lengths = self.output.flatten(0, 1)[None], self.lengths.sum()[None]
        else:
            self.joined, self.joined_lengths = self.output, self.lengths

    def scalar(self, name):
        return [float(word) for word in re.search(re.escape(name) + r" ([-+.e\d ]+)", self.scalars)[1].split()]

    def differs(self, name, ours):
        return float((ours.reshape(self.output.shape)[:, :: self.step] - self.derivatives[name]).abs().max())


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


@pytest.fixture(params=["compiled", "torch"])
def engine(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(native, "library", None)
    elif native.library is None:
        pytest.skip("needs a C++ compiler")


def test_initial_probabilities(case):
    ours = case.den.probabilities()
    start = int(den_text("mono" if case.den.num_states == 141 else "biphone").split()[0])
    ours[[0, start]] = ours[[start, 0]]  # from_text makes the start state number 0
    np.testing.assert_allclose(ours, case.initial, atol=1e-8)


@pytest.mark.parametrize("leak", ["0.1", "1e-5"])
def test_denominator(case, engine, leak):
    scores, posteriors = Denominator(case.den, float(leak))(case.output, case.lengths)
    np.testing.assert_allclose(scores, case.scalar(f"den_logprob_per_sequence[leaky{leak}]"), rtol=1e-6)
    if f"den_leaky{leak}" in case.derivatives:
        assert case.differs(f"den_leaky{leak}", posteriors) < 1e-5


def test_numerator(case, engine):
    scores, posteriors = numerator.total_scores(case.graphs, case.joined, case.joined_lengths)
    assert scores.sum().item() == pytest.approx(case.scalar("num_logprob_weighted")[0], rel=2e-6)
    if "num" in case.derivatives:
        assert case.differs("num", posteriors) < 1e-4


@pytest.mark.parametrize(("name", "l2", "penalize", "derivative"), [
    ("mono_e2e", 0.0, False, "combined_leaky0.1"), ("mono_e2e", 5e-5, False, "combined_leaky0.1_l2_5e-5"),
    ("mono_e2e_clamp", 0.0, False, "combined_leaky0.1"),
    ("mono_e2e_clamp", 0.0, True, "combined_other_penalty_draw_leaky0.1"),
    ("biphone_e2e", 0.0, False, "combined_leaky0.1")])
def test_objective(name, engine, l2, penalize, derivative):
    case = Case(name)
    output = case.output.clone().requires_grad_()
    loss, stats = LfMmi(case.den, config=LfMmiConfig(l2_regularize=l2))(
        output, None, case.lengths, case.graphs, penalize=penalize)
    loss.backward()
    assert stats["weight"] == case.lengths.sum()
    assert stats["objf"] == pytest.approx(case.scalar("objf[leaky0.1]")[0], rel=1e-6)
    term = float(re.search(r"with_l2_5e-5: .* l2_term ([-.\d]+)", case.scalars)[1]) if l2 else 0.0
    assert -loss.item() * stats["weight"] == pytest.approx(stats["objf"] + term, rel=1e-6)
    assert case.differs(derivative, -output.grad * stats["weight"]) < 1e-4


def test_objective_of_alignments(engine):
    """One acyclic graph for both utterances: Kaldi's objective is the difference of the sums."""
    case = Case("mono_ali")
    lfmmi = LfMmi(case.den)
    num, num_posteriors = lfmmi.numerator_scores(case.graphs, case.joined, case.joined_lengths)
    den, den_posteriors = lfmmi.denominator_scores(case.output, case.lengths)
    assert (num.sum() - den.sum()).item() == pytest.approx(case.scalar("objf[leaky0.1]")[0], rel=1e-6)
    difference = num_posteriors.reshape(den_posteriors.shape) - den_posteriors
    assert case.differs("combined_leaky0.1", difference) < 1e-5


def test_k2_agrees(case, engine):
    """k2, exact and without a leak, on Kaldi's graphs, in batches of unequal lengths; one and the same derivative."""
    pytest.importorskip("k2", reason="needs k2 (default stack)")
    output, lengths = case.output, case.lengths
    if case.joined is not case.output:  # (its numerator takes all frames)
        output, lengths = case.joined, case.joined_lengths
    elif len(lengths) > 1:
        lengths = torch.tensor([60, 37])
    config = LfMmiConfig(leaky_hmm_coefficient=0.0)
    found = []
    for name in ("native", "k2"):
        lfmmi, y = LfMmi(case.den, name, config), output.clone().requires_grad_()
        sums = (lfmmi.numerator_scores(case.graphs, output, lengths), lfmmi.denominator_scores(output, lengths))
        loss, stats = lfmmi(y, None, lengths, case.graphs, penalize=False)
        loss.backward()
        assert stats["skipped"] == 0 and stats["weight"] == lengths.sum()
        found.append((*sums, (loss.detach(), y.grad)))
    for (ours, derivative), (theirs, expected) in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=1e-5)
        torch.testing.assert_close(derivative, expected, atol=1e-4, rtol=0)


def test_penalty_is_tossed():
    case = Case("mono_e2e_clamp")
    lfmmi = LfMmi(case.den, config=LfMmiConfig(l2_regularize=0.0))

    def gradient(output, penalize=None):
        output = output.clone().requires_grad_()
        lfmmi(output, None, case.lengths, case.graphs, penalize=penalize)[0].backward()
        return output.grad

    without, penalized = gradient(case.output, False), gradient(case.output, True)
    torch.manual_seed(0)
    seen = [gradient(case.output) for _ in range(12)]
    count = sum(torch.equal(one, penalized) for one in seen)
    assert 2 <= count <= 10 and all(torch.equal(one, penalized) or torch.equal(one, without) for one in seen)
    state = torch.random.get_rng_state()
    gradient(case.output.clamp(-30, 30))
    assert torch.equal(state, torch.random.get_rng_state())  # nothing outside: no dice
