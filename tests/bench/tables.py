"""How fast tables are: python tests/bench/tables.py. Seconds for 600 s of hires features (60000 x 40), best of five."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pyser.kaldi.tables import MatrixTable, MatrixWriter, load_mat, read_mats


def best(what: str, work: Callable[[], object]) -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    print(f"{what:44}{min(times):8.4f} s")


def write(wspecifier: str, matrices: list[np.ndarray], method: int) -> None:
    with MatrixWriter(wspecifier, method) as writer:
        for number, matrix in enumerate(matrices):
            writer.write(f"utt{number:05d}", matrix)


def main() -> None:
    whole = np.random.default_rng(0).normal(scale=20, size=(60_000, 40)).astype(np.float32)
    for name, matrices in (("one matrix", [whole]), ("200 matrices", np.split(whole, 200))):
        for method in (0, 1, 3):
            with tempfile.TemporaryDirectory() as directory:
                ark, scp = f"{directory}/x.ark", f"{directory}/x.scp"
                title = f"{name}, {f'method {method}' if method else 'not compressed'}"
                best(f"{title}: write", lambda: write(f"ark,scp:{ark},{scp}", matrices, method))  # noqa: B023
                best(f"{title}: read ark", lambda: list(read_mats(f"ark:{ark}")))  # noqa: B023
                best(f"{title}: read scp", lambda: list(read_mats(f"scp:{scp}")))  # noqa: B023
                entries = [line.split()[1] for line in Path(scp).read_text().splitlines()]
                best(f"{title}: load_mat each", lambda: [load_mat(entry) for entry in entries])  # noqa: B023
                best(f"{title}: MatrixTable", lambda: [MatrixTable(f"scp:{scp}")[f"utt{0:05d}"]])  # noqa: B023


if __name__ == "__main__":
    main()
