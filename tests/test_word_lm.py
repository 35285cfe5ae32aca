"""The word LM of a lang directory: its sources, its vocabulary, and the files it writes."""

import gzip

import pytest
from click.testing import CliRunner

from pyser.cli.lang import group
from pyser.errors import PyserError
from pyser.lang.graphs import transcripts, word_lm
from pyser.lang.ngram import estimate

WORDS = ("<eps>", "!SIL", "<UNK>", "a", "b", "c", "d", "#0", "<s>", "</s>")


@pytest.fixture
def lang_dir(tmp_path):
    (tmp_path / "lang").mkdir()
    (tmp_path / "lang/words.txt").write_text("".join(f"{word} {n}\n" for n, word in enumerate(WORDS)))
    (tmp_path / "train").mkdir()
    (tmp_path / "train/text").write_text("u1 a b\nu2 a zork b\n")
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"<s> a c </s>\n\n #0 c </s>\n"))
    return tmp_path / "lang"


def test_text_files_may_be_packed_and_marked(lang_dir, tmp_path):
    assert list(transcripts(tmp_path / "text.gz")) == [["a", "c"], ["#0", "c"]]
    (tmp_path / "plain").write_text("a \u2028b\n<s> </s>\nc </s>")
    assert list(transcripts(tmp_path / "plain")) == [["a", "b"], ["c"]]  # lines end at \n alone
    (tmp_path / "latin").write_bytes(b"a\n\xe9\n")
    with pytest.raises(PyserError, match="latin:2: not UTF-8"):
        list(transcripts(tmp_path / "latin"))
    (tmp_path / "cut.gz").write_bytes((tmp_path / "text.gz").read_bytes()[:-6])
    (tmp_path / "no.gz").write_text("a b\n")
    for name in ("cut", "no"):
        with pytest.raises(PyserError, match=f"{name}.gz: not a whole gzip file"):
            list(transcripts(tmp_path / f"{name}.gz"))


def test_a_model_to_rescore_with(lang_dir, tmp_path):
    (tmp_path / "dev").write_text("a c\na zork\n")
    sources = [str(tmp_path / "train"), str(tmp_path / "text.gz")]
    line = word_lm(lang_dir, sources, 2, min_counts=(1, 2), dev=tmp_path / "dev", out=tmp_path / "lm/big.arpa")
    text = [["a", "b"], ["a", "<UNK>", "b"], ["a", "c"], ["<UNK>", "c"]]
    model = estimate(text, 2, "abcd", (1, 2))  # d occurs nowhere; !SIL and #0 are no words
    assert (tmp_path / "lm/big.arpa").read_text() == model.arpa() and model.vocab == ("<UNK>", "a", "b", "c", "d")
    assert [path.name for path in lang_dir.iterdir()] == ["words.txt"]
    perplexity = model.perplexity([["a", "c"], ["a", "zork"]])
    assert line == (f"word LM: order 2, 5 words, 7 + 3 n-grams; perplexity of {tmp_path}/dev {perplexity:.1f}, "
                    "16.67% unknown words")


def test_the_command(lang_dir, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(group, ["word-lm", *map(str, arguments)])

    pytest.importorskip("kaldilm")
    done = run("--order", 2, "--min-counts", "1,2", lang_dir, tmp_path / "train", tmp_path / "text.gz")
    assert done.output == "word LM: order 2, 5 words, 7 + 3 n-grams\n"
    assert (lang_dir / "G.fst.txt").stat().st_size and "\nngram 2=3\n" in (lang_dir / "G.arpa").read_text()
    for wrong in (("--min-counts", "1,x", lang_dir, tmp_path / "train"), ("--arpa", "x", "--out", "y", lang_dir),
                  ("--arpa", "x", "--min-counts", "1", lang_dir), ("--out", "y", lang_dir)):
        assert run(*wrong).exit_code == 2
