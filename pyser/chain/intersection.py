"""Sums over the paths of graphs by k2's intersect_dense: the reference for pyser's own engine, and icefall's way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyser.libraries import import_k2


def total_scores(graphs: Any, output: Tensor, lengths: Tensor, output_beam: float) -> tuple[Tensor, Tensor]:
    """Log of the summed path weights of each utterance, and its derivative: the posteriors.

    graphs : k2 FsaVec of N graphs, or of one graph that serves all
    output : (N, T, C) float32; only the first `lengths` frames of each count
    lengths : (N,), at least 1
    output_beam : nats, k2's pruning of the lattices
    Returns scores (N,) float64, -inf where no path fits, and posteriors (N, T, C), zero there and in the padding.
    """
    k2 = import_k2()
    num = output.shape[0]
    if (graphs.shape[0] not in (1, num)) or len(lengths) != num:
        raise ValueError(f"{graphs.shape[0]} graphs and {len(lengths)} lengths for {num} utterances")
    order = torch.argsort(lengths.cpu(), descending=True, stable=True)  # intersect_dense wants the longest first
    segments = torch.stack([order, torch.zeros_like(order), lengths.cpu()[order]], dim=1).int()
    rows = (order if graphs.shape[0] == num else torch.zeros_like(order)).int()
    device = output.device if k2.with_cuda else torch.device("cpu")
    graphs = graphs.to(device)
    with torch.enable_grad():
        leaf = output.detach().float().to(device).requires_grad_()
        dense = k2.DenseFsaVec(leaf, segments)
        lattices = k2.intersect_dense(k2.index_fsa(graphs, rows.to(device)), dense, output_beam)
        sorted_scores = lattices.get_tot_scores(use_double_scores=True, log_semiring=True)
        possible = torch.isfinite(sorted_scores)
        if possible.any():
            sorted_scores[possible].sum().backward()
    scores = torch.empty_like(sorted_scores.detach())
    scores[order.to(scores.device)] = sorted_scores.detach()
    posteriors = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
    return scores.to(output.device), posteriors.to(output.device)
