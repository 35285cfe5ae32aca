"""What a node reads: nnet3's descriptors (nnet3/nnet-descriptor.h), such as

    Append(Offset(input, -1), input, Offset(input, 1), ReplaceIndex(ivector, t, 0))
    Sum(Scale(0.66, tdnn1.dropout), tdnnf2.dropout)

A descriptor is parsed into a tree of the frozen dataclasses below; `str` writes Kaldi's form again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Node:
    """The output of a node, at the same time."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Offset:
    """`source` at time t + offset (and, hardly ever used, at x + x_offset)."""

    source: Descriptor
    offset: int
    x_offset: int = 0

    def __str__(self) -> str:
        return f"Offset({self.source}, {self.offset}" + (f", {self.x_offset})" if self.x_offset else ")")


@dataclass(frozen=True)
class ReplaceIndex:
    """`source` at a fixed t (or x)."""

    source: Descriptor
    variable: str
    value: int

    def __str__(self) -> str:
        return f"ReplaceIndex({self.source}, {self.variable}, {self.value})"


@dataclass(frozen=True)
class Round:
    """`source` at t rounded down to a multiple of `modulus`."""

    source: Descriptor
    modulus: int

    def __str__(self) -> str:
        return f"Round({self.source}, {self.modulus})"


@dataclass(frozen=True)
class Switch:
    """Of n sources number t mod n."""

    sources: tuple[Descriptor, ...]

    def __str__(self) -> str:
        return f"Switch({', '.join(map(str, self.sources))})"


@dataclass(frozen=True)
class Scale:
    """A multiple."""

    scale: float
    source: Descriptor

    def __str__(self) -> str:
        return f"Scale({self.scale:.7g}, {self.source})"


@dataclass(frozen=True)
class Const:
    """The same value in all `dim` columns."""

    value: float
    dim: int

    def __str__(self) -> str:
        return f"Const({self.value:.7g}, {self.dim})"


@dataclass(frozen=True)
class Sum:
    """The sum, all of the same width."""

    sources: tuple[Descriptor, ...]

    def __str__(self) -> str:
        return f"Sum({', '.join(map(str, self.sources))})"


@dataclass(frozen=True)
class Failover:
    """The first source or, where it cannot be computed, the second."""

    first: Descriptor
    second: Descriptor

    def __str__(self) -> str:
        return f"Failover({self.first}, {self.second})"


@dataclass(frozen=True)
class IfDefined:
    """The source or, where it cannot be computed, zeros."""

    source: Descriptor

    def __str__(self) -> str:
        return f"IfDefined({self.source})"


@dataclass(frozen=True)
class Append:
    """Columns side by side."""

    sources: tuple[Descriptor, ...]

    def __str__(self) -> str:
        return f"Append({', '.join(map(str, self.sources))})"


Descriptor = Node | Offset | ReplaceIndex | Round | Switch | Scale | Const | Sum | Failover | IfDefined | Append

Frames = dict[str, np.ndarray]  # node -> frames of it, sorted

MAX_DEPTH = 100
MAX_NUMBER = 1_000_000
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_TOKEN = re.compile(r"\s*([(),]|[^\s(),]+)")


def parse(text: str) -> Descriptor:
    """The tree of one descriptor; ValueError says what is wrong with it.

    >>> str(parse("Sum(Scale(0.66,a) , Offset(b.noop, -3))"))
    'Sum(Scale(0.66, a), Offset(b.noop, -3))'
    """
    if _TOKEN.sub("", text).strip():
        raise ValueError(f"cannot read '{text[:80]}'")
    parser = _Parser(_TOKEN.findall(text))
    tree = parser.descriptor()
    parser.expect("")
    return tree


def sources(descriptor: Descriptor) -> Iterator[Descriptor]:
    """The direct children."""
    for value in vars(descriptor).values():
        if isinstance(value, tuple):
            yield from value
        elif not isinstance(value, str | int | float):
            yield value


def node_names(descriptor: Descriptor) -> Iterator[str]:
    """Every node that is read, in order, with repetitions."""
    if isinstance(descriptor, Node):
        yield descriptor.name
    for source in sources(descriptor):
        yield from node_names(source)


def parts(descriptor: Descriptor) -> tuple[Descriptor, ...]:
    """What stands side by side: the sources of an Append, nested ones unfolded, or the descriptor itself."""
    if isinstance(descriptor, Append):
        return tuple(part for source in descriptor.sources for part in parts(source))
    return (descriptor,)


# Which frames are read: times are arrays of integers, the output's frame 0 being 0.


def moduli(tree: Descriptor) -> Iterator[int]:
    if isinstance(tree, Round):
        yield tree.modulus
    if isinstance(tree, Switch):
        yield len(tree.sources)
    for source in sources(tree):
        yield from moduli(source)


def has_optional(tree: Descriptor) -> bool:
    return isinstance(tree, IfDefined | Failover) or any(map(has_optional, sources(tree)))


def moved(tree: Descriptor, frames: np.ndarray) -> np.ndarray:
    """The frames of its source that an Offset, ReplaceIndex or Round reads."""
    if isinstance(tree, Offset):
        return frames + tree.offset
    if isinstance(tree, ReplaceIndex) and tree.variable == "t":
        return np.full_like(frames, tree.value)
    return frames // tree.modulus * tree.modulus if isinstance(tree, Round) else frames


def required(
    tree: Descriptor, frames: np.ndarray, available: Frames | None, optional: bool
) -> Iterator[tuple[str, np.ndarray]]:
    if isinstance(tree, Node):
        yield tree.name, frames
    elif isinstance(tree, Switch):
        for number, source in enumerate(tree.sources):
            yield from required(source, frames[frames % len(tree.sources) == number], available, optional)
    elif isinstance(tree, IfDefined):
        if available is not None:
            frames = frames[computable(tree.source, frames, available)]
        if optional or available is not None:
            yield from required(tree.source, frames, available, optional)
    elif isinstance(tree, Failover):
        if available is not None:
            good = computable(tree.first, frames, available)
            yield from required(tree.first, frames[good], available, optional)
            yield from required(tree.second, frames[~good], available, optional)
        else:
            if optional:
                yield from required(tree.first, frames, available, optional)
            yield from required(tree.second, frames, available, optional)
    else:
        for source in sources(tree):
            yield from required(source, moved(tree, frames), available, optional)


def computable(tree: Descriptor, frames: np.ndarray, available: Frames) -> np.ndarray:
    if isinstance(tree, Node):
        return np.isin(frames, available.get(tree.name, np.zeros(0, int)))
    if isinstance(tree, IfDefined | Const):
        return np.ones(len(frames), bool)
    each = [computable(source, moved(tree, frames), available) for source in sources(tree)]
    if isinstance(tree, Failover):
        return np.any(each, axis=0)
    if isinstance(tree, Switch):
        return np.choose(frames % len(each), each)
    return np.all(each, axis=0)


class _Parser:
    def __init__(self, tokens: list[str]):
        self.tokens = [*tokens, ""]
        self.place = self.depth = 0

    def take(self) -> str:
        self.place += 1
        return self.tokens[self.place - 1]

    def expect(self, token: str) -> None:
        found = self.take()
        if found != token:
            raise ValueError(f"expected {repr(token) if token else 'the end'}, found '{found}'")

    def number(self) -> float:
        token = self.take()
        if not _NUMBER.fullmatch(token) or not np.isfinite(float(token)):
            raise ValueError(f"expected a number, found '{token}'")
        return float(token)

    def integer(self, least: int = -MAX_NUMBER) -> int:
        token = self.take()
        if not re.fullmatch(r"[-+]?\d{1,9}", token) or not least <= int(token) <= MAX_NUMBER:
            raise ValueError(f"expected a number, found '{token}'")
        return int(token)

    def many(self) -> tuple[Descriptor, ...]:
        found = [self.descriptor()]
        while self.tokens[self.place] == ",":
            self.take()
            found.append(self.descriptor())
        return tuple(found)

    def descriptor(self) -> Descriptor:
        word = self.take()
        if not word or self.tokens[self.place] != "(":
            if not re.match(r"[A-Za-z0-9_]", word):
                raise ValueError(f"expected the name of a node, found '{word}'")
            return Node(word)
        self.expect("(")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} descriptors inside each other")
        tree = self.function(word)
        self.depth -= 1
        self.expect(")")
        return tree

    def function(self, word: str) -> Descriptor:
        if word in ("Append", "Sum", "Switch"):
            many = self.many()
            return Append(many) if word == "Append" else Sum(many) if word == "Sum" else Switch(many)
        if word in ("Scale", "Const"):
            value = self.number()
            self.expect(",")
            return Scale(value, self.descriptor()) if word == "Scale" else Const(value, self.integer(least=1))
        if word == "IfDefined":
            return IfDefined(self.descriptor())
        if word not in ("Offset", "ReplaceIndex", "Round", "Failover"):
            raise ValueError(f"no descriptor is called {word}")
        source = self.descriptor()
        self.expect(",")
        if word == "Failover":
            return Failover(source, self.descriptor())
        if word == "Round":
            return Round(source, self.integer(least=1))
        if word == "Offset":
            offset = self.integer()
            if self.tokens[self.place] != ",":
                return Offset(source, offset)
            self.take()
            return Offset(source, offset, self.integer())
        variable = self.take()
        if variable not in ("t", "x"):
            raise ValueError(f"ReplaceIndex: expected t or x, found '{variable}'")
        self.expect(",")
        return ReplaceIndex(source, variable, self.integer())
