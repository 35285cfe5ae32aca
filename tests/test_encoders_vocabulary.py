"""CTC vocabularies and the normalisation of transcripts."""

import json

import pytest

from pyser.encoders.vocabulary import ENGLISH, Vocabulary
from pyser.errors import PyserError


@pytest.mark.parametrize("text, expected", [
    ("it's a TEST", "IT'S A TEST"),
    ("Well...I (really) don’t know!", "WELL I REALLY DON'T KNOW"),
    ("<UNK> [LAUGHTER] yes {SMACK} !SIL no", "YES NO"),
    ("route 66 & 5%", "ROUTE SIX SIX AND FIVE PERCENT"),
    ("cafe\u0301 naïve Straße", "CAFE NAIVE STRASSE"),
    ("semi-detached ' '' rock 'n' roll", "SEMI DETACHED ROCK 'N' ROLL"),
    (" \t你好 ", ""),
])
def test_normalise(text, expected):
    assert ENGLISH.normalise(text) == expected
    assert ENGLISH.normalise(expected) == expected


def test_letters_that_a_vocabulary_has_stay():
    german = Vocabulary(("<pad>", "|", *"abcdefghijklmnopqrstuvwxyzäöüß1"))
    assert german.normalise("Größe 10 É") == "größe 1 zero e"


def test_labels():
    labels = ENGLISH.encode("see it")
    assert [ENGLISH.tokens[label] for label in labels] == list("SEE|IT")
    s, e, i, t, bar, blank, end = (ENGLISH.tokens.index(token) for token in ("S", "E", "I", "T", "|", "<pad>", "</s>"))
    assert ENGLISH.decode([blank, s, s, e, blank, e, e, end, bar, bar, blank, bar, i, t, t, blank]) == "SEE IT"
    assert ENGLISH.decode([bar, blank]) == ENGLISH.decode([]) == ""


def test_order_of_wav2vec2_base_960h():
    """Its vocab.json."""
    known = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "A": 7, "O": 8, "N": 9, "I": 10, "H": 11,
             "S": 12, "R": 13, "D": 14, "L": 15, "U": 16, "M": 17, "W": 18, "C": 19, "F": 20, "G": 21, "Y": 22, "P": 23,
             "B": 24, "V": 25, "K": 26, "'": 27, "X": 28, "J": 29, "Q": 30, "Z": 31}
    assert json.loads(ENGLISH.json()) == known


def test_read(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"b": 2, "a": 1, " ": 3, "[PAD]": 0}))
    found = Vocabulary.read(path, 6, 0)
    assert found.tokens == ("[PAD]", "a", "b", " ", "<4>", "<5>") and found.delimiter == " "
    assert found.encode("AB b") == [1, 2, 3, 2] and found.decode([4, 1, 5, 0, 1]) == "aa"


@pytest.mark.parametrize("value, reason", [
    ({"eng": {"a": 1}}, "several languages"), ({"<pad>": 0, "|": 1, "TH": 2}, "'TH'"), ({"<pad>": 0, "A": 1}, "delimiter"),
    ({"<pad>": 0, "|": 9}, "no number below 6"),
])
def test_vocabularies_that_are_refused(tmp_path, value, reason):
    (tmp_path / "vocab.json").write_text(json.dumps(value))
    with pytest.raises(PyserError, match=reason):
        Vocabulary.read(tmp_path / "vocab.json", 6, 0)
