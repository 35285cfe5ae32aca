"""Where torch computes."""

from __future__ import annotations

import torch

from pyser.errors import PyserError


def choose_device(use_gpu: str) -> torch.device:
    """use_gpu, Kaldi's words: yes, no or, if there is a GPU, optional or wait."""
    if use_gpu == "yes" and not torch.cuda.is_available():
        raise PyserError("no GPU here that torch can use; take --use-gpu no or optional")
    return torch.device("cuda" if use_gpu != "no" and torch.cuda.is_available() else "cpu")
