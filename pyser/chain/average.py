"""The last epochs of a chain training, averaged into one model file."""

from __future__ import annotations

import json
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_json
from pyser.nn import model_io
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.training import checkpoints


def average(exp_dir: str | Path, epochs: int = 2) -> str:
    """Write exp_dir/final.safetensors, the mean of the last `epochs` checkpoints (fewer if there are fewer).

    Metadata: config (the network's), tokens, subsampling, chain (the training's settings), averaged (the epochs).
    """
    if epochs < 1:
        raise PyserError(f"--epochs {epochs}: must be at least 1")
    exp_dir = Path(exp_dir)
    description = read_json(exp_dir / "config.json", "network", "tokens", "chain")
    folder = exp_dir / "checkpoints"
    last = checkpoints.numbers(folder)[-epochs:]
    model = TdnnF(TdnnfConfig(**description["network"]))
    model.load_state_dict(checkpoints.average([checkpoints.path_of(folder, epoch) for epoch in last]))
    extra = {
        "tokens": json.dumps(description["tokens"]),
        "subsampling": str(description["chain"]["frame_subsampling_factor"]),
        "chain": json.dumps(description["chain"]),
        "averaged": json.dumps(last),
    }
    model_io.save(exp_dir / "final.safetensors", model, model.config, extra)
    return f"{exp_dir / 'final.safetensors'}: mean of epochs {' '.join(map(str, last))}"
