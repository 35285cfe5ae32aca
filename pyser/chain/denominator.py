"""The denominator of LF-MMI, exact, in plain torch: forward-backward over one graph shared by all utterances.

Probabilities in float64, rescaled at each frame (as in Kaldi's src/chain/chain-denominator.h, without its leak), one
sparse product per frame for the whole batch. It computes what k2's unpruned intersection does (tests/test_lfmmi.py) in
a hundredth of the time: on 16 utterances of 150 frames, a bigram of 41 phones and one thread, 9 ms against 0.92 s. The
lattices that k2 builds hold every arc of the graph at every frame.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from pyser.errors import PyserError


class Denominator:
    """An epsilon-free acceptor.

    arcs : (A, 3) integers: source, destination, label; label -1 leads to the final state; state 0 starts
    scores : (A,) log weights

    The recursion runs over nodes, the distinct pairs (destination, label), so that a node emits one column:
        alpha[t, e] = y[t, label(e)] * sum over nodes d of transition[e, d] * alpha[t - 1, d].
    """

    def __init__(self, arcs: Tensor, scores: Tensor, device: torch.device | str = "cpu"):
        arcs, weights = arcs.long().cpu(), scores.detach().double().exp().cpu()
        emitting = arcs[:, 2] >= 0
        source, destination, label = arcs[emitting].T.contiguous()
        if not len(source):
            raise PyserError("the denominator graph has no arcs; make the phone LM again (pyser lang phone-lm)")
        weight = weights[emitting]
        nodes, node = torch.stack([destination, label], dim=1).unique(dim=0, return_inverse=True)
        self.label = nodes[:, 1].to(device)  # (E,)
        num = len(nodes)
        # Pair each arc with every node that ends in the arc's source state; nodes are sorted by state.
        state = nodes[:, 0].contiguous()
        first = torch.searchsorted(state, source)
        count = torch.searchsorted(state, source, right=True) - first
        arc = torch.repeat_interleave(torch.arange(len(source)), count)
        before = torch.arange(len(arc)) - torch.repeat_interleave(count.cumsum(0) - count, count) + first[arc]
        self.transition = _sparse(node[arc], before, weight[arc], (num, num)).to(device)
        self.transposed = _sparse(before, node[arc], weight[arc], (num, num)).to(device)
        starts = source == 0
        self.initial = torch.zeros(num, dtype=torch.float64).index_add(0, node[starts], weight[starts]).to(device)
        of_state = torch.zeros(int(arcs[:, :2].max()) + 1, dtype=torch.float64)
        of_state.index_add_(0, arcs[~emitting, 0], weights[~emitting])
        self.final = of_state[state].to(device)
        self.device = torch.device(device)

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the summed path weights and the posteriors of the columns.

        log_probs : (N, T, C); lengths : (N,), at least 1, frames of each utterance that count
        Returns scores (N,) float64, -inf where no path has a weight, and posteriors (N, T, C) like log_probs,
        zero there and in the padding.
        """
        y = log_probs.detach().to(self.device).double().permute(1, 2, 0)  # (T, C, N)
        peak = y.amax(dim=1)  # (T, N)
        y = (y - peak[:, None]).exp()
        last = lengths.to(self.device) - 1
        time = torch.arange(len(y), device=self.device)
        alphas: list[Tensor] = []
        scales: list[Tensor] = []
        for t in range(len(y)):
            alpha = self.initial[:, None] if t == 0 else self.transition @ alphas[-1]
            alpha = alpha * y[t, self.label]  # (E, N)
            scale = alpha.sum(dim=0)
            alphas.append(alpha / scale.clamp_min(1e-300))
            scales.append(scale)
        scale = torch.stack(scales)  # (T, N)
        end = torch.stack([alphas[t][:, n] for n, t in enumerate(last.tolist())], dim=1)  # (E, N)
        total = (self.final[:, None] * end).sum(dim=0)
        inside = time[:, None] <= last
        score = ((scale.log() + peak) * inside).nan_to_num(neginf=-torch.inf).sum(dim=0) + total.log()
        possible = torch.isfinite(score)
        closing = self.final[:, None] * possible / total.clamp_min(1e-300)
        posteriors = torch.zeros_like(y)
        beta = torch.zeros_like(end)
        for t in range(len(y) - 1, -1, -1):
            if t + 1 < len(y):
                beta = self.transposed @ (beta * y[t + 1, self.label]) / scales[t + 1].clamp_min(1e-300)
            beta = torch.where(last == t, closing, beta)
            posteriors[t].index_add_(0, self.label, alphas[t] * beta)
        return score.to(log_probs.device), posteriors.permute(2, 0, 1).to(log_probs)


def _sparse(row: Tensor, column: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
    """CSR matrix; entries of the same place add up."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "CSR tensor support is in beta"
        return torch.sparse_coo_tensor(torch.stack([row, column]), value, size).coalesce().to_sparse_csr()
