"""Beam search against the sum over all labels of all frames, and decoding of a dump."""

import math
from collections import defaultdict
from itertools import product

import numpy as np
import pytest

from pyser.chain.rescore import Scales, numbers
from pyser.chain.search import Hypothesis
from pyser.encoders import decode as module
from pyser.encoders.decode import BeamConfig, beam_search, decode, greedy, load_search, read_words
from pyser.encoders.untrained import init_speech
from pyser.encoders.vocabulary import Vocabulary
from pyser.errors import PyserError
from pyser.kaldi.tables import MatrixWriter
from pyser.lang.arpa import log_probs
from pyser.lang.ngram import estimate

SMALL = Vocabulary(("<pad>", "|", "A", "B"))
WORDS = ["a", "b", "ab", "aa"]  # (the language model's, in small letters)
WIDE = {"beam_size": 100000, "beam": 1000.0}


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "G.arpa"
    estimate([["a", "b"], ["ab"], ["a", "b", "aa"], ["b", "ab"], []], 2, vocab=["xyz", "<UNK>"]).write_arpa(path)
    return path


def outputs(frames, seed):
    rng = np.random.default_rng(seed)
    values = 1.5 * rng.standard_normal((frames, len(SMALL)))
    return np.float32(values - np.log(np.exp(values).sum(axis=1, keepdims=True)))


def all_word_sequences(values, vocabulary=SMALL):
    """Words -> log of the summed probabilities of the labels that spell them."""
    summed = defaultdict(float)
    for labels in product(range(len(vocabulary)), repeat=len(values)):
        said = vocabulary.decode(labels)
        summed[said] += math.exp(sum(values[t, label] for t, label in enumerate(labels)))
    return {said: math.log(p) for said, p in summed.items()}


@pytest.mark.parametrize("lm_scale, penalty", [(0.0, 0.0), (0.6, 0.0), (1.5, -1.0), (1.0, 2.0)])
def test_beam_search_is_exact(arpa, lm_scale, penalty):
    """The best of all word sequences, for outputs of 1 to 6 frames; the next best is worse by more than rounding."""
    search, line = beam_search(SMALL, arpa, WORDS, BeamConfig(lm_scale, penalty, **WIDE))
    assert line == "4 words"
    found = set()
    for frames, seed in product(range(1, 7), range(4)):
        values = outputs(frames, seed)
        candidates = {said.lower(): p for said, p in all_word_sequences(values).items()
                      if all(word in WORDS for word in said.lower().split())}
        graph = log_probs(arpa, [said.split() for said in candidates])
        scores = Scales(lm_scale, penalty).of(numbers([Hypothesis(said.split(), p, g) for (said, p), g
                                                       in zip(candidates.items(), graph, strict=True)]))
        best, second = np.sort(scores)[::-1][:2]
        assert best - second > 1e-4
        wanted = list(candidates)[int(scores.argmax())].upper()
        assert search(values) == wanted
        found.add(wanted)
    assert len(found) > 1


def test_the_sum_and_not_the_best_labels(arpa):
    """Three ways to say A are together more probable than the one to say nothing."""
    values = np.log(np.array([[0.6, 1e-6, 0.4, 1e-6]] * 2, np.float32))  # 0.64 to 0.36
    assert greedy(SMALL)(values) == ""
    assert beam_search(SMALL, arpa, WORDS, BeamConfig(0.0, **WIDE))[0](values) == "A"


def test_nothing_said(arpa):
    search, _ = beam_search(SMALL, arpa)
    silence = np.log(np.array([[0.97, 0.01, 0.01, 0.01]] * 7, np.float32))
    assert search(silence) == "" == greedy(SMALL)(silence)
    assert search(np.zeros((0, 4), np.float32)) == ""


def test_words_of_the_lexicon(arpa, tmp_path):
    """Words that the LM lacks, symbols, tags and words without spelling are no candidates; spellings are normalised."""
    words = tmp_path / "words.txt"
    words.write_text("<eps> 0\nab 1\n<UNK> 2\nba 3\n?? 4\n#0 5\n<s> 6\n</s> 7\n")
    assert read_words(words) == ["ab", "<UNK>", "ba", "??", "<s>", "</s>"]
    search, line = beam_search(SMALL, arpa, read_words(words))
    assert line == "1 words, without 1 that G.arpa lacks"
    said_b = np.log(np.array([[0.05, 0.05, 0.05, 0.85], [0.85, 0.05, 0.05, 0.05]], np.float32))
    assert search(said_b) == "" and beam_search(SMALL, arpa)[0](said_b) == "B"
    assert beam_search(SMALL, arpa)[1] == "4 words"  # xyz and <UNK> cannot be spelled
    with pytest.raises(PyserError, match="none of its words is in the lexicon"):
        beam_search(SMALL, arpa, ["BA"])


def test_hyphened_words_and_words_spelled_alike(tmp_path):
    """a-b is a word of the LM and two in the transcript; of eight words spelled AB the most probable is not lost."""
    path = tmp_path / "G.arpa"
    alike = ["ab", "Ab", "AB", "aB", "'ab'?", "ab!", "ab.", "ab,"]
    estimate([[alike[-1]]] * 20 + [["a-b"]] * 20 + [[word] for word in alike], 2).write_arpa(path)
    search, line = beam_search(SMALL, path)
    labels = np.eye(4, dtype=np.float32)
    assert search(np.log(labels[[2, 0, 1, 3, 3]] + 0.01)) == "A B"
    assert search(np.log(labels[[2, 0, 3]] + 0.01)) == "AB"
    said = np.log(np.array([[1e-3, 1e-3, 1, 1e-3], [0.3, 0.36, 0.01, 0.35], [1e-3, 1e-3, 1e-3, 1]], np.float32))
    few = tmp_path / "few.arpa"  # without the probable one A B, for which the outputs are, would win
    estimate([["a-b"]] * 20 + [[word] for word in alike[:-1]], 2).write_arpa(few)
    assert (search(said), beam_search(SMALL, few)[0](said)) == ("AB", "A B") and line == "9 words"


def test_compressed_and_bad_language_models(arpa, tmp_path):
    import gzip

    packed = tmp_path / "G.arpa.gz"
    packed.write_bytes(gzip.compress(arpa.read_bytes()))
    values = outputs(6, 0)
    assert beam_search(SMALL, packed)[0](values) == beam_search(SMALL, arpa)[0](values)
    bad = tmp_path / "bad.arpa"
    whole = arpa.read_text()
    for text, why in (("no model\n", "not a language model in ARPA format"), (whole.split("\\2-grams")[0], "not a language"),
                      (whole[:-20], "KenLM cannot read it")):
        bad.write_text(text)
        with pytest.raises(PyserError, match=why):
            beam_search(SMALL, bad)


def test_greedy_where_something_is_missing(arpa, monkeypatch):
    values = outputs(6, 1)
    search, line = load_search(SMALL, None, None, BeamConfig())
    assert search(values) == SMALL.decode(values.argmax(axis=1)) and line == "greedy, without language model"

    def missing(*arguments):
        raise ImportError("No module named 'flashlight'")

    monkeypatch.setattr(module, "beam_search", missing)
    search, line = load_search(SMALL, arpa, None, BeamConfig())
    assert search(values) == SMALL.decode(values.argmax(axis=1)) and "No module named 'flashlight'" in line
    with pytest.raises(PyserError, match="G.arpa: searching with a language model needs flashlight-text"):
        load_search(SMALL, arpa, None, BeamConfig(), spare=False)  # (of models that decide by what they hear)


def test_decode_a_dump(tmp_path):
    """hyp.txt, and with transcripts ref.txt and wer.txt, both in the model's characters."""
    init_speech(tmp_path / "model", "tiny")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/text").write_text("u1 Twenty cats, [LAUGHTER]\nu2 a mat\nu3 cats\n")
    characters = module.load_speech(tmp_path / "model").vocabulary
    with MatrixWriter(f"ark,scp:{tmp_path}/logits.ark,{tmp_path}/logits.scp", compress=False) as writer:
        for utt, said in (("u1", "TWENTY CATTS"), ("u2", "A MAT")):
            labels = [label for one in characters.encode(said) for label in (one, characters.blank)]
            writer.write(utt, np.log(0.9 * np.eye(len(characters))[labels] + 0.1 / len(characters)))
    arguments = tmp_path / "model", tmp_path / "logits.scp"
    line = decode(*arguments, tmp_path / "greedy", tmp_path / "data")
    assert line == "%WER 40.00 [ 2 / 5, 0 ins, 1 del, 1 sub ] (greedy, without language model)"
    assert (tmp_path / "greedy/hyp.txt").read_text() == "u1 TWENTY CATTS\nu2 A MAT\n"
    assert (tmp_path / "greedy/ref.txt").read_text() == "u1 TWENTY CATS\nu2 A MAT\nu3 CATS\n"

    estimate([["twenty", "cats"], ["a", "mat"]], 2).write_arpa(tmp_path / "G.arpa")
    line = decode(*arguments, tmp_path / "beam", tmp_path / "data", tmp_path / "G.arpa", config=BeamConfig(lm_scale=0.5))
    assert line == "%WER 20.00 [ 1 / 5, 0 ins, 1 del, 0 sub ] (4 words, LM scale 0.5, insertion penalty 0)"
    assert (tmp_path / "beam/hyp.txt").read_text() == "u1 TWENTY CATS\nu2 A MAT\n"
    assert decode(*arguments, tmp_path / "alone") == "2 utterances (greedy, without language model)"
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["hyp.txt"]

    with MatrixWriter(f"ark,scp:{tmp_path}/logits.ark,{tmp_path}/logits.scp", compress=False) as writer:
        writer.write("u1", np.zeros((4, 7)))
    with pytest.raises(PyserError, match="u1 has 7 columns"):
        decode(*arguments, tmp_path / "other")
