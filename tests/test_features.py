"""`pyser mfcc compute` and `pyser fbank compute`: lists in, archives out."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from pyser.cli import cli
from pyser.config import read_conf, write_conf
from pyser.errors import PyserError
from pyser.features.compute import Lists, compute_features
from pyser.features.fbank import FbankConfig, fbank
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.kaldi.tables import read_mats

HIRES = MfccConfig(use_energy=False, num_mel_bins=40, num_ceps=40, low_freq=20, high_freq=-400)


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden/mfcc/spk1-u4.npz") as arrays:
        return arrays["samples"], arrays["mfcc"]


@pytest.fixture
def recording(golden, tmp_path):
    """wav.scp of the golden utterance, and a conf file."""
    soundfile.write(tmp_path / "u.wav", golden[0], 16000)
    (tmp_path / "wav.scp").write_text(f"u {tmp_path}/u.wav\n")
    (tmp_path / "hires.conf").write_text(
        "# hires\n--use-energy=false\n--num-mel-bins=40\n--num-ceps=40 # all\n--low-freq=20\n--high-freq=-400\n")
    return tmp_path


def run(path, config=HIRES, compress=False, max_dropped=0.9, **lists):
    lists = Lists(**{name: str(value) for name, value in lists.items()})
    line = compute_features(f"scp:{path}/wav.scp", f"ark,scp:{path}/out.ark,{path}/out.scp", config, lists, max_dropped,
                            compress=compress)
    return line, dict(read_mats(f"scp:{path}/out.scp"))


def call(*arguments, **options):
    """The command line, in this process."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], **options)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_stage_writes_golden(recording, golden):
    line, feats = run(recording)
    assert line == f"mfcc of {recording}/wav.scp: 1 utterances, 0 dropped"
    assert np.abs(feats["u"] - golden[1]).max() < 0.01
    _, feats = run(recording, compress=True)  # a column has 63 codes at least, rounding loses half of one
    assert (np.abs(feats["u"] - golden[1]) <= np.ptp(golden[1], axis=0) / 63 / 2 + 0.02).all()


def test_command_line(recording, golden):
    done = call("mfcc", "compute", "--config", recording / "hires.conf", "--no-compress", f"scp:{recording}/wav.scp",
                f"ark,t:{recording}/out.txt", "--write-utt2dur", f"ark,t:{recording}/utt2dur", "--write-num-frames",
                f"ark,t:{recording}/utt2num_frames")
    assert done.output == f"mfcc of {recording}/wav.scp: 1 utterances, 0 dropped\n"
    ((key, feats),) = read_mats(f"ark:{recording}/out.txt")
    assert key == "u" and np.abs(feats - golden[1]).max() < 0.01
    assert (recording / "utt2dur").read_text().split() == ["u", "0.3"]
    assert (recording / "utt2num_frames").read_text().split() == ["u", "28"]


def test_options_override_the_conf_file(recording, golden):
    call("mfcc", "compute", "--config", recording / "hires.conf", "--num-ceps=20", "--snip-edges", "false", "--use-energy",
         "--no-compress", f"scp:{recording}/wav.scp", f"ark:{recording}/out.ark")
    ((_, feats),) = read_mats(f"ark:{recording}/out.ark")
    config = MfccConfig(num_mel_bins=40, num_ceps=20, high_freq=-400, snip_edges=False)
    np.testing.assert_array_equal(feats, mfcc(golden[0].astype(np.float32), config))
    call("fbank", "compute", "--num-mel-bins=30", "--no-compress", f"scp:{recording}/wav.scp", f"ark:{recording}/out.ark")
    ((_, feats),) = read_mats(f"ark:{recording}/out.ark")
    np.testing.assert_array_equal(feats, fbank(golden[0].astype(np.float32), FbankConfig(num_mel_bins=30)))


def test_bad_options_are_one_line(recording):
    wrong = call("mfcc", "compute", "--snip-edges=maybe", "scp:a", "ark:b")
    assert wrong.exit_code == 2 and "'maybe', expected true or false" in wrong.output
    (recording / "bad.conf").write_text("--num-mel-bin=40\n")
    with pytest.raises(PyserError, match=r"bad.conf:1: unknown option --num-mel-bin; known: .* num-mel-bins"):
        call("mfcc", "compute", "--config", recording / "bad.conf", "scp:a", "ark:b")
    with pytest.raises(PyserError, match="--utt2spk is for warp factors"):
        Lists(utt2spk="utt2spk")


def test_conf_files_as_kaldi_reads_them(recording):
    """Dashes or underscores, booleans alone or as letters, rates with a point."""
    (recording / "x.conf").write_text("--sample-frequency=8000.0\n--use_energy=F\n --snip-edges=0 #\n--allow-upsample\n\n")
    expected = MfccConfig(sample_frequency=8000, use_energy=False, snip_edges=False, allow_upsample=True)
    assert read_conf(recording / "x.conf", MfccConfig) == expected
    (recording / "x.conf").write_text(write_conf(expected))
    assert read_conf(recording / "x.conf", MfccConfig) == expected
    (recording / "x.conf").write_text("--sample-frequency=8000.5\n")
    with pytest.raises(PyserError, match="x.conf:1: --sample-frequency is '8000.5', expected a whole number"):
        read_conf(recording / "x.conf", MfccConfig)


def test_archives_on_stdin_and_stdout(recording, golden):
    """extract-segments … ark:- | pyser mfcc compute ark:- ark:-; messages keep out of the archive."""
    wavs = io.BytesIO()
    for key, end in (("a", 3200), ("b", len(golden[0]))):
        wavs.write(key.encode() + b" ")
        part = io.BytesIO()
        soundfile.write(part, golden[0][:end], 16000, format="WAV", subtype="PCM_16")
        wavs.write(part.getvalue())
    (recording / "wavs.ark").write_bytes(wavs.getvalue())
    done = subprocess.run([sys.executable, "-c", "from pyser.cli import main; main()", "mfcc", "compute", "--config",
                           recording / "hires.conf", "--no-compress", "ark:-", "ark:-"], input=wavs.getvalue(),
                          capture_output=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (recording / "out.ark").write_bytes(done.stdout)
    feats = dict(read_mats(f"ark:{recording}/out.ark"))
    assert list(feats) == ["a", "b"] and done.stderr == b"mfcc of -: 2 utterances, 0 dropped\n"
    np.testing.assert_allclose(feats["b"], mfcc(golden[0].astype(np.float32), HIRES), atol=1e-3)  # (other threads)
    np.testing.assert_allclose(feats["a"], feats["b"][:18], atol=1e-3)
    (recording / "wav.scp").write_text(f"a {recording}/wavs.ark:2\n")  # one of them by its place
    np.testing.assert_array_equal(run(recording)[1]["a"], feats["a"])
    header = wavs.getvalue()[2:10]
    streamed = wavs.getvalue()[2:].replace(header, header[:4] + b"\xff" * 4, 1)  # written to a pipe: of unknown size
    (recording / "pipe.ark").write_bytes(b"c " + streamed[: streamed.index(b"b RIFF")])
    compute_features(f"ark:{recording}/pipe.ark", f"ark:{recording}/out.ark", HIRES, compress=False)
    np.testing.assert_array_equal(dict(read_mats(f"ark:{recording}/out.ark"))["c"], feats["a"])
    (recording / "cut.ark").write_bytes(wavs.getvalue()[:-100])
    with pytest.raises(PyserError, match="cut.ark: ends within a wav file"):
        compute_features(f"ark:{recording}/cut.ark", f"ark:{recording}/x.ark", HIRES)
    (recording / "not.ark").write_bytes(b"a \0BFM ")
    with pytest.raises(PyserError, match="not.ark: byte .*: no wav file begins there"):
        compute_features(f"ark:{recording}/not.ark", f"ark:{recording}/x.ark", HIRES)


def test_list_on_stdin_and_from_a_pipe(recording):
    listing = (recording / "wav.scp").read_bytes()
    done = subprocess.run([sys.executable, "-c", "from pyser.cli import main; main()", "mfcc", "compute", "scp:-",
                           f"ark:{recording}/out.ark"], input=listing, capture_output=True, check=True)
    assert done.stdout == b"mfcc of -: 1 utterances, 0 dropped\n"
    with pytest.raises(PyserError, match="--allow-pipes"):
        compute_features(f"scp:cat {recording}/wav.scp |", f"ark:{recording}/out.ark", HIRES)
    compute_features(f"scp:cat {recording}/wav.scp |", f"ark:{recording}/out.ark", HIRES, allow_pipes=True)


def test_other_sampling_rates(recording, golden):
    """The same speech at 48 kHz is 0.7 away; a rate that is 3% wrong would be 5 away."""
    from scipy.signal import resample_poly

    soundfile.write(recording / "u.wav", resample_poly(golden[0] / 32768, 3, 1), 48000)
    _, feats = run(recording, replace(HIRES, allow_downsample=True))
    assert feats["u"].shape == (28, 40)
    assert np.abs(feats["u"] - golden[1]).mean() < 1
    with pytest.raises(PyserError, match="1 at more than 16000 Hz, without --allow-downsample=true"):
        run(recording)
    soundfile.write(recording / "u.wav", golden[0][::2], 8000)
    with pytest.raises(PyserError, match="1 at less than 16000 Hz, without --allow-upsample=true"):
        run(recording)
    assert len(run(recording, MfccConfig(allow_upsample=True))[1]["u"]) == 28


def test_channels(recording, golden):
    left, right = golden[0], golden[0][::-1]
    soundfile.write(recording / "u.wav", np.stack([left, right], axis=1), 16000)
    np.testing.assert_array_equal(run(recording, MfccConfig(channel=1))[1]["u"], mfcc(right.astype(np.float32), MfccConfig()))
    np.testing.assert_array_equal(run(recording, MfccConfig())[1]["u"], mfcc(left.astype(np.float32), MfccConfig()))
    with pytest.raises(PyserError, match="1 unreadable"):
        run(recording, MfccConfig(channel=2))


def test_too_short_and_unreadable_are_dropped(recording, golden, capsys):
    soundfile.write(recording / "short.wav", golden[0][:399], 16000)
    soundfile.write(recording / "nan.wav", np.full(800, np.nan, np.float32), 16000, subtype="FLOAT")
    (recording / "damaged.wav").write_bytes(b"RIFF....WAVEfmt junk")
    with (recording / "wav.scp").open("a") as scp:
        for key, name in (("v", "short"), ("w", "none"), ("x", "nan"), ("y", "damaged")):
            scp.write(f"{key} {recording}/{name}.wav\n")
    line, feats = run(recording)
    said = capsys.readouterr().out
    assert list(feats) == ["u"] and "w: " in said and "x: " in said and "not a number or infinite in its samples" in said
    assert line.endswith("5 utterances, 4 dropped: 3 unreadable (e.g. w); 1 shorter than one window of 25 ms (e.g. v)")
    with pytest.raises(PyserError, match="more than --max-dropped 5%"):
        run(recording, max_dropped=0.05)
    with pytest.raises(PyserError, match=r"shorter than --min-duration=0.31 s \(e.g. u\)"):
        run(recording, MfccConfig(min_duration=0.31))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("config", [
    HIRES, MfccConfig(raw_energy=False, subtract_mean=True), FbankConfig(use_log_fbank=False)])
def test_samples_too_large_are_dropped_without_a_word_from_numpy(recording, golden, config):
    for key, scale in (("v", 1e25), ("w", 3e33), ("x", 1e13)):
        soundfile.write(recording / f"{key}.wav", golden[0] / 32768 * scale, 16000, subtype="FLOAT")
    (recording / "wav.scp").write_text("".join(f"{key} {recording}/{key}.wav\n" for key in "uvwx"))
    line, feats = run(recording, config)
    assert "4 utterances, 2 dropped: 2 with samples too large for single precision (e.g. v)" in line
    assert list(feats) == ["u", "x"]


def test_segments(recording, golden, capsys):
    """A part starting at a whole frame has that frame's numbers; -1 is the end; an end a little too late is cut back."""
    (recording / "segments").write_text("b u 0.1 -1\na u 0.0 0.105\nc u 0.25 0.26\nd x 0 1\ne u 2 3\nf u 0.1 0.7\n")
    line, feats = run(recording, segments=recording / "segments")
    assert list(feats) == ["b", "a", "f"] and "6 utterances, 3 dropped" in line
    assert "2 with a bad segment (e.g. c)" in line and "without recording in wav.scp (e.g. d)" in line
    assert np.abs(feats["a"] - golden[1][:9]).max() < 0.01
    assert np.abs(feats["b"] - golden[1][10:]).max() < 0.01
    np.testing.assert_array_equal(feats["f"], feats["b"])
    capsys.readouterr()
    (recording / "segments").write_text("a u 0.0\nb u 0.1 -1\n\nc u 2 1\nd u 0 1 left\ne u x 1\n")
    line, feats = run(recording, segments=recording / "segments")
    assert list(feats) == ["b"] and "6 utterances, 5 dropped: 5 with a bad segment (e.g. a)" in line
    said = capsys.readouterr().out
    assert "a: expected 'recording start end'" in said and "c: from 2 to 1 is no segment" in said and "line 3: " in said
    (recording / "segments").write_text("a u 0.0\n")
    with pytest.raises(PyserError, match="1 with a bad segment .e.g. a.: nothing is left"):
        run(recording, max_dropped=1, segments=recording / "segments")


def test_channels_of_segments(recording, golden):
    left, right = golden[0], golden[0][::-1]
    soundfile.write(recording / "u.wav", np.stack([left, right], axis=1), 16000)
    (recording / "segments").write_text("a u 0 -1 1\nb u 0.1 -1 0\nc u 0 -1 2\nd u 0 -1 0\n")
    line, feats = run(recording, MfccConfig(), segments=recording / "segments")
    assert list(feats) == ["a", "b", "d"] and "1 unreadable (e.g. c)" in line
    np.testing.assert_array_equal(feats["a"], mfcc(right.astype(np.float32), MfccConfig()))
    np.testing.assert_array_equal(feats["d"], mfcc(left.astype(np.float32), MfccConfig()))
    (recording / "segments").write_text("a u 0 -1 1\nb u 0 -1\n")
    with pytest.raises(PyserError, match="segments: b: .*u.wav: has 2 channels, and which one is not said; write it, 0 or 1"):
        run(recording, MfccConfig(), segments=recording / "segments")
    np.testing.assert_array_equal(run(recording, MfccConfig(channel=1), segments=recording / "segments")[1]["b"], feats["a"])


def test_warp_factors_of_utterances_and_speakers(recording, golden):
    samples = golden[0].astype(np.float32)
    (recording / "wav.scp").write_text("".join(f"{key} {recording}/u.wav\n" for key in "uvw"))
    (recording / "warps").write_text("u 0.9\nv 1.1\n")
    line, feats = run(recording, MfccConfig(), vtln_map=recording / "warps")
    assert "1 without warp factor in --vtln-map (e.g. w)" in line
    np.testing.assert_array_equal(feats["v"], mfcc(samples, MfccConfig(vtln_warp=1.1)))
    (recording / "utt2spk").write_text("u A\nv B\nw A\n")
    (recording / "warps").write_text("A 0.9\nB 1.1\n")
    _, feats = run(recording, MfccConfig(), vtln_map=f"ark:{recording}/warps", utt2spk=f"ark:{recording}/utt2spk")
    np.testing.assert_array_equal(feats["w"], mfcc(samples, MfccConfig(vtln_warp=0.9)))
    pipes = Lists(vtln_map=f"ark:cat {recording}/warps |", utt2spk=f"ark:cat {recording}/utt2spk |")
    target = f"ark:{recording}/piped.ark"
    with pytest.raises(PyserError, match="pipes are not run here"):
        compute_features(f"scp:{recording}/wav.scp", target, MfccConfig(), pipes)
    compute_features(f"scp:{recording}/wav.scp", target, MfccConfig(), pipes, allow_pipes=True, compress=False)
    np.testing.assert_array_equal(dict(read_mats(target))["w"], feats["w"])
    (recording / "warps").write_text("A x\n")
    with pytest.raises(PyserError, match="warps: A: expected a warp factor, found 'x'"):
        run(recording, vtln_map=recording / "warps")
