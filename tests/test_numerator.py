"""Numerators against chain-make-num-fst-e2e, and by hand."""

import math

import numpy as np
import pytest
from graph_paths import DENOMINATORS, GOLDEN, differences, draw, score, text_of

from pyser.chain.graph import Graph
from pyser.errors import PyserError
from pyser.lang.denominator import denominator, normalization
from pyser.lang.lang import read_symbols, read_tokens
from pyser.lang.lexicon import read_lexicon
from pyser.lang.numerator import NumeratorCompiler, phone_acceptor
from pyser.lang.phone_lm import PhoneLmConfig, estimate
from pyser.lang.topology import biphone, ctc, monophone, parse_tree, read_tree

LANG = GOLDEN.parent / "lang"
TOKENS = {symbol: number for symbol, number in read_symbols(LANG / "phones.txt").items() if not symbol.startswith("#")}


@pytest.fixture(scope="module")
def mono():
    graph = Graph.from_text(text_of(DENOMINATORS / "den_mono.txt.gz"))
    return NumeratorCompiler(read_lexicon(LANG / "dict/lexicon.txt"), TOKENS, read_tree(GOLDEN / "tree.txt"),
                             normalization(graph))


def kaldi_numerators():
    """Utterance, transcript, and Kaldi's graph (None: empty)."""
    words = {number: symbol for symbol, number in read_symbols(LANG / "words.txt").items()}
    texts = {key: " ".join(words[int(number)] for number in numbers)
             for key, *numbers in (line.split() for line in (GOLDEN / "text.int").read_text().splitlines())}
    for block in (GOLDEN / "num_fst_e2e.txt").read_text().split("\n\n"):
        key, _, text = block.strip().partition("\n")
        if key:
            yield key.strip(), texts[key.strip()], Graph.from_text(text) if text.strip() else None


def test_as_chain_make_num_fst_e2e(mono):
    seen = {}
    for key, text, theirs in kaldi_numerators():
        ours = seen[key] = mono.compile(text)
        if theirs is None:
            assert ours is None
        else:
            assert differences(theirs, ours, num=6, stop=1.0).max() < 1e-4, key  # six digits in their text
    assert len(seen) == 12 and [key for key, graph in seen.items() if graph is None] == ["spk1-u2"]


@pytest.mark.parametrize(("number", "lexicon"), [
    (0, {"THIS": [("DH", "IH", "S")], "IS": [("IH", "Z")], "EIGHTEEN": [("EY", "T", "IY", "N")],
         "EIGHTY": [("EY", "T", "IY")]}),
    (1, {"BYE": [("B", "AY")]}),
])
def test_biphones_as_chain_make_num_fst_e2e(number, lexicon):
    weights = normalization(Graph.from_text(text_of(DENOMINATORS / "den_biphone.txt.gz")))
    compiler = NumeratorCompiler(lexicon, TOKENS, parse_tree(text_of(GOLDEN / "biphone_tree.txt.gz")), weights)
    theirs = Graph.read(GOLDEN / f"biphone_num_fst_seq{number}.txt")
    assert differences(theirs, compiler.compile(" ".join(lexicon)), stop=1.0).max() < 1e-5


LEXICON = {"<UNK>": [("C",)], "a": [("A",)], "ab": [("A", "B"), ("B",)], "cc": [("C", "C")]}
SMALL = {"<eps>": 0, "SIL": 1, "A": 2, "B": 3, "C": 4}
LM = estimate([[1, 2, 1, 2, 3, 1], [1, 3, 1], [1, 2, 2, 3], [2, 4, 4, 1]], PhoneLmConfig(2, 2, 0))
HALF = round(math.log(0.5) * 1024) / 1024


def small(topology, **options):
    return NumeratorCompiler(LEXICON, SMALL, topology, denominator(LM, topology), **options)


def test_phones_by_hand():
    phones = phone_acceptor(["a", "ab"], LEXICON, SMALL)
    assert [tuple(arc) for arc in phones.arcs.tolist()] == [
        (0, 1, 1), (0, 2, 2), (1, 2, 2), (2, 3, 1), (2, 6, 2), (3, 6, 2), (6, 4, 3), (2, 4, 3), (3, 4, 3), (4, 5, 1)]
    assert score(phones, [2, 3]) == pytest.approx(3 * HALF) == score(phones, [1, 2, 1, 2, 3, 1])
    assert score(phones, [2]) == score(phones, [1, 1, 2, 3]) == -np.inf


@pytest.mark.parametrize("topology", [monophone([[1], [2], [3], [4]]), biphone([[1], [2], [3], [4]]), ctc(4)],
                         ids=["mono", "biphone", "ctc"])
def test_part_of_the_denominator(topology):
    """Each path weighs what it weighs in the denominator, and three silences there or not."""
    compiler, whole = small(topology), denominator(LM, topology)
    graph = compiler.compile("a ab")
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels = draw(graph, rng)
        assert score(graph, labels) == pytest.approx(score(whole, labels) + 3 * HALF, abs=1e-9)
    assert graph is compiler.compile("a ab")


def test_shortest_and_empty():
    chain, blanks = small(monophone([[1], [2], [3], [4]])), small(ctc(4))
    assert chain.min_frames("a ab") == 2 and blanks.min_frames("a ab") == 2
    assert chain.min_frames("cc") is None and chain.min_frames(" ") is None  # the phone LM never begins with C
    assert chain.min_frames("a cc") == 4 and blanks.min_frames("a cc") == 5  # only silence follows C at the end
    assert chain.min_frames("a zork") == 3 and blanks.min_frames("a zork zork") == 5
    with pytest.raises(PyserError, match="u2: the transcript has no numerator graph, its phones have an n-gram"):
        chain.graphs(["u1", "u2"], ["a", "cc"])
    with pytest.raises(PyserError, match="u1: the transcript has no numerator graph, it has no words"):
        chain.graphs(["u1"], [""])


def test_cache_is_bounded():
    compiler = small(ctc(4), max_arcs=30)
    first = compiler.compile("a")
    assert compiler.compile("a") is first and compiler.compile("a ab a ab") is not compiler.compile("a ab a ab")


def test_from_a_directory(tmp_path):
    (tmp_path / "lexicon.txt").write_text("<UNK> C\na A\nab A B\nab B\ncc C C\n")
    (tmp_path / "tokens.txt").write_text("".join(f"{s} {n}\n" for s, n in {**SMALL, "#0": 5}.items()))
    biphone([[1], [2], [3], [4]]).save(tmp_path)
    weights = denominator(LM, biphone([[1], [2], [3], [4]]))
    compiler = NumeratorCompiler.load(tmp_path, weights)
    assert compiler.tokens == read_tokens(tmp_path)
    ours, theirs = compiler.compile("a ab"), small(biphone([[1], [2], [3], [4]])).compile("a ab")
    assert (ours.arcs == theirs.arcs).all() and (ours.weights == theirs.weights).all()
