"""Features of audio as it arrives, by kaldi-native-fbank: Kaldi's OnlineMfcc and OnlineFbank (feat/online-feature.cc).

Recordings that are there as a whole are computed five times faster by pyser.features.mfcc and pyser.features.fbank, with
the same numbers (to 1e-3).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig
from pyser.features.window import FrameConfig


class OnlineFeatures:
    """MFCC or, with an FbankConfig, filterbank features.

    >>> online = OnlineFeatures(MfccConfig(num_ceps=40, num_mel_bins=40, use_energy=False))
    >>> [online.accept(np.zeros(300)).shape, online.accept(np.zeros(300)).shape, online.finish().shape]
    [(0, 40), (2, 40), (0, 40)]
    """

    def __init__(self, config: FrameConfig):
        try:
            import kaldi_native_fbank
        except ImportError:
            raise PyserError("features of streams need kaldi-native-fbank: run local/install.sh") from None
        for name in ("vtln_warp", "subtract_mean", "allow_downsample", "allow_upsample"):
            if getattr(config, name) != getattr(FrameConfig, name):
                raise PyserError(f"--{name.replace('_', '-')}: not for streams; leave it out")
        if config.window_type == "sine":
            raise PyserError("--window-type=sine: not for streams; take another")
        is_mfcc = isinstance(config, MfccConfig)
        options = kaldi_native_fbank.MfccOptions() if is_mfcc else kaldi_native_fbank.FbankOptions()
        _fill(options, config)
        self.config = config
        self._computer = (kaldi_native_fbank.OnlineMfcc if is_mfcc else kaldi_native_fbank.OnlineFbank)(options)
        self.dim = int(self._computer.dim)
        self._given = 0

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """More samples (N,) in int16 scale at config.sample_frequency; returns the frames they complete, (n, dim) float32."""
        self._computer.accept_waveform(self.config.sample_frequency, np.asarray(samples, np.float32).tolist())
        return self._frames()

    def finish(self) -> np.ndarray:
        """The stream has ended; returns the frames that only then are known, (n, dim): some if snip_edges is false."""
        self._computer.input_finished()
        return self._frames()

    def _frames(self) -> np.ndarray:
        ready = self._computer.num_frames_ready
        frames = np.array([self._computer.get_frame(t) for t in range(self._given, ready)], np.float32)
        self._computer.pop(ready - self._given)  # (a stream may go on for hours)
        self._given = ready
        return frames.reshape(-1, self.dim)


def _fill(options: Any, config: FrameConfig) -> None:
    """kaldi-native-fbank's names for Kaldi's options."""
    frame, mel = options.frame_opts, options.mel_opts
    frame.samp_freq, frame.dither = config.sample_frequency, config.dither
    frame.frame_length_ms, frame.frame_shift_ms = config.frame_length, config.frame_shift
    frame.preemph_coeff = config.preemphasis_coefficient
    for name in ("remove_dc_offset", "round_to_power_of_two", "snip_edges", "window_type", "blackman_coeff"):
        setattr(frame, name, getattr(config, name))
    mel.num_bins, mel.low_freq, mel.high_freq = config.num_mel_bins, config.low_freq, config.high_freq
    for name in ("use_energy", "raw_energy", "energy_floor", "htk_compat", "num_ceps", "cepstral_lifter", "use_log_fbank",
                 "use_power"):
        if hasattr(config, name):
            setattr(options, name, getattr(config, name))
