"""Lattice-free MMI, Kaldi's objective (src/chain/chain-training.cc), by one of two engines.

For an utterance with network outputs y (T, C) the objective is log p(num, y) - log p(den, y), where p(graph, y) sums
exp(score) over all paths of T arcs through the graph (Povey et al., "Purely sequence-trained neural networks for ASR
based on lattice-free MMI", 2016). See pyser.chain.numerator and pyser.chain.denominator for the two sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyser.chain import intersection, numerator
from pyser.chain.denominator import LIMIT, Denominator
from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.libraries import import_k2

EXACT_BEAM = 1000.0  # nats; exp(-1000) is 0 even in double precision, so nothing that counts is pruned


@dataclass(frozen=True)
class LfMmiConfig:
    """Kaldi's chain options, run_tdnn_1g.sh's values.

    leaky_hmm_coefficient: 0 gives a denominator from the graph's start to its final states, without a leak, as in k2
    out_of_range_regularize: pulls outputs beyond +-30, which the denominator does not see, back; in the derivative only
    output_beam: nats, for the k2 engine. icefall's usual 8 is off by up to 0.05 nats a frame on outputs that are still
    flat, and gradients by up to 0.6.
    """

    leaky_hmm_coefficient: float = 0.1
    xent_regularize: float = 0.1
    l2_regularize: float = 5e-5
    out_of_range_regularize: float = 0.01
    output_beam: float = EXACT_BEAM


class LfMmi:
    """The chain objective.

    graph : the denominator; its pdfs are columns of the network's output
    engine : native, pyser's own (compiled, or torch on a GPU and where there was no compiler), or k2, which needs a config
        with leaky_hmm_coefficient=0
    """

    def __init__(self, graph: Graph, engine: str = "native", config: LfMmiConfig | None = None):
        self.config = config or LfMmiConfig()
        if engine not in ("native", "k2"):
            raise PyserError(f"engine is {engine}; it must be native or k2")
        if engine == "k2" and self.config.leaky_hmm_coefficient != 0:
            raise PyserError(f"engine k2 has no leak, leaky_hmm_coefficient is {self.config.leaky_hmm_coefficient:g}: give "
                             "LfMmiConfig(leaky_hmm_coefficient=0), in a conf file --leaky-hmm-coefficient=0; or take the "
                             "native engine")
        self.engine = engine
        self.denominator = Denominator(graph, self.config.leaky_hmm_coefficient)
        if engine == "k2":
            self.fsa = import_k2().create_fsa_vec([graph.to_k2()])

    def numerator_scores(self, graphs: Sequence[Graph], output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (N,) and posteriors (N, T, C) of the transcripts' graphs; see pyser.chain.numerator.total_scores."""
        if self.engine == "native":
            return numerator.total_scores(graphs, output, lengths)
        fsas = import_k2().create_fsa_vec([graph.to_k2() for graph in graphs])
        return intersection.total_scores(fsas, output, lengths, self.config.output_beam)

    def denominator_scores(self, output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same of the denominator; the posteriors are the derivative by the limited outputs."""
        if self.engine == "native":
            return self.denominator(output, lengths)
        return intersection.total_scores(self.fsa, output.clamp(-LIMIT, LIMIT), lengths, self.config.output_beam)

    def __call__(
        self,
        output: Tensor,
        output_xent: Tensor | None,
        lengths: Tensor,
        graphs: Sequence[Graph],
        warm_up: bool = False,
        penalize: bool | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss per frame and its sums over the batch.

        output, output_xent : (N, T, C), raw and log-softmaxed (None: without that branch); lengths : (N,) frames
        graphs : the N transcripts' graphs, pdfs as in the denominator
        warm_up : a softmax in place of the denominator, so that the objective is CTC's; its sum is counted in num
        penalize : apply the out-of-range penalty, doubled, in this call; None: in every second one that needs it, by
            torch's dice

        loss = (den - num - xent_regularize * sum(num_posteriors * output_xent) + l2/2 * sum(output^2)) / frames.
        Utterances whose transcript does not fit into their frames, or with outputs that are not numbers, contribute
        nothing; stats["skipped"] is the number of their frames. The other sums are weight (frames), objf (num - den),
        num, den and xent.
        """
        with torch.autocast(output.device.type, enabled=False):
            return self._loss(output, output_xent, lengths, graphs, warm_up, penalize)

    def _loss(self, output: Tensor, output_xent: Tensor | None, lengths: Tensor, graphs: Sequence[Graph],
              warm_up: bool, penalize: bool | None) -> tuple[Tensor, dict[str, float]]:
        y = output.detach()
        y = y if y.dtype == torch.float64 else y.float()
        num, posteriors = self.numerator_scores(graphs, y, lengths)
        den = torch.zeros_like(num)
        if warm_up:
            scores, gradient = _softmax_scores(y, lengths)
            num = num - scores
        else:
            den, gradient = self.denominator_scores(y, lengths)
        gradient = torch.sub(posteriors, gradient, out=gradient)
        fits = torch.isfinite(num) & torch.isfinite(den)
        lengths = lengths.to(y.device)
        if not bool(fits.all()):
            gradient[~fits], posteriors[~fits] = 0, 0
        weight = float(lengths[fits].sum())
        num_sum, den_sum = num[fits].sum(), den[fits].sum()
        objf = num_sum - den_sum
        inside = (torch.arange(y.shape[1], device=y.device) < lengths[:, None]) & fits[:, None]  # (N, T)
        counted = y if bool(inside.all()) else torch.where(inside[..., None], y, torch.zeros_like(y))
        value = objf
        if self.config.l2_regularize != 0:
            value = objf - 0.5 * self.config.l2_regularize * counted.double().square().sum()
            gradient.sub_(counted, alpha=self.config.l2_regularize)
        if penalize is None:
            low, high = counted.aminmax()
            outside = output.requires_grad and (low < -LIMIT or high > LIMIT)
            penalize = bool(outside) and int(torch.randint(2, ())) == 0
        if penalize:
            excess = counted - counted.clamp(-LIMIT, LIMIT)
            gradient.sub_(excess, alpha=2 * self.config.out_of_range_regularize)
        frames = max(weight, 1.0)
        loss = _Objective.apply(output, value, gradient) / -frames
        xent = None
        if output_xent is not None:
            xent = (torch.where(fits[:, None, None], output_xent, 0.0) * posteriors).sum()
            loss = loss - self.config.xent_regularize / frames * xent
        stats = {
            "weight": weight,
            "objf": float(objf),
            "num": float(num_sum),
            "den": float(den_sum),
            "xent": 0.0 if xent is None else float(xent.detach()),
            "skipped": float(lengths[~fits].sum()),
        }
        return loss, stats


class _Objective(torch.autograd.Function):
    """A value with a known derivative."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = output.dtype
        return value.to(gradient.dtype)

    @staticmethod
    def backward(ctx: Any, *scale: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return (scale[0] * gradient).to(ctx.dtype), None, None


def _softmax_scores(output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Of a denominator that allows every sequence of outputs: the sum of the frames' log-sum-exps, and the softmax."""
    inside = torch.arange(output.shape[1], device=output.device) < lengths.to(output.device)[:, None]
    scores = torch.where(inside, output.double().logsumexp(dim=-1), 0.0).sum(dim=1)
    return scores, torch.where(inside[..., None], output.softmax(dim=-1), torch.zeros_like(output))
