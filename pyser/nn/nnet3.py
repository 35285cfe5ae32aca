"""Kaldi's nnet3 networks as torch modules: any node of any network without recurrence, at the frames one asks for.

A chunk of frames 0 … n-1 of a node is computed by a plan, made once for each n: which frames of which nodes it takes, from
the node back to the inputs, and then each step on (frames, chunks, columns) tensors. Only needed frames are computed, so
with frame-subsampling 3 the layers with strides of 3 do a third of the work, as in Kaldi (nnet3/nnet-computation-graph.cc).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pyser.errors import PyserError
from pyser.kaldi.nnet3 import descriptor as d
from pyser.kaldi.nnet3.nnet import ComponentNode, DimRangeNode, InputNode, Nnet, OutputNode, ReadingNode
from pyser.nn.components import Affine, Identity, Layer, make_layer
from pyser.nn.evaluate import TEMPLATE, Frames, Values, evaluate, fresh, take, take_node

WINDOWS = (40, 160, 640, 2560)  # frames of input to try a network on
MAX_MODULUS = 200
SHORT_FORMS = ("", ".noop", ".dropout", ".batchnorm", ".renorm", ".relu")


@dataclass(frozen=True)
class Step:
    """Computes `frames` frames of one node; nobody needs the nodes `last_reads` after it."""

    node: str
    run: Callable[[Values], Tensor]
    frames: int
    last_reads: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """inputs: the frames wanted of each input node. steps: in order. The last one's frames are those asked for."""

    inputs: Frames
    steps: tuple[Step, ...]


class Nnet3(nn.Module):
    """A network in test mode; `nnet` is what it was made of. `layers` holds the components in its order."""

    def __init__(self, nnet: Nnet, path: str = "network"):
        super().__init__()
        self.nnet = nnet
        try:
            self.layers = nn.ModuleList(make_layer(component, name) for name, component in nnet.components.items())
        except ValueError as error:
            raise PyserError(f"{path}: {error}") from None
        self._places = {name: place for place, name in enumerate(nnet.components)}
        self._order = self._topological_order(path)
        self.modulus = self._modulus()
        if not nnet.nodes or self.modulus > MAX_MODULUS:
            raise PyserError(f"{path}: " + (f"a modulus of {self.modulus} is too large" if nnet.nodes else "has no nodes"))
        self.dims: dict[str, int] = {}
        for name in self._order:
            self.dims[name] = self._dim(name, path)
        self._plans: dict[tuple[str, int, int], Plan] = {}
        self._contexts: dict[str, tuple[int, int]] = {}

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next((value.device for value in self.state_dict().values()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the parameters."""
        return next((p.dtype for p in self.state_dict().values() if p.is_floating_point()), torch.float32)

    def _modulus(self) -> int:
        """Shifting all frames by this many changes nothing; above 1 only where a descriptor rounds or switches."""
        moduli = [m for n in self.nnet.nodes.values() if isinstance(n, ReadingNode) for m in d.moduli(n.input)]
        return int(np.lcm.reduce([1, *moduli]))

    def layer(self, component: str) -> Layer:
        """The module of a component."""
        return cast(Layer, self.layers[self._places[component]])

    def input_dim(self, name: str) -> int:
        """Columns of an input node, 0 if the network has none of that name."""
        node = self.nnet.nodes.get(name)
        return node.dim if isinstance(node, InputNode) else 0

    def full_name(self, name: str) -> str:
        """`tdnnf12` is tdnnf12.noop, `tdnn1` is tdnn1.dropout or .batchnorm; PyserError lists what there is."""
        for suffix in SHORT_FORMS:
            if name + suffix in self.nnet.nodes:
                return name + suffix
        stems: dict[str, list[str]] = {}
        for node in self.nnet.nodes:
            stem, dot, part = node.rpartition(".")
            stems.setdefault(stem or part, []).extend([dot + part] if stem else [])
        last = list(stems)[-1] if not any(stems.values()) else max(stems, key=lambda stem: len(stems[stem]))
        raise PyserError(f"the network has no node '{name}'; it has {' '.join(stems)}, and of {last} "
                         f"{' '.join(stems[last]) or 'no parts'}")

    def info(self) -> str:
        """What nnet3-info says of the network, but for the statistics of its parameters."""
        lines = [*(f"{side}-context: {frames}" for side, frames in zip(("left", "right"), self.context(self._main()),
                                                                        strict=True)),
                 f"num-parameters: {sum(p.numel() for p in self.parameters())}", f"modulus: {self.modulus}"]
        for name, node in self.nnet.nodes.items():
            if isinstance(node, ComponentNode):
                dims = f" input-dim={self._descriptor_dim(node.input)} output-dim={self.dims[name]}"
                lines.append(f"{node}{dims}")
            elif isinstance(node, OutputNode):
                lines.append(str(node).replace(" objective=", f" dim={self.dims[name]} objective="))
            else:
                lines.append(str(node))
        for name, component in self.nnet.components.items():
            layer = self.layer(name)
            numbers = "".join(f", {key}={value:.6g}" for key, value in component.fields.items()
                              if isinstance(value, int | float) and not isinstance(value, bool))
            lines.append(f"component name={name} type={component.type}, input-dim={layer.in_dim * len(layer.offsets)}, "
                         f"output-dim={layer.out_dim}{numbers}")
        return "\n".join(lines)

    def outputs(self) -> list[str]:
        """The output nodes; the last node where there are none."""
        found = [name for name, node in self.nnet.nodes.items() if isinstance(node, OutputNode)]
        return found or list(self.nnet.nodes)[-1:]

    def _main(self) -> str:
        return "output" if "output" in self.outputs() else self.outputs()[0]

    def dim(self, name: str) -> int:
        """Columns of a node; the short forms of names will do."""
        return self.dims[self.full_name(name)]

    # what a node reads

    def _sources(self, name: str) -> list[str]:
        node = self.nnet.nodes[name]
        if isinstance(node, InputNode):
            return []
        return [node.input_node] if isinstance(node, DimRangeNode) else list(dict.fromkeys(d.node_names(node.input)))

    def _topological_order(self, path: str) -> list[str]:
        order: list[str] = []
        open_, done = set(), set()
        for start in self.nnet.nodes:
            stack = [start]
            while stack:
                name = stack[-1]
                waiting = [source for source in self._sources(name) if source not in done]
                if name in done or not waiting:
                    stack.pop()
                    if name not in done:
                        done.add(name)
                        order.append(name)
                    continue
                open_.add(name)
                if any(source in open_ for source in waiting):
                    raise PyserError(f"{path}: node {name} reads its own output (a recurrent network); pyser does not run "
                                     "those")
                stack += waiting
        return order

    def _dim(self, name: str, path: str) -> int:
        node = self.nnet.nodes[name]
        if isinstance(node, InputNode):
            return node.dim
        if isinstance(node, DimRangeNode):
            if not 0 <= node.dim_offset <= node.dim_offset + node.dim <= self.dims[node.input_node]:
                raise PyserError(f"{path}: node {name} takes columns that {node.input_node} does not have")
            return node.dim
        try:
            dim = self._descriptor_dim(node.input)
        except ValueError as error:
            raise PyserError(f"{path}: node {name}: {error}") from None
        if isinstance(node, OutputNode):
            return dim
        layer = self.layer(node.component)
        if layer.in_dim not in (0, dim):
            raise PyserError(f"{path}: node {name} reads {dim} columns, its component {node.component} takes {layer.in_dim}")
        return layer.out_dim

    def _descriptor_dim(self, tree: d.Descriptor) -> int:
        if isinstance(tree, d.Node):
            return self.dims[tree.name]
        if isinstance(tree, d.Const):
            return tree.dim
        dims = [self._descriptor_dim(source) for source in d.sources(tree)]
        if isinstance(tree, d.Append):
            return sum(dims)
        if len(set(dims)) != 1:
            raise ValueError(f"{tree} joins {' and '.join(map(str, dims))} columns")
        return dims[0]

    # which frames are needed

    def context(self, node: str) -> tuple[int, int]:
        """Frames of the input before and after a frame of `node`: those that are lost at the ends of an input that begins and
        ends anywhere (ComputeSimpleNnetContext)."""
        if node not in self._contexts:
            for size in WINDOWS:
                lost = [self._lost(node, start, start + size) for start in range(self.modulus)]
                if all(left < size for left, _ in lost):
                    self._contexts[node] = max(left for left, _ in lost), max(right for _, right in lost)
                    break
            else:
                raise PyserError(f"node {node} cannot be computed from {WINDOWS[-1]} frames of input")
        return self._contexts[node]

    def _lost(self, node: str, start: int, stop: int) -> tuple[int, int]:
        """Of `node`, from the input's frames start … stop - 1: frames before the first that can be computed, and frames from
        the next on that cannot."""
        wanted = np.arange(start, stop)
        there = np.isin(wanted, self._available(node, wanted, start, stop)[node])
        if not there.any():
            return len(wanted), len(wanted)
        first = int(np.argmax(there))
        return first, 0 if there[first:].all() else len(wanted) - first - int(np.argmin(there[first:]))

    def _needed(self, node: str, frames: np.ndarray, available: Frames | None, optional: bool = False) -> Frames:
        """The frames of every node that `frames` of `node` take. Optional ones (IfDefined, Failover) count if `optional`, or
        where they are `available`."""
        wanted: dict[str, list[np.ndarray]] = {node: [frames]}
        needed: Frames = {}
        for name in reversed(self._order):
            if name not in wanted:
                continue
            needed[name] = np.unique(np.concatenate(wanted[name]))
            for source, times in self._reads(name, needed[name], available, optional):
                if len(times):
                    wanted.setdefault(source, []).append(times)
        return needed

    def _reads(
        self, name: str, frames: np.ndarray, available: Frames | None, optional: bool
    ) -> Iterator[tuple[str, np.ndarray]]:
        node = self.nnet.nodes[name]
        if isinstance(node, DimRangeNode):
            yield node.input_node, frames
        elif isinstance(node, OutputNode):
            yield from d.required(node.input, frames, available, optional)
        elif isinstance(node, ComponentNode):
            for offset in self.layer(node.component).offsets:
                yield from d.required(node.input, frames + offset, available, optional)

    def _plan(self, node: str, frames: int, step: int) -> Plan:
        key = (node, frames, step)
        if key not in self._plans:
            wanted = np.arange(0, frames, step)
            needed = self._needed(node, wanted, None)
            if any(d.has_optional(n.input) for n in self.nnet.nodes.values() if isinstance(n, ReadingNode)):
                left, right = self.context(node)
                needed = self._needed(node, wanted, self._available(node, wanted, -left, frames + right))
            reads = needed.get("input", wanted)
            if reads.min() < -self.context(node)[0] or reads.max() >= frames + self.context(node)[1]:
                raise PyserError(f"node {node} reads frames {reads.min()} … {reads.max()} of a chunk of {frames}; take "
                                 "longer chunks")
            names = [name for name in self._order if name in needed]
            last = {source: name for name in names for source in self._sources(name)}
            roots = self._roots(names)
            last_of_root = {roots[source]: name for name in names for source in self._sources(name)}
            last_of_root[roots[node]] = ""  # what is asked for stays
            steps = []
            for name in names:
                if isinstance(self.nnet.nodes[name], InputNode):
                    continue
                # A layer may overwrite what no node after it reads, under whatever name, unless it is the caller's.
                unread = {source for source in self._sources(name) if last_of_root[roots[source]] == name
                          and not isinstance(self.nnet.nodes[roots[source]], InputNode)}
                run = self._run(name, needed, unread)
                steps.append(Step(name, run, len(needed[name]), tuple(s for s in self._sources(name) if last[s] == name)))
            self._plans[key] = Plan({n: needed[n] for n in names if isinstance(self.nnet.nodes[n], InputNode)}, tuple(steps))
        return self._plans[key]

    def _roots(self, names: list[str]) -> dict[str, str]:
        """Node -> the node whose tensor its own is or shows part of."""
        roots: dict[str, str] = {}
        for name in names:
            node, source = self.nnet.nodes[name], name
            if isinstance(node, DimRangeNode):
                source = node.input_node
            elif isinstance(node, ReadingNode) and not fresh(node.input):
                same = isinstance(node, OutputNode) or isinstance(self.layer(node.component), Identity)
                source = self._sources(name)[0] if same and self._sources(name) else name
            roots[name] = roots.get(source, name)
        return roots

    def _available(self, node: str, wanted: np.ndarray, start: int, stop: int) -> Frames:
        """Of all the frames that could be used, those that can be computed from the input's frames start … stop - 1."""
        possible = self._needed(node, wanted, None, optional=True)
        available: Frames = {}
        for name in self._order:
            if name not in possible:
                continue
            frames, tree = possible[name], self.nnet.nodes[name]
            if isinstance(tree, InputNode):
                good = ((frames >= start) & (frames < stop)) | (name != "input")  # (an i-vector is there at any time)
            elif isinstance(tree, DimRangeNode):
                good = np.isin(frames, available[tree.input_node])
            else:
                offsets = self.layer(tree.component).offsets if isinstance(tree, ComponentNode) else (0,)
                good = np.all([d.computable(tree.input, frames + offset, available) for offset in offsets], axis=0)
            available[name] = frames[good]
        return available

    # computing

    def _run(self, name: str, needed: Frames, unread: set[str]) -> Callable[[Values], Tensor]:
        node, frames = self.nnet.nodes[name], needed[name]
        if isinstance(node, DimRangeNode):
            source, columns = take_node(needed, node.input_node, frames), slice(node.dim_offset, node.dim_offset + node.dim)
            return lambda values: source(values)[:, :, columns]
        assert isinstance(node, ReadingNode)
        if isinstance(node, OutputNode):
            return evaluate(node.input, frames, needed, self._descriptor_dim)
        layer = self.layer(node.component)
        if isinstance(layer, Affine):
            getters = [evaluate(part, frames + offset, needed, self._descriptor_dim)
                       for offset in layer.offsets for part in d.parts(node.input)]
            return lambda values: layer.combine([get(values) for get in getters])
        get = evaluate(node.input, frames, needed, self._descriptor_dim)
        own = fresh(node.input) or isinstance(node.input, d.Node) and node.input.name in unread
        return lambda values: layer(get(values), overwrite=own and not torch.is_grad_enabled())

    def forward(self, x: Tensor, ivector: Tensor | None, node: str, step: int = 1) -> Tensor:
        """x (left context + n + right context, N, input dim), ivector (N, ivector dim) or None: chunks of n frames with their
        neighbours. -> `node` at their frames 0, step, 2 step …: (ceil(n / step), N, D)."""
        left, right = self.context(node)
        plan = self._plan(node, len(x) - left - right, step)
        values: Values = {TEMPLATE: x[:0]}
        for name, frames in plan.inputs.items():
            if name == "input":
                values[name] = take(x, frames + left)
            elif name == "ivector" and ivector is not None:
                values[name] = ivector[None].expand(len(frames), -1, -1)
            else:
                raise PyserError(f"node {node} reads the input '{name}', and there is none")
        for piece in plan.steps:
            value = piece.run(values)
            values[piece.node] = value if len(value) == piece.frames else value.expand(piece.frames, -1, -1).clone()
            for name in piece.last_reads:
                del values[name]
        return values[node]

