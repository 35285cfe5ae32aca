"""Interpolated modified Kneser-Ney n-gram models (Chen and Goodman, 1998), for words and for phones; ARPA out.

N-grams of order n are rows of a table, sorted by the row of their history in the table of order n - 1, then by their last
word; one integer holds both. All that is done to n-grams is done to whole columns: 100 million words take minutes.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyser.errors import PyserError
from pyser.files import atomic

BOS, EOS = "<s>", "</s>"
BLOCK = 1 << 18  # lines of an ARPA file made at once
Gram = tuple[str, ...]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Ngram:
    """Probabilities over vocab and </s> sum to one for every history.

    symbols : the words with <s> and </s>, sorted; a word's number is its place. keys : of each order n, (N_n,) ascending:
    row of the history in order n - 1, times len(symbols), plus the number of the last word. probs : (N_n,) p(last word |
    history), 0 of <s>. backoffs : of all orders but the highest, (N_n,) the weight that a history gives to the next
    shorter one, 1 of those after which nothing is known.
    """

    symbols: tuple[str, ...]
    keys: tuple[Integers, ...]
    probs: tuple[Floats, ...]
    backoffs: tuple[Floats, ...]

    @property
    def order(self) -> int:
        return len(self.keys)

    @property
    def vocab(self) -> tuple[str, ...]:
        return tuple(symbol for symbol in self.symbols if symbol not in (BOS, EOS))

    @cached_property
    def prob(self) -> dict[Gram, float]:
        """p(last | others) of the n-grams (a dict: for small models, as are backoff and p)."""
        tables = zip(self._grams(), self.probs, strict=True)
        return {gram: p for grams, probs in tables for gram, p in zip(grams, probs.tolist(), strict=True) if p > 0}

    @cached_property
    def backoff(self) -> dict[Gram, float]:
        """Weights of the histories after which something is known."""
        tables = zip(self._grams(), self.backoffs, strict=False)
        return {gram: b for grams, weights in tables for gram, b in zip(grams, weights.tolist(), strict=True) if b < 1}

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

    def log_probs(self, sentences: Iterable[Sequence[str]]) -> Floats:
        """Natural log p of every word and </s> of the sentences, one after the other; nan of unknown words."""
        numbers = {symbol: number for number, symbol in enumerate(self.symbols)}
        words = _tokens(sentences, lambda word: numbers.get(word, -1), numbers[BOS], numbers[EOS])
        rows, p = words, np.where(words < 0, np.nan, self.probs[0][words])
        for keys, probs, backoffs in zip(self.keys[1:], self.probs[1:], self.backoffs, strict=True):
            ends = 1 + np.flatnonzero((rows[:-1] >= 0) & (words[1:] >= 0) & (words[1:] != numbers[BOS]))
            history = rows[ends - 1].astype(np.int64)
            wanted = history * len(self.symbols) + words[ends]
            found = np.searchsorted(keys, wanted)
            seen = np.append(keys, -1)[found] == wanted
            p[ends] = np.where(seen, np.append(probs, 0)[found], p[ends] * backoffs[history])
            rows = np.full(len(words), -1)
            rows[ends] = np.where(seen, found, -1)
        return np.asarray(np.log(p[words != numbers[BOS]]))

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> float:
        """Per token, </s> counted, unknown words left out."""
        return perplexity(self.log_probs(sentences))

    def arpa(self) -> str:
        """The model in ARPA format."""
        return "".join(self._arpa())

    def write_arpa(self, path: str | Path) -> None:
        """The same to a file, a block at a time."""
        with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.writelines(self._arpa())

    def _arpa(self) -> Iterator[str]:
        yield "\\data\\\n" + "".join(f"ngram {n}={len(keys)}\n" for n, keys in enumerate(self.keys, start=1))
        for n, probs in enumerate(self.probs, start=1):
            yield f"\n\\{n}-grams:\n"
            line = "%.7g\t" + " ".join(["%s"] * n) + "%s\n"
            for start in range(0, len(probs), BLOCK):
                rows = np.arange(start, min(start + BLOCK, len(probs)))
                log_p = np.log10(probs[rows], out=np.full(len(rows), -99.0), where=probs[rows] > 0).tolist()
                ends = [""] * len(rows)
                if n < self.order:
                    ends = [f"\t{math.log10(b):.7g}" if b < 1 else "" for b in self.backoffs[n - 1][rows].tolist()]
                yield "".join(map(line.__mod__, zip(log_p, *self._words(n, rows), ends, strict=True)))
        yield "\n\\end\\\n"

    def _words(self, n: int, rows: Integers) -> list[list[str]]:
        """First words, second words … of n-grams of order n."""
        columns = []
        for keys in self.keys[n - 1 :: -1]:
            rows, last = np.divmod(keys[rows], len(self.symbols))
            columns.append(self._symbol_array[last].tolist())
        return columns[::-1]

    def _grams(self) -> Iterator[Iterator[Gram]]:
        for n, keys in enumerate(self.keys, start=1):
            yield zip(*self._words(n, np.arange(len(keys))), strict=True)

    @cached_property
    def _symbol_array(self) -> NDArray[np.object_]:
        return np.array(self.symbols, object)


@dataclass(frozen=True)
class _Table:
    """N-grams of one order and how often they occur. keys : as of Ngram. suffix : row of all words but the first in the
    next lower order."""

    keys: Integers
    suffix: NDArray[np.int32]
    counts: Integers


def estimate(
    sentences: Iterable[Sequence[str]], order: int, vocab: Iterable[str] = (), min_counts: Sequence[int] = ()
) -> Ngram:
    """Train on token sequences (without <s>, </s>).

    vocab : further words, which get the unseen words' share. min_counts : of each order, how often an n-gram must occur to
    be in the model (its parts do then); what the others would get goes to the shorter histories. Discounts are those of
    all n-grams. Both as KenLM does. Memory: 60 to 90 bytes a token.
    """
    if not 1 <= order <= 5:
        raise PyserError(f"n-gram order {order}: it must be between 1 and 5")
    min_counts = tuple(min_counts) or (1,) * order
    if len(min_counts) != order or min_counts[0] != 1 or list(min_counts) != sorted(min_counts):
        raise PyserError(f"smallest counts {','.join(map(str, min_counts))}: one for each of {order} orders, the first 1, "
                         "none less than the one before")
    symbols, words = _read(sentences, vocab)
    size, bos = len(symbols), symbols.index(BOS)
    tables = _count(words, size, bos, order)
    del words
    keep = np.ones(size, bool)
    starts = np.arange(size) == bos  # whether an n-gram begins with <s>
    keys, probs, backoffs = [tables[0].keys], [_unigram(tables, bos)], []
    for n, minimum in enumerate(min_counts[1:], start=2):
        table = tables[n - 1]
        history, last = np.divmod(table.keys, size)
        starts = starts[history]
        adjusted = _adjusted(table, tables[n] if n < order else None, starts)
        left = adjusted - _discounts(adjusted)[np.minimum(adjusted, 3)]
        place, kept_before = np.cumsum(keep) - 1, keep
        keep = table.counts >= minimum
        total = np.bincount(history, adjusted, len(kept_before))
        given = np.bincount(history[keep], left[keep], len(kept_before))
        share = 1 - given / np.maximum(total, 1)
        lower = probs[-1][place[table.suffix[keep]]]
        history = history[keep]
        probs.append(left[keep] / total[history] + share[history] * lower)
        keys.append(place[history] * size + last[keep])
        backoffs.append(share[kept_before])
    return Ngram(symbols, tuple(keys), tuple(probs), tuple(backoffs))


def perplexity(log_probs: Floats) -> float:
    """Of Ngram.log_probs; unknown words left out."""
    known = log_probs[~np.isnan(log_probs)]
    return math.exp(-float(known.mean())) if len(known) else 1.0


def _tokens(sentences: Iterable[Sequence[str]], number: Callable[[str], int], bos: int, eos: int) -> NDArray[np.int32]:
    """The words' numbers, sentence after sentence, bos before and eos behind each."""
    tokens = array("i")
    for sentence in sentences:
        tokens.append(bos)
        tokens.extend(map(number, sentence))
        tokens.append(eos)
    return np.asarray(tokens)


def _read(sentences: Iterable[Sequence[str]], vocab: Iterable[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """All words with <s> and </s>, sorted, and the text in their numbers."""
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    bos, eos = numbers[BOS], numbers[EOS]
    words = _tokens(sentences, numbers.__getitem__, bos, eos)
    if not len(words):
        raise PyserError("no text to train a language model on; check the transcripts")
    if ((words[1:] == bos) != (words[:-1] == eos)).any():
        raise PyserError("the text holds <s> or </s> as a word; take it out")
    for word in vocab:
        numbers[word]  # (a defaultdict: this gives it a number)
    symbols = tuple(sorted(numbers))
    place = np.empty(len(symbols), np.int32)
    place[[numbers[symbol] for symbol in symbols]] = np.arange(len(symbols))
    return symbols, place[words]


def _count(words: NDArray[np.int32], size: int, bos: int, order: int) -> list[_Table]:
    """The n-grams of orders 1 to `order` within sentences; <s> counts as a history only."""
    counts = np.bincount(words, minlength=size)
    counts[bos] = 0
    tables = [_Table(np.arange(size), np.zeros(size, np.int32), counts)]
    rows = words  # of the n-gram that ends at each word, -1 where its sentence has not so many words
    for n in range(2, order + 1):
        inside = (rows[:-1] >= 0) & (words[1:] != bos)
        keys = rows[:-1][inside].astype(np.int64) * size + words[1:][inside]
        by_key = np.argsort(keys)
        keys = keys[by_key]
        new = np.ones(len(keys), bool)
        new[1:] = keys[1:] != keys[:-1]
        first = np.flatnonzero(new)
        suffix = rows[1:][inside][by_key[first]]
        tables.append(_Table(keys[first], suffix, np.diff(first, append=len(keys))))
        if n < order:
            found = np.empty(len(keys), np.int32)
            found[by_key] = np.cumsum(new, dtype=np.int32) - 1
            rows = np.full(len(words), -1, np.int32)
            rows[1:][inside] = found
    return tables


def _adjusted(table: _Table, longer: _Table | None, starts: NDArray[np.bool_]) -> Integers:
    """Counts as they are at the highest order (no longer n-grams) and after <s>, otherwise the number of distinct words
    that stand before the n-gram."""
    if longer is None:
        return table.counts
    return np.where(starts, table.counts, np.bincount(longer.suffix, minlength=len(table.counts)))


def _unigram(tables: list[_Table], bos: int) -> Floats:
    counts = _adjusted(tables[0], tables[1] if len(tables) > 1 else None, np.arange(len(tables[0].keys)) == bos)
    left = counts - _discounts(counts)[np.minimum(counts, 3)]
    p = (left + (counts.sum() - left.sum()) / (len(counts) - 1)) / counts.sum()
    p[bos] = 0
    return np.asarray(p)


def _discounts(counts: Integers) -> Floats:
    """What is taken off an n-gram of count 0, 1, 2 and 3 or more. Small corpora lack some of the counts that the formula
    needs: then one discount for all, and 0.5 where even that cannot be estimated."""
    n1, n2, n3, n4 = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].tolist()
    y = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
    if min(n1, n2, n3, n4) > 0:
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < d < k for k, d in enumerate(found, start=1)):
            return np.array((0.0, *found))
    return np.array((0.0, y, y, y))
