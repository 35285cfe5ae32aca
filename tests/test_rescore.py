"""N-best lists on disk, under another language model and under scales chosen by word errors."""

import math

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pyser.chain.mbr import edit_distances, expected_errors, posteriors
from pyser.chain.rescore import (
    Candidates,
    Scales,
    exchange_lm,
    numbers,
    read_nbest,
    rescore,
    together,
    tune,
    write_nbest,
    write_results,
)
from pyser.chain.search import Hypothesis
from pyser.cli.chain import group
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
    assert Scales(1.3, 0.5).of(numbers([Hypothesis(["a", "b"], -3.0, -5.0)])) == pytest.approx(-3 + 1.3 * (-5 - 0.5 * 2))


def best(hypotheses, scales):
    candidates = Candidates([hypotheses])
    return list(candidates.sentences[candidates.choose(scales)])


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
    chosen, errors = tune(together([LISTS]), REFS)
    assert 4 / 3 < chosen.lm_scale < 5 / 3 or chosen.insertion_penalty
    assert errors.total == 0 and errors.n == 2
    nothing_to_choose = {utt: hypotheses[:1] for utt, hypotheses in LISTS.items()}
    assert tune(together([nothing_to_choose]), REFS)[0] == Scales()


def test_minimum_bayes_risk():
    """Each of three hypotheses that share a word is less probable than the fourth."""
    lists = [Hypothesis(words.split(), score, 0.0)
             for words, score in (("x y", -1.0), ("a b", -1.1), ("a c", -1.2), ("a", -1.3))]
    assert best(lists, Scales()) == ["x", "y"]
    assert best(lists, Scales(posterior_scale=1.0))[0] == "a"
    assert best(lists, Scales(posterior_scale=50.0)) == ["x", "y"]  # one hypothesis has all the probability
    assert best(lists[:1], Scales(posterior_scale=1.0)) == ["x", "y"]
    chosen, errors = tune(together([{"u": lists}]), {"u": "a b"})
    assert chosen.posterior_scale and errors.total == 0
    assert tune(together([{"u": lists}]), {"u": "x y"})[0] == Scales()


def test_systems_are_combined(tmp_path):
    """Each of two systems is surer of something wrong; what both think possible is right. Scores of another height are not
    another weight."""
    one = [Hypothesis(["x"], -1.0, 0.0), Hypothesis(["a", "b"], -1.2, 0.0)]
    other = [Hypothesis(["y", "z"], -101.0, 0.0), Hypothesis(["a", "b"], -101.2, 0.0)]
    candidates = Candidates([one, other])
    assert candidates.sentences == [("x",), ("a", "b"), ("y", "z")]
    assert candidates.sentences[candidates.choose(Scales(posterior_scale=1.0))] == ("a", "b")
    by_hand = [posteriors(np.array([-1.0, -1.2]), 1.0), posteriors(np.array([-1.0, -1.2]), 1.0)]
    mean = np.array([by_hand[0][0], by_hand[0][1] + by_hand[1][1], by_hand[1][0]]) / 2
    risks = [sum(p * word_errors(other, words).total for p, words in zip(mean, candidates.sentences, strict=True))
             for other in candidates.sentences]
    assert int(np.argmin(risks)) == candidates.choose(Scales(posterior_scale=1.0)) == 1
    for name, hypotheses in (("decode_dev", one), ("b/decode_dev", other), ("c/decode_dev", other)):
        write_nbest(tmp_path / name, {"u2" if name[0] == "c" else "u1": hypotheses})
        write_results(tmp_path / name, "dev", {"u1": "a b"}, {"u1": "x"})
    line = rescore([tmp_path / "decode_dev", tmp_path / "b/decode_dev"], tmp_path / "both")
    assert line.startswith("%WER 0.00 [ 0 / 2") and "(2 systems, LM scale 1, insertion penalty 0, minimum Bayes risk" in line
    with pytest.raises(PyserError, match="not of the same utterances .u1 is in one"):
        rescore([tmp_path / "decode_dev", tmp_path / "c/decode_dev"], tmp_path / "both")
    with pytest.raises(PyserError, match="posterior scale above 0"):
        rescore([tmp_path / "decode_dev", tmp_path / "b/decode_dev"], tmp_path / "both", Scales())


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=7), min_size=1, max_size=6), st.floats(0.1, 2))
def test_expected_errors_by_enumeration(sentences, scale):
    distances = edit_distances(sentences)
    for row, first in zip(distances, sentences, strict=True):
        assert row.tolist() == [word_errors(first, second).total for second in sentences]
    scores = np.linspace(-3, 1, len(sentences))
    weights = [math.exp(scale * score) for score in scores]
    expected = [sum(w * word_errors(one, other).total for w, other in zip(weights, sentences, strict=True)) / sum(weights)
                for one in sentences]
    assert expected_errors(distances, posteriors(scores, scale)) == pytest.approx(expected)


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


def test_scales_go_together(tmp_path):
    """Of the command line: what would be ignored is refused."""
    write_nbest(tmp_path, LISTS)
    write_results(tmp_path, "dev", REFS, {utt: " ".join(one[0].words) for utt, one in LISTS.items()})
    folders = ["lang", str(tmp_path), str(tmp_path / "out")]
    for option in ("--insertion-penalty", "--posterior-scale"):
        refused = CliRunner().invoke(group, ["rescore", option, "0.5", *folders])
        assert refused.exit_code == 2 and "go with --lm-scale: give it too" in refused.output
    taken = CliRunner().invoke(group, ["rescore", "--lm-scale", "0.5", "--insertion-penalty", "0.5", *folders])
    assert taken.exit_code == 0 and "(LM scale 0.5, insertion penalty 0.5)" in taken.output


def test_development_and_test_set(tmp_path):
    for name in ("dev", "test"):
        write_nbest(tmp_path / f"decode_{name}", LISTS)
        write_results(tmp_path / f"decode_{name}", name, REFS, {utt: " ".join(one[0].words) for utt, one in LISTS.items()})
    (tmp_path / "decode_test/ref.txt").unlink()
    assert rescore([tmp_path / "decode_dev"], tmp_path / "dev").startswith("%WER 0.00 [ 0 / 2")
    assert (tmp_path / "dev/recogs-dev.txt").read_text().startswith("u1:\tref=['a']\nu1:\thyp=['a']\n")
    rescore([tmp_path / "decode_test"], tmp_path / "test", scales_of=tmp_path / "dev")
    assert (tmp_path / "test/hyp.txt").read_text() == "u1 a\nu2 b\n"
    assert not (tmp_path / "test/wer.txt").exists()
    with pytest.raises(PyserError, match="no transcripts to choose scales by"):
        rescore([tmp_path / "decode_test"], tmp_path / "test")
    with pytest.raises(PyserError, match="scales.json"):
        rescore([tmp_path / "decode_test"], tmp_path / "test", scales_of=tmp_path / "nowhere")
    line = rescore([tmp_path / "decode_dev"], tmp_path / "dev", Scales(0.5))
    assert line == "%WER 100.00 [ 2 / 2, 1 ins, 0 del, 1 sub ] (LM scale 0.5, insertion penalty 0)"
