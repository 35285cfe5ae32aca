"""Kaldi's extended filenames for input: `file`, `file.gz`, `file:offset`, `-` and `command |` (util/kaldi-io.cc).

Whatever the source, bytes are read in bounded pieces: no size that a file claims is allocated before its bytes are there.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import subprocess
import sys
import zlib
from typing import Any

from pyser.errors import PyserError

PIECE = 1 << 18
_WHITE, _BLACK = re.compile(rb"[ \t\n\r\f\v]"), re.compile(rb"[^ \t\n\r\f\v]")


class Stream:
    """Reads bytes front to back with look-ahead; `place` is the position, `name` what messages call it.

    `raw` is anything with `read(size)` and `close()`; `size` is the length of the whole where it is known.
    """

    def __init__(self, raw: Any, name: str, size: int | None = None):
        self.raw, self.name, self.size = raw, name, size
        self._buffer, self._at, self._start, self._ended = b"", 0, 0, False
        self._error: PyserError | None = None
        self._next = raw.read1 if isinstance(raw, gzip.GzipFile) else raw.read  # (gives what precedes a damaged place, too)

    @property
    def place(self) -> int:
        return self._start + self._at

    def _read(self, size: int) -> bytes:
        """The next bytes, none at the end and where it cannot be read further; the latter is raised when bytes are missed."""
        if self._ended:  # (a pipe must not be read again)
            return b""
        try:
            piece = bytes(self._next(size))
        except (OSError, EOFError, zlib.error) as error:
            self._error = PyserError(f"{self.name}: cannot read it ({error}); the file is damaged or was cut short")
            piece = b""
        self._ended = not piece
        return piece

    def _needed(self, taken: bytes, enough: bool) -> bytes:
        if self._error and not enough:
            raise self._error
        return taken

    def peek(self, size: int) -> bytes:
        """The next `size` bytes (fewer at the end), not consumed."""
        if len(self._buffer) - self._at < size:
            parts, held = [self._buffer[self._at :]], len(self._buffer) - self._at
            while held < size and (piece := self._read(max(size - held, PIECE))):
                parts.append(piece)
                held += len(piece)
            self._start, self._buffer, self._at = self.place, b"".join(parts), 0
        ahead = self._buffer[self._at : self._at + size]
        return self._needed(ahead, enough=bool(ahead) or not size)

    def take(self, size: int) -> bytes:
        """The next `size` bytes; fewer, and nothing much allocated, if the source ends before."""
        if size <= max(PIECE, len(self._buffer) - self._at):
            taken = self.peek(size)
            self._at += len(taken)
            return self._needed(taken, enough=len(taken) == size)
        if self.size is not None and size > self.size - self.place:
            return b""
        parts = [self._buffer[self._at :]]
        held = len(parts[0])
        self._start, self._buffer, self._at = self._start + len(self._buffer), b"", 0
        step = PIECE if self.size is None else size
        while held < size and (piece := self._read(min(size - held, step))):
            parts.append(piece)
            held += len(piece)
            self._start += len(piece)
            step = max(step, held)  # (grows with what has come, so that large objects take few reads)
        return self._needed(b"".join(parts), enough=held == size)

    def until(self, pattern: re.Pattern[bytes] | bytes, limit: int | None = None) -> bytes | None:
        """The bytes before the first match of `pattern` (one byte wide), which is not consumed; None if there is none.

        Nothing is consumed when there is none. `limit` bounds the bytes looked at.
        """
        search = re.compile(re.escape(pattern)).search if isinstance(pattern, bytes) else pattern.search
        size, seen = 256, 0
        while True:
            ahead = self.peek(size if limit is None else min(size, limit))
            if match := search(ahead, seen):
                self._at += match.start()
                return ahead[: match.start()]
            if len(ahead) < size:
                return None
            seen, size = len(ahead), 4 * size

    def skip_white(self) -> None:
        while (ahead := self.peek(256)) and not (match := _BLACK.search(ahead)):
            self._at += len(ahead)
        if ahead and match:
            self._at += match.start()

    def word(self, limit: int) -> bytes:
        """The next word (up to white space or the end, not more than `limit` bytes); white space before it is skipped."""
        self.skip_white()
        word = self.until(_WHITE, limit + 1)
        if word is None:
            word = self.peek(limit + 1)
            self._at += len(word)
        return word

    def line(self) -> bytes | None:
        """The next line without its newline; None at the end."""
        if not self.peek(1):
            return None
        line = self.until(b"\n")
        if line is None:
            line = self.rest()
        else:
            self._at += 1
        return line

    def rest(self) -> bytes:
        parts = [self._buffer[self._at :]]
        while piece := self._read(PIECE):
            parts.append(piece)
        self._start, self._buffer, self._at = self.place + sum(map(len, parts)), b"", 0
        return self._needed(b"".join(parts), enough=False)

    def seek(self, place: int) -> None:
        """Go to byte `place` (of a regular file)."""
        if self._start <= place <= self._start + len(self._buffer):
            self._at = place - self._start
        else:
            self.raw.seek(place)
            self._start, self._buffer, self._at, self._ended, self._error = place, b"", 0, False, None

    def close(self) -> None:
        if self.raw is not getattr(sys.stdin, "buffer", None):
            self.raw.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Pipe:
    """The output of a shell command; a command that fails is an error, unless it was stopped by our reading no further."""

    def __init__(self, command: str):
        self.command = command
        self.process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, bufsize=0)
        self.closed = False

    def read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        if self.closed:
            return b""
        piece = self.process.stdout.read(size)
        if not piece:
            self.close()
        return piece or b""

    def close(self) -> None:
        """Wait for the command; that it failed is said once."""
        assert self.process.stdout is not None
        if self.closed:
            return
        self.closed = True
        self.process.stdout.close()
        if self.process.wait() not in (0, -13, 141):  # (13 is SIGPIPE; 141 is how a shell reports it)
            raise PyserError(f"{self.command} |: the command failed (exit status {self.process.returncode}); see its output")


def split_offset(rxfilename: str) -> tuple[str, int | None]:
    """`file:offset` as (file, offset); offset is None where there is none."""
    path, colon, offset = rxfilename.rpartition(":")
    if colon and offset.isascii() and offset.isdigit():
        return path, int(offset[:20])
    return rxfilename, None


def open_input(rxfilename: str, allow_pipes: bool = False) -> Stream:
    """Open an rxfilename, standing at its offset. A command that fails is noticed when the stream is closed at the latest."""
    if rxfilename.strip() in ("", "-"):
        if sys.stdin is None:
            raise PyserError("standard input: it is closed; give a file")
        return Stream(sys.stdin.buffer, "standard input")
    if rxfilename.rstrip().endswith("|"):
        if not allow_pipes:
            raise PyserError(f"{rxfilename}: a pipe, and pipes are not run here; write an archive, or use --allow-pipes")
        return Stream(_Pipe(rxfilename.rstrip()[:-1].strip()), rxfilename)
    path, offset = split_offset(rxfilename)
    try:
        if path.endswith(".gz"):
            if offset is not None:
                raise PyserError(f"{rxfilename}: an offset into a gzip file; unpack it first")
            return Stream(gzip.open(path), path)
        raw = open(path, "rb", buffering=0)
        status = os.fstat(raw.fileno())
    except OSError as error:
        what = "no such file; run the stage that writes it" if isinstance(error, FileNotFoundError) else (
            f"cannot read it ({error.strerror})")
        raise PyserError(f"{rxfilename}: {what}") from None
    except ValueError:
        raise PyserError(f"{rxfilename!r}: not a filename") from None
    stream = Stream(raw, path, status.st_size if stat.S_ISREG(status.st_mode) else None)
    if offset is not None:
        if stream.size is None or offset > stream.size:
            raw.close()
            raise PyserError(f"{rxfilename}: the file has no such place; run the stage that wrote it again")
        stream.seek(offset)
    return stream
