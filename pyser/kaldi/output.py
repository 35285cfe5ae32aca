"""Kaldi's extended filenames for output: `file`, `file.gz`, `-` and `| command` (util/kaldi-io.cc)."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyser.errors import PyserError
from pyser.kaldi.specifier import is_specifier


def _check(wxfilename: str) -> None:
    """Refuse what Kaldi does not take for the name of an output (ClassifyWxfilename)."""
    bad = ""
    if "\0" in wxfilename:
        bad = "a zero byte in the name"
    elif wxfilename.startswith("|"):
        return
    elif wxfilename != wxfilename.strip():
        bad = "white space around the name"
    elif "|" in wxfilename:
        bad = "a pipe to write to starts with |"
    elif is_specifier(wxfilename) and wxfilename[0] in "as":
        bad = "a table where a file is expected"
    elif re.search(":[0-9]+$", wxfilename):
        bad = "a place in a file can only be read"
    if bad:
        raise PyserError(f"{wxfilename!r}: {bad}; give another name for the output")


class Output:
    """Bytes on their way to a wxfilename. A file appears under its name at `finish`; `abandon` leaves what was there."""

    def __init__(self, wxfilename: str, allow_pipes: bool = False):
        self.name, self.place = wxfilename, 0
        self.process: subprocess.Popen[bytes] | None = None
        self.temporary: Path | None = None
        _check(wxfilename)
        if wxfilename in ("", "-"):
            if sys.stdout is None:
                raise PyserError("standard output: it is closed; give a file")
            self.raw: Any = sys.stdout.buffer
        elif wxfilename.startswith("|"):
            if not allow_pipes:
                raise PyserError(f"{wxfilename}: a pipe, and pipes are not run here; write an archive, or use --allow-pipes")
            self.process = subprocess.Popen(wxfilename[1:].strip(), shell=True, stdin=subprocess.PIPE)
            self.raw = self.process.stdin
        else:
            self.path = Path(os.path.realpath(wxfilename))  # (archives may be links to other disks; these stay links)
            self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
            if wxfilename.startswith(("/dev/", "/proc/")) or os.path.exists(wxfilename) and not os.path.isfile(wxfilename):
                self.temporary = self.path = Path(wxfilename)  # /dev/stdout, >(command) are written to, not replaced
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.file = open(self.temporary, "wb")
            except OSError as error:
                raise self._failed(error) from None
            self.raw = gzip.GzipFile("", "wb", 6, self.file, mtime=0) if wxfilename.endswith(".gz") else self.file

    def _failed(self, error: OSError) -> PyserError:
        return PyserError(f"cannot write {self.name}: {error.strerror or error}; check space and permissions")

    def write(self, data: bytes, flush: bool = False) -> None:
        try:
            self.raw.write(data)
            if flush:
                self.raw.flush()
        except OSError as error:
            raise self._failed(error) from None
        self.place += len(data)

    def finish(self) -> None:
        """Close; the file gets its name, the command must end well."""
        try:
            if self.temporary:
                self.raw.close()
                self.file.close()
                if self.temporary != self.path:
                    os.replace(self.temporary, self.path)
            elif self.process:
                self.raw.close()
            else:
                self.raw.flush()
        except OSError as error:
            raise self._failed(error) from None
        if self.process and self.process.wait():
            raise PyserError(f"{self.name}: the command failed (exit status {self.process.returncode}); see its output")

    def abandon(self) -> None:
        """Close without a result; after `finish` it does nothing."""
        if self.process and self.process.poll() is None:
            self.process.terminate()  # (or the command would take the part that it got for the whole)
        for file in ([self.raw] if self.process else [self.raw, self.file] if self.temporary else []):
            with contextlib.suppress(OSError):  # (what could not be written has been said already)
                file.close()
        if self.process:
            self.process.wait()
        if self.temporary and self.temporary != self.path:
            self.temporary.unlink(missing_ok=True)
