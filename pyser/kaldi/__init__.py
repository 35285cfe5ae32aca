"""Kaldi's files and numbers, numpy in and out:

>>> import pyser
>>> for utt, feats in pyser.kaldi.read_mats("scp:feats.scp"):                          # doctest: +SKIP
...     print(utt, feats.shape)
>>> model = pyser.kaldi.load_nnet3("final.mdl")                                        # doctest: +SKIP
>>> bottleneck = model(feats, ivectors, node="tdnnf12.noop")                           # doctest: +SKIP
>>> extract = pyser.kaldi.load_extractor("exp/nnet3/extractor")                        # doctest: +SKIP
>>> ivectors = extract(feats)                                                          # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pyser.kaldi.tables import (
    MatrixTable,
    MatrixWriter,
    VectorTable,
    load_mat,
    load_vec,
    read_ints,
    read_mats,
    read_posts,
    read_vecs,
)

if TYPE_CHECKING:
    import numpy as np

    from pyser.ivector.notebook import Extractor
    from pyser.nn.notebook import Network

__all__ = [
    "MatrixTable", "MatrixWriter", "VectorTable", "load_extractor", "load_mat", "load_nnet3", "load_vec", "read_ints",
    "read_mats", "read_posts", "read_vecs", "write_mats",
]


def write_mats(wspecifier: str, mats: Iterable[tuple[str, np.ndarray]], compress: bool | int = False) -> int:
    """Write (key, matrix (rows, cols)) pairs to `ark,scp:a.ark,a.scp` or any other wspecifier; returns how many.

    compress: True, or one of Kaldi's --compression-method 1 to 7 (lossy).
    """
    with MatrixWriter(wspecifier, compress) as writer:
        for key, mat in mats:
            writer.write(key, mat)
    return writer.count


def load_nnet3(path: str | Path) -> Network:
    """The network of a final.mdl, a final.raw or an experiment directory, to call on features."""
    from pyser.nn.notebook import Network

    return Network(path)


def load_extractor(path: str | Path) -> Extractor:
    """The i-vector extractor of a directory (final.ie, final.dubm …) or of an ivector_extractor.conf, to call on features."""
    from pyser.ivector.notebook import Extractor

    return Extractor(path)
