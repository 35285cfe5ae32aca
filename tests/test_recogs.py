"""icefall's files of hypotheses."""

from pyser.scoring.recogs import errs, recogs

REFS = {"u1": "a b c", "u2": "a", "u3": "b b"}
HYPS = {"u1": "a x c d", "u2": "", "u3": "b b"}


def test_recogs():
    assert recogs(REFS, HYPS).splitlines()[:4] == [
        "u1:\tref=['a', 'b', 'c']", "u1:\thyp=['a', 'x', 'c', 'd']", "u2:\tref=['a']", "u2:\thyp=[]"]


def test_errs():
    text = errs(REFS, HYPS)
    assert text.startswith("%WER = 50.00\nErrors: 1 insertions, 1 deletions, 1 substitutions, over 6 reference words "
                           "(4 correct)\n")
    assert "u1:\ta (b->x) c (*->d)\nu2:\t(a->*)\nu3:\tb b\n" in text
    assert "SUBSTITUTIONS: count ref -> hyp\n1   b -> x\n" in text and "DELETIONS: count ref\n1   a\n" in text
    stats = text.split("count_in_hyp\n")[1].splitlines()
    assert stats == ["b   2 1 3 2", "a   1 1 2 1", "d   0 1 0 1", "x   0 1 0 1", "c   1 0 1 1"]
