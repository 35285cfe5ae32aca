"""Outputs of a node for a whole table of features, in groups of utterances, so that short ones are computed together."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pyser.errors import Dropped, PyserError
from pyser.files import read_lines
from pyser.kaldi.resumable import ResumableWriter, describe
from pyser.kaldi.tables import MatrixTable, MatrixWriter, VectorTable, read_mats, read_scp
from pyser.nn.compute import ComputeConfig, check, compute_batch
from pyser.nn.model_io import load_nnet3, model_file
from pyser.nn.nnet3 import Nnet3

GROUP_FRAMES = {"cpu": 3000, "cuda": 300_000}  # of input; utterances of a group are in memory at once
REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Group:
    """outputs: (utterance, matrix). taken: entries of the table, dropped ones included, and frames: their frames."""

    outputs: list[tuple[str, np.ndarray]]
    dropped: list[tuple[str, str]]
    taken: int
    frames: int


@dataclass(frozen=True)
class Device:
    """Where (use_gpu: yes, no or, if there is one, optional or wait) and in which precision the network is computed."""

    use_gpu: str = "no"
    bfloat16: bool = False


def load(path: str | Path, device: Device) -> Nnet3:
    """The network of `path` on its device."""
    model = load_nnet3(path)
    if device.bfloat16:
        model = model.bfloat16()
    if device.use_gpu == "yes" and not torch.cuda.is_available():
        raise PyserError("no GPU here that torch can use; take --use-gpu no or optional")
    return model.cuda() if device.use_gpu != "no" and torch.cuda.is_available() else model


def groups(
    model: Nnet3, feats: Iterable[tuple[str, np.ndarray]], ivectors: Mapping[str, np.ndarray] | None, config: ComputeConfig
) -> Iterator[Group]:
    """Outputs of config.node. Where a group ends depends on the features alone, so a run that begins at the end of one
    makes the same groups, and the same numbers to the last bit. Utterances without frames or i-vectors are dropped."""
    size = GROUP_FRAMES.get(model.device.type, GROUP_FRAMES["cuda"])
    waiting: list[tuple[str, np.ndarray, np.ndarray | None]] = []
    dropped: list[tuple[str, str]] = []
    frames = 0
    for utt, matrix in feats:
        if not len(matrix):
            dropped.append((utt, "without frames"))
        elif ivectors is not None and utt not in ivectors:
            dropped.append((utt, "without i-vectors"))
        else:
            waiting.append((utt, matrix, None if ivectors is None else ivectors[utt]))
            frames += len(matrix)
        if frames >= size:
            yield Group(_outputs(model, waiting, config), dropped, len(waiting) + len(dropped), frames)
            waiting, dropped, frames = [], [], 0
    if waiting or dropped:
        yield Group(_outputs(model, waiting, config), dropped, len(waiting) + len(dropped), frames)


def _outputs(
    model: Nnet3, waiting: list[tuple[str, np.ndarray, np.ndarray | None]], config: ComputeConfig
) -> list[tuple[str, np.ndarray]]:
    for utt, feats, rows in waiting:
        try:
            check(model, feats, rows, config)
        except PyserError as error:
            raise PyserError(f"{utt}: {error}") from None
    outputs = compute_batch(model, [feats for _, feats, _ in waiting], [rows for _, _, rows in waiting], config)
    return [(utt, output) for (utt, _, _), output in zip(waiting, outputs, strict=True)]


def compute_table(
    model: Nnet3, feats: str, wspecifier: str, ivectors: str | None, utterance_ivectors: str | None, config: ComputeConfig,
    compress: bool | int = False, apply_exp: bool = False, max_dropped: float = 0.05, allow_pipes: bool = False,
) -> str:
    """nnet3-compute: any rspecifier to any wspecifier; returns the closing line.

    ivectors: rspecifier of online i-vectors (rows, dim); utterance_ivectors: of one vector (dim,) for each utterance.
    """
    model.full_name(config.node)  # a wrong name fails here, before any work
    table: Mapping[str, np.ndarray] | None = None
    if ivectors or utterance_ivectors:
        table = (MatrixTable(ivectors, allow_pipes) if ivectors
                 else VectorTable(str(utterance_ivectors), allow_pipes))
    dropped = Dropped(f"{config.node} of {feats}", max_dropped)
    with MatrixWriter(wspecifier, compress, allow_pipes=allow_pipes) as writer:
        for group in groups(model, read_mats(feats, allow_pipes), table, config):
            for utt, reason in group.dropped:
                dropped.add(utt, reason)
            for utt, output in group.outputs:
                writer.write(utt, np.exp(output) if apply_exp else output)
        line = dropped.finish(writer.count + sum(dropped.reasons.values()))
    return line


def dump(
    model_path: str | Path, feats_scp: str | Path, ark: str | Path, scp: str | Path, ivectors_scp: str | Path | None,
    config: ComputeConfig, compress: bool | int = True, max_dropped: float = 0.05, device: Device = Device(),  # noqa: B008
) -> str:
    """Like compute_table, of scp files to an archive and its scp file, and a dump that was broken off goes on where it was,
    with the same bytes in the end. Prints how far it is; returns the closing line."""
    model = load(model_path, device)
    model.full_name(config.node)
    entries = read_scp(feats_scp)
    identity = hashlib.sha256(f"{config} {compress} {device}".encode())
    identity.update(model_file(model_path).read_bytes())
    for list_ in (feats_scp, ivectors_scp):
        identity.update("\n".join(read_lines(list_)).encode() if list_ else b"")
    dropped = Dropped(f"{config.node} of {feats_scp}", max_dropped)
    table = MatrixTable(f"scp:{ivectors_scp}") if ivectors_scp else None
    feats = MatrixTable(f"scp:{feats_scp}")
    reported = time.monotonic()
    with ResumableWriter(ark, scp, compress, identity.hexdigest(), len(entries)) as writer:
        rest = list(entries)[writer.position :]
        for group in groups(model, ((utt, feats[utt]) for utt in rest), table, config):
            writer.write(group.outputs, group.taken, group.frames, group.dropped)
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                state = writer.state
                print(describe(state["position"], state["total"], state["frames"], state["seconds"]), flush=True)
        for utt, reason in writer.dropped:
            dropped.add(utt, reason)
        line = dropped.finish(len(entries))
    return line

