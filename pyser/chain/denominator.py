"""The denominator of LF-MMI: forward-backward over one graph shared by all utterances, exact.

Kaldi's recursion (src/chain/chain-denominator.h), in probabilities rescaled at each frame. With leak l, initial
probabilities p, arcs weighing w and outputs y limited to +-30,
    alpha[t + 1, j] = sum over arcs i -> j of w * exp(y[t, pdf]) * alpha'[t, i],    alpha' = alpha + l * p * sum(alpha)
from alpha[0] = p, to the sum of alpha'[T]: graphs' final probabilities are not used, and the leak acts after the last
frame too. pyser/native/denominator.cpp computes it; without a compiler or on another device than the CPU, torch.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyser import native
from pyser.chain import numerator
from pyser.chain.graph import Graph
from pyser.errors import PyserError

LIMIT = 30.0  # of the outputs, so that their exponentials stay within float32
MEMORY = 2.0**28  # bytes for the states' probabilities of 16 utterances; where they need more, some are computed twice
LOST = 1e-6  # share of the probability that may get lost below the smallest number


class Denominator:
    """leaky_hmm_coefficient : above 0; or 0, and then paths begin in the start state and end with the graph's final
    probabilities, as in the numerator, in k2 and in icefall: the leak is what allows for chunks of utterances."""

    def __init__(self, graph: Graph, leaky_hmm_coefficient: float = 0.1):
        if not len(graph.arcs):
            raise PyserError("the denominator graph has no arcs; make the phone LM again")
        if not 0 <= leaky_hmm_coefficient < 1:
            raise PyserError(f"--leaky-hmm-coefficient {leaky_hmm_coefficient}: must be from 0 to below 1")
        self.graph = graph
        self.leaky = leaky_hmm_coefficient > 0
        if self.leaky:
            self.initial = graph.probabilities().astype(np.float32).astype(np.float64)
            self.final = np.ones(graph.num_states)
        else:
            self.initial = np.eye(1, graph.num_states)[0]
            self.final = np.exp(graph.finals)
        self.leak = leaky_hmm_coefficient * self.initial * self.leaky
        self.distance = np.zeros(graph.num_states, dtype=np.int32) if self.leaky else graph.distances()
        self.incoming, self.outgoing = _sorted(graph, by=1), _sorted(graph, by=0)
        self._matrices: dict[tuple[int, torch.device, torch.dtype], _Matrices] = {}

    def __call__(self, output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the summed path weights and the posteriors of the pdfs.

        output : (N, T, C) float32 or float64; lengths : (N,), at least 1, frames of each utterance that count
        Returns scores (N,) float64, -inf where no path has a weight and NaN where an output is not a number, and
        posteriors (N, T, C) like output, zero there and in the padding.
        """
        if native.library is not None and output.device.type == "cpu" and output.dtype == torch.float32:
            return self.compiled(output, lengths)
        return self.in_torch(output, lengths)

    def compiled(self, output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same by pyser/native/denominator.cpp."""
        assert native.library is not None
        graph = self.graph
        numerator.check_shapes(len(output), graph.num_pdfs, output, lengths)
        output, lengths = output.detach().contiguous(), lengths.to("cpu", torch.int64).contiguous()
        scores, posteriors = torch.empty(len(output), dtype=torch.float64), torch.zeros_like(output)
        arrays = (*self.incoming, *self.outgoing, self.initial, self.leak, self.final, self.distance,
                  graph.arcs, graph.weights, graph.finals)
        failed = native.library.pyser_denominator(
            native.size(graph.num_states), native.size(len(graph.arcs)), *map(native.pointer, arrays),
            native.real(LIMIT), native.real(MEMORY), *map(native.size, output.shape),
            *map(native.pointer, (output, lengths, scores, posteriors)),
        )
        if failed:
            raise MemoryError("not enough memory for the denominator of a batch")
        return scores, posteriors

    def in_torch(self, output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The same in torch. The leak keeps all numbers within float32's range; without one it takes float64."""
        numerator.check_shapes(len(output), self.graph.num_pdfs, output, lengths)
        with torch.no_grad():
            return self._in_torch(output, lengths)

    def _in_torch(self, output: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        real = output.dtype if self.leaky else torch.float64
        key = output.shape[2], output.device, real
        if key not in self._matrices:
            self._matrices[key] = _Matrices(self, *key)
        g, (num, frames, _) = self._matrices[key], output.shape
        y = output.detach().to(real).clamp(-LIMIT, LIMIT).permute(1, 2, 0).contiguous()  # (T, C, N)
        peak = y.amax(dim=1)  # (T, N)
        y = (y - peak[:, None]).exp()
        last = lengths.to(output.device)
        alphas = [(g.initial + g.leak)[:, None].expand(-1, num).contiguous()]  # (states, N) each
        inverses = []
        score = torch.zeros(num, dtype=torch.float64, device=output.device)
        node, other = (torch.empty(len(g.pdf), num, dtype=real, device=y.device) for _ in range(2))  # fresh memory is slow
        for t in range(frames):
            torch.mm(g.into_node, alphas[-1], out=node)
            node.mul_(torch.index_select(y[t], 0, g.pdf, out=other))
            alpha = torch.mm(g.into_state, node)
            scale = alpha.sum(dim=0)
            score += torch.where(t < last, scale.double().log() + peak[t], 0.0)
            inverses.append(torch.where((t < last) & (scale > 0), 1 / scale, torch.zeros_like(scale)))
            alphas.append(alpha * inverses[-1] + g.leak[:, None])
        ends = torch.stack([alphas[t][:, n] for n, t in enumerate(last.tolist())], dim=1)
        total = (g.final.double()[:, None] * ends.double()).sum(dim=0)
        score += total.log()
        closing = torch.where(total > 0, g.final[:, None] / total, torch.zeros_like(total)).to(real)
        posteriors = torch.zeros_like(y)
        beta = torch.zeros_like(ends)
        lost = torch.zeros(num, dtype=real, device=output.device)
        for t in range(frames - 1, -1, -1):
            beta = torch.where(last == t + 1, closing, beta)
            beta = (beta + (g.leak[:, None] * beta).sum(dim=0)) * inverses[t]
            lost += (beta * (g.distance <= t + 1)[:, None]).sum(dim=0)
            torch.index_select(beta, 0, g.state, out=node)
            node.mul_(torch.index_select(y[t], 0, g.pdf, out=other))
            beta = torch.mm(g.from_node, node)
            node.mul_(torch.mm(g.into_node, alphas[t], out=other))
            torch.mm(g.into_pdf, node, out=posteriors[t])
        posteriors = posteriors.permute(2, 0, 1).to(output.dtype)
        smallest = torch.finfo(real).tiny * g.in_degree
        failed = ~((lost * smallest < LOST) & torch.isfinite(score))
        for n in failed.nonzero()[:, 0].tolist():  # extreme outputs, or no path
            score[n], posteriors[n] = torch.nan, 0
            if not self.leaky:
                some = slice(n, n + 1)
                score[some], posteriors[some] = numerator.torch_scores(
                    [self.graph], output[some].clamp(-LIMIT, LIMIT), lengths[some])
        return score, posteriors


class _Matrices:
    """A denominator on a device. Nodes are the distinct pairs (destination, pdf) of the arcs."""

    def __init__(self, den: Denominator, columns: int, device: torch.device, real: torch.dtype):
        source, target, pdf = torch.from_numpy(den.graph.arcs.T.astype(np.int64))
        weight = torch.from_numpy(np.exp(den.graph.weights))
        nodes, node = torch.stack([target, pdf], dim=1).unique(dim=0, return_inverse=True)
        states, num = den.graph.num_states, len(nodes)
        self.state, self.pdf = nodes.T.contiguous().to(device)
        ones = torch.ones(num, dtype=torch.float64)
        self.into_node = _sparse(node, source, weight, (num, states), real).to(device)
        self.from_node = _sparse(source, node, weight, (states, num), real).to(device)
        self.into_state = _sparse(nodes[:, 0], torch.arange(num), ones, (states, num), real).to(device)
        self.into_pdf = _sparse(nodes[:, 1], torch.arange(num), ones, (columns, num), real).to(device)
        self.initial, self.leak, self.final = (
            torch.from_numpy(x).to(device, real) for x in (den.initial, den.leak, den.final))
        self.distance = torch.from_numpy(den.distance).to(device)
        self.in_degree = int(np.bincount(den.graph.arcs[:, 1]).max())


def _sparse(row: Tensor, column: Tensor, value: Tensor, size: tuple[int, int], real: torch.dtype) -> Tensor:
    """CSR matrix; entries of the same place add up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "CSR tensor support is in beta"
        return torch.sparse_coo_tensor(torch.stack([row, column]), value, size).coalesce().to(real).to_sparse_csr()


def _sorted(graph: Graph, by: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Arcs by source (0) or destination (1): the first arc of each state and the number of arcs, then for each arc the
    other state, the pdf and the weight (not log)."""
    order = np.lexsort((graph.arcs[:, 2], graph.arcs[:, 1 - by], graph.arcs[:, by]))
    arcs = graph.arcs[order]
    first = np.searchsorted(arcs[:, by], np.arange(graph.num_states + 1)).astype(np.int32)
    other, pdf = (np.ascontiguousarray(arcs[:, column]) for column in (1 - by, 2))
    return first, other, pdf, np.exp(graph.weights[order])
