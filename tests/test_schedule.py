"""Kaldi's dropout schedules."""

from __future__ import annotations

import doctest

import pytest

from pyser.chain import schedule
from pyser.chain.schedule import parse_schedule
from pyser.errors import PyserError


def test_points():
    dropout = parse_schedule("0,0@0.20,0.5@0.50,0")
    assert [dropout(p) for p in (0, 0.1, 0.2, 0.5, 0.75, 1)] == [0, 0, 0, 0.5, 0.25, 0]
    assert parse_schedule("0.2")(0.7) == 0.2
    assert parse_schedule("0,1")(0.25) == 0.25
    assert doctest.testmod(schedule).failed == 0


@pytest.mark.parametrize("text", ["", "0,0.5,0", "a,b", "0,0@0.5,1@0.2,0", "0,1@1.5,0"])
def test_mistakes(text):
    with pytest.raises(PyserError, match="schedule"):
        parse_schedule(text)
