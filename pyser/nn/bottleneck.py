"""Outputs of a node for a whole table of features, in groups of utterances, so that short ones are computed together."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyser.device import choose_device
from pyser.errors import Dropped, PyserError
from pyser.kaldi.maps import read_map
from pyser.kaldi.resumable import ResumableWriter, describe
from pyser.kaldi.specifier import split_range
from pyser.kaldi.stream import split_offset
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
    return model.to(choose_device(device.use_gpu))


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


class IvectorTable(Mapping[str, np.ndarray]):
    """Utterance -> i-vectors: (rows, dim), or (dim,) of the utterance or of its speaker."""

    def __init__(self, table: Mapping[str, np.ndarray], utt2spk: Mapping[str, str] | None = None):
        self.table, self.utt2spk = table, utt2spk

    @classmethod
    def open(
        cls, online: str | None, vectors: str | None, utt2spk: str | None = None, allow_pipes: bool = False
    ) -> IvectorTable | None:
        """Of the rspecifier that is given, `online` (matrices) or `vectors`; None if neither is."""
        if online:
            return cls(MatrixTable(online, allow_pipes))
        if not vectors:
            return None
        return cls(VectorTable(vectors, allow_pipes), read_map(utt2spk, allow_pipes) if utt2spk else None)

    def _key(self, utt: str) -> str:
        return utt if self.utt2spk is None else self.utt2spk.get(utt, "")

    def __getitem__(self, utt: str) -> np.ndarray:
        return self.table[self._key(utt)]

    def __contains__(self, utt: object) -> bool:
        return self._key(str(utt)) in self.table

    def __iter__(self) -> Iterator[str]:
        return iter(self.table if self.utt2spk is None else self.utt2spk)

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Output:
    """What is done to a node's output, as by nnet3-compute's options of these names, and how it is stored."""

    compress: bool | int = False
    use_priors: bool = False
    acoustic_scale: float = 1.0
    apply_exp: bool = False

    def of(self, output: np.ndarray, priors: np.ndarray) -> np.ndarray:
        """output (T, D); priors (D,) of the model, or empty."""
        if self.use_priors and len(priors):
            if len(priors) != output.shape[1]:
                raise PyserError(f"the model has {len(priors)} priors, the node {output.shape[1]} columns; no --use-priors")
            output = output - np.log(priors)
        if self.acoustic_scale != 1.0:
            output = output * np.float32(self.acoustic_scale)
        return np.exp(output) if self.apply_exp else output


def compute_table(
    model: Nnet3, feats: str, wspecifier: str, ivectors: Mapping[str, np.ndarray] | None, config: ComputeConfig,
    output: Output = Output(), max_dropped: float = 0.05, allow_pipes: bool = False,  # noqa: B008 (frozen)
) -> str:
    """nnet3-compute: any rspecifier of features to any wspecifier; returns the closing line."""
    model.full_name(config.node)  # a wrong name fails here, before any work
    dropped = Dropped(f"{config.node} of {feats}", max_dropped)
    with MatrixWriter(wspecifier, output.compress, allow_pipes=allow_pipes) as writer:
        for group in groups(model, read_mats(feats, allow_pipes), ivectors, config):
            for utt, reason in group.dropped:
                dropped.add(utt, reason)
            for utt, matrix in group.outputs:
                writer.write(utt, output.of(matrix, model.nnet.priors))
        line = dropped.finish(writer.count + sum(dropped.reasons.values()))
    return line


def _identity_of(entries: Mapping[str, str]) -> bytes:
    """What tells an scp file and the archives behind it from others."""
    archives = sorted({split_offset(split_range(entry)[0])[0] for entry in entries.values()})
    stats = [(stat.st_size, stat.st_mtime_ns) for archive in archives if (stat := os.stat(archive))]
    return f"{entries} {archives} {stats}".encode()


def dump(
    model_path: str | Path, feats_scp: str | Path, ark: str | Path, scp: str | Path, ivectors_scp: str | Path | None,
    config: ComputeConfig, compress: bool | int = True, max_dropped: float = 0.05, device: Device = Device(),  # noqa: B008
) -> str:
    """Like compute_table, of scp files to an archive and its scp file, and a dump that was broken off goes on where it was,
    with the same bytes in the end. Prints how far it is; returns the closing line."""
    model = load(model_path, device)
    model.full_name(config.node)
    entries = read_scp(feats_scp)
    identity = hashlib.sha256(f"{config} {compress} {model.device} {model.dtype}".encode())
    identity.update(model_file(model_path).read_bytes())
    identity.update(_identity_of(entries))
    if ivectors_scp:
        identity.update(_identity_of(read_scp(ivectors_scp)))
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

