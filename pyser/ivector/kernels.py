"""The inner loops of online i-vectors, compiled by numba (once per machine; kept in __pycache__).

All of them are plain loops over contiguous arrays; what they compute is said in pyser/ivector/online.py, in arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])
# Sums may be reordered so that they vectorise; NaN and infinity must go on meaning what they mean.
FAST = {"reassoc", "nsz", "contract", "arcp"}


def _compiled(function: Function) -> Function:
    try:
        return cast(Function, njit(cache=True, fastmath=FAST)(function))
    except RuntimeError:  # a read-only installation without a home directory: compiled anew in each process
        return cast(Function, njit(fastmath=FAST)(function))


def _inlined(function: Function) -> Function:
    # Not left to the linker, which may take another kernel's copy: the last bit would depend on what was compiled before.
    return cast(Function, njit(fastmath=FAST, inline="always")(function))


@_compiled
def subtract_running_mean(
    feats: np.ndarray, speaker: np.ndarray, total: np.ndarray, window: int, speaker_frames: float, global_frames: float,
    out: np.ndarray,
) -> None:
    """Online CMVN without variances (feat/online-feature.cc, OnlineCmvn::GetFrame): feats, out (T, D) float32.

    speaker, total (D + 1,) float64: sums and frame count of the speaker's earlier utterances and of the corpus, which
    top up a window that is not full yet.
    """
    frames, dim = feats.shape
    sums, mean = np.zeros(dim), np.zeros(dim)
    for t in range(frames):
        old = t - window
        for d in range(dim):
            sums[d] += np.float64(feats[t, d])
        if old >= 0:
            for d in range(dim):
                sums[d] -= np.float64(feats[old, d])
        count, available = float(min(t + 1, window)), float(speaker[dim])
        from_speaker = max(0.0, min(window - count, speaker_frames, available))
        from_total = max(0.0, min(window - count - from_speaker, global_frames))
        a = from_speaker / speaker[dim] if from_speaker > 0 else 0.0
        b = from_total / total[dim]
        inverse = 1.0 / (count + from_speaker + from_total)
        for d in range(dim):
            mean[d] = (sums[d] + a * speaker[d] + b * total[d]) * inverse
        for d in range(dim):
            out[t, d] = feats[t, d] - np.float32(mean[d])


@_compiled
def select_posteriors(
    likes: np.ndarray, min_post: np.ndarray, scale: np.ndarray, gaussians: np.ndarray, post: np.ndarray, count: np.ndarray
) -> None:
    """hmm/posterior.cc, VectorToPosteriorEntry, of every frame, times `scale`.

    likes (T, G) float32; min_post, scale (T,) float32, frames of scale 0 are passed over. Filled: count (T,) and
    gaussians, post (T, num_gselect), best first.
    """
    frames, num_gauss = likes.shape
    keep, lanes = post.shape[1], 64
    whole = num_gauss - num_gauss % lanes
    peaks = np.empty(lanes, np.float32)  # the best of every 64th Gaussian: tells which of them need a closer look
    tops = np.empty(lanes, np.float32)
    for t in range(frames):
        count[t] = 0
        if scale[t] == 0:
            continue
        row = likes[t]
        for lane in range(lanes):
            peaks[lane] = row[min(lane, num_gauss - 1)]
        for start in range(lanes, whole, lanes):
            part = row[start : start + lanes]
            for lane in range(lanes):
                peaks[lane] = max(peaks[lane], part[lane])
        for g in range(max(whole, lanes), num_gauss):
            peaks[g - whole] = max(peaks[g - whole], row[g])
        tops[:] = peaks
        width = lanes // 2
        while width:
            for lane in range(width):
                tops[lane] = max(tops[lane], tops[lane + width])
            width //= 2
        best = tops[0]
        floor = best + np.log(min_post[t])
        n = 0
        for lane in range(lanes):
            if not peaks[lane] > floor:
                continue
            for g in range(lane, num_gauss, lanes):
                like = row[g]
                if not like > floor or (n == keep and like <= post[t, n - 1]):
                    continue
                if n < keep:
                    n += 1
                j = n - 1
                while j > 0 and post[t, j - 1] < like:
                    post[t, j], gaussians[t, j] = post[t, j - 1], gaussians[t, j - 1]
                    j -= 1
                post[t, j], gaussians[t, j] = like, g
        if n == 0:  # (so far below zero that min_post of the best is the best)
            n, post[t, 0], gaussians[t, 0] = 1, best, np.argmax(row)
        total = np.float32(0)
        for j in range(n):
            post[t, j] = np.exp(post[t, j] - best)
            total += post[t, j]
        cutoff = min_post[t] * total  # of the sum before anything is dropped
        while n > 1 and post[t, n - 1] < cutoff:
            n -= 1
            total -= post[t, n]
        for j in range(n):
            post[t, j] *= scale[t] / total
        count[t] = n


@_compiled
def sum_blocks(
    begin: np.ndarray, end: np.ndarray, gaussians: np.ndarray, post: np.ndarray, count: np.ndarray, feats: np.ndarray,
    starts: np.ndarray, gauss: np.ndarray, weight: np.ndarray, first: np.ndarray, num_gauss: int,
) -> int:
    """Zeroth and first order statistics of blocks of frames, one pair for each (block, Gaussian of it).

    begin, end (B,): the frames of a block; feats (T, D) float32. Filled: gauss, weight (N,), first (N, D) in the precision
    of these arrays, and starts (B + 1,): where a block's pairs begin. Returns N.
    """
    dim = feats.shape[1]
    seen, place = np.full(num_gauss, -1), np.zeros(num_gauss, np.int64)
    n = 0
    for b in range(len(begin)):
        starts[b] = n
        for t in range(begin[b], end[b]):
            for j in range(count[t]):
                g, w = gaussians[t, j], post[t, j]
                if seen[g] != b:
                    seen[g], place[g] = b, n
                    gauss[n], weight[n] = g, w
                    for d in range(dim):
                        first[n, d] = w * feats[t, d]
                    n += 1
                else:
                    m = place[g]
                    weight[m] += w
                    for d in range(dim):
                        first[m, d] += w * feats[t, d]
    starts[len(begin)] = n
    return n


@_compiled
def linear_terms(
    starts: np.ndarray, gauss: np.ndarray, first: np.ndarray, sigma_inv_m: np.ndarray, out: np.ndarray
) -> None:
    """out (B, S) float64 = sum over a block's pairs of (Sigma^-1 M_g)' first; sigma_inv_m (G, D, S) float64.

    Gaussian by Gaussian, so that one matrix serves all its pairs from the cache.
    """
    num_gauss, dim, size = sigma_inv_m.shape
    blocks, pairs = len(starts) - 1, starts[-1]
    begin = np.zeros(num_gauss + 1, np.int64)
    for i in range(pairs):
        begin[gauss[i] + 1] += 1
    for g in range(num_gauss):
        begin[g + 1] += begin[g]
    order, block, fill = np.empty(pairs, np.int64), np.empty(pairs, np.int64), begin.copy()
    for b in range(blocks):
        out[b] = 0
        for i in range(starts[b], starts[b + 1]):
            at = fill[gauss[i]]
            order[at], block[at] = i, b
            fill[gauss[i]] += 1
    for g in range(num_gauss):
        matrix = sigma_inv_m[g]
        for at in range(begin[g], begin[g + 1]):
            x, y = first[order[at]], out[block[at]]
            d = 0
            while d + 4 <= dim:  # four rows at once: y is read and written a quarter as often
                x0, x1, x2, x3 = x[d], x[d + 1], x[d + 2], x[d + 3]
                m0, m1, m2, m3 = matrix[d], matrix[d + 1], matrix[d + 2], matrix[d + 3]
                for s in range(size):
                    y[s] += x0 * m0[s] + x1 * m1[s] + x2 * m2[s] + x3 * m3[s]
                d += 4
            while d < dim:
                x0, m0 = x[d], matrix[d]
                for s in range(size):
                    y[s] += x0 * m0[s]
                d += 1


@_inlined
def _add_quadratic(
    start: int, end: int, gauss: np.ndarray, weight: np.ndarray, quadratics: np.ndarray, part: np.ndarray, total: np.ndarray
) -> None:
    """total (packed,) float64 += sum over pairs start … end of weight * quadratics[gauss]; part: float32 scratch."""
    packed = len(total)
    part[:] = 0
    i = start
    while i + 4 <= end:
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        u0, u1 = quadratics[gauss[i]], quadratics[gauss[i + 1]]
        u2, u3 = quadratics[gauss[i + 2]], quadratics[gauss[i + 3]]
        for q in range(packed):
            part[q] += w0 * u0[q] + w1 * u1[q] + w2 * u2[q] + w3 * u3[q]
        i += 4
    while i < end:
        w0, u0 = weight[i], quadratics[gauss[i]]
        for q in range(packed):
            part[q] += w0 * u0[q]
        i += 1
    for q in range(packed):
        total[q] += np.float64(part[q])


@_inlined
def _times(packed: np.ndarray, prior: float, x: np.ndarray, y: np.ndarray) -> None:
    """y = (A + prior I) x, A symmetric in its packed lower triangle; four rows at once, each element used twice."""
    size = len(x)
    for i in range(size):
        y[i] = prior * x[i]
    i, at = 0, 0
    while i + 4 <= size:
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        a0 = packed[at : at + i + 1]
        at += i + 1
        a1 = packed[at : at + i + 2]
        at += i + 2
        a2 = packed[at : at + i + 3]
        at += i + 3
        a3 = packed[at : at + i + 4]
        at += i + 4
        y0, y1, y2, y3 = 0.0, 0.0, 0.0, 0.0
        for j in range(i):
            xj = x[j]
            y0 += a0[j] * xj
            y1 += a1[j] * xj
            y2 += a2[j] * xj
            y3 += a3[j] * xj
            y[j] += a0[j] * x0 + a1[j] * x1 + a2[j] * x2 + a3[j] * x3
        y[i] += y0 + a0[i] * x0 + a1[i] * x1 + a2[i] * x2 + a3[i] * x3
        y[i + 1] += y1 + a1[i] * x0 + a1[i + 1] * x1 + a2[i + 1] * x2 + a3[i + 1] * x3
        y[i + 2] += y2 + a2[i] * x0 + a2[i + 1] * x1 + a2[i + 2] * x2 + a3[i + 2] * x3
        y[i + 3] += y3 + a3[i] * x0 + a3[i + 1] * x1 + a3[i + 2] * x2 + a3[i + 3] * x3
        i += 4
    while i < size:
        x0, y0 = x[i], 0.0
        for j in range(i):
            y0 += packed[at + j] * x[j]
            y[j] += packed[at + j] * x0
        y[i] += y0 + packed[at + i] * x0
        at += i + 1
        i += 1


@_inlined
def _dot(x: np.ndarray, y: np.ndarray) -> float:
    total = 0.0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@_inlined
def solve_exactly(packed: np.ndarray, prior: float, b: np.ndarray, x: np.ndarray) -> None:
    """x = (A + prior I)^-1 b by Cholesky, A in its packed lower triangle."""
    size = len(b)
    root = np.empty((size, size))
    for i in range(size):
        for j in range(i + 1):
            value = packed[i * (i + 1) // 2 + j] + (prior if i == j else 0.0) - _dot(root[i, :j], root[j, :j])
            root[i, j] = np.sqrt(value) if i == j else value / root[j, j]
    for i in range(size):
        x[i] = (b[i] - _dot(root[i, :i], x[:i])) / root[i, i]
    for i in range(size - 1, -1, -1):
        x[i] /= root[i, i]
        for j in range(i):
            x[j] -= root[i, j] * x[i]


@_inlined
def conjugate_gradient(
    packed: np.ndarray, prior: float, b: np.ndarray, x: np.ndarray, max_iters: int, scratch: np.ndarray
) -> bool:
    """Improve x (S,) towards (A + prior I) x = b in at most `max_iters` steps; false if the residual grew instead.

    A (S, S) in its packed lower triangle; scratch (3 S,) or longer. The early stop is part of the result: Kaldi's
    i-vectors are not converged, so its rules are followed exactly (matrix/optimization.cc, LinearCgd): the residual is
    computed anew whenever its norm has changed a hundredfold since that was last done.
    """
    size = len(b)
    apart = len(scratch) // 3
    residual, direction = scratch[:size], scratch[apart : apart + size]
    moved = scratch[2 * apart : 2 * apart + size]
    _times(packed, prior, x, residual)
    for i in range(size):
        residual[i] -= b[i]
        direction[i] = -residual[i]
    norm = _dot(residual, residual)
    first_norm = fresh_norm = norm
    for _ in range(min(max_iters, size + 5)):
        _times(packed, prior, direction, moved)
        curvature, slope = 0.0, 0.0
        for i in range(size):
            curvature += direction[i] * moved[i]
            slope += direction[i] * residual[i]
        if curvature == 0:
            break
        step, next_norm = -slope / curvature, 0.0
        for i in range(size):
            x[i] += step * direction[i]
            residual[i] += step * moved[i]
            next_norm += residual[i] * residual[i]
        if next_norm < 1e-4 * fresh_norm or next_norm > 1e4 * fresh_norm:
            _times(packed, prior, x, residual)
            for i in range(size):
                residual[i] -= b[i]
            next_norm = fresh_norm = _dot(residual, residual)
        if next_norm <= 2.2250738585072014e-308:
            break
        ratio = next_norm / norm
        for i in range(size):
            direction[i] = ratio * direction[i] - residual[i]
        norm = next_norm
    return not (norm > first_norm and norm > first_norm + 1e-10 * _dot(b, b))


@_compiled
def solve_blocks(
    begin: int, end: int, starts: np.ndarray, gauss: np.ndarray, weight: np.ndarray, quadratics: np.ndarray,
    linears: np.ndarray, count: float, linear: np.ndarray, quadratic: np.ndarray, prior_offset: float, max_count: float,
    cg_iters: int, rows: np.ndarray,
) -> float:
    """Of one utterance, blocks begin … end: add their statistics, an i-vector (without the prior's offset) after each.

    linear (S,), quadratic (packed,) float64 and `count` are the speaker's statistics without the prior; the first two
    are changed, the new count is returned. rows (R, S) float32: R <= end - begin, later blocks only count. cg_iters 0
    solves exactly (OnlineIvectorEstimationStats::AccStats, GetIvector).
    """
    size = len(linear)
    part, b = np.empty(len(quadratic), np.float32), np.empty(size)
    # What the solver writes lies far from all it reads: a vectorised loop first asks, generously, whether the two may
    # overlap, and if so sums in another order; the last bit would depend on where the memory happens to lie.
    apart = len(quadratic) + 1024
    space = np.empty(6 * apart)
    scratch, x = space[apart : 4 * apart], space[4 * apart : 4 * apart + size]
    x[:] = 0
    x[0] = prior_offset
    for block in range(begin, end):
        _add_quadratic(starts[block], starts[block + 1], gauss, weight, quadratics, part, quadratic)
        for i in range(starts[block], starts[block + 1]):
            count += weight[i]
        for s in range(size):
            linear[s] += linears[block, s]
        row = block - begin
        if row >= len(rows):
            continue
        if count > 0:
            prior = max(count, max_count) / max_count if max_count > 0 else 1.0
            b[:] = linear
            b[0] += prior * prior_offset
            if cg_iters == 0 or not conjugate_gradient(quadratic, prior, b, x, cg_iters, scratch):
                solve_exactly(quadratic, prior, b, x)
        else:
            x[:] = 0
            x[0] = prior_offset
        for s in range(size):
            rows[row, s] = x[s]
        rows[row, 0] -= np.float32(prior_offset)
    return count
