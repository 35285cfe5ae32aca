"""OpenFst's binary files of vector FSTs over the tropical semiring (`vector`, `standard`), as Kaldi reads and writes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyser.errors import PyserError
from pyser.files import atomic
from pyser.lang.acceptor import Acceptor

MAGIC = 2125659606
VERSION = 2
EXPANDED_MUTABLE = 3  # the properties that a vector FST has by its type; all others are left for OpenFst to find out
HAS_SYMBOLS = 3  # flags: input and output symbol tables follow the header
ARC = np.dtype([("input", "<i4"), ("output", "<i4"), ("cost", "<f4"), ("target", "<i4")])


@dataclass(frozen=True, eq=False)
class Fst:
    """arcs : (A, 4) int32: source, target, input, output label. costs : (A,) float32. finals : (states,) float32 costs, inf:
    not final."""

    start: int
    arcs: NDArray[np.int32]
    costs: NDArray[np.float32]
    finals: NDArray[np.float32]

    @classmethod
    def of(cls, acceptor: Acceptor) -> Fst:
        """Costs are negated log weights."""
        costs, finals = -acceptor.weights.astype(np.float32), -acceptor.finals.astype(np.float32)
        return cls(0, acceptor.arcs[:, [0, 1, 2, 2]], costs, finals)

    def acceptor(self) -> Acceptor:
        """Of the input labels; the start changes its number with state 0."""
        order = np.arange(len(self.finals), dtype=np.int32)
        order[[0, self.start]] = self.start, 0
        arcs = np.column_stack([order[self.arcs[:, 0]], order[self.arcs[:, 1]], self.arcs[:, 2]])
        return Acceptor(arcs, -self.costs.astype(np.float64), -self.finals[order].astype(np.float64))


def read_fst(path: str | Path) -> Fst:
    """An FST with at least one state, without symbol tables."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PyserError(f"{path}: no such file") from None
    try:
        kind, at = _word(data, 4)
        arc, at = _word(data, at)
        version, flags, _, start, states, _ = struct.unpack_from("<iiQqqq", data, at)
        at += 40
        known = struct.unpack_from("<i", data)[0] == MAGIC and (kind, arc, version) == ("vector", "standard", VERSION)
        if not known or flags & HAS_SYMBOLS or not 0 <= start < states <= len(data) // 12:
            raise ValueError
        finals, parts, counts = np.empty(states, np.float32), [], []
        for state in range(states):
            finals[state], count = struct.unpack_from("<fq", data, at)
            if count < 0:
                raise ValueError
            parts.append(np.frombuffer(data, ARC, count, at + 12))
            counts.append(count)
            at += 12 + count * ARC.itemsize
        table = np.concatenate([np.zeros(0, ARC), *parts])
        if at != len(data) or len(table) and not 0 <= table["target"].min() <= table["target"].max() < states:
            raise ValueError
    except (struct.error, ValueError, UnicodeDecodeError):
        raise PyserError(f"{path}: not a whole OpenFst file (vector, standard arcs, no symbols); make it again") from None
    sources = np.repeat(np.arange(states, dtype=np.int32), counts)
    arcs = np.column_stack([sources, table["target"], table["input"], table["output"]]).astype(np.int32)
    return Fst(start, arcs, table["cost"].copy(), finals)


def _word(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<i", data, at)
    if not 0 <= length <= 100:
        raise ValueError
    return data[at + 4 : at + 4 + length].decode(), at + 4 + length


def write_fst(path: str | Path, fst: Fst) -> None:
    """The file that Kaldi reads; arcs by state, else in the order given."""
    order = np.argsort(fst.arcs[:, 0], kind="stable")
    arcs = np.empty(len(order), ARC)
    arcs["input"], arcs["output"], arcs["target"] = fst.arcs[order][:, [2, 3, 1]].T
    arcs["cost"] = fst.costs[order]
    counts = np.bincount(fst.arcs[:, 0], minlength=len(fst.finals))
    parts = [struct.pack("<ii6si8siiQqqq", MAGIC, 6, b"vector", 8, b"standard", VERSION, 0, EXPANDED_MUTABLE, fst.start,
                         len(fst.finals), len(arcs))]
    first = 0
    for final, count in zip(fst.finals.tolist(), counts.tolist(), strict=True):
        parts += [struct.pack("<fq", final, count), arcs[first : first + count].tobytes()]
        first += count
    with atomic(path) as temporary:
        temporary.write_bytes(b"".join(parts))
