"""The optimisers to choose from, and what may be asked of any of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from pyser.errors import PyserError
from pyser.training.ng_sgd import Component, NgSgd, NgSgdConfig

OPTIMIZERS = ("adam", "adamw", "ng-sgd")
# Adam in one pass over memory instead of ten: a fifth of the time of CmGI's second stage on a CPU. Older ones lack it there.
FUSED: dict[str, Any] = {"fused": True} if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 4) else {}


def make_optimizer(
    name: str,
    parameters: list[nn.Parameter] | list[dict[str, Any]],
    lr: float,
    weight_decay: float,
    components: Sequence[Component] | None,
    ng_config: NgSgdConfig,
) -> torch.optim.Optimizer:
    """adam (weight_decay is an L2 penalty) or adamw (it is decoupled), which take torch's groups of parameters too, or ng-sgd
    on `components`, which hold all parameters."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=weight_decay, **FUSED)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, **FUSED)
    if components is None:
        raise PyserError("ng-sgd needs a network of affine layers; take adam or adamw")
    optimizer = NgSgd(components, lr, ng_config)
    missed = {id(p) for p in parameters} - {id(p) for group in optimizer.param_groups for p in group["params"]}
    if missed:
        raise PyserError(f"{len(missed)} parameters are in none of ng-sgd's layers; take adam or adamw")
    return optimizer


class ChangeLimit:
    """Kaldi's max-param-change around any optimiser's step: the parameters together move by at most `limit` (2-norm)."""

    def __init__(self, parameters: list[nn.Parameter], limit: float):
        self.parameters, self.limit = parameters, limit

    @torch.no_grad()
    def before(self) -> None:
        self.old = [p.detach().clone() for p in self.parameters] if self.limit else []

    @torch.no_grad()
    def after(self) -> None:
        if not self.limit:
            return
        changes = [p - old for p, old in zip(self.parameters, self.old, strict=True)]
        norm = float(torch.stack([change.norm() for change in changes]).norm())
        if norm > self.limit:
            for parameter, old, change in zip(self.parameters, self.old, changes, strict=True):
                parameter.copy_(old.add_(change, alpha=self.limit / norm))
