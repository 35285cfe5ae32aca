"""Reading pronunciation lexicons, and making the one of a corpus."""

import pytest

from pyser.errors import PyserError
from pyser.lang.lexicon import make_dict, read_lexicon, words_of, write_lexicon

LEXICON = """;;; comment
# another
hello HH AH L OW
hello(2) HH EH L OW  # rare
hello(3) HH AH L OW
the DH AH
the(2) DH IY
Bill B IH L
bill B IY L
"""


@pytest.fixture
def corpus(tmp_path):
    """A lexicon file, and two data directories: 10 running words, 3 of them (zork twice, xyzzy) without pronunciation."""
    (tmp_path / "lexicon.txt").write_text(LEXICON)
    for name, text in (("train", "u1 hello the the\nu2 zork THE zork\n"), ("test", "u3 xyzzy bill BILL Hello\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text(text)
    return tmp_path


def make(corpus, **options):
    return make_dict(str(corpus / "lexicon.txt"), [corpus / "train", corpus / "test"], corpus / "dict", **options)


def test_variants_and_comments(corpus):
    assert read_lexicon(corpus / "lexicon.txt") == {
        "hello": [("HH", "AH", "L", "OW"), ("HH", "EH", "L", "OW")],  # (3) says nothing new
        "the": [("DH", "AH"), ("DH", "IY")],
        "Bill": [("B", "IH", "L")],
        "bill": [("B", "IY", "L")],
    }


def test_parentheses_that_are_no_variant(tmp_path):
    (tmp_path / "lexicon.txt").write_text("(2) T UW\n(uh) AH\n")
    assert read_lexicon(tmp_path / "lexicon.txt") == {"(2)": [("T", "UW")], "(uh)": [("AH",)]}


def test_write_read_round_trip(tmp_path):
    lexicon = {"b": [("B", "IY")], "a": [("EY",), ("AH",)]}
    write_lexicon(tmp_path / "lexicon.txt", lexicon)
    assert (tmp_path / "lexicon.txt").read_text() == "a EY\na AH\nb B IY\n"
    assert read_lexicon(tmp_path / "lexicon.txt") == lexicon


def test_wrong_lexicons(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text("a EY\nb\n")
    with pytest.raises(PyserError, match=r"lexicon.txt:2: 'b' has no phones"):
        read_lexicon(path)
    path.write_text("# nothing\n\n")
    with pytest.raises(PyserError, match="no words in it"):
        read_lexicon(path)
    with pytest.raises(PyserError, match="no such file"):
        read_lexicon(tmp_path / "none.txt")


def test_words_of(corpus):
    counts = words_of([corpus / "train", corpus / "test"])
    assert counts == {"hello": 1, "the": 2, "zork": 2, "THE": 1, "xyzzy": 1, "bill": 1, "BILL": 1, "Hello": 1}


def test_make_dict_counts_oov_words_and_folds_case(corpus):
    line = make(corpus, max_oov=0.3)  # 3 of 10: not more
    assert line == "lexicon: 8 words, 2 without pronunciation (3 of 10 running words) -> <UNK>: zork xyzzy"
    assert (corpus / "dict/lexicon.txt").read_text().splitlines() == [
        "!SIL SIL",
        "<UNK> SPN",
        "BILL B IH L",  # no such spelling: the first that differs in case only
        "Hello HH AH L OW", "Hello HH EH L OW",
        "THE DH AH", "THE DH IY",
        "bill B IY L",  # its own entry
        "hello HH AH L OW", "hello HH EH L OW",
        "the DH AH", "the DH IY",
    ]


def test_whole_source_in_the_transcripts_case(corpus):
    (corpus / "train/text").write_text("u1 HELLO\nu2 XYZZY HELLO\n")
    line = make_dict(str(corpus / "lexicon.txt"), [corpus / "train"], corpus / "dict", max_oov=0.5, whole=True)
    assert line.endswith(f"-> <UNK>: XYZZY; 3 words with the rest of {corpus}/lexicon.txt")
    lexicon = read_lexicon(corpus / "dict/lexicon.txt")
    assert lexicon.keys() == {"!SIL", "<UNK>", "HELLO", "THE", "BILL"} and lexicon["THE"] == [("DH", "AH"), ("DH", "IY")]
    (corpus / "train/text").write_text("u1 hello THE\n")
    make_dict(str(corpus / "lexicon.txt"), [corpus / "train"], corpus / "dict", whole=True)
    assert read_lexicon(corpus / "dict/lexicon.txt").keys() == {"!SIL", "<UNK>", "hello", "THE", "the", "Bill", "bill"}


def test_max_oov_names_the_words(corpus):
    with pytest.raises(PyserError, match=r"3 of 10 running words\) -> <UNK>: zork xyzzy: more than --max-oov 29%"):
        make(corpus, max_oov=0.29)
    assert not (corpus / "dict").exists()


def test_reserved_words_are_not_oov(corpus):
    (corpus / "train/text").write_text("u1 hello <UNK> !SIL\n")
    (corpus / "test/text").write_text("u3 the\n")
    assert make(corpus, max_oov=0.0) == "lexicon: 4 words, 0 without pronunciation (0 of 4 running words)"
    assert read_lexicon(corpus / "dict/lexicon.txt")["<UNK>"] == [("SPN",)]


def test_no_words(corpus):
    (corpus / "train/text").write_text("")
    with pytest.raises(PyserError, match="no words"):
        make_dict(str(corpus / "lexicon.txt"), [corpus / "train"], corpus / "dict")
