"""Sentiment of transcripts by a lexicon and by classifiers, how it goes with emotions, and places of emotions."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import BertConfig, BertForSequenceClassification

from pyser.cli import cli
from pyser.corpora.circumplex import placement, write_placements
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, write_table
from pyser.scoring.sentiment import as_text, plot_sentiment, sentiment_table
from pyser.ser.sentiment import classifier, read_sentiment, vader, write_sentiment

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "love", "hate", "this", "door", "it", "is", "nice"]
TEXTS = {"u1": "I LOVE THIS", "u2": "I HATE THIS DOOR", "u3": "IT IS THIS DOOR", "u4": "THIS IS NICE IT IS NICE"}


@pytest.fixture
def data(tmp_path):
    write_table(tmp_path / "text", TEXTS)
    return tmp_path


def make_classifier(directory, labels=("positive", "negative", "neutral"), save_head=True):
    """A tiny BERT of random parameters."""
    torch.manual_seed(0)
    directory.mkdir()
    (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}))
    config = BertConfig(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, num_labels=len(labels), id2label=dict(enumerate(labels)), initializer_range=0.8)
    model = BertForSequenceClassification(config)
    (model if save_head else model.bert).save_pretrained(directory)
    return str(directory)


def test_lexicon(data):
    """Words of love and hate; capitals do not shout."""
    said = write_sentiment(data, "vader")
    assert "4 utterances, 0 dropped" in said and "negative 1, neutral 1, positive 2" in said
    found = read_sentiment(data)
    assert [found[utt].label for utt in TEXTS] == ["positive", "negative", "neutral", "positive"]
    assert all(sum(one.probabilities) == pytest.approx(1, abs=2e-3) for one in found.values())
    assert found["u1"].probabilities == pytest.approx(vader()(["i love this"])[0].probabilities)


def test_tags_are_no_words(data):
    """Neither a sentiment nor a neutral one."""
    write_table(data / "text", {**TEXTS, "u5": "<UNK>", "u6": "[LAUGHTER] <unk>", "u7": "[LAUGHTER] I HATE THIS DOOR"})
    assert "7 utterances, 2 dropped: 2 without words" in write_sentiment(data, "vader", max_dropped=0.5)
    found = read_sentiment(data)
    assert found.keys() == {*TEXTS, "u7"} and found["u7"] == found["u2"]


def test_classifier_is_transformers_own(data, tmp_path):
    """Each alone as by transformers, whatever it is padded with; labels in the order negative, neutral, positive."""
    directory = make_classifier(tmp_path / "bert")
    texts = [text.lower() for text in TEXTS.values()]
    found = classifier(directory)(texts)
    model = BertForSequenceClassification.from_pretrained(directory).eval()
    for text, one in zip(texts, found, strict=True):
        tokens = [WORDS.index(word) for word in ("[CLS]", *text.split(), "[SEP]")]
        with torch.no_grad():
            p = model(input_ids=torch.tensor([tokens])).logits[0].double().softmax(0).numpy()
        assert one.probabilities == pytest.approx((p[1], p[2], p[0]), abs=1e-6)
        assert one.label == ("positive", "negative", "neutral")[int(p.argmax())]
    assert len({one.probabilities for one in found}) == 4
    write_sentiment(data, directory)
    for one, text in zip(read_sentiment(data).values(), found, strict=True):
        assert one.label == text.label and one.probabilities == pytest.approx(text.probabilities, abs=1e-4)


def test_numbered_labels_are_in_order(tmp_path):
    named = make_classifier(tmp_path / "named", ("Negative", "Neutral", "Positive"))
    numbered = make_classifier(tmp_path / "numbered", ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert classifier(named)(["i love"]) == classifier(numbered)(["i love"])


def test_models_that_cannot_be_taken(data, tmp_path, monkeypatch):
    with pytest.raises(PyserError, match="its labels are spam, ham, not negative, neutral, positive"):
        classifier(make_classifier(tmp_path / "spam", ("spam", "ham")))
    with pytest.raises(PyserError, match="its weights lack classifier"):
        classifier(make_classifier(tmp_path / "headless", save_head=False))
    with pytest.raises(PyserError, match="no such directory"):
        classifier("./nowhere/at/all")
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(PyserError, match="pip install vaderSentiment"):
        write_sentiment(data, "vader")


def test_bad_lists(data):
    with pytest.raises(PyserError, match="write it by `pyser sentiment label`"):
        read_sentiment(data)
    write_table(data / "utt2sentiment", {"u1": "positive 0 x 1"})
    with pytest.raises(PyserError, match="u1: 'positive 0 x 1' is not one of"):
        read_sentiment(data)
    write_table(data / "text", TEXTS | {"u5": ""})
    with pytest.raises(PyserError, match="1 without words .e.g. u5.: more than --max-dropped"):
        write_sentiment(data, "vader")


def test_table_and_rank_correlation(tmp_path):
    """Counts by hand; rho as of ranks with ties, from its definition."""
    rng = np.random.default_rng(0)
    emotions = rng.choice(["angry", "happy", "neutral", "odd"], 60)
    sentiments = [("negative", "neutral", "positive")[k] for k in rng.integers(0, 3, 60)]
    utts = [f"u{n:02d}" for n in range(60)]
    write_table(tmp_path / "utt2emo", dict(zip(utts, emotions, strict=True)) | {"x": "angry"})
    write_table(tmp_path / "utt2sentiment", {utt: f"{one} 0.2 0.3 0.5" for utt, one in zip(utts, sentiments, strict=True)})
    table = sentiment_table(tmp_path)
    assert table.emotions == ("angry", "happy", "neutral", "odd") and table.counts.sum() == 60
    pairs = list(zip(sentiments, emotions, strict=True))
    assert table.counts[2, 0] == pairs.count(("positive", "angry"))
    ranked = [(("negative", "neutral", "positive").index(s), {"angry": -1, "neutral": 0, "happy": 1}[e])
              for s, e in pairs if e != "odd"]
    a, b = (np.array([(sum(x < y for x in column) + (sum(x == y for x in column) - 1) / 2) for y in column])
            for column in zip(*ranked, strict=True))
    rho = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
    assert table.rho == pytest.approx(rho) and table.ranked == len(ranked)
    text = as_text(table)
    assert f"Spearman's rho {rho:.2f}" in text and text.splitlines()[4].split()[-1] == "60"
    plot_sentiment(table, tmp_path / "t.svg")
    assert (tmp_path / "t.svg").read_text().startswith("<?xml")
    done = CliRunner().invoke(cli, ["score", "sentiment", "--out", str(tmp_path / "t.png"), str(tmp_path)])
    assert done.exit_code == 0 and "sentiment" in done.output and (tmp_path / "t.png").exists()
    write_table(tmp_path / "utt2emo", {"other": "angry"})
    with pytest.raises(PyserError, match="no utterance has a sentiment and an emotion"):
        sentiment_table(tmp_path)
    write_table(tmp_path / "utt2emo", dict.fromkeys(utts, "angry"))
    assert math.isnan(sentiment_table(tmp_path).rho)
    assert "Spearman's rho: none, all utterances are of one sentiment" in as_text(sentiment_table(tmp_path))


def test_places_on_the_circle(tmp_path):
    """Quadrants of the emotions that all agree on, and what results are to say of such ratings."""
    signs = {one: tuple(np.sign(np.round(placement(one), 6))) for one in ("ang", "happy", "sad", "calm", "neutral")}
    assert signs == {"ang": (1, -1), "happy": (1, 1), "sad": (-1, -1), "calm": (-1, 1), "neutral": (0, 0)}
    assert placement("angry") == placement("ang") and placement("odd") is None
    write_table(tmp_path / "utt2emo", {"u1": "sad", "u2": "neutral"})
    (tmp_path / "folds").mkdir()
    (tmp_path / "folds/info.json").write_text(json.dumps({"corpus": "c"}))
    done = CliRunner().invoke(cli, ["corpus", "circumplex", str(tmp_path)])
    assert done.exit_code == 0 and "DERIVED FROM THEIR CATEGORIES" in done.output
    a, v, d = read_table(tmp_path / "utt2avd")["u1"].split()
    assert float(a) ** 2 + float(v) ** 2 == pytest.approx(1, abs=1e-3) and d == "-"
    about = json.loads((tmp_path / "folds/info.json").read_text())
    source = "Russell 1980, circular scaling; disgust: Russell & Mehrabian 1977"
    assert about == {"corpus": "c", "avd": f"category-derived ({source})"}
    write_placements(tmp_path)  # again, the same
    (tmp_path / "folds/info.json").write_text(json.dumps({"avd": "1-5"}))
    with pytest.raises(PyserError, match="has ratings already"):
        write_placements(tmp_path)
    (tmp_path / "utt2avd").unlink()
    write_table(tmp_path / "utt2emo", {"u1": "odd"})
    with pytest.raises(PyserError, match="u1: odd has no place on the circle"):
        write_placements(tmp_path)
