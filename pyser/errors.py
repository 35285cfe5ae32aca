"""One line for the user: what is wrong, where, and what to do about it."""

from __future__ import annotations

from collections import Counter


class PyserError(Exception):
    """Bad input. The message is one line naming the file or utterance and the way out; the CLI prints it and exits 1."""


class Dropped:
    """Counts the utterances a stage leaves out, and stops the stage when there are too many.

    >>> dropped = Dropped("make mfcc", max_dropped=0.5)
    >>> dropped.add("utt1", "empty recording")
    >>> print(dropped.finish(total=10))
    make mfcc: 10 utterances, 1 dropped: 1 empty recording (e.g. utt1)
    """

    def __init__(self, stage: str, max_dropped: float = 0.05):
        self.stage, self.max_dropped = stage, max_dropped
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, utt: str, reason: str) -> None:
        """Record that `utt` is left out because of `reason` (a short phrase, the same for every such utterance)."""
        self.reasons[reason] += 1
        self.first.setdefault(reason, utt)

    def finish(self, total: int) -> str:
        """Return the stage's closing line; raise PyserError when more than `max_dropped` (a fraction) went missing.

        `total` is the number of utterances the stage was given.
        """
        lost = sum(self.reasons.values())
        why = "; ".join(f"{n} {reason} (e.g. {self.first[reason]})" for reason, n in self.reasons.most_common())
        line = f"{self.stage}: {total} utterances, {lost} dropped" + (f": {why}" if why else "")
        if total == 0 or lost == total:
            raise PyserError(f"{line}: nothing is left; check the input")
        if lost > self.max_dropped * total:
            raise PyserError(f"{line}: more than --max-dropped {100 * self.max_dropped:g}%; mend the input or raise it")
        return line
