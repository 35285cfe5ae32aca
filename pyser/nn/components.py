"""What the components of nnet3 networks compute, as torch modules in test mode (nnet3/nnet-simple-component.cc,
nnet-normalize-component.cc, nnet-tdnn-component.cc, nnet-general-component.cc).

A module takes (T, N, D) tensors, frames first, so that a range of frames is one block of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from pyser.kaldi.nnet3.component import Component

NORM_FLOOR = 2.0**-66  # of NormalizeComponent's squared norm


class Layer(nn.Module):
    """in_dim, out_dim: columns. offsets: the frames of the input that one frame of the output reads."""

    offsets: tuple[int, ...] = (0,)

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """(T, N, in_dim) -> (T, N, out_dim). overwrite: the input may be used up."""
        raise NotImplementedError


class Identity(Layer):
    """NoOp, and dropout that does nothing in test mode."""

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        return x


class Affine(Layer):
    """y = W x + b. The input may come in parts: side by side, and from several frames (TdnnComponent).

    weight: (out, frames x in), bias: (out,) or nothing.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: np.ndarray, bias: np.ndarray | None, offsets: Sequence[int] = (0,), trained: bool = True
    ):
        _want(len(offsets) > 0 and weight.size > 0 and weight.shape[1] % len(offsets) == 0, "columns that fit the offsets")
        _want(bias is None or len(bias) in (0, len(weight)), "a bias for each row")
        super().__init__(weight.shape[1] // len(offsets), weight.shape[0])
        self.offsets = tuple(offsets)
        _set(self, "weight", weight, trained)
        _set(self, "bias", bias if bias is not None and len(bias) else None, trained)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        return self.combine([x])

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """`parts`, (T, N, D_i) each or (1, N, D_i) if the same for all frames, stand for their columns side by side.

        Many columns are cheaper multiplied part by part, few copied together first.
        """
        if len(parts) > 1 and sum(part.shape[2] for part in parts) <= self.out_dim * (len(parts) - 1):
            frames = max(len(part) for part in parts)
            parts = [torch.cat([part.expand(frames, -1, -1) for part in parts], dim=2)]
        total, place = None, 0
        for part in sorted(enumerate(parts), key=lambda item: -len(item[1])):  # (those of all frames first)
            place = sum(earlier.shape[2] for earlier in parts[: part[0]])
            product = part[1] @ self.weight[:, place : place + part[1].shape[2]].t()
            if total is None:
                total = product
            else:
                total = total.add_(product) if not torch.is_grad_enabled() else total + product
        total = cast(Tensor, total)
        if self.bias is None:
            return total
        return total.add_(self.bias) if not torch.is_grad_enabled() else total + self.bias


def _set(layer: Layer, name: str, value: np.ndarray | None, trained: bool) -> None:
    _want(value is None or bool(np.isfinite(value).all()), "numbers; some are infinite or none")
    tensor = None if value is None else torch.from_numpy(np.array(value, np.float32))
    if trained:
        layer.register_parameter(name, None if tensor is None else nn.Parameter(tensor))
    else:
        layer.register_buffer(name, tensor)


def _want(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"expected {what}")


class RepeatedAffine(Layer):
    """The same map for each block of columns (weight (out, in)) or, with weight (blocks, out, in), one for each."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: np.ndarray, bias: np.ndarray, blocks: int):
        _want(blocks > 0 and weight.size > 0 and len(bias) == weight.size // weight.shape[-1], "a bias for each row")
        super().__init__(blocks * weight.shape[-1], blocks * weight.shape[-2])
        self.blocks = blocks
        _set(self, "weight", weight, trained=True)
        _set(self, "bias", bias, trained=True)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        x = x.unflatten(2, (self.blocks, -1))
        form = "tnbi,boi->tnbo" if self.weight.ndim == 3 else "tnbi,oi->tnbo"
        y = torch.einsum(form, x, self.weight)
        return y.flatten(2) + self.bias if self.weight.ndim == 3 else (y + self.bias).flatten(2)


class ScaleOffset(Layer):
    """y = scale x + offset, with a scale or an offset or both per column; they repeat if there are more columns."""

    scale: Tensor | None
    offset: Tensor | None

    def __init__(self, dim: int, scale: np.ndarray | None, offset: np.ndarray | None, trained: bool = True):
        super().__init__(dim, dim)
        for value in (scale, offset):
            _want(dim > 0 and (value is None or len(value) > 0 and dim % len(value) == 0), "as many numbers as columns")
        _set(self, "scale", None if scale is None else np.resize(scale, dim), trained)
        _set(self, "offset", None if offset is None else np.resize(offset, dim), trained)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        if self.scale is not None:
            x = x.mul_(self.scale) if overwrite else x * self.scale
        if self.offset is not None:
            mine = overwrite or self.scale is not None and not torch.is_grad_enabled()
            x = x.add_(self.offset) if mine else x + self.offset
        return x


class Nonlinearity(Layer):
    """ReLU, sigmoid, tanh, softmax or log-softmax, by the component's type."""

    def __init__(self, dim: int, kind: str):
        _want(dim > 0, "at least one column")
        super().__init__(dim, dim)
        self.kind = kind

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        if self.kind == "RectifiedLinearComponent":
            return x.relu_() if overwrite else x.relu()
        if self.kind == "SigmoidComponent":
            return x.sigmoid()
        if self.kind == "TanhComponent":
            return x.tanh()
        if self.kind == "SoftmaxComponent":
            return x.softmax(2).clamp(min=1e-20)
        return x.log_softmax(2)


class Normalize(Layer):
    """Each frame (or block of its columns) scaled to the root mean square target_rms; add_log_stddev appends the logarithm
    of what it was."""

    def __init__(self, dim: int, block_dim: int, target_rms: float, add_log_stddev: bool):
        _want(dim > 0 and block_dim > 0 and dim % block_dim == 0 and target_rms > 0, "a block size that divides the columns")
        super().__init__(dim, dim + (dim // block_dim if add_log_stddev else 0))
        self.block_dim, self.target_rms, self.add_log_stddev = block_dim, target_rms, add_log_stddev

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        x = x.unflatten(2, (-1, self.block_dim))
        square = (x * x).sum(3, keepdim=True) / (self.block_dim * self.target_rms**2)
        square = square.clamp(min=NORM_FLOOR)
        y = x * square.rsqrt()
        if self.add_log_stddev:
            y = torch.cat([y, 0.5 * square.log() + float(np.log(self.target_rms))], dim=3)
        return y.flatten(2)


class Pnorm(Layer):
    """The 2-norm of each group of columns."""

    def __init__(self, in_dim: int, out_dim: int):
        _want(out_dim > 0 and in_dim > 0 and in_dim % out_dim == 0, "groups of equal size")
        super().__init__(in_dim, out_dim)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        return x.unflatten(2, (self.out_dim, -1)).norm(dim=3)


class SumGroup(Layer):
    """Sums of consecutive groups of columns, of given sizes."""

    def __init__(self, sizes: np.ndarray):
        _want(len(sizes) > 0 and int(sizes.min()) > 0, "sizes above zero")
        super().__init__(int(sizes.sum()), len(sizes))
        self.register_buffer("group", torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)))

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        return x.new_zeros(*x.shape[:2], self.out_dim).index_add(2, cast(Tensor, self.group), x)


class Blocks(Layer):
    """Blocks of out_dim columns added up (and scaled), or multiplied with each other."""

    def __init__(self, in_dim: int, out_dim: int, scale: float = 1.0, product: bool = False):
        _want(out_dim > 0 and in_dim > 0 and in_dim % out_dim == 0, "blocks of equal size")
        super().__init__(in_dim, out_dim)
        self.scale, self.product = scale, product

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        x = x.unflatten(2, (-1, self.out_dim))
        return x.prod(2) if self.product else self.scale * x.sum(2)


class Permute(Layer):
    """Column i of the output is column column_map[i] of the input."""

    def __init__(self, column_map: np.ndarray):
        _want(len(column_map) > 0 and np.array_equal(np.sort(column_map), np.arange(len(column_map))), "every column once")
        super().__init__(len(column_map), len(column_map))
        self.register_buffer("column_map", torch.from_numpy(column_map.astype(np.int64)))

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        return x.index_select(2, cast(Tensor, self.column_map))


class Constant(Layer):
    """The same frame whatever the input is."""

    output: Tensor

    def __init__(self, in_dim: int, output: np.ndarray):
        super().__init__(in_dim, len(output))
        _set(self, "output", output, trained=True)

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        y = self.output.expand(*x.shape[:2], -1)
        return y if torch.is_grad_enabled() else y.clone()  # (the next layer may overwrite it)


def make_layer(component: Component, name: str) -> Layer:
    """The module of a component; ValueError if its fields do not make sense together."""
    get, kind = component.get, component.type
    try:
        if kind == "TdnnComponent":
            return Affine(get("LinearParams"), get("BiasParams"), tuple(int(offset) for offset in get("TimeOffsets")))
        if kind in ("AffineComponent", "NaturalGradientAffineComponent", "FixedAffineComponent"):
            return Affine(get("LinearParams"), get("BiasParams"), trained=kind != "FixedAffineComponent")
        if kind == "LinearComponent":
            return Affine(get("Params"), None)
        if kind == "BlockAffineComponent":
            weight = get("LinearParams")
            return RepeatedAffine(weight.reshape(get("NumBlocks"), -1, weight.shape[1]), get("BiasParams"), get("NumBlocks"))
        if kind in ("RepeatedAffineComponent", "NaturalGradientRepeatedAffineComponent"):
            return RepeatedAffine(get("LinearParams"), get("BiasParams"), get("NumRepeats"))
        if kind in ("PerElementScaleComponent", "NaturalGradientPerElementScaleComponent"):
            return ScaleOffset(len(get("Params")), get("Params"), None)
        if kind == "FixedScaleComponent":
            return ScaleOffset(len(get("Scales")), get("Scales"), None, trained=False)
        if kind == "FixedBiasComponent":
            return ScaleOffset(len(get("Bias")), None, get("Bias"), trained=False)
        if kind == "PerElementOffsetComponent":
            return ScaleOffset(get("Dim", len(get("Offsets"))), None, get("Offsets"))
        if kind == "ScaleAndOffsetComponent":
            return ScaleOffset(get("Dim"), get("Scales"), get("Offsets"))
        if kind == "BatchNormComponent":
            return _batch_norm(component)
        if kind == "NormalizeComponent":
            dim = get("InputDim", get("Dim"))
            return Normalize(dim, get("BlockDim", dim), get("TargetRms", 1.0), get("AddLogStddev", False))
        if kind == "PnormComponent":
            return Pnorm(get("InputDim"), get("OutputDim"))
        if kind == "SumGroupComponent":
            return SumGroup(get("Sizes"))
        if kind == "SumBlockComponent":
            return Blocks(get("InputDim"), get("OutputDim"), scale=float(get("Scale")))
        if kind == "ElementwiseProductComponent":
            return Blocks(get("InputDim"), get("OutputDim"), product=True)
        if kind == "PermuteComponent":
            return Permute(get("ColumnMap"))
        if kind in ("ConstantFunctionComponent", "ConstantComponent"):
            return Constant(get("InputDim", 0), get("Output"))
        if kind in ("RectifiedLinearComponent", "SigmoidComponent", "TanhComponent", "SoftmaxComponent",
                    "LogSoftmaxComponent"):
            return Nonlinearity(get("Dim"), kind)
        scale = 1.0
        if kind == "DropoutComponent":  # (the others of its kind leave the mean as it is)
            scale = 1.0 - get("DropoutProportion", 0.0)
        elif kind == "BackpropTruncationComponent":
            scale = get("Scale", 1.0)
        _want(get("Dim") > 0, "at least one column")
        return Identity(get("Dim"), get("Dim")) if scale == 1.0 else ScaleOffset(get("Dim"), np.array([scale]), None, False)
    except (AttributeError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"component '{name}' ({kind}): fields are missing or do not fit ({error})") from None


def _batch_norm(component: Component) -> Layer:
    """target_rms (x - mean) / sqrt(var + epsilon); the statistics may be those of a block of columns."""
    get = component.get
    mean, var = (np.asarray(get(name), np.float64) for name in ("StatsMean", "StatsVar"))
    if not len(mean) or get("Count", 0.0) <= 0:
        raise ValueError("batch-norm without statistics; the network was never trained")
    _want(len(mean) == len(var) == get("BlockDim", get("Dim")), "statistics of BlockDim columns")
    scale = get("TargetRms") * (np.maximum(var, 0.0) + get("Epsilon")) ** -0.5
    return ScaleOffset(get("Dim"), scale, -mean * scale, trained=False)
