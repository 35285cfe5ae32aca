"""Hypotheses and their errors in icefall's files (icefall/utils.py: store_transcripts, write_error_stats)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import kaldialign

EMPTY = "*"


def recogs(refs: Mapping[str, str], hyps: Mapping[str, str]) -> str:
    """recogs-*.txt: two lines for each utterance, its words as Python lists.

    >>> print(recogs({"u1": "a b"}, {"u1": "a"}), end="")
    u1:	ref=['a', 'b']
    u1:	hyp=['a']
    """
    return "".join(f"{utt}:\tref={refs[utt].split()}\n{utt}:\thyp={hyps.get(utt, '').split()}\n" for utt in refs)


def errs(refs: Mapping[str, str], hyps: Mapping[str, str]) -> str:
    """errs-*.txt: the error rate, every utterance with its errors as (ref->hyp), and what is substituted, deleted and
    inserted how often, by words."""
    subs: Counter[tuple[str, str]] = Counter()
    dels: Counter[str] = Counter()
    ins: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    details = []
    for utt, ref in refs.items():
        said = []
        for r, h in kaldialign.align(ref.split(), hyps.get(utt, "").split(), EMPTY):
            if r == h:
                correct[r] += 1
            elif r == EMPTY:
                ins[h] += 1
            elif h == EMPTY:
                dels[r] += 1
            else:
                subs[r, h] += 1
            said.append(r if r == h else f"({r}->{h})")
        details.append(f"{utt}:\t{' '.join(said)}")
    counts = [sum(counter.values()) for counter in (ins, dels, subs, correct)]
    words = counts[1] + counts[2] + counts[3]
    rate = 100 * sum(counts[:3]) / words if words else 0.0
    in_ref, in_hyp = Counter(correct), Counter(correct)
    wrong: Counter[str] = Counter()
    for (r, h), count in subs.items():
        in_ref[r] += count
        in_hyp[h] += count
        wrong[r] += count
        wrong[h] += count
    for counter, side in ((dels, in_ref), (ins, in_hyp)):
        side.update(counter)
        wrong.update(counter)
    lines = [
        f"%WER = {rate:.2f}",
        f"Errors: {counts[0]} insertions, {counts[1]} deletions, {counts[2]} substitutions, over {words} reference words "
        f"({counts[3]} correct)",
        "Search below for sections starting with PER-UTT DETAILS:, SUBSTITUTIONS:, DELETIONS:, INSERTIONS:, PER-WORD STATS:",
        "", "PER-UTT DETAILS: corr or (ref->hyp)  ", *details,
        "", "SUBSTITUTIONS: count ref -> hyp", *(f"{n}   {r} -> {h}" for (r, h), n in _most(subs)),
        "", "DELETIONS: count ref", *(f"{n}   {r}" for r, n in _most(dels)),
        "", "INSERTIONS: count hyp", *(f"{n}   {h}" for h, n in _most(ins)),
        "", "PER-WORD STATS: word  corr tot_errs count_in_ref count_in_hyp",
        *(f"{word}   {correct[word]} {wrong[word]} {in_ref[word]} {in_hyp[word]}"
          for word in sorted({*in_ref, *in_hyp}, key=lambda word: (-wrong[word], -correct[word], word))),
    ]
    return "\n".join([*lines, ""])


def _most(counter: Counter) -> list:  # type: ignore[type-arg]
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))
