"""Damaged trees, FSTs and phone LMs: a PyserError or a value, never another exception."""

import random

import pytest
from graph_paths import GOLDEN, text_of

from pyser.errors import PyserError
from pyser.lang.acceptor import from_text
from pyser.lang.openfst import read_fst
from pyser.lang.topology import parse_tree

WORDS = ["0", "-1", "2", "99999", "123456789012", "(", ")", "[", "]", "TE", "SE", "CE", "NULL", "x", "1e400", ""]


def damaged(words, rng):
    words = list(words)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(words))
        words[place : place + rng.choice([0, 1, 1, 3])] = rng.choices(WORDS, k=rng.choice([0, 1, 1, 2]))
    return words


@pytest.mark.parametrize(("parse", "text", "separator"), [
    (parse_tree, (GOLDEN / "tree.txt").read_text(), None),
    (parse_tree, text_of(GOLDEN / "biphone_tree.txt.gz")[:3000] + " EndContextDependency", None),
    (from_text, "\n".join(text_of(GOLDEN / "phone_lm.txt.gz").splitlines()[:30]), "\n"),
], ids=["monophone tree", "part of a biphone tree", "phone LM"])
def test_texts(parse, text, separator):
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        lines = text.split(separator)
        if separator:
            place = rng.randrange(len(lines))
            lines[place] = "\t".join(damaged(lines[place].split("\t"), rng))
        else:
            lines = damaged(lines, rng)
        try:
            parse((separator or " ").join(lines))
        except PyserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


def test_fst_files(tmp_path):
    rng = random.Random(0)
    data = (GOLDEN.parent / "lang/L.fst").read_bytes()
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            place = rng.choice([rng.randrange(120), rng.randrange(len(data))])
            changed[place] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        (tmp_path / "a.fst").write_bytes(changed[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        try:
            read_fst(tmp_path / "a.fst").acceptor()
        except PyserError:
            refused += 1
    assert refused > 100
