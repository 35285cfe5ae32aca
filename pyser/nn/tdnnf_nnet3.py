"""The TDNN-F trained here as a Kaldi nnet3 network, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.kaldi.nnet3 import descriptor as d
from pyser.kaldi.nnet3.component import Component
from pyser.kaldi.nnet3.nnet import ComponentNode, InputNode, NetworkNode, Nnet, OutputNode
from pyser.nn.tdnnf import BATCHNORM_EPSILON, Affine, BatchNorm, Prefinal, TdnnF, TdnnfConfig, TdnnfLayer

# What Kaldi's initialisation gives with the options of run_tdnn_1g.sh; it matters only if Kaldi trains the network on.
LEARNING_RATE = 0.001
L2_REGULARIZE, L2_REGULARIZE_OUTPUT = 0.008, 0.002
MAX_CHANGE, MAX_CHANGE_OUTPUT = 0.75, 1.5
XENT_LEARNING_RATE_FACTOR = 5.0
NUM_SAMPLES_HISTORY, ALPHA, UPDATE_PERIOD, RANK_IN, RANK_OUT = 2000.0, 4.0, 4, 20, 80
SELF_REPAIR_SCALE = 1e-5


def to_nnet3(model: TdnnF) -> Nnet:
    """The network with Kaldi's names, as steps/nnet3/xconfig_to_configs.py would lay it out."""
    config = model.config
    nodes: dict[str, NetworkNode] = {}
    components: dict[str, Component] = {}

    def add(name: str, component: Component, source: str | d.Descriptor) -> str:
        tree = d.Node(source) if isinstance(source, str) else source
        nodes[name], components[name] = ComponentNode(name, name, tree), component
        return name

    def relu_batchnorm(name: str, source: str, batchnorm: BatchNorm, suffix: str = "") -> str:
        dim = batchnorm.num_features
        return add(f"{name}.batchnorm{suffix}", _batchnorm(batchnorm), add(f"{name}.relu", _relu(dim), source))

    def prefinal(name: str, block: Prefinal, output: str) -> str:
        x = add(f"{name}.affine", _affine(block.affine), "prefinal-l")
        x = relu_batchnorm(name, x, block.batchnorm1, "1")
        x = add(f"{name}.linear", _linear(block.linear), x)
        x = add(f"{name}.batchnorm2", _batchnorm(block.batchnorm2), x)
        return add(f"{output}.affine", _affine(block.output, output), x)

    if config.ivector_dim:
        nodes["ivector"] = InputNode("ivector", config.ivector_dim)
    nodes["input"] = InputNode("input", config.feat_dim)
    spliced: tuple[d.Descriptor, ...] = (d.Offset(d.Node("input"), -1), d.Node("input"), d.Offset(d.Node("input"), 1))
    if config.ivector_dim:
        spliced = (*spliced, d.ReplaceIndex(d.Node("ivector"), "t", 0))
    lda_fields = {"LinearParams": _numpy(model.lda_matrix), "BiasParams": _numpy(model.lda_offset)}
    lda = Component("FixedAffineComponent", lda_fields)
    x = add("tdnn1.affine", _affine(model.affine1), add("lda", lda, d.Append(spliced)))
    x = add("tdnn1.dropout", _dropout(config.dim), relu_batchnorm("tdnn1", x, model.batchnorm1))
    for number, layer in enumerate(cast("Sequence[TdnnfLayer]", model.layers), start=2):
        name, below = f"tdnnf{number}", x
        x = add(f"{name}.linear", _tdnn(layer.linear, (-layer.stride, 0)), x)
        x = add(f"{name}.affine", _tdnn(layer.affine, (0, layer.stride)), x)
        x = add(f"{name}.dropout", _dropout(config.dim), relu_batchnorm(name, x, layer.batchnorm))
        bypass = d.Sum((d.Scale(layer.bypass_scale, d.Node(below)), d.Node(x)))
        x = add(f"{name}.noop", Component("NoOpComponent", {"Dim": config.dim, "BackpropScale": 1.0}), bypass)
    add("prefinal-l", _linear(model.prefinal_l), x)
    x = prefinal("prefinal-chain", model.chain, "output")
    nodes["output"] = OutputNode("output", d.Node(x))
    x = prefinal("prefinal-xent", model.xent, "output-xent")
    x = add("output-xent.log-softmax", _nonlinear("LogSoftmaxComponent", config.num_pdfs), x)
    nodes["output-xent"] = OutputNode("output-xent", d.Node(x))
    return Nnet(nodes, components)


def from_nnet3(nnet: Nnet, path: str = "network") -> TdnnF:
    """The TDNN-F that `to_nnet3` (or Kaldi, with the layers of run_tdnn_1g.sh) wrote; PyserError if it is another network."""
    parts = nnet.components
    try:
        names = sorted((name.split(".")[0] for name in parts if name.startswith("tdnnf") and name.endswith(".noop")),
                       key=lambda name: int(name.removeprefix("tdnnf")))
        strides = [int(np.abs(parts[f"{name}.linear"].get("TimeOffsets")).max()) for name in names]
        ivector, lda = nnet.nodes.get("ivector"), parts["lda"]
        output, bypass = parts["output.affine"].get("LinearParams"), nnet.nodes[f"{names[0]}.noop"]
        config = TdnnfConfig(
            feat_dim=cast(InputNode, nnet.nodes["input"]).dim,
            ivector_dim=ivector.dim if isinstance(ivector, InputNode) else 0,
            dim=len(parts["tdnn1.affine"].get("LinearParams")),
            bottleneck_dim=len(parts[f"{names[0]}.linear"].get("LinearParams")),
            prefinal_dim=output.shape[1],
            strides=tuple(strides),
            bypass_scale=next(_scales(cast(ComponentNode, bypass).input)),
            num_pdfs=len(output),
        )
        model = TdnnF(config)
        if to_nnet3(model).config() != nnet.config():
            raise PyserError("its nodes are not those of a TDNN-F")
        model.set_lda(torch.from_numpy(lda.get("LinearParams")), torch.from_numpy(lda.get("BiasParams")))
        for name, module in _modules(model):
            _copy(module, parts[name])
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError, RuntimeError, PyserError) as error:
        why = str(error).splitlines()[0][:80] if str(error) else "other nodes"
        raise PyserError(f"{path}: not the layers of run_tdnn_1g.sh ({why}); such a network can be computed and dumped, but "
                         "not trained or decoded") from None
    return model.eval()


def _scales(tree: d.Descriptor) -> Iterator[float]:
    if isinstance(tree, d.Scale):
        yield tree.scale
    for source in d.sources(tree):
        yield from _scales(source)


def _modules(model: TdnnF) -> Iterator[tuple[str, Affine | BatchNorm]]:
    """Component name -> module, of all that have parameters or statistics."""
    yield from (("tdnn1.affine", model.affine1), ("tdnn1.batchnorm", model.batchnorm1), ("prefinal-l", model.prefinal_l))
    for number, layer in enumerate(cast("Sequence[TdnnfLayer]", model.layers), start=2):
        yield from ((f"tdnnf{number}.{part}", getattr(layer, part)) for part in ("linear", "affine", "batchnorm"))
    for name, output, block in (("prefinal-chain", "output", model.chain), ("prefinal-xent", "output-xent", model.xent)):
        yield from ((f"{name}.{part}", getattr(block, part)) for part in ("affine", "batchnorm1", "linear", "batchnorm2"))
        yield f"{output}.affine", block.output


@torch.no_grad()
def _copy(module: Affine | BatchNorm, component: Component) -> None:
    if isinstance(module, BatchNorm):
        if abs(component.get("Epsilon") - BATCHNORM_EPSILON) > 1e-9 or component.get("TargetRms") != 1.0:
            raise PyserError(f"batch-norm with epsilon {component.get('Epsilon'):g}, target-rms {component.get('TargetRms')}")
        cast(Tensor, module.running_mean).copy_(torch.from_numpy(component.get("StatsMean")))
        cast(Tensor, module.running_var).copy_(torch.from_numpy(component.get("StatsVar")))
        cast(Tensor, module.num_batches_tracked).fill_(int(component.get("Count")))
        return
    weight = component.get("Params", component.get("LinearParams"))
    taps = module.weight.shape[2]
    module.weight.copy_(torch.from_numpy(weight).view(len(weight), taps, -1).transpose(1, 2))
    if module.bias is not None:
        module.bias.copy_(torch.from_numpy(component.get("BiasParams")))


def _numpy(value: Tensor | None) -> np.ndarray:
    return np.zeros(0, np.float32) if value is None else value.detach().cpu().numpy()


def _columns(affine: Affine) -> np.ndarray:
    """Kaldi's matrix of a map: (outputs, taps x inputs)."""
    return np.ascontiguousarray(_numpy(affine.weight).transpose(0, 2, 1).reshape(affine.weight.shape[0], -1))


def _ranks(matrix: np.ndarray) -> tuple[int, int]:
    return min(RANK_IN, (matrix.shape[1] + 1) // 2), min(RANK_OUT, (matrix.shape[0] + 1) // 2)


def _updatable(output: str = "") -> dict[str, Any]:
    factor = {"LearningRateFactor": XENT_LEARNING_RATE_FACTOR} if output == "output-xent" else {}
    return {**factor, "MaxChange": MAX_CHANGE_OUTPUT if output else MAX_CHANGE,
            "L2Regularize": L2_REGULARIZE_OUTPUT if output else L2_REGULARIZE,
            "LearningRate": LEARNING_RATE * factor.get("LearningRateFactor", 1.0)}


def _affine(affine: Affine, output: str = "") -> Component:
    matrix = _columns(affine)
    rank_in, rank_out = _ranks(matrix)
    return Component("NaturalGradientAffineComponent", {
        **_updatable(output), "LinearParams": matrix, "BiasParams": _numpy(affine.bias), "RankIn": rank_in,
        "RankOut": rank_out, "UpdatePeriod": UPDATE_PERIOD, "NumSamplesHistory": NUM_SAMPLES_HISTORY, "Alpha": ALPHA})


def _linear(affine: Affine) -> Component:
    matrix = _columns(affine)
    return Component("LinearComponent", {
        **_updatable(), "Params": matrix, "OrthonormalConstraint": -1.0, "UseNaturalGradient": True,
        "RankInOut": _ranks(matrix), "Alpha": ALPHA, "NumSamplesHistory": NUM_SAMPLES_HISTORY, "UpdatePeriod": UPDATE_PERIOD})


def _tdnn(affine: Affine, offsets: tuple[int, int]) -> Component:
    matrix = _columns(affine)
    return Component("TdnnComponent", {
        **_updatable(), "TimeOffsets": np.array(sorted(set(offsets)), np.int32), "LinearParams": matrix,
        "BiasParams": _numpy(affine.bias), "OrthonormalConstraint": -1.0 if affine.bias is None else 0.0,
        "UseNaturalGradient": True, "NumSamplesHistory": NUM_SAMPLES_HISTORY, "AlphaInOut": (ALPHA, ALPHA),
        "RankInOut": _ranks(matrix)})


def _nonlinear(kind: str, dim: int, **more: float) -> Component:
    empty = np.zeros(0, np.float32)
    return Component(kind, {
        "Dim": dim, "ValueAvg": empty, "DerivAvg": empty, "Count": 0.0, "OderivRms": empty, "OderivCount": 0.0,
        "NumDimsSelfRepaired": 0.0, "NumDimsProcessed": 0.0, **more})


def _relu(dim: int) -> Component:
    return _nonlinear("RectifiedLinearComponent", dim, SelfRepairScale=SELF_REPAIR_SCALE)


def _batchnorm(batchnorm: BatchNorm) -> Component:
    dim = batchnorm.num_features
    return Component("BatchNormComponent", {
        "Dim": dim, "BlockDim": dim, "Epsilon": BATCHNORM_EPSILON, "TargetRms": 1.0, "TestMode": False,
        "Count": float(max(int(cast(Tensor, batchnorm.num_batches_tracked)), 1)),
        "StatsMean": _numpy(batchnorm.running_mean), "StatsVar": _numpy(batchnorm.running_var)})


def _dropout(dim: int) -> Component:
    return Component("GeneralDropoutComponent", {
        "Dim": dim, "BlockDim": dim, "TimePeriod": 0, "DropoutProportion": 0.0, "Continuous": True})
