"""What a fusion learns from: streams of each utterance in memory, and its samples where the speech encoder learns with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.kaldi.tables import load_mat
from pyser.ser.frames import mean_and_std

HIDDEN = "hidden"  # the stream of a speech encoder; one that learns computes it in every step


@dataclass(frozen=True)
class StreamExamples:
    """label (U,): the class of each utterance; streams: name -> (T, D) of each, T may be 0; waves: samples (T,), -1 to 1, and
    transcripts: labels of a CTC model, both only where a speech encoder learns."""

    label: np.ndarray
    streams: Mapping[str, Sequence[np.ndarray]]
    waves: Sequence[np.ndarray] | None = None
    transcripts: Sequence[Sequence[int]] | None = None

    @property
    def lengths(self) -> np.ndarray:
        """(U,): frames of the longest stream, or samples."""
        of = [self.waves] if self.waves is not None else list(self.streams.values())
        return np.max([[len(one) for one in utterances] for utterances in of], axis=0)

    def padded(self, utts: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Streams (N, longest, D) and lengths (N,) of these utterances, by name."""
        streams, lengths = {}, {}
        for name, utterances in self.streams.items():
            some = [utterances[utt] for utt in utts]
            lengths[name] = torch.tensor([len(matrix) for matrix in some])
            out = np.zeros((len(some), int(lengths[name].max()), some[0].shape[1]), np.float32)
            for row, matrix in zip(out, some, strict=True):
                row[: len(matrix)] = matrix
            streams[name] = torch.from_numpy(out)
        return streams, lengths

    def statistics(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (D,) of a stream over all frames."""
        return mean_and_std(np.concatenate(self.streams[name]))


def load_stream(utts: Sequence[str], rxfilenames: Mapping[str, str], name: str) -> list[np.ndarray]:
    """(T, D) float32 of each utterance, all of one dimension; PyserError names the utterance that is not."""
    matrices: list[np.ndarray] = []
    for utt in utts:
        matrix = load_mat(rxfilenames[utt])
        if not np.isfinite(matrix).all() or (matrices and matrix.shape[1] != matrices[0].shape[1]):
            raise PyserError(f"{utt}: stream '{name}' of shape {matrix.shape} is not finite or not like the others; write it "
                             "again")
        matrices.append(matrix.astype(np.float32))
    return matrices
