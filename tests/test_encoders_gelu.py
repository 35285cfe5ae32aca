"""The backward of gelu, which torch 1.13 gets wrong on the CPU without the guard."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCTC
from transformers.activations import GELUActivation

from pyser.encoders import gelu


@pytest.mark.parametrize("layer", [GELUActivation(), nn.GELU()])
def test_gradient_that_was_transposed(layer):
    """Central differences in float64; x without gaps, the gradient of the output transposed."""
    model = nn.Sequential(layer)
    gelu.guard(model)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(2, 16, 50, generator=generator, requires_grad=True)
        gradient = torch.randn(2, 50, 16, generator=generator).transpose(1, 2)
        model(x).backward(gradient)
        wide = x.detach().double()
        slope = (nn.functional.gelu(wide + 1e-5) - nn.functional.gelu(wide - 1e-5)) / 2e-5
        assert torch.allclose(x.grad.double(), slope * gradient, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_convolutions_of_wav2vec2(norm):
    """Their gradients are those that torch computes without oneDNN."""
    torch.manual_seed(0)
    model = AutoModelForCTC.from_config(AutoConfig.for_model(
        "wav2vec2", feat_extract_norm=norm, conv_dim=(16, 16, 16), conv_kernel=(10, 3, 3), conv_stride=(5, 2, 2),
        num_feat_extract_layers=3, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)).eval()
    gelu.guard(model)
    waves, weight = torch.randn(2, 4000), torch.randn(2, 199, 32)

    def gradients():
        model.zero_grad()
        (model(waves).logits * weight).sum().backward()
        return [p.grad.clone() for p in model.base_model.feature_extractor.parameters()]

    with torch.backends.mkldnn.flags(enabled=False):
        expected = gradients()
    for _ in range(3):
        for found, right in zip(gradients(), expected, strict=True):
            assert (found - right).norm() < 1e-4 * right.norm()
