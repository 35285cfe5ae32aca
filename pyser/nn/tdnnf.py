"""The TDNN-F acoustic model of Kaldi's egs/tedlium/s5_r2/local/chain/tuning/run_tdnn_1g.sh.

D. Povey et al., "Semi-orthogonal low-rank matrix factorization for deep neural networks", Interspeech 2018. Names of
nodes are Kaldi's. Convolutions are valid ones: the caller supplies left_context and right_context frames around the
frames it wants, so an output depends on nothing but its own window.

    feats (-1, 0, 1) + i-vector ── lda ── tdnn1 ── tdnnf2 … tdnnf13 ── prefinal-l ─┬─ prefinal-chain ── output
                                                                                   └─ prefinal-xent ─── output-xent
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist

from pyser.errors import PyserError

BATCHNORM_EPSILON = 1e-3


@dataclass(frozen=True)
class TdnnfConfig:
    """Sizes; the defaults are run_tdnn_1g.sh's. strides: of tdnnf2, tdnnf3 … (0: no temporal context).

    ivector_dim 0 means no i-vectors; num_pdfs is the number of output columns.
    """

    feat_dim: int = 40
    ivector_dim: int = 100
    dim: int = 1024
    bottleneck_dim: int = 128
    prefinal_dim: int = 256
    strides: tuple[int, ...] = (1, 1, 1, 0, 3, 3, 3, 3, 3, 3, 3, 3)
    bypass_scale: float = 0.66
    num_pdfs: int = 3600

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides))  # a list when read from JSON
        sizes = (self.feat_dim, self.dim, self.bottleneck_dim, self.prefinal_dim, self.num_pdfs)
        if min(sizes) < 1 or self.ivector_dim < 0 or not self.strides or min(self.strides) < 0:
            raise PyserError(f"{self}: sizes must be positive and strides not negative")


class GeneralDropout(nn.Module):
    """Kaldi's GeneralDropoutComponent, continuous: each dimension of each sequence is multiplied by one number, uniform
    in [1 - 2p, 1 + 2p], for all its frames. Identity in eval mode."""

    proportion = 0.0

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D)
        if not self.training or self.proportion == 0.0:
            return x
        mask = torch.rand(x.shape[0], 1, x.shape[2], device=x.device, dtype=x.dtype)
        return x * (1 + 2 * self.proportion * (2 * mask - 1))


class Affine(nn.Conv1d):
    """A linear map of frames t, t + stride (two taps) or of frame t alone (stride 0), initialised as Kaldi does."""

    def __init__(self, inputs: int, outputs: int, stride: int = 0, bias: bool = True, zero: bool = False):
        self.stride_of_taps = stride
        super().__init__(inputs, outputs, kernel_size=2 if stride else 1, bias=bias)
        nn.init.normal_(self.weight, std=0.0 if zero else (inputs * self.kernel_size[0]) ** -0.5)
        if self.bias is not None:
            nn.init.normal_(self.bias, std=0.0 if zero else 1.0)

    def forward(self, x: Tensor, thinning: int = 1) -> Tensor:
        """(N, T, inputs) -> (N, T - stride / thinning, outputs), the frames of x being `thinning` apart.

        Frames are rows: products of these matrices are faster than the same convolution of (N, inputs, T).
        """
        span = x.shape[1] - self.stride_of_taps // thinning
        y = F.linear(x[:, :span], self.weight[:, :, 0], self.bias)
        return y if self.weight.shape[2] == 1 else y.add_(F.linear(x[:, x.shape[1] - span :], self.weight[:, :, 1]))


class _Normalize(torch.autograd.Function):
    """Rows x (M, D) of this process less the mean of all processes' rows, by the root of their variance plus epsilon; that
    mean and variance (D,) float64 and the number of rows. The sum of the processes' losses is what is derived."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own, own_mean, own_scale = torch.native_batch_norm(x, None, None, None, None, True, 0.0, epsilon)
        mean, var = own_mean.double(), own_scale.double() ** -2 - epsilon
        sums = len(x) * torch.stack([torch.ones_like(mean), mean, var + mean.square()])
        dist.all_reduce(sums)
        mean, var = sums[1] / sums[0], sums[2] / sums[0] - (sums[1] / sums[0]).square()
        scale = (var + epsilon).rsqrt()
        y = torch.addcmul(((own_mean - mean) * scale).to(x), own, (scale / own_scale).to(x))
        ctx.save_for_backward(y, scale.to(x), sums[0].to(x))
        ctx.mark_non_differentiable(mean, var, sums[0])
        return y, mean, var, sums[0]

    @staticmethod
    def backward(ctx: Any, *derivatives: Tensor) -> tuple[Tensor, None]:
        y, scale, count = ctx.saved_tensors
        sums = torch.stack([derivatives[0].sum(0), (derivatives[0] * y).sum(0)])
        dist.all_reduce(sums)
        return torch.addcmul(derivatives[0] - sums[0] / count, y, sums[1] / count, value=-1).mul_(scale), None


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation without scale and offset (Kaldi's BatchNormComponent, target-rms 1), over the batches of all
    processes that train together."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int):
        super().__init__(dim, eps=BATCHNORM_EPSILON, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            return self._forward_over_processes(x)
        return super().forward(x.flatten(0, 1)).view_as(x)

    def _forward_over_processes(self, x: Tensor) -> Tensor:
        y, mean, var, count = _Normalize.apply(x.flatten(0, 1), self.eps)
        with torch.no_grad():
            assert self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((var * count / (count - 1)).to(self.running_var), self.momentum)
        return cast(Tensor, y).view_as(x)


class TdnnfLayer(nn.Module):
    """linear (dim -> bottleneck, semi-orthogonal), affine (bottleneck -> dim), ReLU, batch-norm, dropout, bypass."""

    def __init__(self, dim: int, bottleneck_dim: int, stride: int, bypass_scale: float):
        super().__init__()
        self.stride, self.bypass_scale = stride, bypass_scale
        self.linear = Affine(dim, bottleneck_dim, stride, bias=False)
        self.affine = Affine(bottleneck_dim, dim, stride)
        self.batchnorm = BatchNorm(dim)
        self.dropout = GeneralDropout()

    def forward(self, x: Tensor, thinning: int) -> Tensor:
        """(N, T, dim) -> (N, T - 2 stride / thinning, dim): frame 0 of the result is frame stride / thinning of x."""
        step = self.stride // thinning
        y = self.linear(x, thinning)  # (N, T - step, bottleneck), frames t - step and t
        y = self.affine(y, thinning)  # (N, T - 2 step, dim), frames t and t + step
        y = self.dropout(self.batchnorm(F.relu(y)))
        return torch.add(y, x[:, step : x.shape[1] - step], alpha=self.bypass_scale)


class Prefinal(nn.Module):
    """affine (prefinal -> dim), ReLU, batchnorm1, linear (dim -> prefinal, semi-orthogonal), batchnorm2, output."""

    def __init__(self, config: TdnnfConfig):
        super().__init__()
        self.affine = Affine(config.prefinal_dim, config.dim)
        self.batchnorm1 = BatchNorm(config.dim)
        self.linear = Affine(config.dim, config.prefinal_dim, bias=False)
        self.batchnorm2 = BatchNorm(config.prefinal_dim)
        self.output = Affine(config.prefinal_dim, config.num_pdfs, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, prefinal) -> (N, T, num_pdfs)."""
        x = self.batchnorm1(F.relu(self.affine(x)))
        return self.output(self.batchnorm2(self.linear(x)))


class TdnnF(nn.Module):
    """See the module's docstring. 9,431,072 parameters with the default config, as Kaldi counts them."""

    lda_matrix: Tensor
    lda_offset: Tensor

    def __init__(self, config: TdnnfConfig):
        super().__init__()
        self.config = config
        spliced = 3 * config.feat_dim + config.ivector_dim
        # Fixed, not trained: Kaldi's lda component.
        self.register_buffer("lda_matrix", torch.eye(spliced))
        self.register_buffer("lda_offset", torch.zeros(spliced))
        self.affine1 = Affine(spliced, config.dim)
        self.batchnorm1 = BatchNorm(config.dim)
        self.dropout1 = GeneralDropout()
        self.layers = nn.ModuleList(
            TdnnfLayer(config.dim, config.bottleneck_dim, stride, config.bypass_scale) for stride in config.strides
        )
        self.prefinal_l = Affine(config.dim, config.prefinal_dim, bias=False)
        self.chain, self.xent = Prefinal(config), Prefinal(config)

    @property
    def left_context(self) -> int:
        """Frames needed before the first output frame (as many as after the last)."""
        return 1 + sum(self.config.strides)

    @property
    def right_context(self) -> int:
        """As many frames are needed after the last output frame."""
        return self.left_context

    def set_dropout(self, proportion: float) -> None:
        """Dropout proportion of every layer, in [0, 0.5]."""
        for module in self.modules():
            if isinstance(module, GeneralDropout):
                module.proportion = proportion

    def components(self, xent_regularize: float = 0.1) -> list[tuple[Affine, dict[str, Any]]]:
        """The affine layers, each with run_tdnn_1g.sh's options for pyser.training.ng_sgd. xent_regularize: the weight that
        the xent branch has in the objective; its output layer learns so much faster as if that were 0.5."""
        outputs = {
            self.chain.output: {"l2_regularize": 0.002, "max_change": 1.5},
            self.xent.output: {"l2_regularize": 0.002, "max_change": 1.5,
                               "learning_rate_factor": 0.5 / xent_regularize if xent_regularize else 1.0},
        }
        hidden = {"l2_regularize": 0.008, "max_change": 0.75}
        return [(m, outputs.get(m, hidden)) for m in self.modules() if isinstance(m, Affine)]

    def set_lda(self, matrix: Tensor, offset: Tensor) -> None:
        """The fixed transform of the spliced input: matrix (D, D), offset (D,), D = 3 feat_dim + ivector_dim."""
        self.lda_matrix.copy_(matrix)
        self.lda_offset.copy_(offset)

    def splice(self, x: Tensor, ivector: Tensor | None) -> Tensor:
        """Frames t-1, t, t+1 and the i-vector: (N, T + 2, feat_dim) -> (N, T, D)."""
        if x.shape[-1] != self.config.feat_dim:
            raise PyserError(f"features have {x.shape[-1]} columns, the network was trained on {self.config.feat_dim}")
        if (0 if ivector is None else ivector.shape[-1]) != self.config.ivector_dim:
            given = "no i-vector" if ivector is None else f"an i-vector of {ivector.shape[-1]}"
            raise PyserError(f"{given}, the network was trained with i-vectors of {self.config.ivector_dim}")
        parts = [x[:, :-2], x[:, 1:-1], x[:, 2:]]
        if ivector is not None:
            parts.append(ivector[:, None].expand(-1, x.shape[1] - 2, -1))
        return torch.cat(parts, dim=2)

    def hidden(self, x: Tensor, ivector: Tensor | None, subsampling: int = 1, layers: int | None = None) -> Tensor:
        """x (N, context + T + context, feat_dim), ivector (N, ivector_dim) or None -> (N, ceil(T / subsampling), dim) after
        so many TDNN-F layers (0: tdnn1; None: all), context = 1 + their strides.

        Frames are thinned to every `subsampling`-th as soon as all strides still to come are its multiples.
        """
        strides = self.config.strides[:layers]
        thinning = 1
        x = F.linear(self.splice(x, ivector), self.lda_matrix, self.lda_offset)
        x = self.dropout1(self.batchnorm1(F.relu(self.affine1(x))))
        for number, layer in enumerate(self.layers[:layers]):
            if thinning == 1 and all(stride % subsampling == 0 for stride in strides[number:]):
                # The frames still in front of output frame 0 are a multiple of `subsampling`: it stays among those kept.
                x, thinning = x[:, ::subsampling], subsampling
            x = layer(x, thinning)
        return x if thinning == subsampling else x[:, ::subsampling]

    def forward(self, x: Tensor, ivector: Tensor | None, subsampling: int = 1) -> tuple[Tensor, Tensor]:
        """x (N, left_context + T + right_context, feat_dim), ivector (N, ivector_dim) or None ->
        output (N, ceil(T / subsampling), num_pdfs), not normalised, and output-xent, log-softmaxed."""
        x = self.prefinal_l(self.hidden(x, ivector, subsampling))
        return self.chain(x), self.xent(x).log_softmax(dim=2)

    @torch.no_grad()
    def constrain_orthonormal(self) -> None:
        """One step of every linear factor towards a multiple of a semi-orthogonal matrix (section 3.2 of the paper,
        with the floating scale of Kaldi's ConstrainOrthonormal, orthonormal-constraint=-1)."""
        for module in self.modules():
            if isinstance(module, Affine) and module.bias is None:
                constrain_orthonormal(module.weight.view(module.weight.shape[0], -1))


def constrain_orthonormal(matrix: Tensor) -> None:
    """M <- M - 4 nu (P - s^2 I) M / s^2 in place, P = M M^T, s^2 = tr(P P^T) / tr(P); M (rows <= columns)."""
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.t()
    product = matrix @ matrix.t()
    trace, trace_square = product.trace(), (product * product).sum()
    scale_square = trace_square / trace
    ratio = float(trace_square * matrix.shape[0] / (trace * trace))  # 1 when semi-orthogonal
    # nu = 1/8 converges quadratically near the solution; far from it half of that and less keeps the step stable.
    speed = 0.125 / 4 if ratio > 1.1 else 0.125 / 2 if ratio > 1.02 else 0.125
    step = product - scale_square * torch.eye(len(product), dtype=matrix.dtype, device=matrix.device)
    matrix.sub_((4 * speed / scale_square) * (step @ matrix))
