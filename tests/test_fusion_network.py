"""The fusion network against loops over heads and positions, and with utterances padded in different ways."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from pyser.errors import PyserError
from pyser.nn.coattention import Attention, CoAttention, Sequences
from pyser.nn.fusion import FUSIONS, FusionConfig, FusionNetwork

DIMS = {"mfcc": 5, "hidden": 7, "text": 6}
CONFIG = FusionConfig(DIMS, num_labels=4, units=3, heads=2, nodes=8, dropout=0.0)
FRAMES = [{"mfcc": 9, "hidden": 5, "text": 3}, {"mfcc": 4, "hidden": 2, "text": 0}, {"mfcc": 1, "hidden": 7, "text": 1}]


def network(fusion="hierarchical", streams=tuple(DIMS), **config):
    """In float64, with biases and normalisation of its own."""
    torch.manual_seed(0)
    model = FusionNetwork(replace(CONFIG, fusion=fusion, streams={name: DIMS[name] for name in streams}, **config)).double()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    for name in streams:
        model.normalise(name, torch.randn(DIMS[name]), torch.rand(DIMS[name]) + 0.5)
    return model


def utterances():
    generator = torch.Generator().manual_seed(1)
    return [{name: 3 * torch.randn(count, DIMS[name], dtype=torch.double, generator=generator) + 1
             for name, count in frames.items()} for frames in FRAMES]


def batch(utts, streams=tuple(DIMS), padding=0.0, more=0):
    x = {name: torch.nn.utils.rnn.pad_sequence([utt[name] for utt in utts], batch_first=True, padding_value=padding)
         for name in streams}
    return ({name: torch.nn.functional.pad(value, (0, 0, 0, more), value=padding) for name, value in x.items()},
            {name: torch.tensor([len(utt[name]) for utt in utts]) for name in streams})


def attention_by_loops(layer, queries, keys):
    """(Q, dim), (T, dim) -> (Q, nodes): one head, one query after the other."""
    weights = {name: value.detach().double().numpy() for name, value in layer.state_dict().items()}
    q, k, v = (x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
               for name, x in (("query", queries), ("key", keys), ("value", keys)))
    size = q.shape[1] // layer.heads
    out = np.zeros_like(q)
    for head in range(layer.heads):
        columns = slice(head * size, (head + 1) * size)
        for position in range(len(q)):
            score = np.array([q[position, columns] @ key[columns] / np.sqrt(size) for key in k])
            share = np.exp(score) / np.exp(score).sum()
            out[position, columns] = sum(s * value[columns] for s, value in zip(share, v, strict=True))
    return out @ weights["output.weight"].T + weights["output.bias"]


def encoding_by_loops(encoder, x):
    """One utterance (T, dim) -> (T', nodes)."""
    x = (x.numpy() - encoder.mean.numpy()) / encoder.std.numpy()
    x = np.array([x[start : start + encoder.kernel].max(axis=0) for start in range(0, len(x), encoder.kernel)])
    if not len(x):
        return np.zeros((0, encoder.attention.output.out_features))
    with torch.no_grad():
        x = encoder.lstm(torch.from_numpy(x)[None], torch.tensor([len(x)]))[0].numpy()
    return attention_by_loops(encoder.attention, x, x)


def exchange_by_loops(layer, a, b):
    """A stream is told something only by one that has frames."""
    told_a = attention_by_loops(layer.a_to_b, a, b) if len(b) else a
    return told_a, attention_by_loops(layer.b_to_a, b, a) if len(a) else b


def posteriors_by_loops(model, utt):
    encoded = [encoding_by_loops(model.encoders[name], utt[name]) for name in model.config.streams]
    if model.config.fusion == "hierarchical" and len(encoded) > 1:
        first = exchange_by_loops(model.coattentions[0], *encoded[:2])
        encoded = first if len(encoded) == 2 else exchange_by_loops(model.coattentions[1], np.concatenate(first), encoded[2])
    elif model.config.fusion == "coattention" and len(encoded) > 1:
        pairs = [(a, b) for n, a in enumerate(encoded) for b in encoded[n + 1 :]]
        encoded = [told for layer, pair in zip(model.coattentions, pairs, strict=True)
                   for told in exchange_by_loops(layer, *pair)]
    encoding = np.concatenate([x.mean(axis=0) if len(x) else np.zeros(x.shape[1]) for x in encoded])
    logits = model.output.weight.detach().numpy() @ encoding + model.output.bias.detach().numpy()
    return logits - np.log(np.exp(logits).sum())


@pytest.mark.parametrize("streams", [("mfcc",), ("text",), ("mfcc", "text"), ("hidden", "text"), ("mfcc", "hidden", "text")])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_against_loops(fusion, streams):
    model, utts = network(fusion, streams), utterances()
    got = model(*batch(utts, streams)).detach().numpy()
    assert got.shape == (3, 4)
    np.testing.assert_allclose(got, [posteriors_by_loops(model, utt) for utt in utts], atol=1e-10)
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1, atol=1e-10)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention(heads):
    layer = Attention(5, 8, heads).double()
    queries, keys = torch.randn(2, 3, 5).double(), torch.randn(2, 6, 5).double()
    got = layer(queries, Sequences(keys, torch.arange(6) < torch.tensor([[6], [2]]))).detach()
    for n, length in enumerate((6, 2)):
        expected = attention_by_loops(layer, queries[n].numpy(), keys[n, :length].numpy())
        np.testing.assert_allclose(got[n], expected, atol=1e-12)


def test_attention_is_that_of_torch():
    """nn.MultiheadAttention with the same weights."""
    layer, theirs = Attention(8, 8, 4), torch.nn.MultiheadAttention(8, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([layer.query.weight, layer.key.weight, layer.value.weight])
    theirs.out_proj.load_state_dict(layer.output.state_dict())
    queries, keys = torch.randn(2, 3, 8), torch.randn(2, 6, 8)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    expected = theirs(queries, keys, keys, key_padding_mask=~mask)[0]
    torch.testing.assert_close(layer(queries, Sequences(keys, mask)), expected, atol=1e-6, rtol=0)


def test_each_stream_attends_to_the_other():
    """What B says changes H_AB at all positions, and no position of B but its own query changes H_BA."""
    layer = CoAttention(8, 2).double()
    a, b = (Sequences(torch.randn(1, length, 8).double(), torch.ones(1, length, dtype=torch.bool)) for length in (4, 3))
    changed = Sequences(b.x + torch.tensor([0.0, 0.0, 1.0]).double()[None, :, None], b.mask)
    before, after = layer(a, b), layer(a, changed)
    assert before[0].x.shape == (1, 4, 8) and before[1].x.shape == (1, 3, 8)
    assert (before[0].x - after[0].x).abs().amax(dim=2).min() > 1e-4
    torch.testing.assert_close(before[1].x[:, :2], after[1].x[:, :2])
    assert (before[1].x - after[1].x)[0, 2].abs().max() > 1e-4


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_padding_never_changes_an_output(fusion, dtype, tolerance):
    model, utts = network(fusion).to(dtype).eval(), utterances()

    def outputs(*chosen, **padding):
        x, lengths = batch([utts[n] for n in chosen], **padding)
        with torch.no_grad():
            return model({name: value.to(dtype) for name, value in x.items()}, lengths).double().numpy()

    together = outputs(0, 1, 2)
    for padding, more in ((0.0, 0), (0.0, 13), (1e4, 4), (float("nan"), 1), (float("inf"), 6)):
        for chosen in ((0,), (1,), (2,), (2, 1), (1, 2, 0), (1, 0, 2, 1)):
            np.testing.assert_allclose(outputs(*chosen, padding=padding, more=more), together[list(chosen)], atol=tolerance)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_of_padding_are_zero_and_reach_all_else(fusion):
    model, (x, lengths) = network(fusion), batch(utterances(), padding=float("nan"), more=2)
    for value in x.values():
        value.requires_grad_()
    torch.nn.functional.nll_loss(model(x, lengths), torch.tensor([0, 1, 2])).backward()
    for name, value in x.items():
        inside = torch.arange(value.shape[1]) < lengths[name][:, None]
        assert not value.grad[~inside].any(), name
        assert torch.isfinite(value.grad).all() and value.grad[inside].abs().amax(dim=1).count_nonzero() > inside.sum() / 2
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        if not name.endswith("key.bias"):  # adds the same to the scores of all keys: softmax does not see it
            assert parameter.grad.any(), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_are_derivatives(fusion):
    model, (x, lengths) = network(fusion), batch(utterances())
    torch.autograd.gradcheck(lambda *values: model(dict(zip(x, values, strict=True)), lengths),
                             [value.requires_grad_() for value in x.values()], fast_mode=True)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("empty", [("text",), ("mfcc",), ("mfcc", "hidden"), tuple(DIMS)])
def test_streams_without_frames(fusion, empty):
    """Not even one in the whole batch; the posteriors are those of the streams that have some."""
    model, utts = network(fusion), utterances()[:1] + utterances()[2:]
    utts = [{name: value[:0] if name in empty else value for name, value in utt.items()} for utt in utts]
    got = model(*batch(utts))
    np.testing.assert_allclose(got.detach(), [posteriors_by_loops(model, utt) for utt in utts], atol=1e-10)
    got.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    difference = (got[0] - got[1]).abs().max()
    assert difference > 1e-3 if len(empty) < len(DIMS) else difference == 0
    if len(empty) == len(DIMS):
        torch.testing.assert_close(got[0], model.output.bias.log_softmax(dim=0))


def test_order_of_the_hierarchy():
    """The same weights, another order: other posteriors; pair by pair the order is only one of encodings."""
    (x, lengths), others = batch(utterances()[:1]), ("text", "hidden", "mfcc")
    model, turned = network(), network(streams=others)
    turned.load_state_dict(model.state_dict())
    assert (model(x, lengths) - turned(x, lengths)).abs().max() > 1e-3
    # the third stream is heard only above the first two: it does not reach what these tell each other
    heard = []
    model.coattentions[0].register_forward_hook(lambda module, inputs, output: heard.append(output[0].x.detach()))
    model(x, lengths)
    model(x | {"text": x["text"] + 1}, lengths)
    model(x | {"hidden": x["hidden"] + 1}, lengths)
    torch.testing.assert_close(heard[0], heard[1], atol=0, rtol=0)
    assert (heard[0] - heard[2]).abs().max() > 1e-3


def test_mfcc_are_max_pooled_in_pairs():
    """Of frames 0 1 | 2 3 | 4 the larger values count, whichever of the two has them; in other streams each frame counts."""
    model, utt = network("concat"), utterances()[0]
    swapped = {**utt, "mfcc": utt["mfcc"][[1, 0, 3, 2, 5, 4, 7, 6, 8]]}
    lower = {**utt, "mfcc": torch.cat([torch.minimum(utt["mfcc"][:1], utt["mfcc"][1:2]) - 1, utt["mfcc"][1:]])}
    lower["mfcc"][1] = torch.maximum(utt["mfcc"][0], utt["mfcc"][1])
    hidden = {**utt, "hidden": utt["hidden"][[1, 0, 2, 3, 4]]}
    expected = model(*batch([utt]))
    torch.testing.assert_close(model(*batch([swapped])), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(model(*batch([lower])), expected, atol=1e-12, rtol=0)
    assert (model(*batch([hidden])) - expected).abs().max() > 1e-4


def test_normalisation_is_part_of_the_model():
    model, utts = network(), utterances()
    plain = network()
    for name, dim in DIMS.items():
        plain.normalise(name, torch.zeros(dim), torch.ones(dim))
    normalised = [{name: (value - model.encoders[name].mean) / model.encoders[name].std for name, value in utt.items()}
                  for utt in utts]
    torch.testing.assert_close(plain(*batch(normalised)), model(*batch(utts)), atol=1e-12, rtol=0)
    other = network()
    other.load_state_dict({**plain.state_dict(), **model.state_dict()})
    torch.testing.assert_close(other(*batch(utts)), model(*batch(utts)), atol=0, rtol=0)


def test_training_and_evaluation():
    model, (x, lengths) = network(), batch(utterances())
    expected = model.train()(x, lengths)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x, lengths), expected, atol=1e-12, rtol=0)
    dropping = network(dropout=0.5)
    torch.testing.assert_close(dropping.eval()(x, lengths), expected, atol=1e-12, rtol=0)
    assert (dropping.train()(x, lengths) - dropping(x, lengths)).abs().max() > 1e-3
    states = []
    dropping.encoders["mfcc"].attention.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0][0]))
    dropping(x, lengths)
    assert 0.2 < (states[0] == 0).double().mean() < 0.8  # (5 frames, 6 units): the second layer's outputs are dropped too
    torch.manual_seed(3)
    first = dropping(x, lengths)
    torch.manual_seed(3)
    torch.testing.assert_close(dropping(x, lengths), first, atol=0, rtol=0)


def test_sizes_of_the_paper():
    lstm = {dim: 2 * 4 * 32 * (dim + 32 + 2) + 2 * 4 * 32 * (64 + 32 + 2) for dim in (40, 768)}
    attention = 4 * (64 * 64 + 64)
    dims = {"mfcc": 40, "hidden": 768, "text": 768}
    encoders = lstm[40] + 2 * lstm[768] + 3 * attention
    for fusion, attentions, encodings in (("concat", 0, 3), ("coattention", 6, 6), ("hierarchical", 4, 2)):
        model = FusionNetwork(FusionConfig(dims, num_labels=4, fusion=fusion))
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == encoders + attentions * attention + 4 * (64 * encodings + 1), fusion
    alone = FusionNetwork(FusionConfig({"hidden": 768}, num_labels=4))
    assert sum(parameter.numel() for parameter in alone.parameters()) == 205312 + 25088 + 16640 + 260


@pytest.mark.parametrize("fusion", FUSIONS)
def test_learns_what_only_two_streams_together_tell(fusion):
    """One stream asks for one of two values, frames of the other say them: co-attention finds the one that is asked for.
    Encodings side by side are added up, and no sum is right more often than in 3 of 4 cases."""
    torch.manual_seed(1)
    model = FusionNetwork(FusionConfig({"hidden": 2, "text": 1}, 2, fusion=fusion, units=8, heads=2, nodes=8, dropout=0.0))

    def examples(count):
        values, asked, which = torch.randint(2, (count, 2)), torch.randint(2, (count, 1)), torch.randint(2, (count, 4))
        which[:, :2] = torch.arange(2)
        said = 2.0 * torch.stack([which, values.gather(1, which)], dim=2) - 1  # (count, 4, 2)
        asks = (2.0 * asked[:, None] - 1).expand(count, 2, 1)
        lengths = {"hidden": torch.full((count,), 4), "text": torch.full((count,), 2)}
        return {"hidden": said, "text": asks}, lengths, values.gather(1, asked)[:, 0]

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(200):
        x, lengths, label = examples(32)
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(model(x, lengths), label).backward()
        optimizer.step()
    x, lengths, label = examples(500)
    correct = (model(x, lengths).argmax(dim=1) == label).double().mean()
    assert correct < 0.82 if fusion == "concat" else correct > 0.95


def test_autocast():
    """bfloat16 where it can be, finite with streams of no frames, and near the posteriors of float32."""
    model, (x, lengths) = network().float(), batch(utterances())
    x = {name: value.float() for name, value in x.items()}
    expected = model(x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(x, lengths)
    torch.testing.assert_close(got.float(), expected, atol=0.1, rtol=0)


def test_config():
    assert FusionConfig(**json.loads(json.dumps(asdict(CONFIG)))) == CONFIG
    for wrong, word in (({"fusion": "sum"}, "--fusion=sum"), ({"heads": 3}, "multiple of heads"), ({"streams": {}}, "mfcc,"),
                        ({"dropout": 1.0}, "below 1"), ({"num_labels": 1}, "two at least"),
                        ({"streams": {"a.b": 3}}, "a.b"), ({"streams": {"mfcc": 0}}, "positive")):
        with pytest.raises(PyserError, match=word):
            replace(CONFIG, **wrong)


def test_bad_streams():
    model, (x, lengths) = network(), batch(utterances())
    for streams, counts, word in (
        ({name: x[name] for name in ("mfcc", "hidden")}, lengths, "no stream 'text'"),
        (x | {"text": x["mfcc"]}, lengths, "'text' of shape"),
        (x, lengths | {"hidden": lengths["hidden"] + 1}, "'hidden' of shape"),
        (x, lengths | {"hidden": lengths["hidden"] - 3}, "'hidden' of shape"),
        (x, lengths | {"mfcc": lengths["mfcc"][:2]}, "'mfcc' of shape"),
    ):
        with pytest.raises(PyserError, match=word):
            model(streams, counts)
