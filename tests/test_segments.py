"""Segments as extract-segments takes them: times, channels, what is left out."""

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.kaldi.segments import BadSegment, Segment, read_segments


def cut(samples, start, end, rate):
    return Segment("r", start, end).cut(samples, rate)


@pytest.mark.parametrize(
    "start, end, expected", [(0.5, 1.5, (5, 15)), (1.2, -1, (12, 20)), (0, 2, (0, 20)), (1, 2.4, (10, 20))])
def test_cut(start, end, expected):
    assert cut(np.arange(20), start, end, 10).tolist() == list(range(*expected))  # two seconds


def test_times_are_rounded_to_samples():
    """To the nearest sample, and nothing below a tenth of a second."""
    samples = np.arange(16016)
    for start, end, expected in ((0.0, 0.29, (0, 4640)), (0.1234567, -1, (1975, 16016)), (0.5, 1.001, (8000, 16016))):
        found = cut(samples, start, end, 16000)
        assert (found[0], found[-1] + 1) == expected
    with pytest.raises(BadSegment, match="segment 0.5-0.59 s is shorter than 0.1 s"):
        cut(samples, 0.5, 0.59, 16000)


def test_the_shortest_segment_is_a_tenth_in_single_precision():
    """0.1 is 0.100000001 as a float, and 1.1 - 1.0 is less than that: Kaldi leaves it out."""
    with pytest.raises(BadSegment, match="shorter than 0.1 s"):
        cut(np.arange(32000), 1.0, 1.1, 16000)
    assert len(cut(np.arange(32000), 1.0, 1.1001, 16000)) == 1602


@pytest.mark.parametrize("start, end", [(0, 2.6), (2.1, 2.3), (3, -1), (3, 4)])
def test_what_does_not_fit_is_refused(start, end):
    with pytest.raises(BadSegment, match=r"does not fit into 2\.00 s"):
        cut(np.arange(20), start, end, 10)


@pytest.mark.parametrize("value, expected", [
    ("r 0 1", Segment("r", 0, 1, -1)), ("r\t0.5  -1 ", Segment("r", 0.5, -1, -1)), ("r 0 1e1 0", Segment("r", 0, 10, 0)),
    ("r 0 1 3", Segment("r", 0, 1, 3)),
])
def test_a_line(value, expected):
    assert Segment.parse(value.strip()) == expected


@pytest.mark.parametrize("value, message", [
    ("", "expected 'recording start end'"), ("r 0", "expected 'recording start end'"), ("r 0 1 0 x", "at most a channel"),
    ("r 1 1", "from 1 to 1 is no segment"), ("r 2 1", "no segment"), ("r -2 1", "no segment"), ("r -1 -1", "no segment"),
    ("r 0 -2", "no segment"), ("r 0 0", "no segment"), ("r zero 1", "no segment"), ("r 0 nan", "no segment"),
    ("r 0 inf", "no segment"), ("r 0 1_0", "no segment"), ("r 0 1 -1", "'-1' is no channel"),
    ("r 0 1 A", "'A' is no channel"),
])
def test_bad_lines(value, message):
    with pytest.raises(BadSegment, match=message):
        Segment.parse(value)


def test_a_file_is_read_to_its_end(tmp_path):
    (tmp_path / "segments").write_text("a r 0 1\n\nb r 1 0\nc r 1 2 1\n")
    found = dict(read_segments(str(tmp_path / "segments")))
    assert list(found) == ["a", "line 2", "b", "c"] and found["c"] == Segment("r", 1, 2, 1)
    assert isinstance(found["line 2"], BadSegment) and isinstance(found["b"], BadSegment)
    assert dict(read_segments(f"cat {tmp_path}/segments |", allow_pipes=True))["a"] == Segment("r", 0, 1)
    (tmp_path / "segments").write_text("a r 0 1\nb r 0 1\na r 1 2\n")
    with pytest.raises(PyserError, match="segments:3: a occurs twice"):
        list(read_segments(str(tmp_path / "segments")))
