"""The networks of SA2SR against loops in double precision, and with other padding."""

import numpy as np
import pytest
import torch

from pyser.errors import PyserError
from pyser.nn.coattention import Sequences
from pyser.nn.cpc import CpcConfig, Predictor
from pyser.nn.lstm import mask_of
from pyser.nn.sa2sr import (
    Encoder,
    EncoderConfig,
    MaskedConvolution,
    Regressor,
    RegressorConfig,
    SpeechReader,
    concordance,
    moments,
)

SMALL = EncoderConfig(feat_dim=6, layers=2, units=5)
LENGTHS = torch.tensor([13, 1, 7, 4])


def inputs(longest=13, fill=0.0, dim=6):
    """Four sequences, the same ones whatever is behind their ends."""
    x = torch.full((4, longest, dim), fill)
    for n, length in enumerate(LENGTHS):
        x[n, :length] = torch.randn(int(length), dim, generator=torch.Generator().manual_seed(n))
    return x


def sequences(longest=13, fill=0.0, dim=6):
    x = inputs(longest, fill, dim)
    return Sequences(x, mask_of(LENGTHS, longest, x.device))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_loop(lstm, x, backward=False):
    """One direction of one layer, (T, D) -> (T, units), as the equations say it."""
    names = [f"{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    w, u, a, b = (getattr(lstm, name).detach().double().numpy() for name in names)
    hidden = cell = np.zeros(u.shape[1])
    out = np.zeros((len(x), u.shape[1]))
    for t in reversed(range(len(x))) if backward else range(len(x)):
        i, f, g, o = np.split(w @ x[t] + u @ hidden + a + b, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        out[t] = hidden
    return out


def convolution_loop(layer, x):
    """(T, in) -> (ceil(T / stride), out), in double precision."""
    weight, bias = layer.convolution.weight.detach().double().numpy(), layer.convolution.bias.detach().double().numpy()
    gain, offset = layer.gain.detach().double().numpy(), layer.bias.detach().double().numpy()
    rows = []
    for start in range(0, len(x), layer.stride):
        total = bias.copy()
        for k in range(layer.width):
            if start + k < len(x):
                total += weight[:, :, k] @ x[start + k]
        rows.append(total)
    rows = np.array(rows)
    rows = (rows - rows.mean()) / np.sqrt(rows.var() + 1e-5) * gain + offset
    return np.where(rows > 0, rows, 0.3 * rows)


@pytest.mark.parametrize("width,stride", [(6, 3), (3, 2), (2, 3)])
def test_masked_convolution_is_the_loop(width, stride):
    layer = MaskedConvolution(6, 4, width, stride)
    torch.nn.init.normal_(layer.gain)
    torch.nn.init.normal_(layer.bias)
    found = layer(sequences(15, fill=7.0))
    assert found.x.shape == (4, -(-15 // stride), 4)
    for n, length in enumerate(LENGTHS.tolist()):
        expected = convolution_loop(layer, inputs()[n, :length].double().numpy())
        assert found.mask[n].sum() == len(expected) == -(-length // stride)
        assert np.allclose(found.x[n, : len(expected)].detach().numpy(), expected, atol=1e-5)
        assert not found.x[n, len(expected):].any()


def test_regressor_is_the_loop():
    """Convolutions, attention head by head, mean and variance over the frames."""
    regressor = Regressor(6, 3, RegressorConfig(nodes=8, heads=4)).eval()
    found = regressor(sequences()).detach().double().numpy()
    double = {name: value.detach().double().numpy() for name, value in regressor.state_dict().items()}
    for n, length in enumerate(LENGTHS.tolist()):
        x = inputs()[n, :length].double().numpy()
        for layer in regressor.convolutions:
            x = convolution_loop(layer, x)
        q, k, v = (x @ double[f"attention.{name}.weight"].T + double[f"attention.{name}.bias"]
                   for name in ("query", "key", "value"))
        heads = []
        for head in range(4):
            part = slice(2 * head, 2 * head + 2)
            score = np.exp(q[:, part] @ k[:, part].T / np.sqrt(2))
            heads.append(score / score.sum(axis=1, keepdims=True) @ v[:, part])
        x = np.concatenate(heads, axis=1) @ double["attention.output.weight"].T + double["attention.output.bias"]
        pooled = np.concatenate([x.mean(axis=0), x.var(axis=0)])
        assert np.allclose(found[n], pooled @ double["output.weight"].T + double["output.bias"], atol=1e-5)


def test_padding_counts_for_nothing():
    """Neither how much there is nor what stands in it, in outputs and in gradients."""
    reader, regressor = SpeechReader(SMALL, 29, 3), Regressor(SMALL.dim, 3, RegressorConfig(8, 4))
    seen = []
    for longest, fill in ((13, 0.0), (40, 50.0)):
        logits, sentiments = reader(inputs(longest, fill), LENGTHS)
        ratings = regressor(reader.encoder(inputs(longest, fill), LENGTHS))
        assert sentiments is not None
        total = sum(logits[n, :length].square().sum() for n, length in enumerate(LENGTHS.tolist()))
        parameters = [*reader.parameters(), *regressor.parameters()]
        gradients = torch.autograd.grad(total + sentiments.square().sum() + ratings.square().sum(), parameters)
        seen.append([*(logits[n, :length] for n, length in enumerate(LENGTHS.tolist())), sentiments, ratings, *gradients])
    for one, other in zip(*seen, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_summary_is_the_last_state():
    reader = SpeechReader(SMALL, 29, 3).eval()
    _, sentiments = reader(inputs(), LENGTHS)
    frames = reader.encoder(inputs(), LENGTHS)
    for n, length in enumerate(LENGTHS.tolist()):
        last = lstm_loop(reader.sentiment.lstm, frames.x[n, :length].detach().double().numpy())[-1]
        output = reader.sentiment.output
        expected = output.weight.detach().double().numpy() @ last + output.bias.detach().double().numpy()
        assert np.allclose(sentiments[n].detach().numpy(), expected, atol=1e-5)


def test_moments():
    x, mask = sequences(fill=9.0)
    mean, variance = moments(x, mask, (1,))
    for n, length in enumerate(LENGTHS.tolist()):
        part = x[n, :length].double()
        assert torch.allclose(mean[n, 0].double(), part.mean(dim=0), atol=1e-6)
        assert torch.allclose(variance[n, 0].double(), part.var(dim=0, unbiased=False), atol=1e-6)


def test_concordance_is_lins():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 1, size=(50, 3)).astype(np.float32)
    y = (0.5 * x + rng.normal(2, 0.5, size=x.shape)).astype(np.float32)
    found = concordance(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    for d in range(3):
        a, b = x[:, d].astype(float), y[:, d].astype(float)
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        assert found[d] == pytest.approx(2 * covariance / (a.var() + b.var() + (a.mean() - b.mean()) ** 2), abs=1e-6)
    constant = torch.ones(4, 1)
    assert concordance(constant, constant).item() == 0 and bool(concordance(constant, torch.randn(4, 1)).isfinite().all())


def test_each_direction_sees_its_own_side_only():
    """The past's context at t changes with nothing behind t, the future's with nothing before it."""
    encoder, lengths = Encoder(SMALL).eval(), torch.tensor([9])
    x = torch.randn(1, 9, 6)
    changed = x.clone()
    changed[0, 5] += 1
    (past, future), (past_, future_) = encoder.lstm.apart(x, lengths), encoder.lstm.apart(changed, lengths)
    assert torch.equal(past[0, :5], past_[0, :5]) and not torch.equal(past[0, 5:], past_[0, 5:])
    assert torch.equal(future[0, 6:], future_[0, 6:]) and not torch.equal(future[0, :6], future_[0, :6])


def test_contrastive_loss_is_the_loop():
    predictor = Predictor(SMALL, CpcConfig(codes=4, steps=3, negatives=5)).eval()
    loss, accuracy, count = predictor(inputs(15, 3.0), LENGTHS, torch.Generator().manual_seed(1))
    x = inputs()
    past, future = predictor.encoder.lstm.apart(x, LENGTHS)
    codes = predictor.codes(x)
    generator = torch.Generator().manual_seed(1)
    losses, leads = [], []
    for step in (1, 2, 3):
        drawn = (torch.rand(len(x), 5, generator=generator) * LENGTHS[:, None]).long().tolist()
        for n, length in enumerate(LENGTHS.tolist()):
            assert all(place < length for place in drawn[n])
            for t in range(length - step):
                for context, place, affine in ((past[n, t], t + step, predictor.ahead[step - 1]),
                                               (future[n, t + step], t, predictor.behind[step - 1])):
                    against = [codes[n, other] for other in drawn[n] if other != place]
                    scores = torch.stack([codes[n, place], *against]).double() @ affine(context).double()
                    losses.append(float(scores.logsumexp(0) - scores[0]))
                    leads.append(float(scores[0] - scores[1:].max()) if against else 1.0)
    assert count == len(losses) and float(loss) == pytest.approx(np.mean(losses), abs=1e-5)
    assert float(accuracy) == pytest.approx(np.mean(np.array(leads) > 0), abs=1e-5)
    assert predictor(inputs()[1:2, :1], LENGTHS[1:2])[2] == 0  # one frame: nothing to predict


@pytest.mark.parametrize("make", [lambda: EncoderConfig(layers=0), lambda: RegressorConfig(nodes=6, heads=4),
                                  lambda: CpcConfig(steps=0)])
def test_sizes_that_cannot_be(make):
    with pytest.raises(PyserError):
        make()


def test_what_tells_utterances_apart_reaches_the_last_layer():
    """Of five untrained layers, and then the ratings in bfloat16 as in float32."""
    encoder, network = Encoder(EncoderConfig(40, layers=5, units=48)).eval(), Regressor(96, 2, RegressorConfig(16, 4)).eval()
    x = torch.randn(8, 40, 40, generator=torch.Generator().manual_seed(0)) + torch.linspace(-1, 1, 8)[:, None, None]
    lengths = torch.full((8,), 40)
    with torch.no_grad():
        frames = encoder(x, lengths)
        assert frames.mean().std(dim=0).mean() > 0.02
        exact = network(frames)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(encoder(x, lengths)).float()
    assert (rounded - exact).abs().max() < 0.1 * exact.std(dim=0).min()


def test_moments_of_half_precision_are_not_rounded():
    x = (3 + 0.1 * torch.randn(4, 13, 6)).bfloat16()
    for found, exact in zip(moments(x, sequences().mask, (1, 2)), moments(x.double(), sequences().mask, (1, 2)), strict=True):
        assert torch.allclose(found.double(), exact, rtol=1e-5)


def test_the_encoder_that_is_handed_on_gives_what_was_trained():
    """Both directions apart, side by side."""
    torch.manual_seed(0)
    encoder = Predictor(EncoderConfig(5, 3, 4), CpcConfig(codes=2, steps=2, negatives=3)).encoder.eval()
    x, lengths = torch.randn(2, 9, 5), torch.tensor([9, 6])
    together, apart = encoder(x, lengths), torch.cat(encoder.lstm.apart(x, lengths), dim=2)
    torch.testing.assert_close(together.x[together.mask], apart[together.mask])
