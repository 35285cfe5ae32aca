"""A network to call on numpy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pyser.nn.compute import ComputeConfig, compute
from pyser.nn.model_io import load_nnet3


class Network:
    """A network read by `pyser.kaldi.load_nnet3`.

    module : pyser.nn.nnet3.Nnet3, the torch module, for training and for other devices
    nodes : name -> columns of every node
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        self.module = load_nnet3(path)

    @property
    def nodes(self) -> dict[str, int]:
        return dict(self.module.dims)

    def __call__(
        self, feats: np.ndarray, ivectors: np.ndarray | None = None, node: str = "output", *, frames_per_chunk: int = 50,
        frame_subsampling_factor: int = 1, online_ivector_period: int = 10, fast: bool = False,
    ) -> np.ndarray:
        """Outputs of `node`, (ceil(T / frame_subsampling_factor), D) float32: what nnet3-compute gives.

        feats : (T, feat_dim), as they are in feats.scp (100 a second)
        ivectors : (rows, dim), one row every online_ivector_period frames, or (dim,), one for the utterance
        node : any of `nodes`; `tdnnf12` stands for tdnnf12.noop
        fast : one i-vector (the last) for the whole utterance; not Kaldi's numbers, less work

        PyserError if dimensions do not fit or there is no such node.
        """
        config = ComputeConfig(node, frames_per_chunk, frame_subsampling_factor, online_ivector_period, fast)
        return compute(self.module, np.asarray(feats, np.float32), None if ivectors is None else np.asarray(ivectors), config)

    def __repr__(self) -> str:
        inputs = " + ".join(f"{name} ({self.module.input_dim(name)})" for name in ("input", "ivector")
                            if self.module.input_dim(name))
        return f"Network({self.path!r}: {inputs} -> {', '.join(self.module.outputs())})"
