"""Files are written under a temporary name and renamed when whole, so a finished name is a finished file."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from pyser.errors import PyserError


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix); rename it to `path` on success, delete it on failure. A link stays
    one: what it leads to is replaced."""
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise PyserError(f"cannot write {path}: {error.strerror or error}; check space and permissions") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8, names of files in it as the bytes they are) to `path`, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_torch(path: str | Path, value: Any) -> None:
    """torch.save, whole or not at all (by way of memory: torch itself aborts the process when a disk is full)."""
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 text file; PyserError if it is missing."""
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise PyserError(f"{path}: no such file; run the earlier stages first") from None
    except UnicodeDecodeError as error:
        raise PyserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert it with iconv") from None


def text_lines(path: str | Path) -> Iterator[str]:
    """Lines of a text in UTF-8, which may be .gz, one after the other: for files too large to hold."""
    with unpacked(path) as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode()
            except UnicodeDecodeError:
                raise PyserError(f"{path}:{number}: not UTF-8; convert it with iconv") from None


@contextmanager
def unpacked(path: str | Path) -> Iterator[BufferedIOBase]:
    """A file's bytes, those inside if it is .gz."""
    try:
        with gzip.open(path) if Path(path).suffix == ".gz" else open(path, "rb") as stream:
            yield stream
    except FileNotFoundError:
        raise PyserError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PyserError(f"{path}: not a whole gzip file ({error}); get it again") from None


def read_json(path: str | Path, *needed: str) -> dict[str, Any]:
    """A JSON object; PyserError if it is missing, damaged or lacks one of the keys `needed`."""
    try:
        value = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise PyserError(f"{path}: not JSON ({error}); write it again") from None
    lacking = [key for key in needed if not isinstance(value, dict) or key not in value]
    if lacking:
        raise PyserError(f"{path}: has no '{lacking[0]}'; is it the right file?")
    return dict(value)


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Keep C++ libraries from logging to stderr inside the block: what they fail at is raised, and said in one line."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
