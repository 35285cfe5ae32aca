"""The lang directory: disambiguation symbols, symbol tables, the lexicon transducer, the phone LM."""

import math

import pytest

from pyser.errors import PyserError
from pyser.lang.graphs import phone_lm, phone_lm_fst, transcripts
from pyser.lang.lang import add_disambig, lexicon_fst, prepare, read_symbols, read_tokens
from pyser.lang.ngram import BOS, EOS, estimate

LEXICON = {"red": [("R", "EH", "D")], "read": [("R", "EH", "D"), ("R", "IY", "D")], "reads": [("R", "IY", "D", "Z")],
           "r": [("R",)], "<UNK>": [("SPN",)], "!SIL": [("SIL",)]}
TOKENS = {"<eps>": 0, "A": 1, "B": 2, "SIL": 3, "SPN": 4}


def write_lang(directory):
    """What the phone LM needs, without k2."""
    (directory / "lexicon.txt").write_text("!SIL SIL\n<UNK> SPN\na A\nab A B\nab B\n")
    (directory / "tokens.txt").write_text("".join(f"{s} {n}\n" for s, n in {**TOKENS, "#0": 5, "#1": 6}.items()))
    return directory


def test_disambiguation_of_homophones_and_prefixes():
    entries, largest = add_disambig(LEXICON)
    assert largest == 2
    assert entries == [
        ("!SIL", ("SIL",)), ("<UNK>", ("SPN",)),
        ("r", ("R", "#1")),  # begins others
        ("read", ("R", "EH", "D", "#1")), ("read", ("R", "IY", "D", "#1")),  # as red; begins reads
        ("reads", ("R", "IY", "D", "Z")),
        ("red", ("R", "EH", "D", "#2")),  # as read
    ]


def test_no_disambiguation_needed():
    assert add_disambig({"a": [("A",)], "b": [("B", "A")]}) == ([("a", ("A",)), ("b", ("B", "A"))], 0)


def test_lexicon_fst_by_hand():
    half = f"{math.log(0.5):.7g}"
    words = {"<eps>": 0, "ab": 1, "#0": 2}
    assert lexicon_fst([("ab", ("A", "B"))], TOKENS, words, None).splitlines() == [
        f"0 1 0 0 {half}", f"0 2 0 0 {half}", "1 3 1 1 0", "1 4 -1 -1 0", "2 1 3 0 0",
        f"3 1 2 0 {half}", f"3 2 2 0 {half}", "4",
    ]
    assert lexicon_fst([("ab", ("A", "B"))], {**TOKENS, "#0": 5, "#1": 6}, words, "#1").splitlines() == [
        f"0 1 0 0 {half}", f"0 2 0 0 {half}", "1 1 5 2 0", "1 4 1 1 0", "1 5 -1 -1 0", "2 3 3 0 0", "3 1 6 0 0",
        f"4 1 2 0 {half}", f"4 2 2 0 {half}", "5",
    ]


def test_transcripts_of_a_directory_and_of_a_file(tmp_path):
    (tmp_path / "text").write_text("u1 a ab\nu2 ab\n")
    assert transcripts(tmp_path) == [["a", "ab"], ["ab"]]
    assert transcripts(tmp_path / "text") == [["u1", "a", "ab"], ["u2", "ab"]]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_phone_lm_weights_sum_to_one(tmp_path, order):
    lang_dir = write_lang(tmp_path)
    (tmp_path / "text").write_text("u1 a ab a\nu2 ab zork ab\nu3 a a\n")
    assert phone_lm(lang_dir, tmp_path, order).startswith(f"phone LM: order {order}, 4 phones, perplexity ")
    mass, targets = {}, set()
    for line in (lang_dir / "P.fst.txt").read_text().splitlines():
        fields = line.split()
        assert len(fields) in (2, 5)  # a final state, or an arc
        mass[fields[0]] = mass.get(fields[0], 0) + math.exp(-float(fields[-1]))
        if len(fields) == 5:
            assert fields[2] == fields[3] and 1 <= int(fields[2]) <= 4
            targets.add(fields[1])
    assert mass == pytest.approx(dict.fromkeys(mass, 1), abs=1e-5) and targets <= set(mass)


def test_phone_lm_text_by_hand(tmp_path):
    """First pronunciations, unknown words as SPN, silence at the ends and in every second sentence between words."""
    lang_dir = write_lang(tmp_path)
    (tmp_path / "text").write_text("u1 a ab zork\nu2 ab a\n")
    phone_lm(lang_dir, tmp_path, 2)
    sentences = ["SIL A A B SPN SIL".split(), "SIL A B SIL A SIL".split()]
    model = estimate(sentences, 2, ["A", "B", "SIL", "SPN"])
    assert (lang_dir / "P.arpa").read_text() == model.arpa()
    arcs = [line.split() for line in (lang_dir / "P.fst.txt").read_text().splitlines()]
    state, p = "0", 1.0  # the start is <s>; follow the first sentence
    for phone in sentences[0]:
        (arc,) = [a for a in arcs if a[0] == state and len(a) == 5 and a[2] == str(TOKENS[phone])]
        state, p = arc[1], p * math.exp(-float(arc[4]))
    (final,) = [a for a in arcs if a[0] == state and len(a) == 2]
    words = [BOS, *sentences[0], EOS]
    assert p * math.exp(-float(final[1])) == pytest.approx(
        math.prod(model.p([a], b) for a, b in zip(words, words[1:], strict=False)), rel=1e-5)


def test_unigram_phone_lm_by_hand():
    # A 2, B 1, </s> 1: D = 2 / (2 + 2) = 0.5; share 1.5 / 4 over five symbols
    lines = phone_lm_fst(estimate([["A", "A", "B"]], 1, ["A", "B", "SIL", "SPN"]), TOKENS).split("\n")
    costs = [-math.log(p / 4 + 0.075) for p in (1.5, 0.5, 0, 0, 0.5)]
    assert lines == [*(f"0 0 {i} {i} {costs[i - 1]:.7g}" for i in (1, 2, 3, 4)), f"0 {costs[4]:.7g}", ""]


def test_prepared_files(tmp_path):
    pytest.importorskip("k2", reason="needs k2 (default stack)")
    (tmp_path / "lexicon.txt").write_text("".join(f"{w} {' '.join(p)}\n" for w, ps in LEXICON.items() for p in ps))
    assert prepare(tmp_path, tmp_path / "lang").startswith("lang: 6 words, 7 pronunciations, 7 phones -> ")
    tokens = ["<eps>", "D", "EH", "IY", "R", "SIL", "SPN", "Z", "#0", "#1", "#2", "#3"]  # #3 follows silence
    assert read_symbols(tmp_path / "lang/tokens.txt") == {symbol: n for n, symbol in enumerate(tokens)}
    assert list(read_tokens(tmp_path / "lang")) == tokens[:8]
    assert (tmp_path / "lang/words.txt").read_text().split() == (
        "<eps> 0 !SIL 1 <UNK> 2 r 3 read 4 reads 5 red 6 #0 7 <s> 8 </s> 9".split())
    assert (tmp_path / "lang/lexicon_disambig.txt").read_text().splitlines()[2:5] == [
        "r R #1", "read R EH D #1", "read R IY D #1"]
    for content, message in (("<UNK> SPN\na <eps>\n", "may not begin with #"), ("a A\n", "<UNK> is missing")):
        (tmp_path / "lexicon.txt").write_text(content)
        with pytest.raises(PyserError, match=message):
            prepare(tmp_path, tmp_path / "other")
