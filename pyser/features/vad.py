"""Speech or silence by energy (ivector/voice-activity-detection.cc, ComputeVadEnergy)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyser.errors import Dropped, PyserError
from pyser.kaldi.tables import VECTOR, TableWriter, read_mats


@dataclass(frozen=True)
class VadConfig:
    """Options of Kaldi's compute-vad. A frame is loud above energy_threshold + energy_mean_scale times the utterance's mean,
    and speech where of the frames within frames_context of it the share proportion_threshold is loud.

    The energy is column 0. C0 of conf/mfcc_hires.conf is a sum over 40 mel bins divided by sqrt(40): the threshold is to be
    sqrt(40) times that for log energies.
    """

    vad_energy_threshold: float = 5.0
    vad_energy_mean_scale: float = 0.5
    vad_frames_context: int = 0
    vad_proportion_threshold: float = 0.6

    def __post_init__(self) -> None:
        if self.vad_energy_mean_scale < 0 or self.vad_frames_context < 0 or not 0 < self.vad_proportion_threshold < 1:
            raise PyserError("--vad-energy-mean-scale and --vad-frames-context must not be negative, "
                             "--vad-proportion-threshold must be between 0 and 1")


def voiced(feats: np.ndarray, config: VadConfig) -> np.ndarray:
    """(T,) bool: whether a frame of feats (T, D) is speech."""
    energy = feats[:, 0].astype(np.float32)
    if not len(energy):
        return np.zeros(0, bool)
    threshold = config.vad_energy_threshold + config.vad_energy_mean_scale * float(energy.sum(dtype=np.float64)) / len(energy)
    context = config.vad_frames_context
    loud = np.concatenate([[0], np.cumsum(energy > threshold)])
    at = np.arange(len(energy))
    first, last = np.maximum(at - context, 0), np.minimum(at + context + 1, len(energy))
    needed = (last - first).astype(np.float32) * np.float32(config.vad_proportion_threshold)  # as Kaldi rounds it
    found: np.ndarray = loud[last] - loud[first] >= needed
    return found


def compute_vad(
    rspecifier: str, wspecifier: str, config: VadConfig, max_dropped: float = 0.05, allow_pipes: bool = False
) -> str:
    """A vector of ones (speech) and zeros for each matrix of the table; returns the closing line."""
    dropped, total, speech, frames = Dropped(f"vad of {rspecifier}", max_dropped), 0, 0, 0
    with TableWriter(wspecifier, VECTOR, allow_pipes) as writer:
        for utt, feats in read_mats(rspecifier, allow_pipes):
            total += 1
            if not len(feats):
                dropped.add(utt, "without frames")
                continue
            mask = voiced(feats, config)
            speech, frames = speech + int(mask.sum()), frames + len(mask)
            writer.write(utt, mask.astype(np.float32))
        line = dropped.finish(total)
    return f"{line}; {100 * speech / max(frames, 1):.1f}% of {frames} frames are speech"
