"""Kaldi's online natural gradient: an estimate of a Fisher matrix, of low rank plus a multiple of I, and its inverse.

D. Povey, X. Zhang, S. Khudanpur, "Parallel training of DNNs with natural gradient and parameter averaging", ICLR workshop
2015; letters as in src/nnet3/natural-gradient-online.h. Rows x of dimension D come in batches X (N, D) with the scatter
S = X'X / N. The estimate F = R' diag(d) R + rho I, with R of `rank` orthonormal rows, follows eta S + (1 - eta) F by one step
of the power method for each batch, and a batch is preconditioned with G = F + alpha tr(F)/D I:

    X -> gamma X (I - W'W),  W = e^0.5 R,  e = 1 / (beta / d + 1),  beta = rho + alpha tr(F)/D,

gamma such that the norm of X stays. All that an update needs of X is N, tr(X X') and J = W X'X, and all that gamma needs is
the diagonal of W X'X W': sums over rows, so they may be summed over parts of a batch, in other processes too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-10  # floor of rho and d: rows may be all zero
DELTA = 5e-4  # the same, relative to the largest eigenvalue
MAX_ETA = 0.9
INITIAL_UPDATES = 10  # from then on only every update_period-th batch updates the estimate
INITIAL_ITERATIONS = 3  # on the first batch
MAX_CONDITION = 1e6  # of the squared eigenvalues, before rounding is seen to spoil R's orthogonality
MAX_NON_ORTHOGONAL = 1e-3


@dataclass(frozen=True)
class NaturalGradientConfig:
    """Defaults of Kaldi's TdnnComponent and NaturalGradientAffineComponent, which halve the rank for few dimensions."""

    rank: int = 80
    alpha: float = 4.0
    num_samples_history: float = 2000.0
    update_period: int = 4


@dataclass
class Sums:
    """Of a batch X (N, D), or of parts of it, under the W of that time.

    diagonal : (R,), of W X'X W'
    j : (R, D), W X'X; None where the estimate is not to be updated
    """

    rows: float
    square: float  # tr(X X')
    diagonal: Tensor
    j: Tensor | None

    def __add__(self, other: Sums) -> Sums:
        j = None if self.j is None or other.j is None else self.j + other.j
        return Sums(self.rows + other.rows, self.square + other.square, self.diagonal + other.diagonal, j)


class OnlineNaturalGradient:
    """The state of one preconditioner: w (R, D), d (R,) float32, rho, and t, the number of batches seen."""

    def __init__(self, dim: int, config: NaturalGradientConfig | None = None, device: torch.device | str = "cpu"):
        self.config = config or NaturalGradientConfig()
        self.dim, self.rank, self.t = dim, min(self.config.rank, dim - 1), 0
        self.rho = float(torch.tensor(EPSILON, dtype=torch.float32))
        self.d = torch.full((self.rank,), EPSILON)
        self.w = (math.sqrt(1 / (2 + (dim + self.rank) * self.config.alpha / dim)) * _start(self.rank, dim)).to(device)

    @property
    def updating(self) -> bool:
        """Whether the next batch updates the estimate."""
        return self.t <= INITIAL_UPDATES or (self.t - INITIAL_UPDATES) % self.config.update_period == 0

    def start(self, sums_of: Callable[[Tensor], Sums]) -> None:
        """Set up the estimate on the first batch; sums_of(w) gives its sums, j included."""
        if self.rank:
            first = sums_of(self.w)
            self.update(first)
            for _ in range(INITIAL_ITERATIONS - 1 if first.rows > self.rank else 0):
                self.update(sums_of(self.w))

    def scale(self, sums: Sums) -> float:
        """gamma, for the batch of these sums: by it X (I - W'W) has the norm of X."""
        diagonal = sums.diagonal.double().cpu()
        after = sums.square + float(((self._e(self.d.double(), self.rho) - 2) * diagonal).sum())
        return math.sqrt(sums.square / after) if sums.square > 0 and after > 0 else 1.0

    def precondition(self, x: Tensor) -> Tensor:
        """X (I - W'W) of rows x (N, D), or of a matrix whose columns such rows were summed into."""
        return torch.addmm(x, x @ self.w.t(), self.w, alpha=-1) if self.rank else x

    def precondition_columns(self, x: Tensor) -> Tensor:
        """(I - W'W) X of columns x (D, M)."""
        return torch.addmm(x, self.w.t(), self.w @ x, alpha=-1) if self.rank else x

    def step(self, sums: Sums) -> None:
        """A batch has been seen; update the estimate if its turn has come."""
        if self.rank and self.updating:
            self.update(sums)
        self.t += 1

    def update(self, sums: Sums) -> None:
        """One step of the power method. The (R, R) algebra is in float64: Z goes with the fourth power of X."""
        assert sums.j is not None
        dim, rank = self.dim, self.rank
        eta = min(1 - math.exp(-sums.rows / self.config.num_samples_history), MAX_ETA)
        share, d, w, j = eta / sums.rows, self.d.double(), self.w.double(), sums.j.double()
        k_matrix, l_matrix = (j @ j.t()).cpu(), (j @ w.t()).cpu()
        inverse = self._e(d, self.rho).rsqrt()  # E^-0.5
        spread = d + self.rho
        cross = share * (1 - eta) * torch.outer(inverse, inverse) * (l_matrix + l_matrix.t()) / 2
        z = share**2 * torch.outer(inverse, inverse) * (k_matrix + k_matrix.t()) / 2
        z = z + cross * (spread[:, None] + spread) + ((1 - eta) * spread).square().diag()
        c, u = torch.linalg.eigh(z)
        c, u = c.flip(0), u.flip(1)  # the largest first
        floor = (self.rho * (1 - eta)) ** 2
        spoilt = bool(c[0] > MAX_CONDITION * c[-1]) or bool((c < floor).any())
        root = c.clamp(min=floor).sqrt()
        rho = (share * sums.square + (1 - eta) * (dim * self.rho + float(d.sum())) - float(root.sum())) / (dim - rank)
        least = max(EPSILON, DELTA * float(root.max()))
        new_d, rho = (root - rho).clamp(min=least), max(rho, least)
        new_e = self._e(new_d, rho)
        a = share * (new_e.sqrt() / root)[:, None] * u.t() * inverse
        b = j + ((1 - eta) / share * spread)[:, None].to(w) * w
        w = a.to(w) @ b
        if spoilt:
            w = _orthogonalise(w, new_e.sqrt().to(w))
        self.w, self.d = w.float(), new_d.float()
        self.rho = float(torch.tensor(rho, dtype=torch.float32))  # as it is saved

    def _e(self, d: Tensor, rho: float) -> Tensor:
        beta = rho * (1 + self.config.alpha) + self.config.alpha * float(d.sum()) / self.dim
        return 1 / (beta / d + 1)


def rows_sums(x: Tensor, w: Tensor, updating: bool = True) -> Sums:
    """The sums of rows x (N, D)."""
    h = x @ w.t()
    return Sums(float(len(x)), float(x.square().sum()), h.square().sum(0), h.t() @ x if updating else None)


def _start(rank: int, dim: int) -> Tensor:
    """(rank, dim) orthonormal rows without a zero column: row r is 1 at r + rank, r + 2 rank … and a little more at r, all
    normalised, so that no sum of rows is constant (InitOrthonormalSpecial)."""
    matrix = torch.eye(rank).repeat(1, -(-dim // max(rank, 1)))[:, :dim] if rank else torch.zeros(0, dim)
    matrix[:, :rank] *= 1.1
    return matrix / matrix.norm(dim=1, keepdim=True)


def _orthogonalise(w: Tensor, root_e: Tensor) -> Tensor:
    """w (R, D) with its rows, but for their lengths root_e, made orthonormal again; the first rows change least."""
    r = w / root_e[:, None]
    product = r @ r.t()
    if float((product - torch.eye(len(product)).to(product)).abs().max()) <= MAX_NON_ORTHOGONAL:
        return w
    q, triangle = torch.linalg.qr(r.t())
    return root_e[:, None] * (q * triangle.diagonal().sign()).t()
