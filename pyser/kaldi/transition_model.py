"""Kaldi's TransitionModel: HMM topologies, and which pdfs the states of each phone have (hmm/transition-model.cc)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyser.kaldi.binary import Reader, Writer

NO_PDF = -1


@dataclass(frozen=True)
class HmmState:
    """pdf classes of the arcs that leave the state and of its self-loop (NO_PDF for final states), and (next state,
    probability) of each transition."""

    forward_pdf_class: int
    self_loop_pdf_class: int
    transitions: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class TransitionModel:
    """entries: the topologies. phones: entry of each phone id, -1 where there is no such phone. tuples (N, 4) int32:
    phone, HMM state, forward pdf, self-loop pdf. log_probs (transition ids + 1,) float32.

    extended: whether forward and self-loop pdfs may differ (chain models) or are one and the same (`<Triples>`).
    """

    entries: tuple[tuple[HmmState, ...], ...]
    phones: tuple[int, ...]
    tuples: np.ndarray
    log_probs: np.ndarray
    extended: bool

    @property
    def num_pdfs(self) -> int:
        return int(self.tuples[:, 2:].max()) + 1


def read_transition_model(reader: Reader) -> TransitionModel:
    """The model at the reader's place, in either form."""
    reader.expect("<TransitionModel>", "<Topology>")
    entries, phones = (_binary_topology if reader.binary else _text_topology)(reader)
    opening = reader.token()
    if opening not in ("<Triples>", "<Tuples>"):
        raise reader.fail("<Triples> or <Tuples>")
    extended = opening == "<Tuples>"
    width = 4 if extended else 3
    rows = [[reader.int32() for _ in range(width)] for _ in range(_count(reader))]
    tuples = np.array([row if extended else [*row, row[2]] for row in rows], np.int32).reshape(-1, 4)
    reader.expect(opening.replace("<", "</"), "<LogProbs>")
    log_probs = reader.vector().astype(np.float32)
    reader.expect("</LogProbs>", "</TransitionModel>")
    if not len(tuples):
        raise reader.fail("at least one phone state")
    return TransitionModel(entries, phones, tuples, log_probs, extended)


def _count(reader: Reader) -> int:
    number = reader.int32()
    if number < 0:
        raise reader.fail("a number that is not negative")
    return number


def _binary_topology(reader: Reader) -> tuple[tuple[tuple[HmmState, ...], ...], tuple[int, ...]]:
    reader.integers()  # the phones, which the next list says again
    phones = tuple(int(entry) for entry in reader.integers())
    number = reader.int32()
    extended = number == -1
    if extended:
        number = _count(reader)
    entries = []
    for _ in range(number):
        states = []
        for _ in range(_count(reader)):
            forward = reader.int32()
            self_loop = reader.int32() if extended else forward
            transitions = tuple((reader.int32(), reader.real()) for _ in range(_count(reader)))
            states.append(HmmState(forward, self_loop, transitions))
        entries.append(tuple(states))
    reader.expect("</Topology>")
    return tuple(entries), phones


def _text_topology(reader: Reader) -> tuple[tuple[tuple[HmmState, ...], ...], tuple[int, ...]]:
    entries: list[tuple[HmmState, ...]] = []
    entry_of: dict[int, int] = {}
    while (token := reader.token()) == "<TopologyEntry>":
        reader.expect("<ForPhones>")
        while (word := reader.token()) != "</ForPhones>":
            if not word.isdecimal() or int(word) > 1_000_000:
                raise reader.fail("the number of a phone")
            entry_of[int(word)] = len(entries)
        states = []
        while (token := reader.token()) == "<State>":
            reader.int32()
            forward = self_loop = NO_PDF
            token = reader.token()
            if token == "<PdfClass>":
                forward = self_loop = reader.int32()
                token = reader.token()
            elif token == "<ForwardPdfClass>":
                forward = reader.int32()
                reader.expect("<SelfLoopPdfClass>")
                self_loop = reader.int32()
                token = reader.token()
            transitions = []
            while token == "<Transition>":
                transitions.append((reader.int32(), reader.real()))
                token = reader.token()
            if token != "</State>":
                raise reader.fail("</State>")
            states.append(HmmState(forward, self_loop, tuple(transitions)))
        if token != "</TopologyEntry>":
            raise reader.fail("</TopologyEntry>")
        entries.append(tuple(states))
    if token != "</Topology>":
        raise reader.fail("</Topology>")
    return tuple(entries), tuple(entry_of.get(phone, -1) for phone in range(max(entry_of, default=-1) + 1))


def newline(writer: Writer) -> None:
    """A line break where the file is text."""
    if not writer.binary:
        writer.line()


def write_transition_model(writer: Writer, model: TransitionModel) -> None:
    """Append the model in the writer's form."""
    writer.token("<TransitionModel>")
    newline(writer)
    writer.token("<Topology>")
    if writer.binary:
        _write_binary_topology(writer, model)
    else:
        _write_text_topology(writer, model)
    writer.token("</Topology>")
    newline(writer)
    kind = "Tuples" if model.extended else "Triples"
    writer.token(f"<{kind}>")
    writer.int32(len(model.tuples))
    newline(writer)
    for row in model.tuples[:, : 4 if model.extended else 3]:
        for number in row:
            writer.int32(int(number))
        newline(writer)
    writer.token(f"</{kind}>")
    newline(writer)
    writer.token("<LogProbs>")
    newline(writer)
    writer.vector(model.log_probs, "FV")
    writer.token("</LogProbs>")
    newline(writer)
    writer.token("</TransitionModel>")
    newline(writer)


def _write_binary_topology(writer: Writer, model: TransitionModel) -> None:
    writer.integers(np.array([phone for phone, entry in enumerate(model.phones) if entry >= 0], np.int32))
    writer.integers(np.array(model.phones, np.int32))
    if model.extended:
        writer.int32(-1)
    writer.int32(len(model.entries))
    for states in model.entries:
        writer.int32(len(states))
        for state in states:
            writer.int32(state.forward_pdf_class)
            if model.extended:
                writer.int32(state.self_loop_pdf_class)
            writer.int32(len(state.transitions))
            for target, probability in state.transitions:
                writer.int32(target)
                writer.real(probability)


def _write_text_topology(writer: Writer, model: TransitionModel) -> None:
    newline(writer)
    for number, states in enumerate(model.entries):
        writer.token("<TopologyEntry>")
        newline(writer)
        writer.token("<ForPhones>")
        newline(writer)
        for phone, entry in enumerate(model.phones):
            if entry == number:
                writer.int32(phone)
        newline(writer)
        writer.token("</ForPhones>")
        newline(writer)
        for place, state in enumerate(states):
            writer.token("<State>")
            writer.int32(place)
            if state.forward_pdf_class != NO_PDF and model.extended:
                writer.token("<ForwardPdfClass>")
                writer.int32(state.forward_pdf_class)
                writer.token("<SelfLoopPdfClass>")
                writer.int32(state.self_loop_pdf_class)
            elif state.forward_pdf_class != NO_PDF:
                writer.token("<PdfClass>")
                writer.int32(state.forward_pdf_class)
            for target, probability in state.transitions:
                writer.token("<Transition>")
                writer.int32(target)
                writer.real(probability)
            writer.token("</State>")
            newline(writer)
        writer.token("</TopologyEntry>")
        newline(writer)
