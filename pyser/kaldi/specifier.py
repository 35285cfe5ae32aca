"""Where a table lies: Kaldi's rspecifiers, wspecifiers and ranges (util/kaldi-table.cc, util/kaldi-holder.cc)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyser.errors import PyserError

_READ_OPTIONS = {"s", "ns", "cs", "ncs", "o", "no", "p", "np", "f", "nf", "b", "t", "bg"}
_WRITE_OPTIONS = {"b", "t", "f", "nf", "p"}
_RANGE = re.compile(r"(\d+):(\d+)|:")
_TOLERANCE = 2  # rows that a range may reach beyond the end (Kaldi's, for segment times rounded to frames)


@dataclass(frozen=True)
class Rspecifier:
    """`ark:…` or `scp:…`; `path` is an rxfilename. The other options that Kaldi knows make no difference to reading here."""

    kind: str
    path: str
    sorted: bool = False
    called_sorted: bool = False
    permissive: bool = False

    @classmethod
    def parse(cls, text: str) -> Rspecifier:
        kinds, options, path = _split(text, _READ_OPTIONS)
        if kinds not in (["ark"], ["scp"]):
            raise PyserError(f"'{text}': expected scp:FILE or ark:FILE")
        return cls(kinds[0], path, _on("s", options), _on("cs", options), _on("p", options))


@dataclass(frozen=True)
class Wspecifier:
    """`ark:…`, `scp:…` or `ark,scp:…,…`; `ark` and `scp` are wxfilenames, empty where there is none."""

    ark: str
    scp: str
    binary: bool = True
    flush: bool = False
    permissive: bool = False

    @classmethod
    def parse(cls, text: str) -> Wspecifier:
        kinds, options, path = _split(text, _WRITE_OPTIONS)
        ark, comma, scp = path.partition(",")
        both = kinds == ["ark", "scp"]
        if kinds not in (["ark"], ["scp"]) and not (both and ark and scp and "," not in scp):
            raise PyserError(f"'{text}': expected ark:FILE, scp:FILE or ark,scp:FILE.ark,FILE.scp")
        if not both:
            ark, scp = (path, "") if kinds == ["ark"] else ("", path)
        form = [option for option in options if option in ("b", "t")]
        return cls(ark, scp, form[-1:] != ["t"], _on("f", options), _on("p", options))


@dataclass(frozen=True)
class Range:
    """`[a:b]`, `[a:b,c:d]`, `[:,c:d]`: rows and columns, both ends included; None stands for all."""

    rows: tuple[int, int] | None
    columns: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Range:
        """`text` is what stands between the brackets."""
        ends: list[tuple[int, int] | None] = []
        for part in text.split(","):
            match = _RANGE.fullmatch(part)
            if not match:
                raise PyserError(f"[{text}]: expected a range like [0:9], [0:9,0:12] or [:,0:12]")
            ends.append((int(match[1][:18]), int(match[2][:18])) if match[1] else None)
        if len(ends) > 2:
            raise PyserError(f"[{text}]: expected a range like [0:9], [0:9,0:12] or [:,0:12]")
        return cls(ends[0], ends[1] if len(ends) == 2 else None)

    def slices(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """The range of an array of this shape, one slice for each axis."""
        found = []
        for axis, (ends, size) in enumerate(zip((self.rows, self.columns), shape, strict=False)):
            first, last = ends or (0, size - 1)
            if not first <= last < size + (_TOLERANCE + 1 if axis == 0 else 0) or first >= size:
                sizes = "x".join(map(str, shape))
                raise PyserError(f"the range {first}:{last} is not inside the {sizes} there; make the scp file again")
            found.append(slice(first, last + 1))
        if len(shape) < 2 and self.columns:
            raise PyserError("a range of columns, but there is a vector; make the scp file again")
        return tuple(found)


def is_specifier(text: str) -> bool:
    """Whether `text` names a table (`ark:…`, `scp,p:…`) and not a file."""
    before = text.partition(":")[0]
    return ":" in text and any(word.strip() in ("ark", "scp") for word in before.split(","))


def split_range(rxfilename: str) -> tuple[str, Range | None]:
    """`file:offset[range]` as (file:offset, range)."""
    if not rxfilename.endswith("]"):
        return rxfilename, None
    name, bracket, text = rxfilename[:-1].partition("[")
    if not bracket or not name or "[" in text:
        raise PyserError(f"{rxfilename}: expected file:offset[first:last]")
    return name, Range.parse(text)


def _split(text: str, known: set[str]) -> tuple[list[str], list[str], str]:
    before, colon, path = text.partition(":")
    words = [word.strip() for word in before.split(",")]
    kinds = [word for word in words if word in ("ark", "scp")]
    options = [word for word in words if word not in ("ark", "scp")]
    unknown = [option for option in options if option not in known]
    if not colon or not kinds or unknown or text[-1:].isspace():
        what = f"'{unknown[0]}' is no option" if colon and kinds and unknown else "not a table"
        raise PyserError(f"'{text}': {what}; expected scp:FILE, ark:FILE or, to write, ark,scp:FILE.ark,FILE.scp")
    return kinds, options, path


def _on(option: str, options: list[str]) -> bool:
    """Whether `option` is set; the last of `s` and `ns` counts."""
    given = [word for word in options if word in (option, "n" + option)]
    return bool(given) and given[-1] == option
