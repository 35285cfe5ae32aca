"""The phone LM of Kaldi's chain denominators: n-grams without smoothing, pruned state by state."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pyser.errors import PyserError
from pyser.lang.acceptor import Acceptor

History = tuple[int, ...]
END = 0  # stands for both ends of a sentence


@dataclass(frozen=True)
class PhoneLmConfig:
    """ngram_order: phones of history and one. no_prune_ngram_order: states of a history of this order stay, as does every
    shorter one. num_extra_lm_states: states kept beyond them (the options of chain-est-phone-lm)."""

    ngram_order: int = 4
    no_prune_ngram_order: int = 3
    num_extra_lm_states: int = 2000


@dataclass
class _State:
    """counts: of each phone that follows. total: of all. with_parents: and of those that back off to this state."""

    history: History
    backoff: int = -1
    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    with_parents: int = 0
    allowed: bool = False

    def add(self, counts: dict[int, int]) -> None:
        for phone, count in counts.items():
            self.counts[phone] = self.counts.get(phone, 0) + count
            self.total += count


class PhoneLm:
    """Counts of phone sequences, and the acceptor estimated from them (src/chain/language-model.cc): a state for each
    history, its arcs the relative frequencies of the phones that follow. A state too many gives its counts to the one
    with a shorter history and vanishes; arcs to it go there. Nothing is smoothed: an unseen n-gram has no path."""

    def __init__(self, config: PhoneLmConfig):
        if not 2 <= config.ngram_order or not 1 <= config.no_prune_ngram_order <= config.ngram_order:
            raise PyserError(f"phone LM of order {config.ngram_order}, unpruned up to {config.no_prune_ngram_order}: "
                             "the order must be at least 2, and not below what is left unpruned")
        self.config = config
        self.states: list[_State] = []
        self.number: dict[History, int] = {}
        self.active = 0

    def add(self, phones: Sequence[int]) -> None:
        """Count a sentence of phone numbers (from 1)."""
        history: History = (END,)
        for phone in phones:
            self._count(history, phone)
            history = (*history, phone)[1 - self.config.ngram_order :]
        self._count(history, END)

    def _count(self, history: History, phone: int) -> None:
        state = self.states[self._state(history)]
        self.active += state.total == 0
        state.add({phone: 1})

    def _state(self, history: History) -> int:
        if history not in self.number:
            self.number[history] = number = len(self.states)
            self.states.append(_State(history))
            if len(history) >= self.config.no_prune_ngram_order:
                self.states[number].backoff = self._state(history[1:])
        return self.number[history]

    def estimate(self) -> Acceptor:
        """Prune, and give the acceptor of phones."""
        if not self.states:
            raise PyserError("no phone sequences to train a phone LM on; check the transcripts")
        self._prune()
        active = [state for state in self.states if state.total]
        place = {state.history: n for n, state in enumerate(active)}
        start = place[self._longest((END,), place)]
        place = {history: {start: 0, 0: start}.get(n, n) for history, n in place.items()}
        arcs, weights, finals = [], [], {}
        for state in sorted(active, key=lambda state: place[state.history]):
            for phone, count in sorted(state.counts.items()):
                weight = float(np.float32(math.log(count / state.total)))
                if phone == END:
                    finals[place[state.history]] = weight
                else:
                    target = place[self._longest((*state.history, phone), place)]
                    arcs.append((place[state.history], target, phone))
                    weights.append(weight)
        return Acceptor.of(arcs, weights, finals)

    def perplexity(self) -> float:
        """Of the training data, the sentences' ends included; after `estimate`."""
        total = sum(state.total for state in self.states)
        return math.exp(-sum(_log_like(state.counts, state.total) for state in self.states) / total)

    @staticmethod
    def _longest(history: History, place: dict[History, int]) -> History:
        while history not in place:
            if not history:
                raise PyserError("a phone LM with --no-prune-order 1 lacks the state without history; "
                                 "take more --num-extra-lm-states or --no-prune-order 2")
            history = history[1:]
        return history

    def _prune(self) -> None:
        """Four stages, each with exact costs at its beginning; in between a cost may be out of date (DoBackoff)."""
        for state in self.states:
            above = state
            while True:
                above.with_parents += state.total
                if above.backoff < 0:
                    break
                above = self.states[above.backoff]
        basic = sum(len(state.history) == self.config.no_prune_ngram_order - 1 for state in self.states)
        first, goal = self.active, basic + self.config.num_extra_lm_states
        for stage in range(1, 5):
            target = first + math.trunc((goal - first) * stage / 4)
            queue: list[tuple[float, int]] = []
            for number, state in enumerate(self.states):
                state.allowed = self._may_go(state)
                if state.allowed:
                    heapq.heappush(queue, (-self._change(state), -number))
            while self.active > target and queue:
                change, number = heapq.heappop(queue)
                state = self.states[-number]
                now = -self._change(state)
                if not abs(now - change) <= 0.001 * (abs(now) + abs(change)):
                    heapq.heappush(queue, (now, number))
                else:
                    self._back_off(state, queue)

    def _back_off(self, state: _State, queue: list[tuple[float, int]]) -> None:
        lower = self.states[state.backoff]
        self.active -= lower.total != 0
        lower.add(state.counts)
        state.counts, state.total, state.with_parents, state.allowed = {}, 0, 0, False
        before, lower.allowed = lower.allowed, self._may_go(lower)
        if lower.allowed and not before:
            heapq.heappush(queue, (-self._change(lower), -state.backoff))

    def _may_go(self, state: _State) -> bool:
        """Whether nothing needs the state: no longer history backs off to it, none goes on from it."""
        length = len(state.history)
        if length < self.config.no_prune_ngram_order or state.total != state.with_parents or state.total == 0:
            return False
        if length == self.config.ngram_order - 1:
            return True
        after = (self.number.get((*state.history, phone)) for phone in state.counts if phone != END)
        return all(number is None or self.states[number].with_parents == 0 for number in after)

    def _change(self, state: _State) -> float:
        """What the log-likelihood of the counts gains (it loses) if the state goes, in single precision as in Kaldi: ties
        and near-ties decide which states stay."""
        lower = self.states[state.backoff]
        if lower.total == 0:
            return float(np.float32(-1e-15 * state.total))
        both = dict(lower.counts)
        for phone, count in state.counts.items():
            both[phone] = both.get(phone, 0) + count
        likes = [np.float32(_log_like(counts, total)) for counts, total in (
            (both, lower.total + state.total), (state.counts, state.total), (lower.counts, lower.total))]
        return min(float(likes[0] - likes[1] - likes[2]), 0.0)


def _log_like(counts: dict[int, int], total: int) -> float:
    return sum(math.log(count / total) * count for _, count in sorted(counts.items()))


def estimate(sentences: Iterable[Sequence[int]], config: PhoneLmConfig) -> Acceptor:
    """The acceptor of `chain-est-phone-lm` for sentences of phone numbers."""
    model = PhoneLm(config)
    for phones in sentences:
        model.add(phones)
    return model.estimate()
