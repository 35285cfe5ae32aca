"""Sentence probabilities of ARPA files against the model they were written from."""

import gzip
import math

import pytest

from pyser.errors import PyserError
from pyser.lang.arpa import log_probs
from pyser.lang.ngram import BOS, EOS, estimate

TEXT = ["a b a c", "a b b", "c a b", "b", "a b a"]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_as_the_model(tmp_path, order):
    model = estimate([line.split() for line in TEXT], order)
    path = tmp_path / "G.arpa.gz"
    path.write_bytes(gzip.compress(model.arpa().encode()))
    said = ["a b a c".split(), "c c b".split(), [], ["b"]]
    theirs = []
    for words in said:
        padded = [BOS, *words, EOS]
        theirs.append(sum(math.log(model.p(padded[:n], padded[n])) for n in range(1, len(padded))))
    assert log_probs(path, said) == pytest.approx(theirs, abs=1e-5)


def test_unknown_words(tmp_path):
    path = tmp_path / "G.arpa"
    path.write_text("\\data\\\nngram 1=4\nngram 2=1\n\n\\1-grams:\n-1 <unk>\n-0.5 a -0.25\n-99 <s>\n-2 </s>\n\n"
                    "\\2-grams:\n-0.125 a <unk>\n\n\\end\\\n")
    for word in ("x", "y"):
        assert log_probs(path, [["a", word]]) == pytest.approx([math.log(10) * (-0.5 - 0.125 - 2)])
    assert log_probs(path, [["a", "a"]]) == pytest.approx([math.log(10) * (-0.5 - 0.25 - 0.5 - 0.25 - 2)])


def test_damaged_files(tmp_path):
    path = tmp_path / "G.arpa"
    with pytest.raises(PyserError, match="no such file"):
        log_probs(path, [["a"]])
    whole = estimate([line.split() for line in TEXT], 2).arpa()
    wrong = whole.replace("\ta\t", "\ta\tx")
    for text, message in (("", "not a language model"), (whole[:-8], "has no end"), (wrong, "no line")):
        path.write_text(text)
        with pytest.raises(PyserError, match=message):
            log_probs(path, [["a"]])
