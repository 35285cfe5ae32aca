"""The sentiment of what is said, by a text model: targets for pretraining where nobody has labelled any.

utt2sentiment has a line for each utterance: `utt1 positive 0.02 0.08 0.90`, the sentiment and the probabilities of negative,
neutral and positive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyser.encoders.vocabulary import TAG
from pyser.errors import Dropped, PyserError
from pyser.kaldi.datadir import read_table, write_table

SENTIMENTS = ("negative", "neutral", "positive")
LEXICON = "vader"
VADER_THRESHOLD = 0.05  # of the compound score: its authors' rule
BATCH_TOKENS = 2048  # of a batch, padding included


class Sentiment(NamedTuple):
    label: str
    probabilities: tuple[float, ...]


Labeller = Callable[[Sequence[str]], list[Sentiment]]


def write_sentiment(data_dir: str | Path, model: str, use_gpu: str = "no", max_dropped: float = 0.05) -> str:
    """Write data_dir/utt2sentiment of the transcripts in data_dir/text, without tags such as [LAUGHTER] and <UNK>; return the
    closing lines.

    model : vader, or a sequence classifier of Hugging Face's with three sentiments, by its name on the hub or its directory
    """
    data_dir = Path(data_dir)
    texts = {utt: " ".join(TAG.sub(" ", text).split()) for utt, text in read_table(data_dir / "text").items()}
    dropped = Dropped(f"sentiment of {data_dir}", max_dropped)
    for utt, text in texts.items():
        if not text:
            dropped.add(utt, "without words")
    utts = [utt for utt, text in texts.items() if text]
    line = dropped.finish(len(texts))
    labeller = vader() if model == LEXICON else classifier(model, use_gpu)
    # Transcripts in capitals are shouts to both kinds of model.
    said = [texts[utt].lower() if texts[utt].isupper() else texts[utt] for utt in utts]
    found = dict(zip(utts, labeller(said), strict=True))
    write_table(data_dir / "utt2sentiment", {
        utt: " ".join([one.label, *(f"{p:.4f}" for p in one.probabilities)]) for utt, one in found.items()})
    counts = Counter(one.label for one in found.values())
    return f"{line}\n{data_dir}/utt2sentiment by {model}: " + ", ".join(f"{name} {counts[name]}" for name in SENTIMENTS)


def read_sentiment(data_dir: str | Path) -> dict[str, Sentiment]:
    """data_dir/utt2sentiment; PyserError if it is missing or a line is not like `utt1 positive 0.02 0.08 0.90`."""
    path = Path(data_dir) / "utt2sentiment"
    if not path.exists():
        raise PyserError(f"{path}: no such file; write it by `pyser sentiment label`")
    found = {}
    for utt, value in read_table(path).items():
        label, *numbers = value.split() or [""]
        try:
            probabilities = tuple(float(number) for number in numbers)
        except ValueError:
            probabilities = ()
        if label not in SENTIMENTS or len(probabilities) != len(SENTIMENTS):
            raise PyserError(f"{path}: {utt}: '{value[:40]}' is not one of {', '.join(SENTIMENTS)} and three numbers")
        found[utt] = Sentiment(label, probabilities)
    return found


def vader() -> Labeller:
    """The lexicon of C. Hutto and E. Gilbert ("VADER", ICWSM 2014). Its probabilities are the shares of the words that are
    negative, neutral and positive; the sentiment follows its compound score, by its authors' thresholds."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise PyserError("--model vader needs vaderSentiment: pip install vaderSentiment==3.3.2") from None
    analyzer = SentimentIntensityAnalyzer()

    def label(text: str) -> Sentiment:
        scores = analyzer.polarity_scores(text)
        sign = (scores["compound"] >= VADER_THRESHOLD) - (scores["compound"] <= -VADER_THRESHOLD)
        return Sentiment(SENTIMENTS[1 + sign], (scores["neg"], scores["neu"], scores["pos"]))

    return lambda texts: [label(text) for text in texts]


def classifier(name: str, use_gpu: str = "no") -> Labeller:
    """A sequence classifier of Hugging Face's whose labels are negative, neutral and positive, in any order and case, or, as
    older ones of cardiffnlp's have them, LABEL_0 to LABEL_2 in this order."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from pyser.device import choose_device
    from pyser.encoders.huggingface import from_pretrained, load_weights
    from pyser.encoders.text import TextEncoder, batches

    model, missing = load_weights(AutoModelForSequenceClassification, name)
    names = [str(model.config.id2label[number]).lower() for number in range(model.config.num_labels)]
    if names == [f"label_{number}" for number in range(len(SENTIMENTS))]:
        names = list(SENTIMENTS)
    if sorted(names) != sorted(SENTIMENTS):
        raise PyserError(f"{name}: its labels are {', '.join(names)}, not {', '.join(SENTIMENTS)}; take a model of sentiment")
    if missing:
        raise PyserError(f"{name}: its weights lack {missing[0]} and {len(missing) - 1} more; get the model again")
    tokenizer: Any = from_pretrained(AutoTokenizer, name)
    encoder = TextEncoder(model.eval().to(choose_device(use_gpu)), tokenizer)
    order = [names.index(one) for one in SENTIMENTS]

    @torch.no_grad()
    def label(texts: Sequence[str]) -> list[Sentiment]:
        tokens = [encoder.tokens(text) for text in texts]
        found = np.zeros((len(texts), len(SENTIMENTS)))
        for batch in batches([len(ids) for ids in tokens], BATCH_TOKENS):
            inputs = tokenizer.pad({"input_ids": [tokens[i] for i in batch]}, return_tensors="pt").to(model.device)
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            found[batch] = logits.double().softmax(dim=1)[:, order].cpu().numpy()
        return [Sentiment(SENTIMENTS[int(row.argmax())], tuple(row.tolist())) for row in found]

    return label
