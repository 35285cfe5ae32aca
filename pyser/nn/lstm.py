"""Bidirectional LSTMs of sequences of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BiLstm(nn.Module):
    """x (N, T, dim), lengths (N,) -> (N, T, 2 units), zero behind the end of each; what x has there does not matter, and a
    sequence may be empty. dropout: between the layers.

    Each direction is an LSTM of its own on padded sequences, the backward one on sequences turned round within their lengths:
    the gradient of torch's packed ones takes two to ten times as long on a processor.
    """

    def __init__(self, dim: int, units: int, layers: int, dropout: float = 0.0):
        super().__init__()
        dims = [dim] + [2 * units] * (layers - 1)
        self.ahead, self.back = (nn.ModuleList(nn.LSTM(size, units, batch_first=True) for size in dims) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        mask, places = mask_of(lengths, x.shape[1], x.device)[..., None], turned(lengths, x.shape[1], x.device)
        x = x.masked_fill(~mask, 0)
        for number, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            x = self.dropout(x) if number else x
            x = torch.cat([ahead(x)[0], _turn(back(_turn(x, places))[0], places)], dim=2).masked_fill(~mask, 0)
        return x

    def apart(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, units) twice: what the past alone tells, and what the future alone tells, the same parameters with each
        direction seeing zeros for the other's output."""
        places = turned(lengths, x.shape[1], x.device)
        past = future = x
        for number, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            if number:
                none = torch.zeros_like(past)
                past, future = torch.cat([self.dropout(past), none], dim=2), torch.cat([none, self.dropout(future)], dim=2)
            past, future = ahead(past)[0], _turn(back(_turn(future, places))[0], places)
        return past, future

    @torch.no_grad()
    def separate(self) -> None:
        """Put to zero what `apart` never uses: each direction's weights of the other's output. `forward` then gives what
        `apart` does, side by side."""
        for ahead, back in list(zip(self.ahead, self.back, strict=True))[1:]:
            from_past, from_future = (layer.get_parameter("weight_ih_l0") for layer in (ahead, back))  # (4 units, 2 units)
            units = from_past.shape[1] // 2
            from_past[:, units:] = 0
            from_future[:, :units] = 0


def mask_of(lengths: Tensor, longest: int, device: torch.device) -> Tensor:
    """(N, longest): true within the length."""
    return torch.arange(longest, device=device) < lengths.to(device)[:, None]


def turned(lengths: Tensor, longest: int, device: torch.device) -> Tensor:
    """(N, longest): the places of frames in sequences turned round, what is behind their ends where it was."""
    places = torch.arange(longest, device=device)[None]
    ends = lengths.to(device)[:, None]
    return torch.where(places < ends, ends - 1 - places, places)


def _turn(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places[..., None].expand_as(x))
