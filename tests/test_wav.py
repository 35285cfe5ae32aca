"""wav.scp entries: sox forms computed in-process, other commands refused, bad audio named."""

import os
import struct
import wave

import numpy as np
import pytest

from pyser.errors import PyserError
from pyser.kaldi.segments import Segment
from pyser.kaldi.wav import Source, parse_entry, read_audio, read_part


def write_wav(path, samples, rate=16000, channels=1):
    """16-bit samples, interleaved when there are two channels, by Python's own writer."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, dtype="<i2").tobytes())
    return path


def tone(hertz, seconds=1, rate=16000):
    return 8000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def pitch(samples, rate=16000):
    """The strongest frequency."""
    return np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples)


def load(entry, allow_pipes=False):
    samples, rate = read_audio(entry, allow_pipes=allow_pipes)
    assert rate == 16000 and samples.dtype == np.float32
    return samples


@pytest.mark.parametrize("entry, expected", [
    ("a b.wav", Source("a b.wav")),
    ("sox -t wav a.wav -t wav - speed 0.9 |", Source("a.wav", speed=0.9)),
    ("sox --vol 1.3 -t wav a.wav -t wav - |", Source("a.wav", volume=1.3)),
    ("sox -t flac 'a b.flac' -t wav - speed 1.1 | sox --vol 0.5 -t wav - -t wav - |", Source("a b.flac", 1.1, 0.5)),
])
def test_known_entries_are_taken_apart_and_written_back(entry, expected):
    assert parse_entry(entry) == expected
    assert expected.entry() == entry


@pytest.mark.parametrize("factor, length, hertz", [(2, 8000, 800), (0.5, 32000, 200), (0.9, 17778, 360), (1.1, 14546, 440)])
def test_speed_changes_length_and_pitch(tmp_path, factor, length, hertz):
    path = write_wav(tmp_path / "a.wav", tone(400))
    samples = load(f"sox -t wav {path} -t wav - speed {factor} |")
    assert len(samples) == length  # 16000 / factor, rounded up
    assert pitch(samples) == pytest.approx(400 * factor, abs=1) == hertz


def test_volume_scales_and_clips(tmp_path):
    path = write_wav(tmp_path / "a.wav", [0, 1000, -3000, 20000, -20000])
    assert load(str(path)).tolist() == [0, 1000, -3000, 20000, -20000]
    assert load(f"sox --vol 0.5 -t wav {path} -t wav - |").tolist() == [0, 500, -1500, 10000, -10000]
    assert load(f"sox --vol 2 -t wav {path} -t wav - |").tolist() == [0, 2000, -6000, 32767, -32768]


def test_speed_and_volume_together(tmp_path):
    path = write_wav(tmp_path / "a.wav", np.full(1000, 1000))
    samples = load(f"sox -t wav {path} -t wav - speed 2 | sox --vol 0.25 -t wav - -t wav - |")
    assert len(samples) == 500
    np.testing.assert_allclose(samples[100:400], 250, rtol=0.01)  # away from the filter's edges


@pytest.mark.parametrize("command", [
    "cat {wav} |", "sox {wav} -r 8000 -t wav - |", "sox {wav} -t wav - ; touch {dir}/ran |", "sox {wav} {dir}/ran |",
    "touch {dir}/ran | sox -t wav {wav} -t wav - |", "sox -t wav {wav} -t wav - speed |", "sox -t wav - -t wav - |",
    "sox -t wav {wav} -t wav - speed 0 |", "sox -t wav {wav} -t wav - speed -1 |", "sox -t wav {wav} -t wav - speed inf |",
    "sox --vol nan -t wav {wav} -t wav - |",
])
def test_other_commands_are_refused_and_not_run(tmp_path, command):
    entry = command.format(wav=write_wav(tmp_path / "a.wav", [1, 2]), dir=tmp_path)
    with pytest.raises(PyserError, match="only with --allow-pipes"):
        load(entry)
    assert not (tmp_path / "ran").exists()


def test_a_command_is_run_when_allowed(tmp_path):
    path = write_wav(tmp_path / "a.wav", [5, -7])
    assert load(f"cat {path} |", allow_pipes=True).tolist() == [5, -7]
    with pytest.raises(PyserError, match="exit code 3"):
        load("exit 3 |", allow_pipes=True)


def test_two_channels_are_averaged(tmp_path):
    path = write_wav(tmp_path / "a.wav", [1000, 3000, 500, -500, -4, -8], channels=2)
    assert load(str(path)).tolist() == [2000, 0, -6]


@pytest.mark.parametrize("content, message", [
    (None, "no such audio file"), (b"", "not readable as audio"), (b"RIFF\0\0junk" * 9, "not readable as audio"),
])
def test_missing_and_corrupt_files_are_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(PyserError, match=rf"bad\.wav: {message}"):
        load(f"{tmp_path}/bad.wav")


def test_a_file_without_samples_is_named(tmp_path):
    with pytest.raises(PyserError, match=r"none\.wav: no samples in it"):
        load(str(write_wav(tmp_path / "none.wav", [])))


def streamed(samples, riff, data, chunk=b"", order="<"):
    """A wav file of 16-bit samples with these sizes in its header, and a chunk behind them."""
    form = struct.pack(order + "IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    body = np.asarray(samples, dtype=order + "i2").tobytes()
    size = [struct.pack(order + "I", one) for one in (riff, data)]
    return b"".join(((b"RIFF" if order == "<" else b"RIFX"), size[0], b"WAVEfmt ", form, b"data", size[1], body, chunk))


@pytest.mark.parametrize("riff, data", [(0, 0), (36, 0), (0xFFFFFFFF, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFF024, 0x7FFFF000)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_size_that_was_not_known_is_to_the_end(tmp_path, riff, data, order):
    samples, path = np.arange(-2000, 2000), tmp_path / "a.wav"
    path.write_bytes(streamed(samples, riff, data, order=order))
    assert load(str(path)).tolist() == samples.tolist()
    assert load(path.read_bytes()).tolist() == samples.tolist()
    part, rate = read_part(str(path), Segment("a", 0.125, 0.25), -1)
    assert (part.tolist(), rate) == (samples[2000:4000].tolist(), 16000)


def test_what_follows_no_samples_may_be_something_else(tmp_path):
    note = b"LIST" + struct.pack("<I", 16) + b"INFOICMT" + struct.pack("<I", 4) + b"none"
    (tmp_path / "none.wav").write_bytes(streamed([], 36 + len(note), 0, note))
    with pytest.raises(PyserError, match=r"none\.wav: no samples in it"):
        load(f"{tmp_path}/none.wav")
    with pytest.raises(PyserError, match="no samples in it"):
        load(streamed([], 0, 0))


def test_names_of_files_may_be_any_bytes(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    write_wav(tmp_path / "a.wav", tone(400)).rename(name)
    assert pitch(load(name)) == 400
    with pytest.raises(PyserError, match="no such audio file"):
        load(name + "x")
