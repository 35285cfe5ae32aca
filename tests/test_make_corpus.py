"""The corpus maker of egs/mini: its layouts are the real corpora's, and its emotions can be heard."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "egs/mini/local/make_corpus.py"


@pytest.fixture(scope="module")
def maker():
    sys.path.insert(0, str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("make_corpus", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_corpus"] = module
    spec.loader.exec_module(module)
    return module


def test_stm_lines_are_tedliums(maker):
    assert maker.stm_line("A_2026", 1.5, 3.25, "hello world", "male") == "A_2026 1 A_2026 1.50 3.25 <o,f0,male> hello world\n"
    gap = maker.stm_line("A_2026", 3.25, 4, "ignore_time_segment_in_scoring", "male")
    assert gap == "A_2026 1 inter_segment_gap 3.25 4.00 <o,,unknown> ignore_time_segment_in_scoring\n"


def test_evaluation_blocks_are_iemocaps(maker):
    first = maker.evaluation_block("Ses01F_impro01_F000", 6.2901, 8.2357, "neu", (2.5, 2.5, 2.5)).splitlines()[0]
    assert first == "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]"


def test_sentences_repeat_and_differ(maker):
    one, two = ([maker.sentence(np.random.default_rng(seed)) for seed in range(200)] for _ in range(2))
    assert one == two
    assert len(set(one)) > 190
    assert all(re.fullmatch(r"[a-z' ]+", sentence) for sentence in one)


def test_every_word_has_a_pronunciation(maker):
    lines = maker.dictionary().splitlines()
    words = {line.split()[0] for line in lines}
    assert {"the", "o'clock", "neighbor"} <= words
    assert any(re.match(r"the\(2\) DH", line) for line in lines)
    spoken = {word for seed in range(300) for word in maker.sentence(np.random.default_rng(seed)).split()}
    assert spoken <= words


def test_speakers_of_the_talks_are_disjoint(maker):
    voices = [voice for part in maker.TALKS.values() for voice in part]
    assert len(voices) == len(set(voices))


def test_manners_vary_within_limits(maker):
    random = np.random.default_rng(0)
    manners = [maker.NEUTRAL.varied(random, 3) for _ in range(500)]
    assert all(5 <= m.pitch <= 95 and m.pitch_range >= 20 and 100 <= m.rate <= 230 and m.loudness > 0 for m in manners)
    assert np.std([m.pitch for m in manners]) > 10


def test_a_tree_of_someone_else_is_left_alone(maker, tmp_path):
    recording = tmp_path / "IEMOCAP/Session1/real.wav"
    recording.parent.mkdir(parents=True)
    recording.write_bytes(b"real")
    with pytest.raises(maker.PyserError, match="not made by this program"):
        maker.make_tree(tmp_path, "IEMOCAP", maker.make_iemocap)
    assert recording.read_bytes() == b"real"


def test_loud_speech_is_bent_and_not_clipped(maker):
    wave = maker.limited(np.linspace(-1.5, 1.5, 1001))
    assert np.abs(wave).max() < 0.9 and (np.diff(wave) > 0).all()
    assert np.allclose(maker.limited(np.array([0.1])), 0.1, atol=1e-3)


def test_speech_has_the_loudness_and_rate_asked_for(maker):
    text = "we know that my brother sold the window"
    quiet, loud = (maker.speak("en-us+f1", text, maker.EMOTIONS[emotion]) for emotion in ("sad", "ang"))
    level = [20 * np.log10(np.sqrt(np.mean(x**2))) for x in (quiet, loud)]
    assert level[1] - level[0] == pytest.approx(20 * np.log10(0.058 / 0.019), abs=1.0)
    assert len(quiet) / len(loud) == pytest.approx(190 / 128, rel=0.15)
    assert np.abs(loud).max() < 0.9


def test_every_voice_says_the_same_in_every_process(maker):
    code = """
import hashlib, make_corpus as maker
voices = {*sum(maker.TALKS.values(), ()), *(voice for pair in maker.ACTORS.values() for voice in pair.values())}
for voice in sorted(voices):
    for emotion in maker.EMOTIONS.values():
        print(voice, hashlib.md5(maker.speak(voice, "nobody asked about the basket", emotion).tobytes()).hexdigest())
"""
    runs = [subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True).stdout
            for _ in range(3)]
    assert runs[0].count("\n") == 4 * 27 and runs[0] == runs[1] == runs[2]


def test_pitch_rises_and_voices_differ(maker):
    def pitch(voice, number):
        x = maker.speak(voice, "aah", maker.Manner(number, 0, 120, 0.05))[2000:6000]
        correlation = np.correlate(x, x, "full")[len(x) - 1 :]
        return 16000 / (50 + np.argmax(correlation[50:220]))  # between 73 and 320 Hz

    assert pitch("en-us+f1", 30) < 0.8 * pitch("en-us+f1", 70)
    assert pitch("en-us+m3", 50) < 0.7 * pitch("en-us+f1", 50)
    with pytest.raises(maker.PyserError, match="no voice nobody"):
        maker.speak("nobody", "hello", maker.NEUTRAL)


def test_a_dialog_is_read_back_by_the_corpus_preparer(maker, tmp_path):
    from pyser.corpora.iemocap import prepare_iemocap

    for job in maker.make_iemocap(tmp_path)[::2]:  # the improvised dialog of each session
        job()
    found = prepare_iemocap(tmp_path, subset="improvised")
    assert len(found.utterances) == 200
    assert {e: sum(u.emotion == e for u in found.utterances) for e in ("ang", "hap", "neu", "sad")} == dict.fromkeys(
        ("ang", "hap", "neu", "sad"), 50)
    assert all(one.text for one in found.utterances)
