"""A guard against a fault of torch 1.13 on the CPU: where oneDNN computes the backward of gelu, and the input lies in memory
without gaps but the gradient of the output does not (it was transposed), the result is garbage, up to 1e30. The forward is
right, and so is everything in torch 2, where the guard costs nothing.

wav2vec2 and its kin transpose behind the gelu of their convolutions.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def guard(model: nn.Module) -> None:
    """Let the gradient of every gelu's output in `model` be contiguous before it is handed on. Once for each model."""
    from transformers.activations import GELUActivation

    for module in model.modules():
        if isinstance(module, nn.GELU | GELUActivation):
            module.register_forward_hook(_contiguous_gradient)


def _contiguous_gradient(module: nn.Module, inputs: Any, output: Tensor) -> None:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.contiguous())
