"""Kaldi's lossy matrices, in its own arithmetic (matrix/compressed-matrix.h, compressed-matrix.cc).

A token, `CM `, `CM2 ` or `CM3 `, is followed by a header of 16 bytes (float32 minimum and range, int32 rows and columns) and
    CM   per column four uint16 (the 0, 25, 75 and 100 % points of the range), then one byte a value, column by column:
         codes 0–64, 64–192 and 192–255 divide the three intervals between these points evenly
    CM2  two bytes a value, row by row, dividing the whole range evenly
    CM3  one byte a value, likewise
Which additions and products are in single and which in double precision decides the last bit, so they follow Kaldi's types.
"""

from __future__ import annotations

import struct

import numpy as np

from pyser.errors import PyserError

HEADER = struct.Struct("<ffii")
# --compression-method: 1 automatic, 2 speech features, 3 two bytes, 4 int16, 5 one byte, 6 uint8, 7 zero to one
TOKENS = {2: "CM", 3: "CM2", 4: "CM2", 5: "CM3", 6: "CM3", 7: "CM3"}
_FIXED_RANGES = {4: (-32768.0, 65535.0), 6: (0.0, 255.0), 7: (0.0, 1.0)}
_ONE_65535TH = np.float32(1.52590218966964e-05)
BLOCK = 1 << 15  # values that are compressed at once: what stays in the cache


def data_size(token: str, rows: int, cols: int) -> int:
    """Bytes after the header."""
    return {"CM": cols * (8 + rows), "CM2": 2 * rows * cols, "CM3": rows * cols}[token]


def decompress(token: str, header: bytes, data: bytes) -> np.ndarray:
    """(rows, cols) float32 from the header and the data_size(...) bytes after it."""
    low, width, rows, cols = HEADER.unpack(header)
    with np.errstate(all="ignore"):  # (a damaged header may hold anything)
        if token != "CM":
            dtype, steps = ("<u2", 65535) if token == "CM2" else ("u1", 255)
            step = np.float32(width * (1.0 / steps))
            values = np.frombuffer(data, dtype).reshape(rows, cols).astype(np.float32)
            values *= step
            values += np.float32(low)
            return values
        points = _points(low, width, np.frombuffer(data, "<u2", 4 * cols).reshape(cols, 4))
        table = _table(points)
        codes = np.frombuffer(data, np.uint8, offset=8 * cols).reshape(cols, rows)
        columns = np.empty((cols, rows), np.float32)
        for col in range(cols):
            np.take(table[col], codes[col], out=columns[col], mode="clip")
        return np.ascontiguousarray(columns.T)


def _points(low: float, width: float, quantised: np.ndarray) -> np.ndarray:
    """uint16 points -> float32."""
    return np.float32(low) + np.float32(width) * _ONE_65535TH * quantised.astype(np.float32)


def _table(points: np.ndarray) -> np.ndarray:
    """(cols, 4) float32 points -> (cols, 256) float32, the value of every code."""
    low, quarter, three, high = (points[:, [i]] for i in range(4))
    parts = []
    for start, end, codes, steps in ((low, quarter, 65, 64.0), (quarter, three, 129, 128.0), (three, high, 64, 63.0)):
        product = (end - start) * np.arange(codes, dtype=np.float32)
        parts.append((start + product.astype(np.float64) * (1 / steps)).astype(np.float32))
    return np.concatenate([parts[0], parts[1][:, 1:], parts[2][:, 1:]], axis=1)


def compress(matrix: np.ndarray, method: int = 1) -> bytes:
    """Token, header and data of a finite (rows, cols) float32 matrix under Kaldi's --compression-method (1 to 7)."""
    if not matrix.size:
        return b"CM " + HEADER.pack(0, 0, 0, 0)
    rows, cols = matrix.shape
    if method == 1:
        method = 2 if rows > 8 else 3
    if method in _FIXED_RANGES:
        low, width = map(np.float32, _FIXED_RANGES[method])
    else:
        low, high = matrix.flat[matrix.argmin()], matrix.flat[matrix.argmax()]  # (the first zero, 0 or -0, as in Kaldi)
        with np.errstate(over="ignore"):
            if high == low:
                high = np.float32(float(low) + (1.0 + abs(float(low))))
            width = high - low
        if not width < np.finfo(np.float32).max / (128 if method == 2 else 1):  # (what reads `CM` multiplies by up to 128)
            raise PyserError(f"numbers from {low:g} to {matrix.max():g} are too far apart to be compressed; check the input")
    start = TOKENS[method].encode() + b" " + HEADER.pack(low, width, rows, cols)
    if method == 2:
        return start + _compress_columns(np.ascontiguousarray(matrix.T), low, width)
    steps, dtype = (65535, "<u2") if method in (3, 4) else (255, "u1")
    return start + _quantise(matrix, low, width, steps).astype(dtype).tobytes()


def _quantise(values: np.ndarray, low: np.float32, width: np.float32, steps: int) -> np.ndarray:
    """float32 -> 0 … steps, as float64."""
    part = np.clip((values - low) / width, np.float32(0), np.float32(1)) * np.float32(steps)
    return np.trunc(part.astype(np.float64) + 0.499)


def _compress_columns(columns: np.ndarray, low: np.float32, width: np.float32) -> bytes:
    rows = columns.shape[1]
    quarter = rows // 4 if rows >= 5 else 1
    places = [0, quarter, 3 * quarter, rows - 1] if rows >= 5 else list(range(rows))
    chosen = np.partition(columns, places, axis=1)[:, places]
    points = np.zeros((len(columns), 4), np.int64)
    points[:, : len(places)] = _quantise(chosen, low, width, 65535)
    points[:, 0] = np.minimum(points[:, 0], 65532)  # (the four stay apart even in a constant column)
    for i, most in ((1, 65533), (2, 65534), (3, 65535)):
        points[:, i] = np.minimum(np.maximum(points[:, i], points[:, i - 1] + 1), most)
    header = points.astype("<u2")
    edges = _points(float(low), float(width), header)
    block = max(1, BLOCK // rows)
    codes = [_codes(columns[i : i + block], edges[i : i + block]) for i in range(0, len(columns), block)]
    return header.tobytes() + b"".join(code.tobytes() for code in codes)


def _codes(columns: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(cols, rows) float32 values and (cols, 4) float32 points -> (cols, rows) uint8."""
    low, quarter, three, high = (edges[:, [i]] for i in range(4))
    lower, upper = columns < quarter, columns >= three
    start = np.where(lower, low, np.where(upper, three, quarter))
    width = np.where(lower, quarter - low, np.where(upper, high - three, three - quarter))
    first = np.where(lower, np.float32(0), np.where(upper, np.float32(192), np.float32(64)))
    steps = np.where(lower, np.float32(64), np.where(upper, np.float32(63), np.float32(128)))
    with np.errstate(all="ignore"):  # (points may coincide in float32, where the range is tiny beside the values)
        part = ((columns - start) / width * steps).astype(np.float64) + 0.5
        part[~(np.abs(part) < 2**31)] = 0  # (what no int holds, C++ brings to the lower bound)
    return (first + np.clip(np.trunc(part), 0, steps)).astype(np.uint8)
