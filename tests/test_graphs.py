"""Numerator, denominator and decoding graphs: what they accept, and with which weight."""

import gzip
import itertools
import math
import shutil

import numpy as np
import pytest
import torch
from graph_paths import score as path_score

k2 = pytest.importorskip("k2", reason="needs k2 (default stack)")

from pyser.chain.search import DecodeConfig, k2_graph, load_search  # noqa: E402
from pyser.errors import PyserError  # noqa: E402
from pyser.lang import graphs, lang  # noqa: E402
from pyser.lang.acceptor import from_text  # noqa: E402
from pyser.lang.denominator import expand  # noqa: E402
from pyser.lang.hlg import transducer  # noqa: E402
from pyser.lang.ngram import BOS, EOS, estimate  # noqa: E402
from pyser.lang.topology import ctc, load_topology  # noqa: E402

ENGINES = ("k2", "kaldi-decoder")
LEXICON = "!SIL SIL\n<UNK> SPN\nr R\nread R EH D\nread R IY D\nreads R IY D Z\nred R EH D\n"
TEXT = ["red", "red r read", "r read reads", "red red", "r read zork"]
SENTENCES = [[word.replace("zork", "<UNK>") for word in line.split()] for line in TEXT]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("graphs")
    (root / "lexicon.txt").write_text(LEXICON)
    (root / "text").write_text("".join(f"u{n} {line}\n" for n, line in enumerate(TEXT)))
    lang.prepare(root, root / "lang")
    graphs.phone_lm(root / "lang", root, 2)
    assert graphs.word_lm(root / "lang", [str(root)], 2).startswith("word LM: order 2, 5 words, ")
    graphs.decoding_graph(root / "lang")
    return root / "lang"


def score(graph, lang_dir, frames, best=False):
    """Log weight of all paths (or of the best) that take exactly these frames, -inf if there is none."""
    tokens, arcs = lang.read_tokens(lang_dir), graph.arcs.values().tolist()
    scores = graph.scores.tolist()
    alpha = {0: 0.0}
    for label in [*(tokens[{"-": "<eps>"}.get(f, f)] for f in frames.split()), -1]:
        reached = {}
        for (source, target, found, _), weight in zip(arcs, scores, strict=True):
            if found == label and source in alpha:
                reached.setdefault(target, []).append(alpha[source] + weight)
        alpha = {s: max(w) if best else torch.tensor(w, dtype=torch.double).logsumexp(0).item() for s, w in reached.items()}
    return alpha[graph.shape[0] - 1] if alpha else -math.inf


@pytest.mark.parametrize(("frames", "words"), [
    ("SIL R EH D SIL", "red"),  # the homophone that sentences begin with
    ("R SIL R EH D", "r read"),  # the one that follows r
    ("SIL R SIL R IY D - R IY D Z SIL", "r read reads"),
    ("R EH D SIL R EH D SIL", "red red"),
    ("R SIL R EH D SPN", "r read <UNK>"),
])
def test_decoding_graph_finds_the_words(built, frames, words):
    hlg, tokens = k2_graph(graphs.load_hlg(built)), lang.read_tokens(built)
    labels = [tokens[{"-": "<eps>"}.get(frame, frame)] for frame in frames.split()]
    outputs = torch.full((len(labels), len(tokens)), -50.0)
    outputs[torch.arange(len(labels)), labels] = 0.0
    for engine in ENGINES:
        assert load_search(built, DecodeConfig(), engine)(outputs.numpy())[0].words == words.split()
    model, padded = estimate(SENTENCES, 2), [BOS, *words.split(), EOS]
    grammar = sum(math.log(model.p([a], b)) for a, b in zip(padded, padded[1:], strict=False))
    silences = len(padded) - 1  # before, between and after the words, there or not: one half each
    assert score(hlg, built, frames, best=True) == pytest.approx(grammar + silences * math.log(0.5), abs=1e-4)


def test_missing_and_broken_graph(built, tmp_path):
    with pytest.raises(PyserError, match="pyser lang graph"):
        graphs.load_hlg(tmp_path)
    (tmp_path / "HLG.safetensors").write_bytes((built / "HLG.safetensors").read_bytes()[:200])
    with pytest.raises(PyserError, match="not a whole graph"):
        graphs.load_hlg(tmp_path)


@pytest.mark.parametrize("context", ["mono", "biphone"])
def test_decoding_graph_of_the_chain_topology(built, tmp_path, context):
    """The first frame of a phone has its entry pdf, the others its loop pdf, and each frame weighs one half."""
    shutil.copytree(built, tmp_path / "lang")
    lang.topo(tmp_path / "lang", "chain", context)
    assert graphs.decoding_graph(tmp_path / "lang").startswith("decoding graph: ")
    hlg, topology = k2_graph(graphs.load_hlg(tmp_path / "lang")), load_topology(tmp_path / "lang")
    tokens = lang.read_tokens(built)
    for spoken, words in (("SIL SIL R SIL R EH D SIL", "r read"), ("SIL R R SIL R IY IY D R IY D Z SIL SIL", "r read reads")):
        phones, pdfs, left = spoken.split(), [], 0
        for n, phone in enumerate(phones):
            first = n == 0 or phones[n - 1] != phone
            if first and n:
                left = tokens[phones[n - 1]]
            pdfs.append(int(topology.of(np.array([left]), np.array([tokens[phone]]))[0, 0 if first else 1]))
        outputs = torch.full((len(pdfs), topology.num_pdfs), -50.0)
        outputs[torch.arange(len(pdfs)), pdfs] = 0.0
        for engine in ENGINES:
            assert load_search(tmp_path / "lang", DecodeConfig(), engine)(outputs.numpy())[0].words == words.split()
        model, padded = estimate(SENTENCES, 2), [BOS, *words.split(), EOS]
        grammar = sum(math.log(model.p([a], b)) for a, b in zip(padded, padded[1:], strict=False))
        halves = len(pdfs) + len(padded) - 1
        assert pdf_score(hlg, pdfs) == pytest.approx(grammar + halves * math.log(0.5), abs=1e-4)


def pdf_score(graph, pdfs):
    """Log weight of the best path that takes exactly these pdfs."""
    arcs, scores, alpha = graph.arcs.values().tolist(), graph.scores.tolist(), {0: 0.0}
    for label in [*pdfs, -1]:
        reached = {}
        for (source, target, found, _), weight in zip(arcs, scores, strict=True):
            if found == label and source in alpha:
                reached[target] = max(reached.get(target, -math.inf), alpha[source] + weight)
        alpha = reached
    return alpha.get(graph.shape[0] - 1, -math.inf)


def test_transducer_of_ctc_is_k2s():
    """Symbol by symbol: the same pdfs with the same phones."""
    ours, phones = transducer(ctc(3))
    theirs = k2.ctc_topo(3)
    for frames in itertools.product(range(4), repeat=4):
        said = []
        for table, outputs, shift in ((ours.arcs, phones, 1), (theirs.arcs.values()[:, :3], theirs.aux_labels, 0)):
            ways = {0: ()}
            for pdf in frames:
                ways = {target: (*ways[source], *[out][: out > 0])
                        for (source, target, label), out in zip(table.tolist(), outputs.tolist(), strict=True)
                        if source in ways and label == pdf + shift}
            said.append(set(ways.values()))
        assert said[0] == said[1] == {tuple(p for p, _ in itertools.groupby(frames) if p)}


def test_native_denominator_is_k2s(built):
    """Without minimization: T o P of k2 and the expansion of P weigh the same."""
    text = (built / "P.fst.txt").read_text()
    phone_lm = k2.add_epsilon_self_loops(k2.arc_sort(k2.Fsa(k2.Fsa.from_openfst(text, acceptor=False).arcs)))
    topology = k2.ctc_topo(max(lang.read_tokens(built).values()), modified=False)
    theirs = k2.connect(k2.compose(topology, phone_lm, treat_epsilons_specially=False))
    acceptor = from_text(text)
    ours = expand(acceptor, load_topology(built)).graph()
    for frames in ("R - R EH D", "R - R IY IY D", "- R SIL R IY - D SIL", "R R SIL SPN"):
        labels = [lang.read_tokens(built)[{"-": "<eps>"}.get(frame, frame)] for frame in frames.split()]
        assert path_score(ours, labels) == pytest.approx(score(theirs, built, frames), abs=1e-4)


def test_word_lm_of_a_file(built, tmp_path):
    shutil.copytree(built, tmp_path / "lang")
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress((built / "G.arpa").read_bytes()))
    assert graphs.word_lm(tmp_path / "lang", [], 2, tmp_path / "lm.arpa.gz") == f"word LM: order 2 of {tmp_path}/lm.arpa.gz"
    for name in ("G.arpa", "G.fst.txt"):
        assert (tmp_path / "lang" / name).read_text() == (built / name).read_text()
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress((built / "G.arpa").read_bytes())[:-20])
    with pytest.raises(PyserError, match="not a whole gzip file"):
        graphs.word_lm(tmp_path / "lang", [], 2, tmp_path / "lm.arpa.gz")
    with pytest.raises(PyserError, match="no such file"):
        graphs.word_lm(tmp_path / "lang", [], 2, tmp_path / "none.arpa")
