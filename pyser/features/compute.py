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
from pyser.kaldi.segments import BadSegment, Segment, read_segments
from pyser.kaldi.specifier import Wspecifier
from pyser.kaldi.tables import MatrixWriter, TableWriter
from pyser.kaldi.wav import SeveralChannels, read_audio, read_waves

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
    if not np.isfinite(feats).all():
        raise Refused("with samples too large for single precision")
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
    warps = _warps(lists, allow_pipes) if lists.vtln_map else None
    total, reported = 0, time.monotonic()
    with ExitStack() as stack:
        durations, counts = (
            stack.enter_context(TableWriter(target, KINDS[kind], allow_pipes)) if target else None
            for target, kind in ((lists.write_utt2dur, "double"), (lists.write_num_frames, "int32"))
        )
        writer = stack.enter_context(MatrixWriter(wspecifier, compress=compress, allow_pipes=allow_pipes))
        for utt, samples, rate in _utterances(wav_rspecifier, lists.segments, config.channel, allow_pipes):
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
                dropped.add(utt, "with a bad segment" if isinstance(error, BadSegment) else "unreadable")
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
            yield (utt, *_load(entry, max(channel, 0), allow_pipes))
        return
    recordings = dict(read_waves(rspecifier, allow_pipes))
    by_recording: dict[str, list[tuple[str, Segment]]] = {}
    for utt, found in read_segments(segments, allow_pipes):
        if isinstance(found, BadSegment):
            yield utt, found, 1
        elif found.recording not in recordings:
            yield utt, Refused("without recording in wav.scp"), 1
        else:
            by_recording.setdefault(found.recording, []).append((utt, found))
    for recording, parts in by_recording.items():
        loaded: dict[int, tuple[np.ndarray | Exception, int]] = {}
        for utt, part in parts:
            one = part.channel if part.channel >= 0 else channel
            if one not in loaded:
                loaded[one] = _load(recordings[recording], one if one >= 0 else None, allow_pipes)
            samples, rate = loaded[one]
            if isinstance(samples, SeveralChannels):
                raise PyserError(f"{segments}: {utt}: {samples}; write it, 0 or 1, behind the end (or give --channel)")
            try:
                yield utt, samples if isinstance(samples, Exception) else part.cut(samples, rate), rate
            except BadSegment as error:
                yield utt, error, rate


def _load(entry: str | bytes, channel: int | None, allow_pipes: bool) -> tuple[np.ndarray | Exception, int]:
    try:
        return read_audio(entry, channel, allow_pipes)
    except PyserError as error:
        return error, 1


def _warps(lists: Lists, allow_pipes: bool) -> dict[str, float]:
    """Utterance -> warp factor, by way of its speaker where there is an utt2spk."""
    path = str(lists.vtln_map)
    factors = {}
    for key, value in read_map(path, allow_pipes).items():
        try:
            factors[key] = float(value)
        except ValueError:
            raise PyserError(f"{path}: {key}: expected a warp factor, found '{value}'") from None
    if not lists.utt2spk:
        return factors
    speakers = read_map(lists.utt2spk, allow_pipes)
    return {utt: factors[speaker] for utt, speaker in speakers.items() if speaker in factors}
