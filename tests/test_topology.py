"""Topologies against Kaldi's trees and transition models."""

import numpy as np
import pytest
from graph_paths import GOLDEN, text_of

from pyser.errors import PyserError
from pyser.kaldi.binary import Reader, Writer
from pyser.kaldi.transition_model import read_transition_model, write_transition_model
from pyser.lang.topology import Topology, biphone, ctc, load_topology, monophone, parse_tree, read_tree

SETS = [[1, 2], *([phone] for phone in range(3, 42))]


def test_monophone_is_gmm_init_mono():
    topology = monophone(SETS)
    assert (topology.pdfs == read_tree(GOLDEN / "tree.txt").pdfs).all()
    assert topology.num_pdfs == 80 and topology.num_phones == 41 and len(topology.pdfs) == 1
    assert topology.pdfs[0, [1, 2, 3, 41]].tolist() == [[0, 1], [0, 1], [2, 3], [78, 79]]


def test_transition_model(tmp_path):
    ours = monophone(SETS).transition_model()
    text = (GOLDEN / "transition_model.txt").read_text()
    (tmp_path / "theirs").write_text(text)
    theirs = read_transition_model(Reader(tmp_path / "theirs"))
    assert ours.entries == theirs.entries and ours.phones == theirs.phones and ours.extended
    assert (ours.tuples == theirs.tuples).all() and np.abs(ours.log_probs - theirs.log_probs).max() < 1e-6
    writer = Writer(binary=True)
    write_transition_model(writer, ours)
    writer.save(tmp_path / "0.trans_mdl")
    assert (read_transition_model(Reader(tmp_path / "0.trans_mdl")).tuples == theirs.tuples).all()


def test_biphone_tree_of_kaldi():
    """gmm-init-biphone with counts: pairs that have a pair of pdfs of their own were seen often, phones without any at all
    hardly; from such counts comes the same tree, number by number."""
    text = text_of(GOLDEN / "biphone_tree.txt.gz")
    tree = parse_tree(text)
    assert tree.num_pdfs == 292 and len(tree.transition_model().tuples) == 150
    counts = np.full((42, 42), 50)
    firsts = [group[0] for group in SETS]
    entries = tree.pdfs[..., 0]
    for right in range(1, 42):
        for left in range(1, 42):
            if (entries[firsts, right] == entries[left, right]).sum() == 1:
                counts[left, right] = 100
        if entries[2, right] == entries[2, 1]:  # what all rare phones share
            counts[:, right] = 0
    made = biphone(SETS, (), counts, min_biphone_count=100, min_monophone_count=20)
    assert (made.pdfs == tree.pdfs).all()
    assert made.tree() == text


def test_full_biphones_by_hand():
    topology = biphone([[1, 2], [3]])
    # phones 1 and 2: behind none, behind 1 or 2, behind 3; then phone 3 so
    assert topology.pdfs[:, 1].tolist() == topology.pdfs[:, 2].tolist() == [[0, 1], [2, 3], [2, 3], [4, 5]]
    assert topology.pdfs[:, 3].tolist() == [[6, 7], [8, 9], [8, 9], [10, 11]]
    free = biphone([[1], [2], [3]], independent=[1])
    assert free.pdfs[:, 1].tolist() == [[0, 1]] * 4
    assert free.pdfs[:, 2].tolist() == [[2, 3], [2, 3], [4, 5], [6, 7]]  # behind none and behind 1 alike
    assert topology.of(np.array([0, 3]), np.array([3, 1])).tolist() == [[6, 7], [4, 5]]
    assert monophone([[1], [2]]).of(np.array([2]), np.array([1])).tolist() == [[0, 1]]


def test_saved_and_loaded(tmp_path):
    (tmp_path / "tokens.txt").write_text("<eps> 0\nA 1\nB 2\n#0 3\n")
    for topology in (monophone([[1], [2]]), biphone([[1], [2]]), ctc(2)):
        topology.save(tmp_path)
        found = load_topology(tmp_path)
        assert found.ctc == topology.ctc and (found.pdfs == topology.pdfs).all()
        assert (tmp_path / "topo").exists() != topology.ctc
    assert found.pdfs.tolist() == [[[-1, -1], [1, 1], [2, 2]]] and found.num_pdfs == 3
    (tmp_path / "topo").write_text("<Topology>")
    with pytest.raises(PyserError, match="topo without tree"):
        load_topology(tmp_path)


def test_transitions_have_one_phone():
    topology = Topology(False, monophone([[1, 2], [3]]).pdfs)
    transitions, table = topology.transitions()
    assert table.tolist() == [[1, 0], [1, 1], [2, 0], [2, 1], [3, 2], [3, 3]]
    assert transitions.pdfs[0, 1:].tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("ContextDependency 1 0", "ContextDependency 3 1", "only monophone and left-biphone"),
    ("EndContextDependency", "", "not a tree in Kaldi's text form"),
    ("CE 4 CE 5", "CE 4 NULL", "phone 3 behind phone 0 has no pdf of class 1"),
    ("TE -1 2 ( CE 4", "TE -1 x ( CE 4", "not a tree in Kaldi's text form"),
])
def test_wrong_trees(old, new, message):
    text = monophone([[1], [2], [3]]).tree()
    assert old in text
    with pytest.raises(PyserError, match=message):
        parse_tree(text.replace(old, new))


def test_wrong_sets():
    for sets in ([[1], [1]], [[2]], []):
        with pytest.raises(PyserError, match="must hold each phone"):
            monophone(sets)
