"""The outputs of an acoustic model for a data directory, for decoding and alignment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyser.chain.data import features_of, ivectors_of
from pyser.errors import PyserError
from pyser.kaldi.manifests import read_cuts
from pyser.lang.lang import read_tokens
from pyser.lang.topology import load_topology
from pyser.nn import model_io
from pyser.nn.compute import ComputeConfig, compute, read_period
from pyser.nn.nnet3 import Nnet3


@dataclass(frozen=True)
class AcousticModel:
    """exp_dir/final.safetensors; PyserError if it was not trained with the phones and the topology of lang_dir."""

    exp_dir: Path
    lang_dir: Path
    frames_per_chunk: int = 150
    network: Nnet3 = field(init=False)
    subsampling: int = field(init=False)  # frames of the input for one of the output

    def __post_init__(self) -> None:
        path = Path(self.exp_dir) / "final.safetensors"
        network = model_io.load_nnet3(path)
        _, metadata = model_io.read(path)
        if json.loads(metadata.get("tokens", "[]")) != list(read_tokens(self.lang_dir)):
            raise PyserError(f"{self.lang_dir}/tokens.txt: not the phones that {self.exp_dir} was trained with; use its lang")
        topology = load_topology(self.lang_dir)
        if network.dims["output"] != topology.num_pdfs:
            raise PyserError(f"{self.lang_dir}: a topology of {topology.num_pdfs} pdfs, {self.exp_dir} was trained with "
                             f"{network.dims['output']}; use its lang")
        object.__setattr__(self, "network", network)
        object.__setattr__(self, "subsampling", int(metadata["subsampling"]))

    def outputs(self, data_dir: str | Path, ivector_dir: str | Path | None) -> Iterator[tuple[Any, np.ndarray]]:
        """(cut, output (T, pdfs) float32, log-softmaxed) of every utterance."""
        period = read_period(ivector_dir) if ivector_dir else 10
        config = ComputeConfig("output", self.frames_per_chunk, self.subsampling, period)
        for cut in read_cuts(data_dir, ivector_dir):
            try:
                output = compute(self.network, features_of(cut), ivectors_of(cut), config)
            except PyserError as error:
                raise PyserError(f"{cut.id}: {error}") from None
            yield cut, torch.from_numpy(output).log_softmax(-1).numpy()
