"""The whitening in front of the network."""

import numpy as np
import pytest
import torch

from pyser.nn.lda import FLOOR, estimate_whitening
from pyser.nn.tdnnf import TdnnF, TdnnfConfig


def correlated(dim=6, frames=4000, seed=0):
    """(frames, dim), a random mixture of sources of different sizes, with a mean."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(frames, dim)) * 1.5 ** np.arange(dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim) * 20


def test_whitened_data_have_mean_zero_and_covariance_identity():
    data = correlated()
    matrix, offset = estimate_whitening([torch.tensor(data)[None]])
    assert matrix.dtype == offset.dtype == torch.float32 and matrix.shape == (6, 6) and offset.shape == (6,)
    white = data @ matrix.double().numpy().T + offset.double().numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(6), atol=2e-3)


def test_batches_and_sequences_are_pooled():
    data = torch.tensor(correlated(frames=600))
    whole = estimate_whitening([data[None]])
    first, second = data[:400].reshape(4, 100, 6), data[400:][None]
    parts = estimate_whitening(iter([first, second]))
    for found, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(found.abs(), expected.abs(), rtol=1e-4, atol=1e-5)  # axes have no sign


def test_rows_by_falling_variance():
    """Independent columns of variance 4, 0.25 and 100: rows are 1/10 of the third, 1/2 of the first, 2 of the second."""
    signs = torch.tensor([[a, b, c] for a in (-1.0, 1.0) for b in (-1.0, 1.0) for c in (-1.0, 1.0)])
    data = signs * torch.tensor([2.0, 0.5, 10.0]) + torch.tensor([1.0, 2.0, 3.0])
    matrix, offset = estimate_whitening([data[None]])
    expected = torch.tensor([[0, 0, 0.1], [0.5, 0, 0], [0, 2.0, 0]])
    torch.testing.assert_close(matrix.abs(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(offset, -matrix @ torch.tensor([1.0, 2.0, 3.0]))


def test_directions_without_variance_are_not_blown_up():
    """A constant column, as an i-vector of a single utterance has: its scale is that of the floor."""
    data = torch.tensor([[-3.0, 7.0], [3.0, 7.0]])
    matrix, offset = estimate_whitening([data[None]])
    torch.testing.assert_close(matrix.abs(), torch.tensor([[1 / 3, 0], [0, 1 / (3 * FLOOR**0.5)]]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(data @ matrix.t() + offset, torch.tensor([[-1.0, 0], [1.0, 0]]) * matrix[0, 0].sign(),
                               rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("ivector_dim", [0, 3])
def test_in_front_of_the_network(ivector_dim):
    """The lda node of the data it was estimated from is white."""
    config = TdnnfConfig(feat_dim=2, ivector_dim=ivector_dim, dim=16, bottleneck_dim=4, prefinal_dim=8, strides=(1,),
                         num_pdfs=3)
    model = TdnnF(config).eval()
    generator = torch.Generator().manual_seed(0)
    x = 5 * torch.randn(50, 30, 2, generator=generator).cumsum(1) + 40
    ivector = 2 * torch.randn(50, ivector_dim, generator=generator) - 1 if ivector_dim else None
    model.set_lda(*estimate_whitening([model.splice(x, ivector)]))
    size = 6 + ivector_dim
    assert model.lda_matrix.shape == (size, size)
    white = torch.nn.functional.linear(model.splice(x, ivector), model.lda_matrix, model.lda_offset)
    white = white.detach().flatten(0, 1).t().double()
    np.testing.assert_allclose(white.mean(1), 0, atol=1e-3)
    np.testing.assert_allclose(torch.cov(white, correction=0), np.eye(size), atol=2e-3)
