"""A network over utterances, chunk by chunk as Kaldi's nnet3-compute does it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.files import read_lines
from pyser.nn.nnet3 import Nnet3

IVECTOR_SLACK = 50  # frames that the last i-vector row may stand in for, as in Kaldi
FAST_CHUNK = 600
ROWS_AT_ONCE = {"cpu": 512, "cuda": 65536}  # of output; on a CPU so few that a layer's output stays in the caches


@dataclass(frozen=True)
class ComputeConfig:
    """Options of nnet3-compute, by their names there. frames_per_chunk is raised to a multiple of
    frame_subsampling_factor and of the network's modulus.

    fast: not Kaldi's numbers. One i-vector, the last, serves the whole utterance, so that chunks can be long; without
    i-vectors the numbers are the same.
    """

    node: str = "output"
    frames_per_chunk: int = 50
    frame_subsampling_factor: int = 1
    online_ivector_period: int = 10
    fast: bool = False

    def __post_init__(self) -> None:
        for name in ("frames_per_chunk", "frame_subsampling_factor", "online_ivector_period"):
            if getattr(self, name) < 1:
                raise PyserError(f"--{name.replace('_', '-')}={getattr(self, name)}: expected at least 1")

    def chunk(self, modulus: int) -> int:
        """Frames of a chunk of a network with this modulus: a multiple of it and of the subsampling."""
        wanted = max(FAST_CHUNK, self.frames_per_chunk) if self.fast else self.frames_per_chunk
        unit = math.lcm(modulus, self.frame_subsampling_factor)
        return -(-wanted // unit) * unit


@dataclass
class _Chunk:
    """Frames start … start + frames - 1 of an utterance, and the row of its i-vectors."""

    utterance: int
    start: int
    frames: int
    row: int


def compute(model: Nnet3, feats: np.ndarray, ivectors: np.ndarray | None, config: ComputeConfig) -> np.ndarray:
    """Outputs of a node, (ceil(T / factor), D) float32, for feats (T, feat_dim) and i-vectors: (rows, dim), one row every
    online_ivector_period frames, or (dim,), one for the utterance.

    As src/nnet3/nnet-am-decodable-simple.cc: chunks see their real neighbours, the utterance's first and last frames
    are repeated beyond its edges, and a chunk of output frames t0 … tlast uses the one i-vector row
    (t0 + (tlast - t0) // 2) // period, or the last row if that is not far away. The model's own precision and device are
    used: model.bfloat16() is faster still where the processor has it, and off by about 1 %.
    """
    check(model, feats, ivectors, config)
    return compute_batch(model, [feats], [ivectors], config)[0]


def compute_batch(
    model: Nnet3, feats: Sequence[np.ndarray], ivectors: Sequence[np.ndarray | None], config: ComputeConfig
) -> list[np.ndarray]:
    """`compute` for several utterances that `check` has passed; chunks of the same length are computed together."""
    node = model.full_name(config.node)
    chunks = []
    for number, (x, rows) in enumerate(zip(feats, ivectors, strict=True)):
        chunks += _chunks(number, x, rows, config, model.modulus)
    factor = config.frame_subsampling_factor
    outputs = [np.empty((-(-len(x) // factor), model.dims[node]), np.float32) for x in feats]
    device, dtype = model.device, model.dtype
    at_once = ROWS_AT_ONCE.get(device.type, ROWS_AT_ONCE["cuda"])
    with torch.no_grad():
        for frames in sorted({chunk.frames for chunk in chunks}, reverse=True):
            same = [chunk for chunk in chunks if chunk.frames == frames]
            step = max(1, at_once // frames)
            for part in (same[at : at + step] for at in range(0, len(same), step)):
                x, ivector = _inputs(model, node, part, feats, ivectors)
                given = None if ivector is None else _on(ivector, device, dtype)
                y = model(_on(x, device, dtype), given, node, factor).float().cpu().numpy()
                for number, chunk in enumerate(part):
                    place = chunk.start // factor
                    outputs[chunk.utterance][place : place + len(y)] = y[:, number]
    return outputs


def check(model: Nnet3, feats: np.ndarray, ivectors: np.ndarray | None, config: ComputeConfig) -> None:
    """PyserError if the network cannot be computed on this utterance."""
    if not len(feats):
        raise PyserError("no frames; the utterance is too short for a single feature frame")
    dim = model.input_dim("input")
    if not dim:
        raise PyserError("the network has no input node called 'input'; that is where features go")
    if feats.ndim != 2 or feats.shape[1] != dim:
        raise PyserError(f"features of {feats.shape[-1]} columns, the network was trained on {dim}")
    if ivectors is not None and ivectors.ndim not in (1, 2):
        raise PyserError(f"i-vectors of shape {ivectors.shape}; expected rows of them, or one")
    given, wanted = 0 if ivectors is None else ivectors.shape[-1], model.input_dim("ivector")
    if given != wanted:
        what = f"i-vectors of {given}" if given else "no i-vectors"
        raise PyserError(f"{what}, the network was trained with " + (f"i-vectors of {wanted}" if wanted else "none"))
    if not np.isfinite(feats).all() or ivectors is not None and not np.isfinite(ivectors).all():
        raise PyserError("not a number or infinite in the features or i-vectors; compute them again")
    if ivectors is not None and ivectors.ndim == 2:
        chunk, period = config.chunk(model.modulus), config.online_ivector_period
        missing = _row((len(feats) - 1) // chunk * chunk, len(feats), config, chunk) - len(ivectors) + 1
        if not len(ivectors) or missing * period > IVECTOR_SLACK:
            raise PyserError(f"{len(ivectors)} rows of i-vectors, one every {period} frames, are too few for {len(feats)} "
                             "frames; extract them again, or correct --online-ivector-period")


def _row(start: int, length: int, config: ComputeConfig, chunk: int) -> int:
    """Row of the i-vectors for the chunk that begins with frame `start` of `length`: that of the middle of its outputs."""
    frames = min(chunk, length - start)
    last = (frames - 1) // config.frame_subsampling_factor * config.frame_subsampling_factor
    return (start + last // 2) // config.online_ivector_period


def _chunks(
    number: int, feats: np.ndarray, ivectors: np.ndarray | None, config: ComputeConfig, modulus: int
) -> list[_Chunk]:
    rows, chunk = 0 if ivectors is None or ivectors.ndim == 1 else len(ivectors) - 1, config.chunk(modulus)
    return [_Chunk(number, start, min(chunk, len(feats) - start),
                   rows if config.fast else min(_row(start, len(feats), config, chunk), rows))
            for start in range(0, len(feats), chunk)]


def _inputs(
    model: Nnet3, node: str, chunks: Sequence[_Chunk], feats: Sequence[np.ndarray], ivectors: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, np.ndarray | None]:
    """(left + frames + right, chunks, feat_dim) and (chunks, ivector_dim)."""
    left, right = model.context(node)
    frames = np.arange(-left, chunks[0].frames + right)
    x = np.empty((len(frames), len(chunks), feats[0].shape[1]), np.float32)
    for number, chunk in enumerate(chunks):
        whole = feats[chunk.utterance]
        x[:, number] = whole[np.clip(chunk.start + frames, 0, len(whole) - 1)]
    if ivectors[0] is None:
        return x, None
    rows = [ivectors[chunk.utterance] for chunk in chunks]
    return x, np.stack([row if row.ndim == 1 else row[chunk.row]
                        for chunk, row in zip(chunks, rows, strict=True) if row is not None]).astype(np.float32)


def _on(x: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(x).to(device, dtype)


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
