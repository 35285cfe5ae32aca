"""The TDNN-F network: sizes, contexts, thinning, bypass and the semi-orthogonal step."""

import pytest
import torch

from pyser.errors import PyserError
from pyser.nn.nnet3 import Nnet3
from pyser.nn.tdnnf import TdnnF, TdnnfConfig, constrain_orthonormal
from pyser.nn.tdnnf_nnet3 import to_nnet3

SMALL = TdnnfConfig(feat_dim=5, ivector_dim=4, dim=16, bottleneck_dim=6, prefinal_dim=8, strides=(1, 0, 3, 3), num_pdfs=7)


def network(config=SMALL, seed=0):
    """Random parameters, transform and batchnorm statistics, in eval mode."""
    torch.manual_seed(seed)
    model = TdnnF(config)
    size = 3 * config.feat_dim + config.ivector_dim
    model.set_lda(torch.randn(size, size), torch.randn(size))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    for parameter in model.parameters():  # (the output layer begins with zeros)
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def inputs(model, frames, batch=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, model.left_context + frames + model.right_context, model.config.feat_dim, generator=generator)
    return x, torch.randn(batch, model.config.ivector_dim, generator=generator)


def test_size_and_context_of_run_tdnn_1g():
    model = TdnnF(TdnnfConfig(num_pdfs=3600))
    assert sum(p.numel() for p in model.parameters()) == 9_431_072
    assert (model.left_context, model.right_context) == (28, 28)


@pytest.mark.parametrize("strides", [(1, 0, 3, 3), (3, 3, 3), (1, 1, 2)])
@pytest.mark.parametrize("frames", [1, 9, 10, 11])
@torch.no_grad()
def test_subsampling_takes_every_third_frame(strides, frames):
    config = TdnnfConfig(**{**SMALL.__dict__, "strides": strides})
    model = network(config)
    x, ivector = inputs(model, frames)
    for every, third in zip(model(x, ivector), model(x, ivector, subsampling=3), strict=True):
        assert every.shape == (2, frames, 7)
        torch.testing.assert_close(third, every[:, ::3], rtol=1e-4, atol=1e-4)


def node(model, x, ivector, name):
    """A node by way of the network in Kaldi's form: (N, T, D)."""
    return Nnet3(to_nnet3(model)).eval()(x.transpose(0, 1), ivector, name).transpose(0, 1)


@torch.no_grad()
def test_lda_sees_its_frame_its_neighbours_and_the_ivector():
    model = network()
    x, ivector = inputs(model, 4)
    at = model.left_context + 2
    spliced = torch.cat([x[1, at - 1], x[1, at], x[1, at + 1], ivector[1]])
    expected = model.lda_matrix @ spliced + model.lda_offset
    x = x[:, model.left_context - 1 : x.shape[1] - model.right_context + 1]  # (all that lda needs)
    torch.testing.assert_close(node(model, x, ivector, "lda")[1, 2], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_an_output_depends_on_exactly_its_context():
    model = network()
    assert model.left_context == 8
    x, ivector = inputs(model, 1, batch=1)
    before = model(x, ivector)[0]
    for frame in (0, x.shape[1] - 1):
        changed = x.clone()
        changed[0, frame] += 10.0
        assert not torch.equal(model(changed, ivector)[0], before)
    wider = torch.cat([torch.full((1, 1, 5), 9.0), x, torch.full((1, 1, 5), 9.0)], dim=1)
    torch.testing.assert_close(model(wider, ivector)[0][:, 1:2], before, rtol=1e-4, atol=1e-4)


def off_orthogonal(matrix):
    """How far M M' is from the nearest multiple of I, relative to its size: 0 when semi-orthogonal."""
    product = matrix @ matrix.t()
    return float((product - product.trace() / len(product) * torch.eye(len(product))).norm() / product.norm())


def test_semi_orthogonal_step():
    matrix = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    distances = [off_orthogonal(matrix)]
    for _ in range(40):
        constrain_orthonormal(matrix)
        distances.append(off_orthogonal(matrix))
    assert all(b < a for a, b in zip(distances[:6], distances[1:7], strict=True))
    assert distances[0] > 0.1 and distances[-1] < 1e-5
    model = network()
    weights = [layer.linear.weight for layer in model.layers] + [model.prefinal_l.weight]
    before = [off_orthogonal(w.detach().flatten(1)) for w in weights]
    model.constrain_orthonormal()
    assert all(off_orthogonal(w.detach().flatten(1)) < b for w, b in zip(weights, before, strict=True))


def test_messages():
    model = network()
    x, ivector = inputs(model, 2)
    with pytest.raises(PyserError, match="features have 4 columns, the network was trained on 5"):
        model(x[:, :, :4], ivector)
    with pytest.raises(PyserError, match="an i-vector of 3, the network was trained with i-vectors of 4"):
        model(x, ivector[:, :3])
    with pytest.raises(PyserError, match="no i-vector, the network was trained with i-vectors of 4"):
        model(x, None)
