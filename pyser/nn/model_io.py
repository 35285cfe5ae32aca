"""A network in one file: safetensors, with its configuration in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from pyser.errors import PyserError
from pyser.files import atomic
from pyser.nn.tdnnf import TdnnF, TdnnfConfig


def save(path: str | Path, module: nn.Module, config: Any, extra: dict[str, str] | None = None) -> None:
    """Write the module's state; metadata: `config` (a dataclass, as JSON) and `extra`."""
    from safetensors.torch import save as to_bytes

    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with atomic(path) as temporary:
        temporary.write_bytes(to_bytes(state, metadata={"config": json.dumps(asdict(config)), **(extra or {})}))


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(state dict, metadata) of a model file; PyserError if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise PyserError(f"{path}: no such model; train it first, or give the path of a final.safetensors")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise PyserError(f"{path}: not a whole safetensors file ({str(error)[:80]}); train or copy it again") from None


def load_tdnnf(path: str | Path) -> TdnnF:
    """The network of `path` (a file, or a directory with final.safetensors) in eval mode."""
    path = Path(path)
    if path.is_dir():
        path = path / "final.safetensors"
    state, metadata = read(path)
    try:
        model = TdnnF(TdnnfConfig(**json.loads(metadata["config"])))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, PyserError) as error:
        raise PyserError(f"{path}: not a TDNN-F model ({str(error).splitlines()[0][:80]})") from None
    return model.eval()
