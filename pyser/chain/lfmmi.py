"""Lattice-free MMI: numerators by k2, the denominator by pyser.chain.denominator (exact) or by k2 (pruned).

For an utterance with network outputs y (T, C), the objective is log p(num, y) - log p(den, y), where p(graph, y) sums
exp(score) over all paths of T labels through the graph and a path scores its arcs plus y[t, label] at each frame
(Povey et al., "Purely sequence-trained neural networks for ASR based on lattice-free MMI", 2016; graphs as in icefall).
Both graphs are k2 acceptors whose labels are columns of y (0 is blank). Every path takes one column per frame, so
log-softmax of y changes nothing in the difference and makes the numerator alone the CTC objective.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyser.chain.denominator import Denominator
from pyser.errors import PyserError

try:
    import k2
except ImportError as error:
    raise PyserError("needs k2: run local/install.sh (default stack)") from error

EXACT_BEAM = 1000.0  # nats; exp(-1000) is 0 even in double precision, so nothing that counts is pruned


@dataclass(frozen=True)
class LfMmiConfig:
    """`num_output_beam` (nats): k2's pruning of the numerator lattices, exact by default. `den_output_beam`: 0 is the
    exact forward-backward; above 0, k2's lattices pruned to that beam. icefall's usual 8 is off by up to 0.05 nats a
    frame on outputs that are still flat, and slower."""

    xent_regularize: float = 0.1
    l2_regularize: float = 5e-5
    num_output_beam: float = EXACT_BEAM
    den_output_beam: float = 0.0


def total_scores(graphs: Any, log_probs: Tensor, lengths: Tensor, output_beam: float) -> tuple[Tensor, Tensor]:
    """Log of the summed path weights of each utterance, and its derivative: the posteriors.

    graphs : k2 FsaVec of N graphs, or of one graph that serves all
    log_probs : (N, T, C) float32; only the first `lengths` frames of each count
    lengths : (N,), at least 1
    Returns scores (N,) float64, -inf where no path fits, and posteriors (N, T, C), zero there and in the padding.
    """
    num = log_probs.shape[0]
    if (graphs.shape[0] not in (1, num)) or len(lengths) != num:
        raise ValueError(f"{graphs.shape[0]} graphs and {len(lengths)} lengths for {num} utterances")
    order = torch.argsort(lengths.cpu(), descending=True, stable=True)  # intersect_dense wants the longest first
    segments = torch.stack([order, torch.zeros_like(order), lengths.cpu()[order]], dim=1).int()
    rows = (order if graphs.shape[0] == num else torch.zeros_like(order)).int()
    with torch.enable_grad():
        leaf = log_probs.detach().float().to(graphs.device).requires_grad_()
        dense = k2.DenseFsaVec(leaf, segments)
        lattices = k2.intersect_dense(k2.index_fsa(graphs, rows.to(graphs.device)), dense, output_beam)
        sorted_scores = lattices.get_tot_scores(use_double_scores=True, log_semiring=True)
        possible = torch.isfinite(sorted_scores)
        if possible.any():
            sorted_scores[possible].sum().backward()
    scores = torch.empty_like(sorted_scores.detach())
    scores[order.to(scores.device)] = sorted_scores.detach()
    posteriors = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
    return scores.to(log_probs.device), posteriors.to(log_probs.device)


class LfMmi:
    """The chain objective.

    den_graph : k2 Fsa, phone language model composed with the topology; its labels are columns of the output
    device : where the network runs; a k2 without CUDA computes on the CPU all the same
    """

    def __init__(self, den_graph: Any, config: LfMmiConfig | None = None, device: torch.device | str = "cpu"):
        self.config = config or LfMmiConfig()
        self.k2_device = torch.device(device if k2.with_cuda else "cpu")
        graph = acceptor(den_graph)
        self.denominator = Denominator(graph.arcs.values()[:, :3], graph.scores, device)
        self.den_graph = k2.create_fsa_vec([k2.arc_sort(graph)]).to(self.k2_device)

    def _denominator(self, log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.den_output_beam > 0:
            return total_scores(self.den_graph, log_probs, lengths, self.config.den_output_beam)
        return self.denominator(log_probs, lengths)

    def __call__(
        self, output: Tensor, output_xent: Tensor, lengths: Tensor, num_graphs: Any, warm_up: bool = False
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss per frame and its sums over the batch.

        output, output_xent : (N, T, C), raw and log-softmaxed; lengths : (N,) frames
        num_graphs : k2 FsaVec of N transcripts' graphs, labels as in the denominator graph
        warm_up : leave the denominator out, so that the objective is CTC's

        loss = (den - num - xent_regularize * sum(num_posteriors * output_xent) + l2/2 * sum(output^2)) / frames.
        Utterances whose transcript does not fit into their frames contribute nothing; stats["skipped"] is the number
        of their frames. The other sums are weight (frames), objf (num - den), num, den and xent.
        """
        log_probs = output.log_softmax(dim=-1)
        num_graphs = num_graphs.to(self.k2_device)
        num, gradient = total_scores(num_graphs, log_probs, lengths, self.config.num_output_beam)
        posteriors = gradient
        den = torch.zeros_like(num)
        if not warm_up:
            den, den_posteriors = self._denominator(log_probs, lengths)
            gradient = gradient - den_posteriors
        fits = torch.isfinite(num) & torch.isfinite(den)
        lengths = lengths.to(output.device)
        frame = torch.arange(output.shape[1], device=output.device)
        mask = (frame < lengths[:, None]) & fits[:, None]  # (N, T)
        gradient, posteriors = gradient * mask[..., None], posteriors * mask[..., None]
        weight = float(lengths[fits].sum())
        frames = max(weight, 1.0)
        num_sum, den_sum = num[fits].sum(), den[fits].sum()
        objf = num_sum - den_sum
        # The lattices are differentiated already: a linear term carries their gradient, the value is put in its place.
        linear = (log_probs * gradient).sum()
        linear = linear + (objf.to(linear.dtype) - linear).detach()
        xent = (output_xent * posteriors).sum()
        square = (output.square() * mask[..., None]).sum()
        loss = (0.5 * self.config.l2_regularize * square - linear - self.config.xent_regularize * xent) / frames
        stats = {
            "weight": weight,
            "objf": float(objf),
            "num": float(num_sum),
            "den": float(den_sum),
            "xent": float(xent),
            "skipped": float(lengths[~fits].sum()),
        }
        return loss, stats


def acceptor(fsa: Any) -> Any:
    """`fsa` with its labels and scores only: output labels and other attributes cost time in every intersection."""
    arcs = fsa.arcs.values()[:, :3]
    return k2.Fsa(torch.cat([arcs, fsa.scores.detach().float().view(torch.int32)[:, None]], dim=1).contiguous())
