"""The lang directory: disambiguation symbols, symbol tables, the lexicon transducer, the phone LM."""

import importlib.util
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyser.cli.lang import group
from pyser.errors import PyserError
from pyser.lang import phone_lm as phone_lms
from pyser.lang.graphs import phone_lm, phone_lm_fst, phone_sequences, transcripts
from pyser.lang.lang import add_disambig, k2_text, lexicon_arcs, prepare, read_symbols, read_tokens, topo
from pyser.lang.ngram import BOS, EOS, estimate
from pyser.lang.openfst import read_fst
from pyser.lang.topology import load_topology

GOLDEN = Path(__file__).parent / "golden/lang"
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


def test_lexicon_transducer_by_hand():
    half = f"{math.log(0.5):.7g}"
    words = {"<eps>": 0, "ab": 1, "#0": 2}
    assert k2_text(lexicon_arcs([("ab", ("A", "B"))], TOKENS, words, None)).splitlines() == [
        f"0 1 0 0 {half}", f"0 2 0 0 {half}", "1 3 1 1 0", "1 4 -1 -1 0", "2 1 3 0 0",
        f"3 1 2 0 {half}", f"3 2 2 0 {half}", "4",
    ]
    arcs = lexicon_arcs([("ab", ("A", "B"))], {**TOKENS, "#0": 5, "#1": 6}, words, "#1")
    assert k2_text(arcs).splitlines() == [
        f"0 1 0 0 {half}", f"0 2 0 0 {half}", "1 1 5 2 0", "1 4 1 1 0", "1 5 -1 -1 0", "2 3 3 0 0", "3 1 6 0 0",
        f"4 1 2 0 {half}", f"4 2 2 0 {half}", "5",
    ]


def test_transcripts_of_a_directory_and_of_a_file(tmp_path):
    (tmp_path / "text").write_text("u1 a ab\nu2 ab\n")
    assert list(transcripts(tmp_path)) == [["a", "ab"], ["ab"]]
    assert list(transcripts(tmp_path / "text")) == [["u1", "a", "ab"], ["u2", "ab"]]


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


def write_dict(directory):
    (directory / "lexicon.txt").write_text("".join(f"{w} {' '.join(p)}\n" for w, ps in LEXICON.items() for p in ps))
    return directory


def test_prepared_files(tmp_path):
    line = prepare(write_dict(tmp_path), tmp_path / "lang")
    assert line.startswith(f"lang: 6 words, 7 pronunciations, 7 phones -> {tmp_path}/lang")
    assert (importlib.util.find_spec("k2") is None) == line.endswith("needs k2: run local/install.sh (default stack)")
    tokens = ["<eps>", "SIL", "SPN", "D", "EH", "IY", "R", "Z", "#0", "#1", "#2", "#3"]  # #3 follows silence
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


def test_files_are_those_of_kaldi(tmp_path):
    """tests/golden/lang: what utils/prepare_lang.sh made of dict/, with the chain topology."""
    prepare(GOLDEN / "dict", tmp_path, share_silence_phones=True)
    assert topo(tmp_path) == f"topology: chain, mono, 41 phones, 80 pdfs -> {tmp_path}"
    names = [str(path.relative_to(GOLDEN)) for path in GOLDEN.rglob("*") if path.is_file() and path.suffix != ".fst"]
    for name in names:
        if not name.startswith("dict"):
            assert (tmp_path / name).read_text() == (GOLDEN / name).read_text(), name
    assert len(names) >= 15
    for name in ("L.fst", "L_disambig.fst"):
        ours, theirs = read_fst(tmp_path / name), read_fst(GOLDEN / name)
        assert ours.start == theirs.start and (ours.finals == theirs.finals).all()
        both = [sorted(zip(fst.arcs.tolist(), fst.costs.tolist(), strict=True)) for fst in (ours, theirs)]
        assert both[0] == both[1]


def test_phones_of_lists_and_sets_of_silence(tmp_path):
    write_dict(tmp_path)
    (tmp_path / "silence_phones.txt").write_text("SIL\nSPN\nNSN\n")
    (tmp_path / "nonsilence_phones.txt").write_text("R\nEH IY\nD\nZ\n")
    prepare(tmp_path, tmp_path / "lang")
    assert list(read_tokens(tmp_path / "lang")) == "<eps> SIL SPN NSN R EH IY D Z".split()
    assert (tmp_path / "lang/phones/sets.txt").read_text() == "SIL\nSPN\nNSN\nR\nEH IY\nD\nZ\n"
    assert (tmp_path / "lang/phones/roots.int").read_text().splitlines()[4] == "shared split 5 6"
    (tmp_path / "nonsilence_phones.txt").write_text("R\nEH\nD\nZ\n")
    with pytest.raises(PyserError, match=r"must hold each phone of lexicon.txt and SIL once: IY"):
        prepare(tmp_path, tmp_path / "lang")


def test_topologies_of_a_directory(tmp_path):
    lang_dir = tmp_path / "lang"
    prepare(write_dict(tmp_path), lang_dir)
    topology = load_topology(lang_dir)
    assert topology.ctc and topology.num_pdfs == 8
    assert topo(lang_dir, "chain", "biphone").endswith(f", 7 phones, {2 * 7 * 8} pdfs -> {lang_dir}")
    assert load_topology(lang_dir).pdfs.shape == (8, 8, 2)
    assert topo(lang_dir, "chain", "biphone", ci_silence=True).startswith(
        f"topology: chain, biphone, 7 phones, {2 * (2 + 5 * 6)} pdfs")
    assert topo(lang_dir, "ctc").startswith("topology: ctc, mono, 7 phones, 8 pdfs")
    assert load_topology(lang_dir).ctc and not (lang_dir / "topo").exists()
    with pytest.raises(PyserError, match="ctc with mono"):
        topo(lang_dir, "ctc", "biphone")
    topo(lang_dir)
    prepare(tmp_path, lang_dir)  # perhaps of other phones: the topology is not kept
    assert load_topology(lang_dir).ctc


def test_unsmoothed_phone_lm(tmp_path):
    """As chain-est-phone-lm, of transcripts or of phone numbers; an n-gram never seen has no arc."""
    lang_dir = write_lang(tmp_path)
    (tmp_path / "text").write_text("u1 a ab zork\nu2 ab a\n")
    assert phone_sequences(lang_dir, tmp_path) == ["SIL A A B SPN SIL".split(), "SIL A B SIL A SIL".split()]
    (tmp_path / "phones.txt").write_text("u1 3 1 1 2 4 3\nu2 3 1 2 3 1 3\n")
    assert phone_sequences(lang_dir, tmp_path / "phones.txt") == phone_sequences(lang_dir, tmp_path)
    line = phone_lm(lang_dir, tmp_path, 3, "none", no_prune_order=2, num_extra_lm_states=2)
    expected = phone_lms.estimate([[3, 1, 1, 2, 4, 3], [3, 1, 2, 3, 1, 3]], phone_lms.PhoneLmConfig(3, 2, 2))
    assert (lang_dir / "P.fst.txt").read_text() == expected.text()
    size = f"{expected.num_states} states, {len(expected.arcs)} arcs"
    assert line.startswith(f"phone LM: order 3, 4 phones, {size}, perplexity ")
    assert not (lang_dir / "P.arpa").exists()
    assert phone_lm(lang_dir, tmp_path / "phones.txt", 2, "none").startswith("phone LM: order 2, 4 phones, 5 states, 8 arcs")
    with pytest.raises(PyserError, match="kneser-ney or none"):
        phone_lm(lang_dir, tmp_path, smoothing="katz")
    (tmp_path / "phones.txt").write_text("u1 3 9\n")
    with pytest.raises(PyserError, match=r"'9' is no phone of .*tokens.txt"):
        phone_lm(lang_dir, tmp_path / "phones.txt")


def test_commands(tmp_path):
    """prepare, topo, phone-lm and denominator, one behind the other."""
    def run(*arguments):
        result = CliRunner().invoke(group, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output.splitlines()[-1]

    lang_dir = tmp_path / "lang"
    write_dict(tmp_path)
    (tmp_path / "text").write_text("u1 red reads\nu2 read r\n")
    assert run("prepare", "--share-silence-phones", tmp_path, lang_dir).startswith("lang: 6 words, 7 pronunciations, 7")
    assert run("topo", "--context", "biphone", lang_dir) == f"topology: chain, biphone, 7 phones, 84 pdfs -> {lang_dir}"
    assert run("phone-lm", "--order", "3", "--smoothing", "none", "--no-prune-order", "2", "--num-extra-lm-states", "9",
               lang_dir, tmp_path).startswith("phone LM: order 3, 7 phones, ")
    assert run("denominator", lang_dir, tmp_path / "den").endswith(f" arcs, 84 pdfs -> {tmp_path}/den")
    assert CliRunner().invoke(group, ["word-lm", str(lang_dir)]).exit_code == 2  # neither sources nor --arpa
    for option in ("--no-prune-order", "--num-extra-lm-states"):
        refused = CliRunner().invoke(group, ["phone-lm", option, "3", str(lang_dir), str(tmp_path)])
        assert refused.exit_code == 2 and "are for --smoothing none" in refused.output
    assert run("phone-lm", lang_dir, tmp_path).startswith("phone LM: order 2, 7 phones, perplexity ")
    refused = CliRunner().invoke(group, ["topo", "--context", "biphone", "--min-biphone-count", "9", str(lang_dir)])
    assert refused.exit_code == 2 and "--min-biphone-count needs --tie" in refused.output
