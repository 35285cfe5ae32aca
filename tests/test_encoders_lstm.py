"""LSTMs that listen, attend and spell, and that read characters."""

import numpy as np
import pytest
import torch

from pyser.encoders.lstm import END, START, LasRecogniser, LstmConfig, LstmText
from pyser.encoders.vocabulary import ENGLISH
from pyser.errors import PyserError

SMALL = LstmConfig(units=6, embedding=5, dropout=0.0)


def waves(*sizes):
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(size, np.float32) for size in sizes]


@pytest.fixture
def las():
    torch.manual_seed(0)
    model = LasRecogniser(SMALL).eval()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


def test_padding_changes_nothing(las):
    some, texts = waves(9000, 4000, 16000), ["A CAT", "DOGS AND CATS", ""]
    together = las(some)
    assert together.hidden[0].shape == (3, 25, 12) and together.lengths.tolist() == [14, 6, 25]
    heard, alone = las.hear(together), [las([wave]) for wave in some]
    for n, output in enumerate(alone):
        torch.testing.assert_close(output.hidden[0][0], together.hidden[0][n, : output.lengths[0]], atol=1e-5, rtol=1e-4)
        assert las.hear(output) == [heard[n]]
    losses = [las.loss(output, [text]) for output, text in zip(alone, texts, strict=True)]
    torch.testing.assert_close(las.loss(together, texts), torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


def test_loss_and_words_against_steps_one_by_one(las):
    """Attention over the frames of one utterance, in numpy where it can be."""
    output = las(waves(8000))
    x = output.hidden[0][0]

    def step(label, hidden, cell, context):
        given = torch.cat([las.embedding(torch.tensor([label])), context], dim=1)
        hidden, cell = las.cell(given, (hidden, cell))
        score = np.array([float(las.query(hidden)[0] @ las.key(frame)) / np.sqrt(las.dim) for frame in x])
        share = np.exp(score) / np.exp(score).sum()
        context = sum(float(s) * frame for s, frame in zip(share, x, strict=True))[None]
        return las.output(torch.cat([hidden, context], dim=1))[0].log_softmax(dim=0), (hidden, cell, context)

    with torch.no_grad():
        labels, state, total = [*ENGLISH.encode("A CAT"), END], (torch.zeros(1, 12),) * 3, 0.0
        for before, label in zip([START, *labels], labels, strict=False):
            scores, state = step(before, *state)
            total -= float(scores[label])
        assert float(las.loss(output, ["A CAT"])) == pytest.approx(total / len(labels), rel=1e-4)
        label, state, said = START, (torch.zeros(1, 12),) * 3, []
        while len(said) < len(x) and label != END:
            scores, state = step(label, *state)
            label = int(scores.argmax())
            said.append(label)
        text = "".join(ENGLISH.tokens[one] for one in said if len(ENGLISH.tokens[one]) == 1).replace("|", " ")
        assert las.hear(output) == [" ".join(text.split())] and len(text) > 1


def test_gradients_reach_all(las):
    las.loss(las(waves(8000, 5000)), ["A CAT", "DOGS"]).backward()
    for name, parameter in las.named_parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad.any() or name == "key.bias"), name


def test_too_short_is_an_error(las):
    with pytest.raises(PyserError, match="399 samples are less than one frame, which has 400"):
        las(waves(399))
    assert las(waves(400)).lengths.tolist() == [1]


def test_text():
    torch.manual_seed(0)
    text = LstmText.new(SMALL)
    sentences = ["A CAT", "", "dogs, and cats!"]
    tokens = [text.tokens(sentence) for sentence in sentences]
    assert [len(labels) for labels in tokens] == [5, 0, 13]
    x, mask = text.hidden(tokens)
    assert x.shape == (3, 13, text.dim) and mask.sum(dim=1).tolist() == [5, 0, 13]
    for n, labels in enumerate(tokens):
        if labels:
            torch.testing.assert_close(text.hidden([labels])[0][0], x[n, : len(labels)], atol=1e-6, rtol=1e-5)
    x, mask = text.hidden([[], []])
    assert x.shape == (2, 1, text.dim) and not mask.any()
