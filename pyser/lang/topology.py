"""HMM topologies of LF-MMI: which outputs of the network (pdfs) a phone in its context has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyser.errors import PyserError
from pyser.files import read_lines, write_text
from pyser.kaldi.transition_model import NO_PDF, HmmState, TransitionModel

SELF_LOOP = 0.5  # probability of staying in a phone
PDF_CLASS = -1  # the tree's question about the forward (0) or the self-loop (1) pdf
LARGEST_PHONE = 10_000  # a tree of more is a damaged one
Answer = Callable[[dict[int, int]], "int | None"]


@dataclass(frozen=True, eq=False)
class Topology:
    """chain: one state, the first frame of a phone has the entry pdf, all others the loop pdf. ctc: pdf n is phone n, pdf 0
    the blank, which may stand anywhere and must stand between two equal phones.

    pdfs : (C, phones + 1, 2) int32, entry and loop pdf of [context, phone]; the context is the phone to the left (0: none),
        C = phones + 1, or C = 1 without context; -1 for phone 0
    """

    ctc: bool
    pdfs: NDArray[np.int32]

    @property
    def num_pdfs(self) -> int:
        return int(self.pdfs.max()) + 1

    @property
    def num_phones(self) -> int:
        return self.pdfs.shape[1] - 1

    def of(self, left: NDArray[np.int32], phone: NDArray[np.int32]) -> NDArray[np.int32]:
        """(N, 2) entry and loop pdfs of phones (N,) behind others (N,)."""
        return self.pdfs[left if len(self.pdfs) > 1 else np.zeros_like(left), phone]

    def transitions(self) -> tuple[Topology, NDArray[np.int32]]:
        """The same with transitions in place of pdfs, so that each belongs to one phone; and (transitions, 2) int32, the
        phone and the pdf of each."""
        rows = [(phone, *pair) for phone in range(1, self.num_phones + 1) for pair in np.unique(self.pdfs[:, phone], axis=0)]
        number = {(int(phone), int(entry), int(loop)): 2 * n for n, (phone, entry, loop) in enumerate(rows)}
        ids = np.full_like(self.pdfs, -1)
        for (context, phone), _ in np.ndenumerate(self.pdfs[:, 1:, 0]):
            first = number[(phone + 1, *self.pdfs[context, phone + 1].tolist())]
            ids[context, phone + 1] = first, first + 1
        table = np.array([[(phone, entry), (phone, loop)] for phone, entry, loop in rows], np.int32).reshape(-1, 2)
        return Topology(self.ctc, ids), table

    def transition_model(self) -> TransitionModel:
        """What Kaldi keeps of a chain topology in 0.trans_mdl and at the head of final.mdl."""
        phones = range(1, self.num_phones + 1)
        tuples = np.concatenate([np.column_stack([np.full(len(pairs), phone), np.zeros(len(pairs), int), pairs])
                                 for phone in phones for pairs in [np.unique(self.pdfs[:, phone], axis=0)]])
        states = (HmmState(0, 1, ((0, SELF_LOOP), (1, 1 - SELF_LOOP))), HmmState(NO_PDF, NO_PDF, ()))
        log_probs = np.tile([math.log(SELF_LOOP), math.log(1 - SELF_LOOP)], len(tuples))
        return TransitionModel((states,), (-1, *(0 for _ in phones)), tuples.astype(np.int32),
                               np.array([0, *log_probs], np.float32), extended=True)

    def topo(self) -> str:
        """Kaldi's lang/topo."""
        phones = " ".join(map(str, range(1, self.num_phones + 1)))
        return (f"<Topology>\n<TopologyEntry>\n<ForPhones>\n{phones}\n</ForPhones>\n"
                f"<State> 0 <ForwardPdfClass> 0 <SelfLoopPdfClass> 1 "
                f"<Transition> 0 {SELF_LOOP:g} <Transition> 1 {1 - SELF_LOOP:g} </State>\n"
                "<State> 1 </State>\n</TopologyEntry>\n</Topology>\n")

    def tree(self) -> str:
        """Kaldi's tree, in its text form."""
        leaves = [[f"TE {PDF_CLASS} 2 ( CE {entry} CE {loop} ) \n" for entry, loop in row] for row in self.pdfs.tolist()]
        size = self.num_phones + 1
        if len(self.pdfs) == 1:
            head, tables = "1 0", [leaves[0][phone] for phone in range(1, size)]
        else:
            head = "2 1"
            tables = [f"TE 0 {size} ( {''.join(row[phone] for row in leaves)}) \n" for phone in range(1, size)]
        key = head[-1]
        return f"ContextDependency {head} ToPdf TE {key} {size} ( NULL {''.join(tables)}) \nEndContextDependency "

    def save(self, lang_dir: str | Path) -> None:
        """lang_dir/topo and lang_dir/tree; CTC is what a directory without them has."""
        for name, text in (("topo", "" if self.ctc else self.topo()), ("tree", "" if self.ctc else self.tree())):
            if text:
                write_text(Path(lang_dir) / name, text)
            else:
                (Path(lang_dir) / name).unlink(missing_ok=True)


def ctc(num_phones: int) -> Topology:
    """CTC, without context."""
    pdfs = np.repeat(np.arange(num_phones + 1, dtype=np.int32)[None, :, None], 2, axis=2)
    pdfs[0, 0] = -1
    return Topology(True, pdfs)


def monophone(sets: Sequence[Sequence[int]]) -> Topology:
    """Two pdfs for each set of phones, in the sets' order (gmm-init-mono --shared-phones)."""
    pdfs = np.full((1, _check(sets) + 1, 2), -1, np.int32)
    for number, phones in enumerate(sets):
        pdfs[0, list(phones)] = 2 * number, 2 * number + 1
    return Topology(False, pdfs)


def biphone(
    sets: Sequence[Sequence[int]],
    independent: Sequence[int] = (),
    counts: NDArray[np.int64] | None = None,
    min_biphone_count: int = 100,
    min_monophone_count: int = 20,
) -> Topology:
    """Two pdfs for each set of phones behind each other set, and behind none (gmm-init-biphone --shared-phones).

    independent : phones whose pdfs do not look at the context, and which are no context to others (--ci-phones)
    counts : (phones + 1, phones + 1) how often [left, phone] was seen, or None. Pairs seen less than min_biphone_count times
        share the pdfs of their phone; phones not seen more than min_monophone_count times share one pair of pdfs.
    """
    size = _check(sets) + 1
    pdfs = np.full((size, size, 2), -1, np.int32)
    free = 0

    def new() -> tuple[int, int]:
        nonlocal free
        free += 2
        return free - 2, free - 1

    for phone in independent:
        pdfs[:, phone] = new()
    dependent = [kept for phones in sets if (kept := [phone for phone in phones if phone not in independent])]
    rare = None
    for right in dependent:
        bare, mono = new(), None
        pdfs[np.ix_([0, *independent], right)] = bare
        for left in dependent:
            if counts is None or counts[left[0], right[0]] >= min_biphone_count:
                pair = new()
            elif counts[:, right[0]].sum() > min_monophone_count:
                pair = mono = mono or new()
            else:
                pair = rare = rare or new()
            pdfs[np.ix_(left, right)] = pair
    return Topology(False, pdfs)


def _check(sets: Sequence[Sequence[int]]) -> int:
    """The largest phone."""
    phones = sorted(phone for group in sets for phone in group)
    if not phones or phones != list(range(1, len(phones) + 1)):
        raise PyserError("the sets of phones (phones/sets.int) must hold each phone from 1 on once")
    return phones[-1]


def load_topology(lang_dir: str | Path) -> Topology:
    """The topology of a lang directory: Kaldi's of its text-form tree, CTC where there is neither tree nor topo."""
    lang_dir = Path(lang_dir)
    if (lang_dir / "tree").exists():
        return read_tree(lang_dir / "tree")
    if (lang_dir / "topo").exists():
        raise PyserError(f"{lang_dir}: topo without tree; make both with: pyser lang topo {lang_dir}")
    symbols = [line.split() for line in read_lines(lang_dir / "tokens.txt")]
    return ctc(sum(1 for symbol, number in symbols if int(number) > 0 and not symbol.startswith("#")))


def read_tree(path: str | Path) -> Topology:
    """A tree of the chain topology (Kaldi's text form, copy-tree --binary=false): monophone or left biphone."""
    return parse_tree("\n".join(read_lines(path)), str(path))


def parse_tree(text: str, name: str = "tree") -> Topology:
    """See read_tree."""
    words = text.replace("{", " { ").replace("}", " } ").split()
    largest: dict[int, int] = {}
    try:
        if words[0] != "ContextDependency" or words[3] != "ToPdf" or words[-1] != "EndContextDependency":
            raise ValueError
        width, position = int(words[1]), int(words[2])
        answer, rest = _event_map(words, 4, largest)
        if rest != len(words) - 1:
            raise ValueError
    except (ValueError, IndexError, RecursionError):
        raise PyserError(f"{name}: not a tree in Kaldi's text form; make it with copy-tree --binary=false") from None
    if (width, position) not in ((1, 0), (2, 1)):
        raise PyserError(f"{name}: context width {width}, central position {position}; "
                         "only monophone and left-biphone trees can be used")
    size = largest.get(position, 0) + 1
    if not set(largest) <= {PDF_CLASS, 0, position} or not 1 < size <= LARGEST_PHONE:
        raise PyserError(f"{name}: a tree that does not ask for the phone, or for something unknown; is it whole?")
    contexts = [{0: 0}] if width == 1 else [{0: left} for left in range(size)]
    pdfs = np.full((len(contexts), size, 2), -1, np.int32)
    for row, context in enumerate(contexts):
        for phone in range(1, size):
            for pdf_class in (0, 1):
                pdf = answer({**context, position: phone, PDF_CLASS: pdf_class})
                if pdf is None or not 0 <= pdf <= np.iinfo(np.int32).max:
                    raise PyserError(f"{name}: phone {phone} behind phone {row} has no pdf of class {pdf_class}; "
                                     "is it the tree of a chain topology?")
                pdfs[row, phone, pdf_class] = pdf
    return Topology(False, pdfs)


def _event_map(words: list[str], at: int, largest: dict[int, int]) -> tuple[Answer, int]:
    """The map that begins at words[at] (tree/event-map.cc) as a function of an event, and the place behind it. Notes the
    largest value of each key in `largest`."""
    kind = words[at]
    if kind == "NULL":
        return lambda event: None, at + 1
    if kind == "CE":
        pdf = int(words[at + 1])
        return lambda event: pdf, at + 2
    key = int(words[at + 1])
    if kind == "TE":
        size, at, table = int(words[at + 2]), at + 4, []
        for _ in range(size):
            entry, at = _event_map(words, at, largest)
            table.append(entry)
        largest[key] = max(largest.get(key, 0), size - 1)
        if words[at] != ")":
            raise ValueError
        return lambda event: table[event[key]](event) if event[key] < size else None, at + 1
    if kind != "SE":
        raise ValueError
    end = words.index("]", at)
    values = {int(word) for word in words[at + 3 : end]}
    largest[key] = max({largest.get(key, 0), *values})
    yes, at = _event_map(words, end + 2, largest)
    no, at = _event_map(words, at, largest)
    return lambda event: (yes if event[key] in values else no)(event), at + 1
