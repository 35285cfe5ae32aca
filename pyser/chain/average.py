"""The last epochs of a chain training, averaged into one model file."""

from __future__ import annotations

import json
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_json
from pyser.nn import model_io
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.training import checkpoints


def average(exp_dir: str | Path, avg: int = 2, epoch: int | None = None) -> str:
    """Write exp_dir/final.safetensors, the mean of the last `avg` checkpoints up to `epoch` (fewer if there are fewer).

    Metadata: config (the network's), tokens, subsampling, chain (the training's settings), averaged (the epochs).
    """
    if avg < 1:
        raise PyserError(f"--avg {avg}: must be at least 1")
    exp_dir = Path(exp_dir)
    description = read_json(exp_dir / "config.json", "network", "tokens", "chain")
    numbers = checkpoints.numbers(exp_dir)
    if epoch is not None and epoch not in numbers:
        raise PyserError(f"--epoch {epoch}: {checkpoints.path_of(exp_dir, epoch)} is not there")
    last = [number for number in numbers if epoch is None or number <= epoch][-avg:]
    model = TdnnF(TdnnfConfig(**description["network"]))
    model.load_state_dict(checkpoints.average([checkpoints.path_of(exp_dir, number) for number in last]))
    extra = {
        "tokens": json.dumps(description["tokens"]),
        "subsampling": str(description["chain"]["frame_subsampling_factor"]),
        "chain": json.dumps(description["chain"]),
        "averaged": json.dumps(last),
    }
    model_io.save(exp_dir / "final.safetensors", model, model.config, extra)
    return f"{exp_dir / 'final.safetensors'}: mean of epochs {' '.join(map(str, last))}"
