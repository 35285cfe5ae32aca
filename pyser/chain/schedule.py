"""Kaldi's piecewise linear schedules, such as the dropout's '0,0@0.20,0.5@0.50,0'."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pyser.errors import PyserError


def parse_schedule(text: str) -> Callable[[float], float]:
    """Read 'first,value@progress,…,last' and return the function progress -> value, linear between the points.

    The first value holds at 0 and the last at 1; a single value is constant
    (egs/wsj/s5/steps/libs/nnet3/train/dropout_schedule.py).

    >>> parse_schedule("0,0@0.20,0.5@0.50,0")(0.35)
    0.25
    """
    try:
        parts = text.split(",")
        points = [(0.0, float(parts[0]))]
        for part in parts[1:-1]:
            value, progress = part.split("@")
            points.append((float(progress), float(value)))
        points.append((1.0, float(parts[-1])))
    except ValueError:
        raise PyserError(f"schedule {text!r}: not like '0,0@0.20,0.5@0.50,0'; mend it") from None
    xs, ys = zip(*points, strict=True)
    if list(xs) != sorted(xs) or xs[-1] > 1:
        raise PyserError(f"schedule {text!r}: the numbers after @ must rise from 0 to 1; mend it")
    return lambda progress: round(float(np.interp(progress, xs, ys)), 12)
