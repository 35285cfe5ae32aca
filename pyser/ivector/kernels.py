"""The inner loops of online i-vectors, on arrays; compiled (pyser/native/ivector.cpp).

What they compute is said in pyser/ivector/online.py. Arrays are C-contiguous and of the types named; nothing else is
accepted. Where the library could not be built (`available` is False) pyser/ivector/batched.py takes their place.
"""

from __future__ import annotations

from ctypes import c_bool, c_double, c_int64
from typing import Any

import numpy as np

from pyser.native import library

available = library is not None


def _array(dtype: type, writeable: bool = False) -> Any:
    return np.ctypeslib.ndpointer(dtype, flags=["C_CONTIGUOUS", "WRITEABLE"] if writeable else ["C_CONTIGUOUS"])


_F32, _F64, _I32, _I64 = (_array(dtype) for dtype in (np.float32, np.float64, np.int32, np.int64))
_OUT32, _OUT64, _OUT_I32, _OUT_I64 = (_array(dtype, True) for dtype in (np.float32, np.float64, np.int32, np.int64))


def _function(name: str, arguments: list[Any], result: Any = None) -> Any:
    if library is None:
        return None
    function = getattr(library, "ivector_" + name)
    function.argtypes, function.restype = arguments, result
    return function


_subtract_running_mean = _function(
    "subtract_running_mean", [_F32, c_int64, c_int64, _F64, _F64, c_int64, c_double, c_double, _OUT32])
_transform = _function("transform", [_F32, c_int64, c_int64, c_int64, _F32, c_int64, _F32, c_int64, _OUT32])
_posteriors = _function("posteriors", [_F32, c_int64, c_int64, _F32, c_int64, c_int64, _F32, _F32, c_int64, _OUT_I32, _OUT32,
                                       _OUT_I32])
_sum_blocks = _function(
    "sum_blocks", [_I64, _I64, c_int64, _I32, _F32, _I32, c_int64, _F32, c_int64, c_int64, _OUT_I64, _OUT_I32, _OUT64,
                   _OUT64], c_int64)
_linear_terms = _function("linear_terms", [_I64, c_int64, _I32, _F64, _F64, c_int64, c_int64, c_int64, _OUT64])
_solve_blocks = _function(
    "solve_blocks", [c_int64, c_int64, _I64, _I32, _F64, _F32, c_int64, _F64, c_int64, c_double, _OUT64, _OUT64, c_double,
                     c_double, c_int64, c_int64, _OUT32], c_double)
_conjugate_gradient = _function("conjugate_gradient", [_F64, c_double, c_int64, _F64, _OUT64, c_int64], c_bool)
_solve_exactly = _function("solve_exactly", [_F64, c_double, c_int64, _F64, _OUT64])


def padded(matrix: np.ndarray, multiple: int, dtype: type) -> np.ndarray:
    """With columns of zeros (last axis) up to a multiple."""
    width = -(-matrix.shape[-1] // multiple) * multiple
    out: np.ndarray = np.zeros((*matrix.shape[:-1], width), dtype)
    out[..., : matrix.shape[-1]] = matrix
    return out


def subtract_running_mean(
    feats: np.ndarray, speaker: np.ndarray, total: np.ndarray, window: int, speaker_frames: float, global_frames: float,
    out: np.ndarray,
) -> None:
    """Online CMVN without variances (feat/online-feature.cc, OnlineCmvn::GetFrame): feats, out (T, D) float32.

    speaker, total (D + 1,) float64: sums and frame count of the speaker's earlier utterances and of the corpus, which
    top up a window that is not full yet.
    """
    _subtract_running_mean(feats, *feats.shape, speaker, total, window, speaker_frames, global_frames, out)


def transform(padded: np.ndarray, matrix: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """Splicing and an affine transform in one: out (T, D') = rows t … t + N - 1 of `padded` (T + N - 1, D) times `matrix`.

    matrix (N D, W), its D' columns padded to a multiple of 16; offset (D',); all float32. The last bit of a row depends
    on nothing but its window.
    """
    length, width = matrix.shape
    _transform(padded, len(out), padded.shape[1], length, matrix, width, offset, out.shape[1], out)


def posteriors(
    feats: np.ndarray, likes_matrix: np.ndarray, num_gauss: int, min_post: np.ndarray, scale: np.ndarray,
    gaussians: np.ndarray, post: np.ndarray, count: np.ndarray,
) -> None:
    """hmm/posterior.cc, VectorToPosteriorEntry, of every frame, times `scale`.

    feats (T, D), the log-likelihoods are (x, x^2, 1) times likes_matrix (2 D + 1, W), its num_gauss columns padded to a
    multiple of 16; min_post, scale (T,), frames of scale 0 are passed over; all float32. Filled: count (T,) int32 and
    gaussians int32, post float32 (T, num_gselect), best first.
    """
    _posteriors(feats, *feats.shape, likes_matrix, likes_matrix.shape[1], num_gauss, min_post, scale, post.shape[1],
                gaussians, post, count)


def sum_blocks(
    begin: np.ndarray, end: np.ndarray, gaussians: np.ndarray, post: np.ndarray, count: np.ndarray, feats: np.ndarray,
    starts: np.ndarray, gauss: np.ndarray, weight: np.ndarray, first: np.ndarray, num_gauss: int,
) -> int:
    """Zeroth and first order statistics of blocks of frames, one pair for each (block, Gaussian of it).

    begin, end (B,) int64: the frames of a block; feats (T, D) float32. Filled: gauss (N,) int32, weight (N,) and first
    (N, D) float64, and starts (B + 1,) int64: where a block's pairs begin. Returns N.
    """
    return int(_sum_blocks(
        begin, end, len(begin), gaussians, post, count, post.shape[1], feats, feats.shape[1], num_gauss, starts, gauss,
        weight, first))


def linear_terms(
    starts: np.ndarray, gauss: np.ndarray, first: np.ndarray, sigma_inv_m: np.ndarray, out: np.ndarray
) -> None:
    """out (B, W) = sum over a block's pairs of (Sigma^-1 M_g)' first; sigma_inv_m (G, D, W), W = S padded to a multiple of
    8; all float64."""
    _linear_terms(starts, len(starts) - 1, gauss, first, sigma_inv_m, *sigma_inv_m.shape, out)


def solve_blocks(
    begin: int, end: int, starts: np.ndarray, gauss: np.ndarray, weight: np.ndarray, quadratics: np.ndarray,
    linears: np.ndarray, count: float, linear: np.ndarray, quadratic: np.ndarray, prior_offset: float, max_count: float,
    cg_iters: int, rows: np.ndarray,
) -> float:
    """Of one utterance, blocks begin … end: add their statistics, an i-vector (without the prior's offset) after each.

    linear (S,), quadratic (packed,) float64 and `count` are the speaker's statistics without the prior; the first two
    are changed, the new count is returned. quadratics (G, packed) float32; linears (B, W) float64, W >= S; rows (R, S)
    float32: R <= end - begin, later blocks only count. cg_iters 0 solves exactly (OnlineIvectorEstimationStats::AccStats,
    GetIvector).
    """
    return float(_solve_blocks(
        begin, end, starts, gauss, weight, quadratics, len(linear), linears, linears.shape[1], count, linear, quadratic,
        prior_offset, max_count, cg_iters, len(rows), rows))


def conjugate_gradient(packed: np.ndarray, prior: float, b: np.ndarray, x: np.ndarray, max_iters: int) -> bool:
    """Improve x (S,) towards (A + prior I) x = b in at most `max_iters` steps; false if the residual grew instead.

    A (S, S) in its packed lower triangle. The early stop is part of the result: Kaldi's i-vectors are not converged, so
    its rules are followed exactly (matrix/optimization.cc, LinearCgd): the residual is computed anew whenever its norm
    has changed a hundredfold since that was last done.
    """
    return bool(_conjugate_gradient(packed, prior, len(b), b, x, max_iters))


def solve_exactly(packed: np.ndarray, prior: float, b: np.ndarray, x: np.ndarray) -> None:
    """x = (A + prior I)^-1 b by Cholesky, A in its packed lower triangle."""
    _solve_exactly(packed, prior, len(b), b, x)
