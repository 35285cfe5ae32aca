"""Features of a list of recordings into Kaldi archives (featbin/compute-{mfcc,fbank}-feats.cc, extract-segments.cc)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TextIO

import numpy as np

from pyser.errors import Dropped, PyserError
from pyser.features.fbank import FbankConfig, fbank
from pyser.features.mel import mel_banks
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.kaldi.maps import read_map
from pyser.kaldi.objects import KINDS
from pyser.kaldi.resample import resample
from pyser.kaldi.specifier import Wspecifier
from pyser.kaldi.tables import MatrixWriter, TableWriter
from pyser.kaldi.wav import cut_segment, read_audio, read_waves

REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class Lists:
    """What else compute-mfcc-feats reads and writes: `segments` to cut out of the recordings; `vtln_map`, the warp factor
    of each utterance or, with `utt2spk`, of each speaker; two tables to write (`ark,t:FILE`)."""

    segments: str | None = None
    vtln_map: str | None = None
    utt2spk: str | None = None
    write_utt2dur: str | None = None
    write_num_frames: str | None = None

    def __post_init__(self) -> None:
        if self.utt2spk and not self.vtln_map:
            raise PyserError("--utt2spk is for warp factors of speakers; give them with --vtln-map")


def log_of(wspecifier: str) -> TextIO:
    """Where messages go: to stdout, or to stderr when the archive goes to stdout."""
    target = Wspecifier.parse(wspecifier)
    return sys.stderr if {"-", ""} & {target.ark, target.scp or target.ark} else sys.stdout


class Refused(PyserError):
    """Why an utterance gets no features."""


def features(samples: np.ndarray, rate: int, config: MfccConfig | FbankConfig) -> np.ndarray:
    """(frames, dim) float32 of samples (T,) in int16 scale at `rate`, which is changed where the config allows it."""
    wanted = config.sample_frequency
    if rate > wanted and not config.allow_downsample:
        raise Refused(f"at more than {wanted} Hz, without --allow-downsample=true")
    if rate < wanted and not config.allow_upsample:
        raise Refused(f"at less than {wanted} Hz, without --allow-upsample=true")
    samples = resample(samples, Fraction(wanted, rate))
    feats = mfcc(samples, config) if isinstance(config, MfccConfig) else fbank(samples, config)
    if not len(feats):
        raise Refused(f"shorter than one window of {config.frame_length:g} ms")
    return feats


def compute_features(
    wav_rspecifier: str,
    wspecifier: str,
    config: MfccConfig | FbankConfig,
    lists: Lists = Lists(),  # noqa: B008 (frozen)
    max_dropped: float = 0.05,
    allow_pipes: bool = False,
    compress: bool = True,
) -> str:
    """Features of every recording (or of every segment) to `wspecifier`; returns the closing line.

    Recordings that cannot be read, empty ones, those below one window or at a rate that the config refuses are dropped
    and counted.
    """
    # The C library returns freed blocks to the system until it has freed a large one, and to get them back for every block
    # of frames would take as long as the arithmetic.
    np.empty(1 << 24, np.uint8)
    log = log_of(wspecifier)
    name = "mfcc" if isinstance(config, MfccConfig) else "fbank"
    dropped = Dropped(f"{name} of {wav_rspecifier.partition(':')[2]}", max_dropped)
    mel_banks(config)  # (complains about bins that do not fit)
    warps = _warps(lists) if lists.vtln_map else None
    total, reported = 0, time.monotonic()
    with ExitStack() as stack:
        durations, counts = (
            stack.enter_context(TableWriter(target, KINDS[kind], allow_pipes)) if target else None
            for target, kind in ((lists.write_utt2dur, "double"), (lists.write_num_frames, "int32"))
        )
        writer = stack.enter_context(MatrixWriter(wspecifier, compress=compress, allow_pipes=allow_pipes))
        for utt, samples, rate in _utterances(wav_rspecifier, lists.segments, max(config.channel, 0), allow_pipes):
            total += 1
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                print(f"{total} utterances so far", file=log, flush=True)
            try:
                if isinstance(samples, Exception):
                    raise samples
                if len(samples) < config.min_duration * rate:
                    raise Refused(f"shorter than --min-duration={config.min_duration:g} s")
                if warps is not None and utt not in warps:
                    raise Refused("without warp factor in --vtln-map")
                feats = features(samples, rate, config if warps is None else replace(config, vtln_warp=warps[utt]))
            except Refused as reason:
                dropped.add(utt, str(reason))
                continue
            except PyserError as error:
                print(f"{utt}: {error}", file=log, flush=True)
                dropped.add(utt, "unreadable")
                continue
            writer.write(utt, feats)
            if durations:
                durations.write(utt, float(np.float32(len(samples) / rate)))
            if counts:
                counts.write(utt, len(feats))
        line = dropped.finish(total)
    return line


Piece = tuple[str, "np.ndarray | Exception", int]


def _utterances(rspecifier: str, segments: str | None, channel: int, allow_pipes: bool) -> Iterator[Piece]:
    """(utterance, samples or what is wrong with them, rate)."""
    if segments is None:
        for utt, entry in read_waves(rspecifier, allow_pipes):
            yield (utt, *_load(entry, channel, allow_pipes))
        return
    recordings, loaded = dict(read_waves(rspecifier, allow_pipes)), ""
    samples: np.ndarray | Exception = np.empty(0)
    rate = 1
    for utt, (recording, start, end) in _read_segments(segments, allow_pipes).items():
        if recording not in recordings:
            yield utt, Refused("without recording in wav.scp"), 1
            continue
        if recording != loaded:  # segments of one recording follow each other
            (samples, rate), loaded = _load(recordings[recording], channel, allow_pipes), recording
        try:
            yield utt, samples if isinstance(samples, Exception) else cut_segment(samples, start, end, rate), rate
        except PyserError as error:
            yield utt, error, rate


def _load(entry: str | bytes, channel: int, allow_pipes: bool) -> tuple[np.ndarray | Exception, int]:
    try:
        return read_audio(entry, channel, allow_pipes)
    except PyserError as error:
        return error, 1


def _read_segments(path: str, allow_pipes: bool) -> dict[str, tuple[str, float, float]]:
    """Utterance -> (recording, start, end), in the file's order but grouped by recording."""
    parts: dict[str, tuple[str, float, float]] = {}
    order: dict[str, int] = {}
    for utt, value in read_map(path, allow_pipes).items():
        try:
            recording, start, end = value.split()
            parts[utt] = (recording, float(start), float(end))
            order.setdefault(recording, len(order))
        except ValueError:
            raise PyserError(f"{path}: {utt}: expected 'recording start end', found '{value}'") from None
    return dict(sorted(parts.items(), key=lambda item: order[item[1][0]]))


def _warps(lists: Lists) -> dict[str, float]:
    """Utterance -> warp factor, by way of its speaker where there is an utt2spk."""
    path = str(lists.vtln_map)
    factors = {}
    for key, value in read_map(path).items():
        try:
            factors[key] = float(value)
        except ValueError:
            raise PyserError(f"{path}: {key}: expected a warp factor, found '{value}'") from None
    if not lists.utt2spk:
        return factors
    speakers = read_map(lists.utt2spk)
    return {utt: factors[speaker] for utt, speaker in speakers.items() if speaker in factors}
