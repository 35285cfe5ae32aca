"""Sums over all paths of a graph for each utterance, exact for any outputs: the numerators of LF-MMI.

In torch: the log domain in float64, all graphs as one (as Kaldi's src/chain/chain-generic-numerator.cc, which takes
float32 and one graph at a time). pyser/native/numerator.cpp computes the same, many times faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pyser import native
from pyser.chain.graph import Graph


def total_scores(graphs: Sequence[Graph], output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the summed path weights of each utterance, and its derivative: the posteriors of the pdfs.

    graphs : N, one for each utterance
    output : (N, T, C) float32 or float64, not clamped; only the first `lengths` frames of each count
    lengths : (N,), at least 1
    Returns scores (N,) float64, -inf where no path fits, and posteriors (N, T, C) like output, zero there and in the
    padding.
    """
    if native.library is not None and output.device.type == "cpu" and output.dtype == torch.float32:
        return compiled_scores(graphs, output, lengths)
    return torch_scores(graphs, output, lengths)


def check_shapes(num_graphs: int, num_pdfs: int, output: Tensor, lengths: Tensor) -> None:
    """The compiled code trusts what it gets."""
    num, frames, columns = output.shape
    if not (num_graphs == num == len(lengths)) or num == 0:
        raise ValueError(f"{num_graphs} graphs and {len(lengths)} lengths for {num} utterances")
    if int(lengths.min()) < 1 or int(lengths.max()) > frames:
        raise ValueError(f"lengths from {int(lengths.min())} to {int(lengths.max())}, outputs for {frames} frames")
    if num_pdfs > columns:
        raise ValueError(f"a graph with {num_pdfs} pdfs, the network has {columns} outputs")


def compiled_scores(graphs: Sequence[Graph], output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """total_scores by pyser/native/numerator.cpp."""
    assert native.library is not None
    check_shapes(len(graphs), max((graph.num_pdfs for graph in graphs), default=0), output, lengths)
    arcs = np.concatenate([graph.arcs for graph in graphs])
    weights = np.concatenate([graph.weights for graph in graphs])
    finals = np.concatenate([graph.finals for graph in graphs])
    first_arc = np.cumsum([0, *(len(graph.arcs) for graph in graphs)], dtype=np.int64)
    first_state = np.cumsum([0, *(graph.num_states for graph in graphs)], dtype=np.int64)
    output, lengths = output.detach().contiguous(), lengths.to("cpu", torch.int64).contiguous()
    scores, posteriors = torch.empty(len(output), dtype=torch.float64), torch.zeros_like(output)
    failed = native.library.pyser_numerators(
        *map(native.pointer, (first_arc, arcs, weights, first_state, finals)), *map(native.size, output.shape),
        *map(native.pointer, (output, lengths, scores, posteriors)),
    )
    if failed:
        raise MemoryError("not enough memory for the numerators of a batch")
    return scores, posteriors


def torch_scores(graphs: Sequence[Graph], output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """total_scores in torch, on any device."""
    check_shapes(len(graphs), max((graph.num_pdfs for graph in graphs), default=0), output, lengths)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "scatter_reduce() is in beta"
        return _torch_scores(graphs, output, lengths)


def _torch_scores(graphs: Sequence[Graph], output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    device, (num, frames, columns) = output.device, output.shape
    first = np.cumsum([0, *(graph.num_states for graph in graphs)])
    states = int(first[-1])
    arcs = np.concatenate([graph.arcs + np.array([shift, shift, n * columns])
                           for n, (graph, shift) in enumerate(zip(graphs, first[:-1], strict=True))])
    source, target, pdf = torch.from_numpy(arcs.T.astype(np.int64)).to(device)  # pdfs count all utterances' columns
    weight = torch.from_numpy(np.concatenate([graph.weights for graph in graphs])).to(device)
    final = torch.from_numpy(np.concatenate([graph.finals for graph in graphs])).to(device)
    counts = torch.from_numpy(np.diff(first))
    owner = torch.repeat_interleave(torch.arange(num), counts).to(device)  # (states,) utterance of each state
    length = lengths.to(device)
    last = length[owner]
    y = output.detach().double().transpose(0, 1).reshape(frames, num * columns)

    alpha = torch.full((frames + 1, states), -torch.inf, dtype=torch.float64, device=device)
    alpha[0, torch.from_numpy(first[:-1]).to(device)] = 0
    for t in range(frames):
        alpha[t + 1] = _log_sum(alpha[t, source] + weight + y[t, pdf], target, states)
    ends = alpha.gather(0, last[None])[0] + final
    scores = _log_sum(ends, owner, num)
    possible = torch.isfinite(scores)
    closing = torch.where(possible, scores, torch.zeros_like(scores))[owner]
    posteriors = torch.zeros(frames, num * columns, dtype=torch.float64, device=device)
    beta = torch.full_like(final, -torch.inf)
    for t in range(frames - 1, -1, -1):
        beta = torch.where(last == t + 1, torch.where(possible[owner], final - closing, -torch.inf), beta)
        after = weight + beta[target] + y[t, pdf]
        posteriors[t].index_add_(0, pdf, (alpha[t, source] + after).exp())
        beta = _log_sum(after, source, states)
    posteriors = posteriors.reshape(frames, num, columns).transpose(0, 1)
    return scores, torch.where(possible[:, None, None], posteriors, 0.0).to(output.dtype)


def _log_sum(value: Tensor, place: Tensor, size: int) -> Tensor:
    """(size,) log of the summed exponentials of the values of each place."""
    peak = torch.full((size,), -torch.inf, dtype=value.dtype, device=value.device)
    peak = peak.scatter_reduce(0, place, value, "amax")
    peak = torch.where(peak == -torch.inf, torch.zeros_like(peak), peak)
    total = torch.zeros_like(peak).index_add_(0, place, (value - peak[place]).exp())
    return total.log() + peak
