"""An archive written in groups: what a broken-off run has finished stays, and the next one goes on after it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.files import read_json, write_json
from pyser.kaldi.tables import MatrixWriter

FRAME_SHIFT = 0.01  # seconds, for the real-time factor


class ResumableWriter:
    """Writes matrices to an archive and its scp file, which get their names when the block ends well.

    Until then they are `.NAME.partial`, beside `.NAME.progress`, which says how much of them counts: `identity` (of all that
    decides the result; another one starts afresh), position (entries of the input list done with, of `total`), bytes, lines,
    frames and seconds, and what was dropped, as (utterance, reason).
    """

    def __init__(self, ark: str | Path, scp: str | Path, compress: bool | int, identity: str, total: int):
        self.ark, self.scp = Path(ark).absolute(), Path(scp).absolute()
        self._paths = [path.with_name(f".{path.name}.partial") for path in (self.ark, self.scp)]
        self._encoder = MatrixWriter(f"ark,scp:{self.ark},{self.scp}", compress)
        self._progress = progress_file(self.ark)
        self._fresh = {"identity": identity, "total": total, "position": 0, "bytes": 0, "lines": 0, "frames": 0,
                       "seconds": 0.0, "dropped": []}

    def __enter__(self) -> ResumableWriter:
        try:
            self.ark.parent.mkdir(parents=True, exist_ok=True)
            self.scp.parent.mkdir(parents=True, exist_ok=True)
            self.state = dict(self._left_by_last_run() or self._fresh)
            if not self.position:
                self._progress.unlink(missing_ok=True)  # (of another run: it would count what this one writes as its own)
            self._files = [open(path, "r+b" if self.position else "wb") for path in self._paths]
            for file, size in zip(self._files, (self.state["bytes"], self.state["lines"]), strict=True):
                file.truncate(file.seek(size))
        except OSError as error:
            raise self._failed(error) from None
        self._since = time.monotonic()
        return self

    def _left_by_last_run(self) -> dict[str, Any] | None:
        try:
            state = read_json(self._progress)
            sizes = [path.stat().st_size for path in self._paths]
            whole = [state["bytes"], state["lines"]]
            return dict(state) if state.keys() == self._fresh.keys() and state["identity"] == self._fresh["identity"] \
                and all(size >= least for size, least in zip(sizes, whole, strict=True)) else None
        except (PyserError, OSError, AttributeError, KeyError, TypeError):
            return None  # (no such files, or not what this class wrote)

    def _failed(self, error: OSError) -> PyserError:
        return PyserError(f"cannot write {self.ark}: {error.strerror or error}; check space and permissions")

    @property
    def position(self) -> int:
        """Entries of the input list that are done with."""
        return int(self.state["position"])

    @property
    def dropped(self) -> list[tuple[str, str]]:
        """(utterance, reason) of those left out."""
        return [(utt, reason) for utt, reason in self.state["dropped"]]

    def write(
        self, matrices: Sequence[tuple[str, np.ndarray]], taken: int, frames: int, dropped: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Append a group; `taken` more entries of the input list, of `frames` frames, are done with."""
        data, lines, place = [], [], self.state["bytes"]
        for utt, matrix in matrices:
            if not np.isfinite(matrix).all():
                raise PyserError(f"{utt}: not a number or infinite in what goes to {self.ark}; check features and model")
            key = f"{utt} ".encode()
            data.append(key + self._encoder.encode(matrix))
            lines.append(f"{utt} {self.ark}:{place + len(key)}\n".encode())
            place += len(data[-1])
        try:
            for file, parts in zip(self._files, (data, lines), strict=True):
                file.write(b"".join(parts))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from None
        now = time.monotonic()
        self.state.update(position=self.position + taken, bytes=place, lines=self.state["lines"] + sum(map(len, lines)),
                          frames=self.state["frames"] + frames, seconds=self.state["seconds"] + now - self._since,
                          dropped=[*self.state["dropped"], *map(list, dropped)])
        self._since = now
        write_json(self._progress, self.state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()
        if kind is None:
            for path, final in zip(self._paths, (self.ark, self.scp), strict=True):
                os.replace(path, final)
            self._progress.unlink(missing_ok=True)
        elif not self.position:
            for path in self._paths:
                path.unlink(missing_ok=True)


def progress_file(ark: str | Path) -> Path:
    """Where the writer of `ark` says how far it is."""
    return Path(ark).with_name(f".{Path(ark).name}.progress")


def describe(position: int, total: int, frames: int, seconds: float) -> str:
    """`120/500 utterances, 0.021 x real time, 0:03:10 to go`."""
    left = seconds / position * (total - position) if position else 0.0
    clock = f"{int(left) // 3600}:{int(left) // 60 % 60:02}:{int(left) % 60:02}"
    return f"{position}/{total} utterances, {seconds / max(frames * FRAME_SHIFT, 1e-9):.4f} x real time, {clock} to go"


def watch(arks: Sequence[str | Path], total: int) -> None:
    """A progress bar over the writers of `arks`, `total` utterances in all, until all archives are there."""
    from tqdm import tqdm

    last: dict[Path, dict[str, float]] = {}
    with tqdm(total=total, unit="utt") as bar:
        while True:
            for path in map(Path, arks):
                if progress_file(path).exists():
                    with contextlib.suppress(PyserError, OSError):  # (it may be replaced at this moment)
                        last[path] = read_json(progress_file(path))
            there = [path for path in map(Path, arks) if path.exists() and not progress_file(path).exists()]
            done = sum(state["total"] if path in there else state["position"] for path, state in last.items())
            frames = sum(state["frames"] for state in last.values())
            seconds = sum(state["seconds"] for state in last.values())
            if frames:
                bar.set_postfix_str(f"{seconds / (frames * FRAME_SHIFT):.4f} x real time per job", refresh=False)
            bar.update(min(done, total) - bar.n)
            if len(there) == len(arks):
                return
            time.sleep(1.0)
