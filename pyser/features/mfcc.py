"""Mel-frequency cepstra with Kaldi's options and Kaldi's numbers, by kaldi-native-fbank."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pyser.errors import Dropped, PyserError
from pyser.kaldi.tables import MatrixWriter, read_table
from pyser.kaldi.wav import cut_segment, load_audio

REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class MfccConfig:
    """Options of Kaldi's compute-mfcc-feats, by their names there; the defaults are Kaldi's but for dither (there 1.0),
    which is 0 so that numbers repeat. frame_length and frame_shift in ms, frequencies in Hz (high_freq <= 0: below
    the Nyquist frequency by that much)."""

    sample_frequency: int = 16000
    frame_length: float = 25.0
    frame_shift: float = 10.0
    preemphasis_coefficient: float = 0.97
    remove_dc_offset: bool = True
    window_type: str = "povey"
    round_to_power_of_two: bool = True
    snip_edges: bool = True
    dither: float = 0.0
    num_mel_bins: int = 23
    low_freq: float = 20.0
    high_freq: float = 0.0
    num_ceps: int = 13
    use_energy: bool = True
    raw_energy: bool = True
    energy_floor: float = 0.0
    cepstral_lifter: float = 22.0

    def __post_init__(self) -> None:
        if self.num_ceps > self.num_mel_bins:
            raise PyserError(f"--num-ceps={self.num_ceps} is more than --num-mel-bins={self.num_mel_bins}; lower it")


def mfcc(samples: np.ndarray, config: MfccConfig) -> np.ndarray:
    """Cepstra (frames, num_ceps) float32 of samples (T,) in int16 scale at config.sample_frequency.

    With snip_edges the number of frames is 1 + (T - window) // shift, 0 when T is below one window.
    """
    import kaldi_native_fbank as knf

    options = knf.MfccOptions()
    frame, mel = options.frame_opts, options.mel_opts
    frame.samp_freq, frame.dither, frame.snip_edges = config.sample_frequency, config.dither, config.snip_edges
    frame.frame_length_ms, frame.frame_shift_ms = config.frame_length, config.frame_shift
    frame.preemph_coeff, frame.remove_dc_offset = config.preemphasis_coefficient, config.remove_dc_offset
    frame.window_type, frame.round_to_power_of_two = config.window_type, config.round_to_power_of_two
    mel.num_bins, mel.low_freq, mel.high_freq = config.num_mel_bins, config.low_freq, config.high_freq
    options.num_ceps, options.use_energy, options.raw_energy = config.num_ceps, config.use_energy, config.raw_energy
    options.energy_floor, options.cepstral_lifter = config.energy_floor, config.cepstral_lifter
    computer = knf.OnlineMfcc(options)
    computer.accept_waveform(config.sample_frequency, samples.tolist())  # a list is read twice as fast as an array
    computer.input_finished()
    frames = [computer.get_frame(t) for t in range(computer.num_frames_ready)]
    return np.array(frames, dtype=np.float32).reshape(len(frames), config.num_ceps)


def compute_mfcc(
    wav_scp: str | Path,
    wspecifier: str,
    config: MfccConfig,
    segments: str | Path | None = None,
    max_dropped: float = 0.05,
    allow_pipes: bool = False,
) -> str:
    """MFCC of every entry of `wav_scp` (or of every segment), compressed, to `ark,scp:A,B`; returns the closing line.

    Recordings that cannot be read, empty ones and those below one window are dropped and counted.
    """
    wavs = read_table(wav_scp)
    parts = {utt: ("", 0.0, -1.0) for utt in wavs} if segments is None else _read_segments(segments)
    dropped = Dropped(f"mfcc of {wav_scp}", max_dropped)
    reported, loaded, samples = time.monotonic(), "", np.empty(0, np.float32)
    with MatrixWriter(wspecifier) as writer:
        for done, (utt, (recording, start, end)) in enumerate(parts.items()):
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                print(f"{done}/{len(parts)} utterances", flush=True)
            recording = recording or utt
            if recording not in wavs:
                dropped.add(utt, "without recording in wav.scp")
                continue
            try:
                if recording != loaded:  # segments of one recording follow each other
                    samples, loaded = load_audio(wavs[recording], config.sample_frequency, allow_pipes), recording
                piece = cut_segment(samples, start, end, config.sample_frequency)
            except PyserError as error:
                print(f"{utt}: {error}", flush=True)
                dropped.add(utt, "unreadable")
                continue
            feats = mfcc(piece, config)
            if len(feats):
                writer.write(utt, feats)
            else:
                dropped.add(utt, f"shorter than one window of {config.frame_length:g} ms")
        line = dropped.finish(len(parts))
    return line


def _read_segments(path: str | Path) -> dict[str, tuple[str, float, float]]:
    """Utterance -> (recording, start, end), grouped by recording."""
    parts = {}
    for utt, value in read_table(path).items():
        try:
            recording, start, end = value.split()
            parts[utt] = (recording, float(start), float(end))
        except ValueError:
            raise PyserError(f"{path}: {utt}: expected 'recording start end', found '{value}'") from None
    return dict(sorted(parts.items(), key=lambda item: item[1]))
