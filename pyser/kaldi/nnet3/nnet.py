"""nnet3 networks as Kaldi's files hold them: `final.raw` (a network) and `final.mdl` (a transition model, the network
and its priors), binary or text (nnet3/nnet-nnet.cc, nnet3/am-nnet-simple.cc)."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer
from pyser.kaldi.nnet3 import descriptor as descriptors
from pyser.kaldi.nnet3.component import Component, read_component, write_component
from pyser.kaldi.nnet3.descriptor import Descriptor
from pyser.kaldi.transition_model import TransitionModel, newline, read_transition_model, write_transition_model


@dataclass(frozen=True)
class InputNode:
    """Features or i-vectors of `dim` columns."""

    name: str
    dim: int

    def __str__(self) -> str:
        return f"input-node name={self.name} dim={self.dim}"


@dataclass(frozen=True)
class ComponentNode:
    """A component applied to what `input` describes."""

    name: str
    component: str
    input: Descriptor

    def __str__(self) -> str:
        return f"component-node name={self.name} component={self.component} input={self.input}"


@dataclass(frozen=True)
class DimRangeNode:
    """Columns dim_offset … dim_offset + dim - 1 of a node."""

    name: str
    input_node: str
    dim_offset: int
    dim: int

    def __str__(self) -> str:
        return (f"dim-range-node name={self.name} input-node={self.input_node} dim-offset={self.dim_offset} "
                f"dim={self.dim}")


@dataclass(frozen=True)
class OutputNode:
    """What the network gives out; objective is linear or quadratic."""

    name: str
    input: Descriptor
    objective: str = "linear"

    def __str__(self) -> str:
        return f"output-node name={self.name} input={self.input} objective={self.objective}"


ReadingNode = ComponentNode | OutputNode
NetworkNode = InputNode | DimRangeNode | ReadingNode


@dataclass(frozen=True)
class Nnet:
    """Nodes and components, by name and in the file's order. The rest is there when the file is a .mdl: the transition
    model and the priors (empty where the model has none)."""

    nodes: dict[str, NetworkNode]
    components: dict[str, Component]
    transition_model: TransitionModel | None = None
    priors: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def config(self) -> str:
        """The nodes as config lines, as nnet3-info prints them first."""
        return "".join(f"{node}\n" for node in self.nodes.values())


def parse_config(text: str, name: str) -> dict[str, NetworkNode]:
    """Nodes of config lines (`component-node name=… component=… input=…`); `name` is the file, for messages."""
    nodes: dict[str, NetworkNode] = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line:
            node = _node(line, name)
            if node.name in nodes:
                raise PyserError(f"{name}: two nodes are called {node.name}; the config is not one network's")
            nodes[node.name] = node
    for node in nodes.values():
        read = [node.input_node] if isinstance(node, DimRangeNode) else []
        if isinstance(node, ReadingNode):
            read = list(descriptors.node_names(node.input))
        for source in read:
            if source not in nodes or isinstance(nodes[source], OutputNode):
                raise PyserError(f"{name}: node {node.name} reads '{source}', and there is no such node")
    return nodes


def _node(line: str, name: str) -> NetworkNode:
    kind, rest = [*line.split(maxsplit=1), ""][:2]
    values: dict[str, str] = {}
    for piece in re.split(r"\s+(?=[A-Za-z][\w-]*=)", rest.strip()):  # (descriptors have spaces, but no `=`)
        key, _, value = piece.partition("=")
        values[key] = value.strip().strip("\"'")
    try:
        if kind == "input-node":
            return InputNode(values["name"], _positive(values["dim"]))
        if kind == "component-node":
            return ComponentNode(values["name"], values["component"], descriptors.parse(values["input"]))
        if kind == "dim-range-node":
            return DimRangeNode(values["name"], values["input-node"], int(values["dim-offset"]),
                                _positive(values["dim"]))
        if kind == "output-node":
            objective = values.get("objective", "linear")
            if objective not in ("linear", "quadratic"):
                raise ValueError(f"objective {objective} is neither linear nor quadratic")
            return OutputNode(values["name"], descriptors.parse(values["input"]), objective)
    except KeyError as error:
        raise PyserError(f"{name}: '{line[:100]}': {error.args[0]}= is missing") from None
    except ValueError as error:
        raise PyserError(f"{name}: '{line[:100]}': {error}") from None
    raise PyserError(f"{name}: '{line[:100]}': expected input-node, component-node, dim-range-node or output-node")


def _positive(text: str) -> int:
    if not re.fullmatch(r"\d{1,7}", text) or int(text) == 0:
        raise ValueError(f"expected a number above 0, found '{text}'")
    return int(text)


def read_nnet(path: str | Path) -> Nnet:
    """A .raw or .mdl file, binary or text. PyserError names the component or node that is not understood."""
    reader = Reader(path)
    transition_model, priors = None, np.zeros(0, np.float32)
    if reader.peek() == "<TransitionModel>":
        transition_model = read_transition_model(reader)
    nodes, components = _read_network(reader)
    if transition_model is not None:
        reader.expect("<LeftContext>")
        reader.int32()
        reader.expect("<RightContext>")
        reader.int32()
        reader.expect("<Priors>")
        priors = reader.vector().astype(np.float32)
    return Nnet(nodes, components, transition_model, priors)


def _read_network(reader: Reader) -> tuple[dict[str, NetworkNode], dict[str, Component]]:
    reader.expect("<Nnet3>")
    if reader.line().strip("\r"):
        raise reader.fail("'<Nnet3> ' and the end of the line")
    lines = []
    while (line := reader.line()).strip("\r"):
        lines.append(line)
    nodes = parse_config("\n".join(lines), str(reader.path))
    reader.expect("<NumComponents>")
    components: dict[str, Component] = {}
    for _ in range(reader.int32()):
        reader.expect("<ComponentName>")
        name = reader.token()
        if name in components:
            raise PyserError(f"{reader.path}: two components are called '{name}'; the file is damaged")
        nodes_of = [node.name for node in nodes.values() if isinstance(node, ComponentNode) and node.component == name]
        components[name] = read_component(reader, name, ", ".join(nodes_of))
    reader.expect("</Nnet3>")
    used = Counter(node.component for node in nodes.values() if isinstance(node, ComponentNode))
    for component in used - Counter(dict.fromkeys(components, len(nodes))):
        raise PyserError(f"{reader.path}: a node wants component '{component}', and there is no such component")
    return nodes, components


def write_nnet(nnet: Nnet, path: str | Path, binary: bool = True, contexts: tuple[int, int] | None = None) -> None:
    """Write a .raw file or, with contexts (left, right) of the network, a .mdl file, for which the transition model is
    needed."""
    writer = Writer(binary)
    if contexts is not None:
        if nnet.transition_model is None:
            raise PyserError(f"{path}: a .mdl file holds a transition model, and there is none; give one or write a .raw")
        write_transition_model(writer, nnet.transition_model)
    writer.token("<Nnet3>")
    writer.line(f"\n{nnet.config()}")
    writer.token("<NumComponents>")
    writer.int32(len(nnet.components))
    newline(writer)
    for name, component in nnet.components.items():
        writer.token("<ComponentName>", name)
        write_component(writer, component)
        newline(writer)
    writer.token("</Nnet3>")
    if contexts is not None:
        writer.token("<LeftContext>")
        writer.int32(contexts[0])
        writer.token("<RightContext>")
        writer.int32(contexts[1])
        writer.token("<Priors>")
        writer.vector(nnet.priors, "FV")
    writer.save(path)
