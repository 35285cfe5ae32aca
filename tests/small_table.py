"""A small archive of matrices, byte by byte."""

import struct
from pathlib import Path

import numpy as np

ROWS = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], dtype=np.float32)


def float_matrix(matrix: np.ndarray) -> bytes:
    rows, cols = matrix.shape
    return b"\0BFM " + struct.pack("<bibi", 4, rows, 4, cols) + matrix.astype("<f4").tobytes()


def write_ark(path: Path) -> Path:
    """Two matrices, with keys a and b: the second one starts after 'a ', 15 + 48 bytes and 'b '."""
    path.write_bytes(b"a " + float_matrix(ROWS) + b"b " + float_matrix(-ROWS[:1]))
    return path
