"""Stochastic gradient descent with Kaldi's natural gradient, for networks of affine layers.

Kaldi preconditions the rows of a layer's input and of its output's derivative, and multiplies these into the change of the
parameters (TdnnComponent::UpdateNaturalGradient). Preconditioning is linear in the rows, X -> X P, so that the product is
P_out (dY' X) P_in: here autograd's gradient dY' X is changed instead, and only the sums that the estimates and the scales
need are taken from the rows, by hooks on the layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from pyser.training import distributed
from pyser.training.natural_gradient import NaturalGradientConfig, OnlineNaturalGradient, Sums

Component = tuple[nn.Conv1d, Mapping[str, float]]  # a layer, and those of its options that are not the defaults


@dataclass(frozen=True)
class NgSgdConfig:
    """max_param_change: of all parameters together in a step, 0 for no limit. The rest are Kaldi's defaults; a rank is at
    most half of the dimensions. l2_regularize_factor: of all layers' l2_regularize, Kaldi's 1 / number of jobs."""

    max_param_change: float = 2.0
    l2_regularize_factor: float = 1.0
    rank_in: int = 20
    rank_out: int = 80
    alpha: float = 4.0
    num_samples_history: float = 2000.0
    update_period: int = 4


class NgSgd(torch.optim.Optimizer):
    """One parameter group for each layer, with `max_change` (of the layer in a step, 0 for no limit), `l2_regularize` and
    `learning_rate_factor`.

    As in Kaldi the loss is a sum over frames, not a mean, and l2_regularize counts once for each sequence of the batch. In a
    run of several processes each has the gradient of the whole batch, and its rows' share of the sums.
    """

    def __init__(self, components: Sequence[Component], lr: float, config: NgSgdConfig | None = None):
        self.settings = config or NgSgdConfig()
        self.layers = [_Layer(module, self.settings) for module, _ in components]
        groups = [{**options, "params": list(module.parameters())} for module, options in components]
        super().__init__(groups, {"lr": lr, "max_change": 0.75, "l2_regularize": 0.0, "learning_rate_factor": 1.0})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients and what the hooks saw with them."""
        super().zero_grad(set_to_none)
        for layer in self.layers:
            layer.forget()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the parameters by their preconditioned gradients."""
        assert closure is None
        self._sum_over_ranks()
        changes, squares = [], []
        for layer, group in zip(self.layers, self.param_groups, strict=True):
            if layer.module.weight.grad is None or not layer.seen:
                continue
            change, scale = layer.preconditioned()
            regularize = 2 * group["l2_regularize"] * self.settings.l2_regularize_factor * layer.sequences
            if regularize:
                change = change.add(layer.joined([p.detach() for p in layer.module.parameters()]), alpha=regularize / scale)
            factor = group["lr"] * group["learning_rate_factor"] * scale
            norm = float(change.norm()) * factor
            if 0 < group["max_change"] < norm:
                factor *= group["max_change"] / norm
                norm = group["max_change"]
            changes.append((layer, change, -factor))
            squares.append(norm * norm)
        norm, limit = math.sqrt(sum(squares)), self.settings.max_param_change
        for layer, change, factor in changes:
            layer.apply(change, factor * limit / norm if 0 < limit < norm else factor)
            layer.next_batch()
            self.state[layer.module.weight] = layer.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for layer in self.layers:
            if self.state.get(layer.module.weight):
                layer.load(self.state[layer.module.weight])

    def _sum_over_ranks(self) -> None:
        """Add up what the processes' hooks saw, in one message."""
        if distributed.world_size() == 1:
            return
        seen = [sums for layer in self.layers for sums in layer.seen.values()]
        numbers = torch.tensor([n for layer in self.layers for n in (layer.sequences, *layer.numbers())], dtype=torch.float64)
        distributed.sum_(numbers)
        tensors = [t for sums in seen for t in (sums.diagonal, sums.j) if t is not None]
        flat = torch.cat([t.flatten() for t in tensors])
        distributed.sum_(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))
        values = iter(numbers.tolist())
        for layer in self.layers:
            layer.sequences = next(values)
            for sums in layer.seen.values():
                sums.rows, sums.square = next(values), next(values)


class _Layer:
    """The preconditioners of one affine layer, of its inputs (with a one for the bias) and of its outputs."""

    def __init__(self, module: nn.Conv1d, config: NgSgdConfig):
        self.module = module
        self.taps, self.bias = module.kernel_size[0], module.bias is not None
        inputs, outputs = module.in_channels * self.taps, module.out_channels
        rest = (config.alpha, config.num_samples_history, config.update_period)
        # Kaldi's rank is half of the inputs without the one, rounded up.
        self.sides = {
            "in": OnlineNaturalGradient(
                inputs + self.bias, NaturalGradientConfig(min(config.rank_in, (inputs + 1) // 2), *rest), module.weight.device
            ),
            "out": OnlineNaturalGradient(
                outputs, NaturalGradientConfig(min(config.rank_out, (outputs + 1) // 2), *rest), module.weight.device
            ),
        }
        self.forget()
        module.register_forward_hook(self._forward)

    def forget(self) -> None:
        self.seen: dict[str, Sums] = {}
        self.sequences = 0.0

    def numbers(self) -> Iterator[float]:
        for sums in self.seen.values():
            yield from (sums.rows, sums.square)

    def _forward(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if module.training and output.requires_grad:
            x = inputs[0].detach()
            output.register_hook(lambda derivative: self._backward(x, derivative))

    @torch.no_grad()
    def _backward(self, x: Tensor, derivative: Tensor) -> None:
        """x (N, T, inputs), derivative (N, T - step, outputs)."""
        span = derivative.shape[1]
        step = x.shape[1] - span
        self.sequences += len(x)
        taps = [x[:, k * step : k * step + span] for k in range(self.taps)]
        for name, rows in (
            ("in", _Rows(taps, self.bias, _square(x, self.taps, step))),
            ("out", _Rows([derivative.detach()], False, _square(derivative, 1, 0))),
        ):
            side = self.sides[name]
            if not side.rank:
                continue
            if side.t == 0 and name not in self.seen:
                side.start(lambda w, rows=rows: _over_ranks(rows.sums(w, True)))  # type: ignore[misc]
            sums = rows.sums(side.w, side.updating)
            self.seen[name] = self.seen[name] + sums if name in self.seen else sums

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Weight (outputs, inputs, taps) and bias as one matrix (outputs, taps * inputs + 1), tap after tap as Kaldi's."""
        flat = parts[0].permute(0, 2, 1).reshape(len(parts[0]), -1)
        return torch.cat([flat, parts[1][:, None]], dim=1) if self.bias else flat

    def preconditioned(self) -> tuple[Tensor, float]:
        """The natural gradient, as `joined` has it, and a factor that is to be multiplied into it."""
        gradient = self.joined([p.grad for p in self.module.parameters() if p.grad is not None])
        gradient = self.sides["in"].precondition(gradient)
        gradient = self.sides["out"].precondition_columns(gradient)
        return gradient, math.prod(self.sides[name].scale(sums) for name, sums in self.seen.items())

    def apply(self, change: Tensor, factor: float) -> None:
        weight = self.module.weight
        flat = change[:, :-1] if self.bias else change
        weight.add_(flat.reshape(weight.shape[0], self.taps, -1).permute(0, 2, 1), alpha=factor)
        if self.module.bias is not None:
            self.module.bias.add_(change[:, -1], alpha=factor)

    def next_batch(self) -> None:
        for name, sums in self.seen.items():
            self.sides[name].step(sums)
        self.forget()

    def state(self) -> dict[str, Any]:
        """Tensors in float32, which survive torch's loading as they are."""
        found: dict[str, Any] = {}
        for name, side in self.sides.items():
            found |= {f"w_{name}": side.w, f"d_{name}": side.d, f"rho_{name}": torch.tensor(side.rho), f"t_{name}": side.t}
        return found

    def load(self, state: dict[str, Any]) -> None:
        for name, side in self.sides.items():
            side.w, side.d = state[f"w_{name}"], state[f"d_{name}"].cpu()
            side.rho, side.t = float(state[f"rho_{name}"]), state[f"t_{name}"]


def _over_ranks(sums: Sums) -> Sums:
    if distributed.world_size() > 1:
        assert sums.j is not None
        numbers = torch.tensor([sums.rows, sums.square], dtype=torch.float64)
        for tensor in (numbers, sums.diagonal, sums.j):
            distributed.sum_(tensor)
        sums.rows, sums.square = numbers.tolist()
    return sums


@dataclass
class _Rows:
    """Rows whose columns are those of `parts` (N, T, D), one part after the other, and perhaps a one."""

    parts: list[Tensor]
    ones: bool
    square: float  # of the parts

    def sums(self, w: Tensor, updating: bool) -> Sums:
        count = self.parts[0].shape[0] * self.parts[0].shape[1]
        pieces = w.to(self.parts[0].dtype).split([part.shape[2] for part in self.parts] + [1] * self.ones, dim=1)
        h = linear(self.parts[0], pieces[0])  # (N, T, R)
        for piece, part in zip(pieces[1:], self.parts[1:], strict=False):
            h += linear(part, piece)
        if self.ones:
            h += pieces[-1][:, 0]
        square, diagonal = self.square + count * self.ones, h.float().square().sum((0, 1))
        if not updating:
            return Sums(float(count), square, diagonal, None)
        rows = h.flatten(0, 1).t()
        j = [(rows @ part.flatten(0, 1)).float() for part in self.parts]
        if self.ones:
            j.append(h.sum((0, 1), dtype=torch.float32)[:, None])
        return Sums(float(count), square, diagonal, torch.cat(j, dim=1))


def _square(x: Tensor, taps: int, step: int) -> float:
    """The squared norm of all frames of x (N, T, D) that the taps see, of each tap's; all of it, less the edges not seen."""

    def of(part: Tensor) -> float:
        flat = part.float().reshape(-1)
        return float(torch.dot(flat, flat))

    edges = 0.0 if step == 0 else of(x[:, -step:]) + of(x[:, :step])
    return taps * of(x) - edges
