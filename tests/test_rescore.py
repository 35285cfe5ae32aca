"""N-best lists on disk, under another language model and under scales chosen by word errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyser.chain.mbr import edit_distances, expected_errors
from pyser.chain.rescore import Scales, best, exchange_lm, read_nbest, rescore, tune, write_nbest, write_results
from pyser.chain.search import Hypothesis
from pyser.errors import PyserError
from pyser.lang.arpa import log_probs
from pyser.lang.ngram import estimate
from pyser.scoring.wer import word_errors

# The acoustic score is for the wrong words of u1 and the right ones of u2; the graph's the other way round.
LISTS = {
    "u1": [Hypothesis(["b", "c"], -10.0, -8.0), Hypothesis(["a"], -12.0, -6.5), Hypothesis([], -30.0, -1.0)],
    "u2": [Hypothesis(["b"], -4.0, -9.0), Hypothesis(["c", "c"], -9.0, -6.0)],
}
REFS = {"u1": "a", "u2": "b"}


def test_score_is_kaldis():
    """lattice-scale and lattice-add-penalty."""
    assert Scales(1.3, 0.5).of([Hypothesis(["a", "b"], -3.0, -5.0)]) == pytest.approx(-3 + 1.3 * (-5 - 0.5 * 2))


def test_files(tmp_path):
    write_nbest(tmp_path, LISTS)
    assert read_nbest(tmp_path) == LISTS
    assert (tmp_path / "nbest/words").read_text() == "u1-1 b c\nu1-2 a\nu1-3\nu2-1 b\nu2-2 c c\n"
    assert (tmp_path / "nbest/lm_cost").read_text().splitlines()[1] == "u1-2 6.5000"
    (tmp_path / "nbest/ac_cost").write_text("u1-1 3\n")
    with pytest.raises(PyserError, match="do not go together"):
        read_nbest(tmp_path)
    with pytest.raises(PyserError, match="--nbest"):
        read_nbest(tmp_path / "none")


def test_scales_of_fewest_errors():
    """At 1.0 only u2 is right; more than 4/3 on u1 and less than 5/3 on u2 gets both."""
    chosen, errors = tune(LISTS, REFS)
    assert 4 / 3 < chosen.lm_scale < 5 / 3 or chosen.insertion_penalty
    assert errors.total == 0 and errors.n == 2
    assert tune({"u1": LISTS["u1"][:1], "u2": LISTS["u2"][:1]}, REFS)[0] == Scales()  # nothing to choose: no change


def test_minimum_bayes_risk():
    """Each of three hypotheses that share a word is less probable than the fourth."""
    lists = [Hypothesis(words.split(), score, 0.0)
             for words, score in (("x y", -1.0), ("a b", -1.1), ("a c", -1.2), ("a", -1.3))]
    assert best(lists, Scales()).words == ["x", "y"]
    assert best(lists, Scales(posterior_scale=1.0)).words[0] == "a"
    assert best(lists, Scales(posterior_scale=50.0)).words == ["x", "y"]  # one hypothesis has all the probability
    assert best(lists[:1], Scales(posterior_scale=1.0)) == lists[0]
    chosen, errors = tune({"u": lists}, {"u": "a b"})
    assert chosen.posterior_scale and errors.total == 0
    assert tune({"u": lists}, {"u": "x y"})[0] == Scales()


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=7), min_size=1, max_size=6), st.floats(0.1, 2))
def test_expected_errors_by_enumeration(sentences, scale):
    distances = edit_distances(sentences)
    for row, first in zip(distances, sentences, strict=True):
        assert row.tolist() == [word_errors(first, second).total for second in sentences]
    scores = np.linspace(-3, 1, len(sentences))
    weights = [math.exp(scale * score) for score in scores]
    expected = [sum(w * word_errors(one, other).total for w, other in zip(weights, sentences, strict=True)) / sum(weights)
                for one in sentences]
    assert expected_errors(scores, distances, scale) == pytest.approx(expected)


def test_other_language_model(tmp_path):
    small, large = (estimate([["a", "b"], ["b", "c"], ["c"], *more], 2) for more in ([], [["a"]] * 5))
    for name, model in (("small", small), ("large", large)):
        (tmp_path / name).write_text(model.arpa())
    found = exchange_lm(LISTS, tmp_path / "small", tmp_path / "large")
    for utt, hypotheses in LISTS.items():
        for before, after in zip(hypotheses, found[utt], strict=True):
            (old,), (new,) = (log_probs(tmp_path / name, [before.words]) for name in ("small", "large"))
            assert after.graph == pytest.approx(before.graph - old + new)
            assert (after.words, after.acoustic) == (before.words, before.acoustic)


def test_development_and_test_set(tmp_path):
    for name in ("dev", "test"):
        write_nbest(tmp_path / f"decode_{name}", LISTS)
        write_results(tmp_path / f"decode_{name}", name, REFS, {utt: " ".join(one[0].words) for utt, one in LISTS.items()})
    (tmp_path / "decode_test/ref.txt").unlink()
    assert rescore(tmp_path / "decode_dev", tmp_path / "dev").startswith("%WER 0.00 [ 0 / 2")
    assert (tmp_path / "dev/recogs-dev.txt").read_text().startswith("u1:\tref=['a']\nu1:\thyp=['a']\n")
    rescore(tmp_path / "decode_test", tmp_path / "test", scales_of=tmp_path / "dev")
    assert (tmp_path / "test/hyp.txt").read_text() == "u1 a\nu2 b\n"
    assert not (tmp_path / "test/wer.txt").exists()
    with pytest.raises(PyserError, match="no transcripts to choose scales by"):
        rescore(tmp_path / "decode_test", tmp_path / "test")
    with pytest.raises(PyserError, match="scales.json"):
        rescore(tmp_path / "decode_test", tmp_path / "test", scales_of=tmp_path / "nowhere")
    line = rescore(tmp_path / "decode_dev", tmp_path / "dev", Scales(0.5))
    assert line == "%WER 100.00 [ 2 / 2, 1 ins, 0 del, 1 sub ] (LM scale 0.5, insertion penalty 0)"
