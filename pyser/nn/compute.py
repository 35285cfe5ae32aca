"""A network over a whole utterance, chunk by chunk as Kaldi's nnet3-compute does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pyser.errors import PyserError
from pyser.files import read_lines
from pyser.nn.tdnnf import TdnnF

IVECTOR_SLACK = 50  # frames that the last i-vector row may stand in for, as in Kaldi
CHUNKS_AT_ONCE = 64  # bounds the memory of one forward pass over a long utterance


def compute(
    model: TdnnF,
    feats: np.ndarray,
    ivectors: np.ndarray | None,
    node: str,
    period: int = 10,
    frames_per_chunk: int = 50,
    subsampling: int = 1,
) -> np.ndarray:
    """Outputs of `node`, (ceil(T / subsampling), D) float32, for feats (T, feat_dim) and i-vectors (rows, dim), one row
    every `period` frames.

    As src/nnet3/nnet-am-decodable-simple.cc: chunks see their real neighbours, the utterance's first and last frames
    are repeated beyond its edges, and a chunk of output frames t0 … tlast uses the one i-vector row
    (t0 + (tlast - t0) // 2) // period, or the last row if that is not far away. frames_per_chunk is raised to a multiple of
    subsampling.
    """
    if not len(feats):
        raise PyserError("no frames; the utterance is too short for a single feature frame")
    num, left, right = len(feats), model.left_context, model.right_context
    chunk = -(-frames_per_chunk // subsampling) * subsampling
    starts = np.arange(0, num, chunk)
    # The last chunk is computed at full length like the others and cut afterwards: repeated frames fill it.
    index = np.clip(starts[:, None] + np.arange(-left, chunk + right), 0, num - 1)  # (chunks, left + chunk + right)
    rows = None
    if ivectors is not None:
        last = np.minimum(starts + chunk, num) - 1
        last = starts + (last - starts) // subsampling * subsampling
        rows = (starts + (last - starts) // 2) // period
        if not len(ivectors) or (rows[-1] - len(ivectors) + 1) * period > IVECTOR_SLACK:
            raise PyserError(f"{len(ivectors)} rows of i-vectors, one every {period} frames, are too few for {num} frames; "
                             "extract them again, or correct the file ivector_period beside them")
        rows = np.minimum(rows, len(ivectors) - 1)
    outputs = []
    with torch.no_grad():
        for at in range(0, len(starts), CHUNKS_AT_ONCE):
            part = slice(at, at + CHUNKS_AT_ONCE)
            x = torch.from_numpy(np.ascontiguousarray(feats[index[part]], dtype=np.float32))
            ivector = None
            if ivectors is not None and rows is not None:
                ivector = torch.from_numpy(np.ascontiguousarray(ivectors[rows[part]], dtype=np.float32))
            outputs.append(model.node(x, ivector, node, subsampling))  # (chunks, chunk / subsampling, D)
    output = torch.cat(outputs).flatten(0, 1)
    return output[: -(-num // subsampling)].numpy()


def read_period(ivector_dir: str | Path) -> int:
    """Frames per i-vector row, from the directory's file ivector_period; 10, the default, where there is none."""
    path = Path(ivector_dir) / "ivector_period"
    if not path.exists():
        return 10
    try:
        period = int(read_lines(path)[0])
    except (IndexError, ValueError):
        period = 0
    if period < 1:
        raise PyserError(f"{path}: expected a whole number of frames; extract the i-vectors again")
    return period
