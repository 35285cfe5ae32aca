"""The corpus maker of egs/mini: its layouts are the real corpora's (synthesis itself needs espeak-ng and is not tested)."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "egs/mini/local/make_corpus.py"


@pytest.fixture(scope="module")
def maker():
    import sys

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
