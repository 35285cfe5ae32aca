"""Interpolated modified Kneser-Ney n-gram models (Chen and Goodman, 1998), for words and for phones; ARPA out."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyser.errors import PyserError

BOS, EOS = "<s>", "</s>"
Gram = tuple[str, ...]


@dataclass(frozen=True)
class Ngram:
    """log10-free tables: prob[n][gram] is p(last | others) of seen n-grams, backoff[gram] the weight that a history
    gives to the next shorter one. Probabilities over vocab and </s> sum to one for every history."""

    order: int
    vocab: tuple[str, ...]
    prob: dict[Gram, float]
    backoff: dict[Gram, float]

    def p(self, history: Sequence[str], word: str) -> float:
        """p(word | history); history may begin with <s> and be of any length."""
        context = tuple(history)[len(history) - self.order + 1 :] if len(history) >= self.order else tuple(history)
        weight = 1.0
        while (*context, word) not in self.prob:
            if not context:
                return 0.0
            weight *= self.backoff.get(context, 1.0)
            context = context[1:]
        return weight * self.prob[(*context, word)]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Per token, </s> counted, unknown words left out."""
        total, count = 0.0, 0
        for sentence in sentences:
            words = [BOS, *sentence, EOS]
            for i in range(1, len(words)):
                p = self.p(words[max(0, i - self.order + 1) : i], words[i])
                if p > 0:
                    total, count = total - math.log(p), count + 1
        return math.exp(total / max(count, 1))

    def arpa(self) -> str:
        """The model in ARPA format."""
        grams: dict[int, list[Gram]] = defaultdict(list)
        for gram in self.prob:
            grams[len(gram)].append(gram)
        grams[1].append((BOS,))
        lines = ["\\data\\", *(f"ngram {n}={len(grams[n])}" for n in range(1, self.order + 1)), ""]
        for n in range(1, self.order + 1):
            lines.append(f"\\{n}-grams:")
            for gram in sorted(grams[n]):
                p = "-99" if gram == (BOS,) else f"{math.log10(self.prob[gram]):.7g}"
                weight = self.backoff.get(gram)
                lines.append(f"{p}\t{' '.join(gram)}" + (f"\t{math.log10(weight):.7g}" if weight else ""))
            lines.append("")
        return "\n".join([*lines, "\\end\\", ""])


def estimate(sentences: Iterable[Sequence[str]], order: int, vocab: Iterable[str] = ()) -> Ngram:
    """Train on token sequences (without <s>, </s>). `vocab`: further words, which get the unseen words' share."""
    if not 1 <= order <= 5:
        raise PyserError(f"n-gram order {order}: it must be between 1 and 5")
    raw: Counter[Gram] = Counter()
    words = set(vocab)
    for sentence in sentences:
        words.update(sentence)
        padded = (BOS, *sentence, EOS)
        for end in range(1, len(padded)):
            for n in range(1, order + 1):
                if end - n + 1 >= 0:
                    raw[padded[end - n + 1 : end + 1]] += 1
    if not raw:
        raise PyserError("no text to train a language model on; check the transcripts")
    if words & {BOS, EOS}:
        raise PyserError("the text holds <s> or </s> as a word; take it out")
    prob: dict[Gram, float] = {}
    backoff: dict[Gram, float] = {}
    for n in range(1, order + 1):
        counts = _adjusted(raw, n, order)
        discount = _discounts(counts)
        total: defaultdict[Gram, float] = defaultdict(float)
        given: defaultdict[Gram, float] = defaultdict(float)
        for gram, count in counts.items():
            total[gram[:-1]] += count
            given[gram[:-1]] += discount[min(count, 3)]
        share = {history: given[history] / total[history] for history in total}
        if n == 1:
            everything = {(word,) for word in words} | {(EOS,)}
            for gram in everything:
                count = counts.get(gram, 0)
                p = max(count - discount[min(count, 3)], 0.0) / total[()]
                prob[gram] = p + share[()] / len(everything)
            continue
        backoff |= share
        for gram, count in counts.items():
            lower = prob[gram[1:]]
            prob[gram] = (count - discount[min(count, 3)]) / total[gram[:-1]] + share[gram[:-1]] * lower
    return Ngram(order, tuple(sorted(words)), prob, backoff)


def _adjusted(raw: Counter[Gram], n: int, order: int) -> Counter[Gram]:
    """Counts of order n: as they are at the highest order and after <s>, otherwise the number of distinct words that
    stand before the n-gram."""
    if n == order:
        return Counter({gram: count for gram, count in raw.items() if len(gram) == n})
    counts: Counter[Gram] = Counter()
    for gram, count in raw.items():
        if len(gram) == n + 1:
            counts[gram[1:]] += 1
        elif len(gram) == n and gram[0] == BOS:
            counts[gram] = count
    return counts


def _discounts(counts: Counter[Gram]) -> tuple[float, float, float, float]:
    """What is taken off an n-gram of count 0, 1, 2 and 3 or more. Small corpora lack some of the counts that the formula
    needs: then one discount for all, and 0.5 where even that cannot be estimated."""
    n1, n2, n3, n4 = (sum(1 for count in counts.values() if count == k) for k in (1, 2, 3, 4))
    y = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    if min(n1, n2, n3, n4) > 0:
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < d < k for k, d in enumerate(found, start=1)):
            return (0.0, *found)
    return (0.0, y, y, y)
