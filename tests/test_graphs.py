"""Numerator, denominator and decoding graphs: what they accept, and with which weight."""

import math

import pytest
import torch

k2 = pytest.importorskip("k2", reason="needs k2 (default stack)")

from pyser.chain.decode import DecodeConfig, best_words  # noqa: E402
from pyser.errors import PyserError  # noqa: E402
from pyser.lang import graphs, lang  # noqa: E402
from pyser.lang.ngram import BOS, EOS, estimate  # noqa: E402

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


def phone_lm_score(phones):
    """Of a phone sequence, by the n-gram model itself; sentences as phone_lm makes them."""
    first = {"red": "R EH D", "read": "R EH D", "r": "R", "reads": "R IY D Z", "<UNK>": "SPN"}
    text = ["SIL " + (" SIL " if n % 2 else " ").join(first[w] for w in s) + " SIL" for n, s in enumerate(SENTENCES)]
    model = estimate([line.split() for line in text], 2, ["D", "EH", "IY", "R", "SIL", "SPN", "Z"])
    padded = [BOS, *phones.split(), EOS]
    return sum(math.log(model.p([a], b)) for a, b in zip(padded, padded[1:], strict=False))


def test_phone_graph_by_hand(built):
    """Words "r read": states 0 1 before r, 2 3 before read, 4 5 at the end; D EH IY R SIL are 1 to 5."""
    assert graphs.NumeratorCompiler(built).phone_graph(["r", "read"]).splitlines() == [
        "0 1 5 0", "0 2 4 0", "1 2 4 0", "2 3 5 0", "2 6 4 0", "2 8 4 0", "3 6 4 0", "3 8 4 0", "4 5 5 0", "4 10 -1 0",
        "5 10 -1 0", "6 7 2 0", "7 4 1 0", "8 9 3 0", "9 4 1 0", "10"]


@pytest.mark.parametrize(("frames", "phones"), [
    ("R - R EH D", "R R EH D"),
    ("R - R IY IY D", "R R IY D"),
    ("- R SIL R IY - D SIL", "R SIL R IY D SIL"),
    ("SIL SIL R SIL R EH D SIL -", "SIL R SIL R EH D SIL"),
])
def test_numerator_accepts_every_pronunciation(built, frames, phones):
    for graph in graphs.NumeratorCompiler(built).compile(["r read"])[0], graphs.load_denominator(built):
        assert score(graph, built, frames) == pytest.approx(phone_lm_score(phones), abs=1e-5)


# "R R EH D" is one R: a phone twice needs a blank between
@pytest.mark.parametrize("frames", ["R", "R R EH D", "R - R EH Z", "R SIL - SIL R EH D", "R - R IY D Z", "SPN"])
def test_numerator_accepts_nothing_else(built, frames):
    assert score(graphs.NumeratorCompiler(built).compile(["r read"])[0], built, frames) == -math.inf


def test_unknown_words_and_bounded_cache(built):
    compiler = graphs.NumeratorCompiler(built, max_cached=1)
    for _ in range(2):
        compiled = compiler.compile(["red", "zork", "red"])
        assert compiled.shape[0] == 3 and len(compiler._cache) == 1
        for i, (frames, phones) in enumerate([("R EH D", "R EH D"), ("SPN SPN", "SPN"), ("R EH D", "R EH D")]):
            assert score(compiled[i], built, frames) == pytest.approx(phone_lm_score(phones), abs=1e-5)
    assert compiler.min_frames("reads zork") == 5 and compiler.min_frames(" ") is None
    assert compiler.min_frames("r read") == 5 and compiler.min_frames("zork red zork zork") == 7
    with pytest.raises(PyserError, match="without words"):
        compiler.compile([""])


@pytest.mark.parametrize(("frames", "words"), [
    ("SIL R EH D SIL", "red"),  # the homophone that sentences begin with
    ("R SIL R EH D", "r read"),  # the one that follows r
    ("SIL R SIL R IY D - R IY D Z SIL", "r read reads"),
    ("R EH D SIL R EH D SIL", "red red"),
    ("R SIL R EH D SPN", "r read <UNK>"),
])
def test_decoding_graph_finds_the_words(built, frames, words):
    hlg, tokens = graphs.load_hlg(built), lang.read_tokens(built)
    labels = [tokens[{"-": "<eps>"}.get(frame, frame)] for frame in frames.split()]
    outputs = torch.full((len(labels), len(tokens)), -50.0)
    outputs[torch.arange(len(labels)), labels] = 0.0
    assert best_words(hlg, outputs, graphs.read_words(built), DecodeConfig()) == words.split()
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
