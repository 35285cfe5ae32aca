"""Probabilities of sentences by a language model in ARPA format, of which no more is kept than they need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import text_lines
from pyser.lang.lexicon import UNKNOWN_WORD
from pyser.lang.ngram import BOS, EOS, Gram

ZERO = -99.0  # log10 of no probability, as SRILM writes it
UNKNOWN = UNKNOWN_WORD, "<unk>", "<UNK>"


def log_probs(arpa: str | Path, sentences: Iterable[Sequence[str]]) -> list[float]:
    """Natural log p(sentence, </s>) of each; a word that the model lacks counts as its unknown word.

    arpa : a file, may be .gz, read once from beginning to end, whatever its size
    """
    padded = [(BOS, *sentence, EOS) for sentence in sentences]
    model = _read(Path(arpa), padded)
    return [math.log(10) * sum(model.log10(words[:n], words[n]) for n in range(1, len(words))) for words in padded]


class _Model:
    """order; prob, backoff: log10, of the n-grams kept."""

    def __init__(self, order: int):
        self.order, self.unknown = order, ""
        self.prob: dict[Gram, float] = {}
        self.backoff: dict[Gram, float] = {}

    def known(self, words: Iterable[str]) -> Gram:
        return tuple(word if (word,) in self.prob else self.unknown for word in words)

    def log10(self, history: Sequence[str], word: str) -> float:
        context, (word,) = self.known(history[max(0, len(history) - self.order + 1) :]), self.known([word])
        weight = 0.0
        while (*context, word) not in self.prob:
            if not context:
                return ZERO
            weight += self.backoff.get(context, 0.0)
            context = context[1:]
        return weight + self.prob[(*context, word)]


def _read(path: Path, sentences: Sequence[Gram]) -> _Model:
    """The model's n-grams that stand in the sentences."""
    lines = (line.rstrip("\n") for line in text_lines(path))
    sizes = []
    for line in lines:
        if line.startswith("ngram "):
            sizes.append(line)
        elif line.startswith("\\1-grams"):
            break
    if not sizes:
        raise PyserError(f"{path}: not a language model in ARPA format")
    model = _Model(len(sizes))
    words = {word for sentence in sentences for word in sentence} | set(UNKNOWN)
    wanted: set[Gram] = {(word,) for word in words}
    order = 1
    for line in lines:
        if line.startswith("\\"):
            if line.startswith("\\end\\"):
                return model
            if order == 1:  # now it is known which words are
                model.unknown = next((word for word in UNKNOWN if (word,) in model.prob), "")
                padded = [model.known(sentence) for sentence in sentences]
            order += 1
            wanted = {sentence[n : n + order] for sentence in padded for n in range(len(sentence) - order + 1)}
            continue
        if not line:
            continue
        try:
            prob, *gram = line.split()
            key = tuple(gram[:order])
            if key in wanted:
                model.prob[key] = float(prob)
                if len(gram) > order:
                    model.backoff[key] = float(gram[order])
        except ValueError:
            raise PyserError(f"{path}: '{line[:60]}' is no line of a {order}-gram; get the file again") from None
    raise PyserError(f"{path}: the file has no end (\\end\\); get it again")
