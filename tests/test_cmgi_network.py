"""Cross-modal gated interaction against loops over frames and heads in float64, and with utterances padded differently."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fusion_network import attention_by_loops

from pyser.errors import PyserError
from pyser.nn.cmgi import ALONE, INTERACTIONS, CmgiConfig, CmgiNetwork
from pyser.nn.coattention import Sequences

CONFIG = CmgiConfig(acoustic_dim=7, text_dim=5, num_labels=4, nodes=8, heads=2, dropout=0.0)
FRAMES = [(9, 3), (4, 0), (1, 7), (6, 1)]  # of speech, and subwords; an utterance that was decoded to nothing is among them


def network(interaction="cmgi", **config):
    torch.manual_seed(0)
    model = CmgiNetwork(replace(CONFIG, interaction=interaction, **config)).double()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def utterances():
    generator = torch.Generator().manual_seed(1)
    return [(3 * torch.randn(t, CONFIG.acoustic_dim, dtype=torch.double, generator=generator) + 1,
             3 * torch.randn(s, CONFIG.text_dim, dtype=torch.double, generator=generator) - 1) for t, s in FRAMES]


def batch(utts, padding=0.0, more=0):
    found = []
    for values in zip(*utts, strict=True):
        x = torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=padding)
        x = torch.nn.functional.pad(x, (0, 0, 0, more), value=padding)
        found.append(Sequences(x, torch.arange(x.shape[1]) < torch.tensor([[len(value)] for value in values])))
    return found


def affine(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def gated(gate, x, y):
    """Equation 5, one vector after the other."""
    out = []
    for one, other in zip(np.atleast_2d(x), np.atleast_2d(y), strict=True):
        g = 1 / (1 + np.exp(-affine(gate.affine, np.concatenate([one, other]))))
        out.append(np.concatenate([one * g, other * (1 - g)]))
    return np.array(out).reshape(*np.shape(x)[:-1], -1)


def mean(x):
    return x.mean(axis=0) if len(x) else np.zeros(x.shape[1])


def posteriors_by_loops(model, speech, words):
    kind, x = model.config.interaction, [speech.numpy(), words.numpy()]
    if kind == "none":
        found = [mean(one) for one in x]
    else:
        x = [affine(layer, one) for layer, one in zip(model.inputs, x, strict=True)]
        if "cross" not in kind:  # equation 3
            s = [attention_by_loops(layer, one, one) for layer, one in zip(model.selves, x, strict=True)]
        if "self" not in kind:  # equation 4
            c = [attention_by_loops(model.cross.a_to_b, x[0], x[1]) if len(x[1]) else x[0],
                 attention_by_loops(model.cross.b_to_a, x[1], x[0]) if len(x[0]) else x[1]]
        found = {
            "self": lambda: [mean(one) for one in s], "cross": lambda: [mean(one) for one in c],
            "self-gate": lambda: [gated(model.gates[0], mean(s[0]), mean(s[1]))],
            "cross-gate": lambda: [gated(model.gates[0], mean(c[0]), mean(c[1]))],
            "cmgi": lambda: [mean(gated(g, one, other)) if len(one) else np.zeros(2 * model.config.nodes)
                             for g, one, other in zip(model.gates, s, c, strict=True)],
            "cmgi-pooled-gate": lambda: [gated(g, mean(one), mean(other))
                                         for g, one, other in zip(model.gates, s, c, strict=True)],
        }[kind]()
    scores = affine(model.output, np.concatenate(found))
    return scores - np.log(np.exp(scores).sum())


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_against_loops(interaction):
    model, utts = network(interaction), utterances()
    got = model(*batch(utts)).detach().numpy()
    assert got.shape == (len(FRAMES), 4)
    np.testing.assert_allclose(got, [posteriors_by_loops(model, *utt) for utt in utts], atol=1e-10)
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1, atol=1e-10)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_padding_never_changes_an_output(interaction, dtype, tolerance):
    model, utts = network(interaction).to(dtype).eval(), utterances()

    def outputs(*chosen, **padding):
        with torch.no_grad():
            found = [Sequences(x.to(dtype), mask) for x, mask in batch([utts[n] for n in chosen], **padding)]
            return model(*found).double().numpy()

    together = outputs(0, 1, 2, 3)
    for padding, more in ((0.0, 0), (0.0, 13), (1e4, 4), (float("nan"), 1), (float("inf"), 6)):
        for chosen in ((0,), (1,), (2,), (2, 1), (1, 3, 0), (1, 0, 2, 1)):
            np.testing.assert_allclose(outputs(*chosen, padding=padding, more=more), together[list(chosen)], atol=tolerance)


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_gradients(interaction):
    """Derivatives; none in the padding, one of every parameter."""
    model, found = network(interaction), batch(utterances(), padding=float("nan"), more=2)
    for x, _ in found:
        x.requires_grad_()
    torch.nn.functional.nll_loss(model(*found), torch.tensor([0, 1, 2, 3])).backward()
    for x, mask in found:
        assert not x.grad[~mask].any() and torch.isfinite(x.grad).all() and x.grad[mask].any()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert name.endswith("key.bias") or parameter.grad.any(), name  # (adds the same to all scores of a softmax)
    masks = [mask for _, mask in found]
    torch.autograd.gradcheck(lambda *both: model(*map(Sequences, both, masks)),
                             [x.requires_grad_() for x, _ in batch(utterances(), more=2)], fast_mode=True)


@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_no_words_at_all(interaction):
    """Nothing was heard in the whole batch; the posteriors are those of the speech."""
    model, utts = network(interaction), [(speech, words[:0]) for speech, words in utterances()]
    got = model(*batch(utts))
    np.testing.assert_allclose(got.detach(), [posteriors_by_loops(model, *utt) for utt in utts], atol=1e-10)
    got.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (got[0] - got[2]).abs().max() > 1e-3


@pytest.mark.parametrize("interaction", ALONE)
@pytest.mark.parametrize("alone", [0, 1])
def test_one_modality(interaction, alone):
    model = network(interaction, **{("text_dim", "acoustic_dim")[alone]: 0})
    found, utts = batch(utterances()), utterances()
    got = model(*[x if n == alone else None for n, x in enumerate(found)])
    for row, utt in zip(got.detach().numpy(), utts, strict=True):
        x = utt[alone].numpy()
        if interaction == "self":
            x = affine(model.inputs[0], x)
            x = attention_by_loops(model.selves[0], x, x)
        scores = affine(model.output, mean(x))
        np.testing.assert_allclose(row, scores - np.log(np.exp(scores).sum()), atol=1e-10)


def test_the_temporal_gate_is_one_of_frames():
    """A frame's own gate weighs it: with the gate of means, means are all that counts, with the temporal one they are not."""
    speech, words = utterances()[0]
    for interaction, same in (("cmgi-pooled-gate", True), ("cmgi", False)):
        model = network(interaction)
        gates = []
        for gate in model.gates:
            gate.affine.register_forward_hook(lambda module, inputs, output, gates=gates: gates.append(output))
        model(*batch([(speech, words)]))
        assert [gate.ndim for gate in gates] == ([2, 2] if same else [3, 3])
        if not same:
            assert gates[0].shape[1] == len(speech) and gates[1].shape[1] == len(words)
            assert gates[0][0].std(dim=0).min() > 1e-3


def test_dropout_and_autocast():
    model, found = network(dropout=0.5), batch(utterances())
    torch.testing.assert_close(model.eval()(*found), network()(*found), atol=0, rtol=0)
    assert (model.train()(*found) - model(*found)).abs().max() > 1e-3
    model = network().float()
    with torch.autocast("cpu", torch.bfloat16):
        got = model(*[Sequences(x.float(), mask) for x, mask in found])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), network()(*found), atol=0.2, rtol=0)


def test_sizes():
    """Those of HuBERT-large and BERT-base."""
    attention, gate = 4 * (768 * 768 + 768), 2 * 768 * 768 + 768
    inputs = (1024 + 1) * 768 + (768 + 1) * 768
    wanted = {"none": (1024 + 768 + 1) * 4, "self": inputs + 2 * attention + (2 * 768 + 1) * 4,
              "cross-gate": inputs + 2 * attention + gate + (2 * 768 + 1) * 4,
              "cmgi": inputs + 4 * attention + 2 * gate + (4 * 768 + 1) * 4}
    wanted |= {"cmgi-pooled-gate": wanted["cmgi"], "cross": wanted["self"], "self-gate": wanted["cross-gate"]}
    for interaction, count in wanted.items():
        model = CmgiNetwork(CmgiConfig(1024, 768, 4, interaction))
        assert sum(parameter.numel() for parameter in model.parameters()) == count, interaction


def test_bad_settings():
    for wrong, word in (({"interaction": "sum"}, "--interaction=sum"), ({"heads": 3}, "multiple of heads"),
                        ({"text_dim": 0}, "one alone has none or self"), ({"num_labels": 1}, "two at least"),
                        ({"dropout": 1.0}, "below 1"), ({"text_dim": -1}, "must have a dimension")):
        with pytest.raises(PyserError, match=word):
            replace(CONFIG, **wrong)
