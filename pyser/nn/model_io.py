"""Networks in files: safetensors with the configuration in the metadata, or Kaldi's own."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from pyser.errors import PyserError
from pyser.files import atomic
from pyser.kaldi.binary import Reader, Writer
from pyser.kaldi.nnet3.component import Component
from pyser.kaldi.nnet3.nnet import InputNode, Nnet, parse_config, read_nnet, write_nnet
from pyser.kaldi.transition_model import read_transition_model, write_transition_model
from pyser.nn.nnet3 import Nnet3
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.nn.tdnnf_nnet3 import from_nnet3, to_nnet3

BESIDE = ("cmvn_opts", "final.ie.id", "frame_subsampling_factor", "online_cmvn", "global_cmvn.stats", "tree", "phones.txt")


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
        raise PyserError(f"{path}: no such model; train it first, or give a .mdl, a .raw or an experiment directory")
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise PyserError(f"{path}: not a whole safetensors file ({str(error)[:80]}); train or copy it again") from None


def file_digest(path: str | Path) -> str:
    """Tells networks apart: the beginning of the file's SHA-256."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def identity(path: str | Path) -> str:
    """Which network a model file holds: its `file_digest`; random parameters have one for all seeds."""
    untrained = read(path)[1].get("untrained") if Path(path).suffix == ".safetensors" else None
    return f"{untrained}, random parameters" if untrained else file_digest(path)


def load_tdnnf(path: str | Path) -> TdnnF:
    """The network of `path` (a file, or a directory with final.safetensors) in eval mode, to train or decode with."""
    path = model_file(path)
    if _is_kaldi(path):
        return from_nnet3(read_nnet(path), str(path))
    state, metadata = read(path)
    if "nnet3" in metadata:
        return from_nnet3(_unpack(state, metadata, path), str(path))
    try:
        model = TdnnF(TdnnfConfig(**json.loads(metadata["config"])))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, PyserError) as error:
        raise PyserError(f"{path}: not a TDNN-F model ({str(error).splitlines()[0][:80]})") from None
    return model.eval()


def load_nnet(path: str | Path) -> Nnet:
    """The network of `path` with Kaldi's names: a final.mdl, a final.raw or an experiment directory, trained here or
    imported."""
    path = model_file(path)
    if _is_kaldi(path):
        return read_nnet(path)
    state, metadata = read(path)
    return _unpack(state, metadata, path) if "nnet3" in metadata else to_nnet3(load_tdnnf(path))


def load_nnet3(path: str | Path) -> Nnet3:
    """`load_nnet`, ready to compute any node."""
    return Nnet3(load_nnet(path), str(path)).eval()


def model_file(path: str | Path) -> Path:
    """`path` itself or, in a directory, final.safetensors, final.raw or final.mdl, whichever there is first."""
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in ("final.safetensors", "final.raw", "final.mdl") if (path / name).is_file()]
        if not found:
            raise PyserError(f"{path}: no model in it (final.safetensors, final.raw or final.mdl); train or import one")
        return found[0]
    return path


def _is_kaldi(path: Path) -> bool:
    """Whether a file begins as Kaldi's models do: binary, or with a tag."""
    try:
        with open(path, "rb") as file:
            return file.read(20).lstrip().startswith((b"\0B", b"<"))
    except OSError:
        return False  # (`read` says what is wrong)


def save_nnet(nnet: Nnet, path: str | Path) -> None:
    """Write an imported network; every field of every component is kept."""
    from safetensors.numpy import save as to_bytes

    arrays: dict[str, np.ndarray] = {"priors": nnet.priors}
    components = []
    for name, component in nnet.components.items():
        fields: list[list[Any]] = []
        for key, value in component.fields.items():
            if isinstance(value, np.ndarray):
                arrays[f"{name}/{key}"] = np.ascontiguousarray(value)
            fields.append([key, None if isinstance(value, np.ndarray) else value])
        components.append([name, component.type, fields])
    metadata = {"nnet3": json.dumps(components), "config": nnet.config()}
    if nnet.transition_model is not None:
        writer = Writer(binary=False)
        write_transition_model(writer, nnet.transition_model)
        metadata["transition_model"] = writer.data().decode()
        arrays["log_probs"] = nnet.transition_model.log_probs  # (in text it has 7 digits)
    with atomic(path) as temporary:
        temporary.write_bytes(to_bytes(arrays, metadata=metadata))


def import_nnet3(source: str | Path, exp_dir: str | Path) -> str:
    """Write exp_dir/final.safetensors from a .mdl or .raw file, or from a directory with one, and copy the small files beside
    it that say how it is to be fed; returns the closing line."""
    path = model_file(source)
    nnet = read_nnet(path)
    model = Nnet3(nnet, str(path))  # finds what does not fit together
    target = Path(exp_dir)
    for name in BESIDE:
        if (path.parent / name).is_file():
            with atomic(target / name) as temporary:
                temporary.write_bytes((path.parent / name).read_bytes())
    save_nnet(nnet, target / "final.safetensors")
    dims = [f"{name} {node.dim}" for name, node in nnet.nodes.items() if isinstance(node, InputNode)]
    return (f"{target}/final.safetensors: {len(nnet.components)} components, {sum(p.numel() for p in model.parameters())} "
            f"parameters, inputs {', '.join(dims)}")


def export_nnet3(model: str | Path, out: str | Path, transition_model: str | Path | None = None, binary: bool = True) -> str:
    """Write `model` (trained here or imported) as a .mdl or, if `out` has another suffix, as a .raw; returns the closing
    line. transition_model: a .mdl, or a file with a transition model alone."""
    nnet, out = load_nnet(model), Path(out)
    if transition_model is not None:
        nnet = replace(nnet, transition_model=read_transition_model(Reader(transition_model)))
    network = Nnet3(nnet, str(model))
    contexts = None
    if out.suffix == ".mdl":
        if nnet.transition_model is None:
            raise PyserError(f"{out}: a .mdl holds a transition model, and {model} has none; give --transition-model, or "
                             "write a .raw")
        pdfs, columns = nnet.transition_model.num_pdfs, network.dim("output")
        if pdfs != columns:
            raise PyserError(f"{transition_model or model}: its transition model has {pdfs} pdfs, the network "
                             f"{columns} outputs")
        contexts = network.context("output")
    write_nnet(nnet, out, binary, contexts)
    return f"{out}: {len(nnet.components)} components"


def _unpack(state: dict[str, Any], metadata: dict[str, str], path: Path) -> Nnet:
    """The network that `save_nnet` wrote."""
    try:
        components = {}
        for name, kind, fields in json.loads(metadata["nnet3"]):
            values = {key: state[f"{name}/{key}"].numpy() if value is None else value for key, value in fields}
            components[name] = Component(kind, {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
        transition_model = None
        if "transition_model" in metadata:
            reader = Reader.of(io.BytesIO(metadata["transition_model"].encode()), str(path))
            transition_model = replace(read_transition_model(reader), log_probs=state["log_probs"].numpy())
        return Nnet(parse_config(metadata["config"], str(path)), components, transition_model, state["priors"].numpy())
    except (KeyError, TypeError, ValueError) as error:
        raise PyserError(f"{path}: not a whole imported network ({str(error)[:80]}); import it again") from None
