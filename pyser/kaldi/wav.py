"""wav.scp entries to samples, in-process.

An entry is a path (any format libsndfile reads, NIST sphere included; `wavs.ark:offset` in an archive of wav files) or one
of the sox pipes that Kaldi's utils/perturb_data_dir_{speed,volume}.sh write; those are understood and computed here,
without sox and without a shell:

    sox -t wav a.wav -t wav - speed 0.9 |
    sox --vol 1.3 -t wav a.wav -t wav - |
    sox -t wav a.wav -t wav - speed 0.9 | sox --vol 1.3 -t wav - -t wav - |
"""

from __future__ import annotations

import io
import math
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.kaldi.maps import read_map
from pyser.kaldi.resample import resample
from pyser.kaldi.segments import Segment
from pyser.kaldi.specifier import Rspecifier
from pyser.kaldi.stream import Stream, open_input, split_offset
from pyser.kaldi.tables import read_key

INT16 = 32768.0  # Kaldi's features are computed on samples in the range of 16-bit integers
UNKNOWN_SIZE = 0x7FFF0000  # bytes; from here on, a size in the header of a wav file written to a pipe says nothing


@dataclass(frozen=True)
class Source:
    """One wav.scp entry taken apart: a file played at `speed` times its rate and `volume` times its amplitude."""

    path: str
    speed: float = 1.0
    volume: float = 1.0

    def entry(self) -> str:
        """The entry as Kaldi's perturbation scripts write it."""
        stages = []
        quoted = shlex.quote(self.path)
        if self.speed != 1.0:
            stages.append(f"sox -t {_sox_type(self.path)} {quoted} -t wav - speed {self.speed:g}")
        if self.volume != 1.0:
            source = "-t wav -" if stages else f"-t {_sox_type(self.path)} {quoted}"
            stages.append(f"sox --vol {self.volume:g} {source} -t wav -")
        return " | ".join(stages) + " |" if stages else self.path


def _sox_type(path: str) -> str:
    return Path(path).suffix.lstrip(".").lower() or "wav"


def parse_entry(entry: str) -> Source | None:
    """The Source of a wav.scp entry; None for a pipe that is not one of the forms above."""
    entry = entry.strip()
    if not entry.endswith("|"):
        return Source(entry)
    path, speed, volume = "", 1.0, 1.0
    try:
        for stage in entry[:-1].split("|"):
            words = shlex.split(stage)
            if not words or words.pop(0) != "sox":
                return None
            files = []
            while words:
                word = words.pop(0)
                if word == "--vol":
                    volume *= float(words.pop(0))
                elif word == "-t":
                    words.pop(0)
                elif word == "speed":
                    speed *= float(words.pop(0))
                else:
                    files.append(word)
            if len(files) != 2 or files[1] != "-" or (files[0] == "-") == (not path) or files[0].startswith("--"):
                return None
            path = path or files[0]
    except (ValueError, IndexError):
        return None
    return Source(path, speed, volume) if 0.01 <= speed <= 100 and math.isfinite(volume) else None


class SeveralChannels(PyserError):
    """A recording that should have but one channel."""


def read_audio(entry: str | bytes, channel: int | None = -1, allow_pipes: bool = False) -> tuple[np.ndarray, int]:
    """Samples (T,) float32 in int16 scale and their rate, of a wav.scp entry or of the bytes of an audio file.

    `channel` -1 is the mean of all channels, None the only one: SeveralChannels if there are more. A pipe that is not a
    known sox form is run by the shell only with `allow_pipes`. PyserError names the file.
    """
    samples, rate, _ = read_counted(entry, channel, allow_pipes)
    return samples, rate


def read_counted(
    entry: str | bytes, channel: int | None = -1, allow_pipes: bool = False
) -> tuple[np.ndarray, int, int]:
    """As `read_audio`, and how many channels there were."""
    if isinstance(entry, bytes):
        return read_file(io.BytesIO(entry), "audio in the archive", channel)
    source = parse_entry(entry)
    if source is None:
        if not allow_pipes:
            raise PyserError(f"'{entry[:80]}': a command, and wav.scp commands are run only with --allow-pipes")
        done = subprocess.run(entry.strip()[:-1], shell=True, capture_output=True)
        if done.returncode != 0 or not done.stdout:
            raise PyserError(f"'{entry[:80]}': exit code {done.returncode}, {len(done.stdout)} bytes; run it by hand")
        return read_file(io.BytesIO(done.stdout), entry[:80], channel)
    path, offset = split_offset(source.path)
    if offset is None or Path(source.path).exists():
        samples, rate, channels = read_file(source.path, source.path, channel)
    else:
        with open_input(source.path) as stream:
            samples, rate, channels = read_file(io.BytesIO(_riff(stream)), source.path, channel)
    # Played `speed` times as fast, the file's rate is that much higher; the bound keeps the filter short.
    samples = resample(samples, (1 / Fraction(source.speed).limit_denominator(100)).limit_denominator(5000))
    if source.volume != 1.0:
        samples = np.clip(samples * np.float32(source.volume), -INT16, INT16 - 1)
    return samples, rate, channels


def read_part(entry: str, part: Segment, channel: int) -> tuple[np.ndarray, int]:
    """`part` of the recording of a wav.scp entry, as `read_audio` has it. Of a plain file no more than that is read."""
    import soundfile

    try:
        info = soundfile.info(entry) if Source(entry) == parse_entry(entry) and Path(entry).is_file() else None
    except (soundfile.SoundFileError, OSError):
        info = None  # read_audio says what is wrong
    if info is None or not info.frames:
        samples, rate = read_audio(entry, channel)
        return part.cut(samples, rate), rate
    start, end = (int(seconds * info.samplerate + 0.5) for seconds in part.within(info.frames, info.samplerate))
    return read_file(entry, entry, channel, start, end)[:2]


def read_file(
    file: str | io.BytesIO, name: str, channel: int | None = -1, start: int = 0, stop: int | None = None
) -> tuple[np.ndarray, int, int]:
    """One channel (as `read_audio` has them) (T,) in int16 scale of samples `start` to `stop` of an audio file, their rate,
    and how many channels there are; PyserError names it when it is bad."""
    if isinstance(file, str) and Path(file).is_fifo():
        file = io.BytesIO(Path(file).read_bytes())  # most formats are read by going to and fro
    samples, rate = _decode(file, name, start, stop)
    if not len(samples) and (data := _endless(file)):
        samples, rate = _decode(io.BytesIO(data), name, start, stop)
    if not len(samples):
        raise PyserError(f"{name}: no samples in it; replace it or leave it out")
    if channel is None and samples.shape[1] > 1:
        raise SeveralChannels(f"{name}: has {samples.shape[1]} channels, and which one is not said")
    channel = channel or 0
    if channel >= samples.shape[1]:
        raise PyserError(f"{name}: has {samples.shape[1]} channels and no channel {channel}; the first is 0")
    mono = samples[:, max(channel, 0)] if channel >= 0 or samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise PyserError(f"{name}: not a number or infinite in its samples; replace it")
    return mono * np.float32(INT16), rate, samples.shape[1]


def _decode(file: str | io.BytesIO, name: str, start: int, stop: int | None) -> tuple[np.ndarray, int]:
    """All channels (T, C), between -1 and 1, and the rate."""
    import soundfile

    try:
        samples, rate = soundfile.read(os.fsencode(file) if isinstance(file, str) else file, dtype="float32", always_2d=True,
                                       start=start, stop=stop)
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        if isinstance(file, str) and not Path(file).exists():
            raise PyserError(f"{name}: no such audio file; check the path") from None
        raise PyserError(f"{name}: not readable as audio ({str(error).rpartition(': ')[2][:80]}); replace it") from None
    return samples, int(rate)


def _endless(file: str | io.BytesIO) -> bytes:
    """A wav file whose header was written before its samples, and says that there are none, with the size that libsndfile
    takes for "to the end"; b"" of any other."""
    data = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
    riff, first = int.from_bytes(data[4:8], "little" if data[:4] == b"RIFF" else "big"), data.find(b"data" + bytes(4)) + 8
    others_follow = first < 8 + riff < UNKNOWN_SIZE  # chunks that the file's size counts
    if data[:4] not in (b"RIFF", b"RIFX") or first < 8 or others_follow or first == len(data):
        return b""
    return data[: first - 4] + b"\xff" * 4 + data[first:]


def read_waves(rspecifier: str, allow_pipes: bool = False) -> Iterator[tuple[str, str | bytes]]:
    """(utterance, what `read_audio` takes) of `scp:FILE`, `scp:-` or of an archive of wav files (`ark:FILE`, `ark:-`)."""
    source = Rspecifier.parse(rspecifier)
    if source.kind == "scp":
        yield from read_map(source.path, allow_pipes, paths=True).items()
        return
    with open_input(source.path, allow_pipes) as stream:
        while key := read_key(stream):
            yield key, _riff(stream)


def _riff(stream: Stream) -> bytes:
    """The wav file that begins here; one written to a pipe does not know its size, and goes on to the end."""
    header = stream.take(8)
    if header[:4] not in (b"RIFF", b"RIFX") or len(header) < 8:
        raise PyserError(f"{stream.name}: byte {stream.place}: no wav file begins there; is it an archive of wav files?")
    size = int.from_bytes(header[4:], "little" if header[:4] == b"RIFF" else "big")
    if size == 0 or size >= UNKNOWN_SIZE:
        return header + stream.rest()
    body = stream.take(size)
    if len(body) < size:
        raise PyserError(f"{stream.name}: ends within a wav file; the archive was cut short, make it again")
    return header + body
