"""TED-LIUM 2 in its own layout -> data directories, dictionary and text for language models."""

import gzip
import shutil
from pathlib import Path

import pytest
from small_wav import wav

from pyser.corpora.tedlium2 import clean, prepare_tedlium2
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, validate


def test_tedlium_text():
    known = {"they're", "it's", "'cause"}
    assert clean("they 're <unk> here {NOISE} now(2) [NOISE] ' cause it 's", known) == "they're here now 'cause it's"
    # Words are joined where the dictionary has the whole; the utterance's name at the end is none of its words.
    assert clean("google 's ' <sil> it 's (Ann_2009-1.5-3.0)", known) == "google 's it's"
    assert clean("<NA> {COUGH}", known) == ""


def tedlium(root: Path) -> Path:
    for part in ("train", "dev", "test"):
        for talk in ("Bob_2010", "Ann_2009"):
            wav(root / part / "sph" / f"{talk}.sph", 3.0, format="NIST", subtype="PCM_16")
            (root / part / "stm").mkdir(exist_ok=True)
            (root / part / "stm" / f"{talk}.stm").write_text(
                f"{talk} 1 {talk} 0.00 1.25 <o,f0,male> it 's a test\n"
                f"{talk} 1 inter_segment_gap 1.25 1.5 <o,,unknown> ignore_time_segment_in_scoring\n"
                f"{talk} 1 {talk} 1.50 3.4 <o,f0,male> the end <unk>\n")
    (root / "TEDLIUM.152k.dic").write_text("it's IH T S\na AH\na(2) EY\ntest T EH S T\nthe DH AH\nend EH N D\n")
    return root


def test_tedlium(tmp_path):
    out = prepare_tedlium2(tedlium(tmp_path / "TEDLIUM_release2"), tmp_path / "data")
    assert "corpus tedlium2 train: 4 utterances, 0 dropped" in out
    assert read_table(tmp_path / "data/train/text") == {
        "Ann_2009-0000000-0000125": "it's a test", "Ann_2009-0000150-0000300": "the end",
        "Bob_2010-0000000-0000125": "it's a test", "Bob_2010-0000150-0000300": "the end"}
    # (the last segment ends where the recording does)
    assert read_table(tmp_path / "data/train/segments")["Ann_2009-0000150-0000300"] == "Ann_2009 1.5 3"
    assert read_table(tmp_path / "data/train/spk2gender") == {"Ann_2009": "m", "Bob_2010": "m"}
    assert (tmp_path / "data/local/dict/lexicon.txt").read_text() == (
        "!SIL SIL\n<UNK> SPN\na AH\na EY\nend EH N D\nit's IH T S\ntest T EH S T\nthe DH AH\n")
    for part in ("train", "dev", "test"):
        validate(tmp_path / "data" / part, need_text=True)
        assert (tmp_path / f"data/manifests/{part}_supervisions.jsonl.gz").exists()


def test_tedlium_lm_text(tmp_path):
    root = tedlium(tmp_path / "T")
    assert f"{root}/LM: no *.en.gz there; the transcripts are the only text" in prepare_tedlium2(root, tmp_path / "data")
    (root / "LM").mkdir()
    (root / "LM/news.en.gz").write_bytes(gzip.compress(b"it 's the end </s>\n </s>\nthe caf\xe9 's a </s>\n"))
    (root / "LM/crawl.en.gz").write_bytes(gzip.compress("a\u2028 test\n".encode()))
    out = prepare_tedlium2(root, tmp_path / "data")
    assert out.endswith("data/local/lm/text.gz: 2 texts, 3 sentences, 9 words, 22.22% of them outside the dictionary")
    text = gzip.decompress((tmp_path / "data/local/lm/text.gz").read_bytes()).decode()
    assert text == "a test\nit's the end\nthe caf\ufffd 's a\n"
    (root / "LM/news.en.gz").write_bytes((root / "LM/news.en.gz").read_bytes()[:-9])
    with pytest.raises(PyserError, match="LM/news.en.gz: not a whole gzip file"):
        prepare_tedlium2(root, tmp_path / "data")
    assert not list((tmp_path / "data/local/lm").iterdir())  # neither half a text nor the one of before


def test_tedlium_dictionary_with_errors(tmp_path):
    root = tedlium(tmp_path / "T")
    with (root / "TEDLIUM.152k.dic").open("a") as dictionary:
        dictionary.write("<s> SIL\n<sil>\tSIL\n[NOISE] NSN\nempty\n\nbad\tERROR./text2pho.sh: line 3\na(7)\tEY\n#1 W AH N\n")
    out = prepare_tedlium2(root, tmp_path / "data")
    assert "lexicon.txt: 5 words; 3 lines that are no pronunciation left out (e.g. 'empty')" in out
    assert (tmp_path / "data/local/dict/lexicon.txt").read_text() == (
        "!SIL SIL\n<UNK> SPN\na AH\na EY\nend EH N D\nit's IH T S\ntest T EH S T\nthe DH AH\n")


def test_tedlium_drops_and_counts(tmp_path):
    root = tedlium(tmp_path / "T")
    with (root / "train/stm/Bob_2010.stm").open("a") as stm:
        stm.write("Bob_2010 1 Bob_2010 1.3 1.4 <F0_F> <sil> {NOISE}\n"
                  "Bob_2010 1 Bob_2010 0.00 1.25 <F0_F> it 's a test\n"
                  "Bob_2010 1 Bob_2010 7.0 8.0 <F0_F> too late\n"
                  "Bob_2010 1 Bob_2010 2.0 2.5 <NA> ignore_time_segment_in_scoring ?\n"
                  "Bob_2010 1 Bob_2010 2.0 2.5 <F0_F> the test (Bob_2010-2.0-2.5)\n")
    with pytest.raises(PyserError, match="train: 8 utterances, 3 dropped: .*more than --max-dropped 5%"):
        prepare_tedlium2(root, tmp_path / "data")
    out = prepare_tedlium2(root, tmp_path / "data", max_dropped=0.4)
    for reason in ("1 without words (e.g. Bob_2010-0000130-0000140)", "1 outside its recording (e.g. Bob_2010-5)",
                   "1 twice in the stm file (e.g. Bob_2010-0000000-0000125)"):
        assert reason in out
    text = read_table(tmp_path / "data/train/text")
    assert len(text) == 5 and text["Bob_2010-0000200-0000250"] == "the test"
    assert read_table(tmp_path / "data/train/spk2gender")["Bob_2010"] == "f"  # the last line said so
    (root / "test/stm/Ann_2009.stm").write_text("Ann_2009 1 Ann_2009 0.00\n")
    with pytest.raises(PyserError, match="test/stm/Ann_2009.stm:1: expected 'Ann_2009 channel speaker start end"):
        prepare_tedlium2(root, tmp_path / "data", max_dropped=0.4)


def test_tedlium_copies(tmp_path):
    """What is not the whole corpus is said; a copy as .flac, and the files that macOS leaves, are as good as the original."""
    root = tedlium(tmp_path / "T")
    out = prepare_tedlium2(root, tmp_path / "data")
    assert "tedlium2: NOT the full corpus: 4 of 92973 train, 4 of 507 dev, 4 of 1157 test" in out
    before = {path.name: path.read_text() for path in (tmp_path / "data/train").iterdir() if path.name != "wav.scp"}
    wav(root / "train/sph/Bob_2010.flac", 3.0)
    (root / "train/sph/Bob_2010.sph").unlink()
    (root / "LM").mkdir()
    for name in ("train/sph/._Ann_2009.sph", "train/stm/._Ann_2009.stm", "dev/stm/._X.stm", "LM/._n.en.gz"):
        (root / name).write_bytes(b"\0\5\x16\7")
    prepare_tedlium2(root, tmp_path / "data")
    assert {path.name: path.read_text() for path in (tmp_path / "data/train").iterdir() if path.name != "wav.scp"} == before
    assert "Bob_2010.flac" in (tmp_path / "data/train/wav.scp").read_text()


def test_tedlium_missing_parts(tmp_path):
    root = tedlium(tmp_path / "T")
    (root / "dev/sph/Bob_2010.sph").write_bytes(b"NIST_1A\n   1024\n")
    with pytest.raises(PyserError, match="T/dev/sph/Bob_2010.sph: not readable as audio"):
        prepare_tedlium2(root, tmp_path / "data")
    (root / "dev/sph/Bob_2010.sph").unlink()
    with pytest.raises(PyserError, match="T/dev: Bob_2010 has only one of its two files"):
        prepare_tedlium2(root, tmp_path / "data")
    shutil.rmtree(root / "test")
    shutil.copytree(root / "train", root / "dev", dirs_exist_ok=True)
    with pytest.raises(PyserError, match="T/test/sph: no .sph files"):
        prepare_tedlium2(root, tmp_path / "data")
    (root / "TEDLIUM.152k.dic").unlink()
    with pytest.raises(PyserError, match="no TEDLIUM.152k.dic"):
        prepare_tedlium2(root, tmp_path / "data")
