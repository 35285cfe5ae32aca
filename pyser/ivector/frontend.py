"""What comes before the Gaussians: online CMVN, splicing, and PCA or LDA, for many utterances at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pyser.errors import PyserError
from pyser.features.cmvn import OnlineCmvnConfig, apply_online_cmvn
from pyser.ivector import kernels


@dataclass(frozen=True)
class FrontEnd:
    """lda (D', N D) or, affine, (D', N D + 1); global_stats (2, D + 1), with N = left_context + 1 + right_context."""

    lda: np.ndarray
    global_stats: np.ndarray
    left_context: int = 3
    right_context: int = 3
    cmvn: OnlineCmvnConfig = OnlineCmvnConfig()

    @property
    def feat_dim(self) -> int:
        return int(self.global_stats.shape[1]) - 1

    def normalise(self, feats: np.ndarray, speaker_stats: np.ndarray | None = None) -> np.ndarray:
        """(T, D) -> (T, D) after online CMVN."""
        return apply_online_cmvn(feats, self.global_stats, speaker_stats, self.cmvn)

    def normalise_into(self, feats: np.ndarray, speaker_stats: np.ndarray, out: np.ndarray) -> None:
        """As `normalise`, float32 (T, D) to `out`; fast for the usual configuration, means only."""
        if self.cmvn == replace(OnlineCmvnConfig(), cmn_window=self.cmvn.cmn_window,
                                speaker_frames=self.cmvn.speaker_frames, global_frames=self.cmvn.global_frames):
            kernels.subtract_running_mean(
                feats, speaker_stats[0], self.global_stats[0], self.cmvn.cmn_window, float(self.cmvn.speaker_frames),
                float(self.cmvn.global_frames), out)
        else:
            out[:] = self.normalise(feats, speaker_stats if speaker_stats[0, -1] > 0 else None)

    @cached_property
    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        """((N D, D' padded to a multiple of 16), (D',)) float32."""
        spliced = self.feat_dim * (self.left_context + 1 + self.right_context)
        if self.lda.shape[1] not in (spliced, spliced + 1):
            raise PyserError(f"final.mat takes {self.lda.shape[1]} dimensions, the spliced features have {spliced}")
        offset = self.lda[:, spliced:].sum(1)
        return kernels.padded(self.lda[:, :spliced].T, 16, np.float32), offset.astype(np.float32)

    def project_batch(
        self, utterances: Sequence[np.ndarray], speaker_stats: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features (T, D) float32 of utterances, spliced and transformed as they are and after online CMVN.

        speaker_stats (2, D + 1): CMVN statistics of the speaker's earlier utterances, zero if there are none.
        Returns (2, rows, D') float32 and where each utterance begins among the rows, (N,); between two utterances there
        are rows that mean nothing.
        """
        context = self.left_context + self.right_context
        ends = np.cumsum([len(feats) + context for feats in utterances])
        starts = ends - [len(feats) + context for feats in utterances]
        padded = np.empty((2, ends[-1], self.feat_dim), np.float32)
        for feats, stats, start in zip(utterances, speaker_stats, starts, strict=True):
            first = start + self.left_context
            last = first + len(feats) - 1
            padded[0, first : last + 1] = feats
            self.normalise_into(feats, stats, padded[1, first : last + 1])
            padded[:, start:first] = padded[:, first, None]
            padded[:, last + 1 : last + 1 + self.right_context] = padded[:, last, None]
        projected = np.empty((2, ends[-1] - context, len(self.lda)), np.float32)
        for source, out in zip(padded, projected, strict=True):
            kernels.transform(source, *self._affine, out)
        return projected, starts
