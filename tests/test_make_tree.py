"""The maker of TED-LIUM 2's layout: what the recipe reads of its tree is what was put in."""

import gzip
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("pocketsphinx", reason="needs CMUdict")

from pyser.corpora.tedlium2 import prepare_tedlium2  # noqa: E402
from pyser.kaldi.datadir import read_dir, validate  # noqa: E402

SCRIPT = Path(__file__).parent.parent / "egs/tedlium2/tdnn/local/make_tree.py"
TEXTS = ["THEY'RE THE BOYS' DOGS", "'CAUSE IT'S FIVE O'CLOCK", "DON'T", "HELLO WORLD", "HELLO WORLD"]


@pytest.fixture
def maker():
    spec = importlib.util.spec_from_file_location("make_tree", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_tree"] = module
    spec.loader.exec_module(module)
    return module


def source(path: Path, seed: int) -> Path:
    """Two speakers; audio beside the lists' folder."""
    random = np.random.default_rng(seed)
    lists = {name: "" for name in ("wav.scp", "text", "utt2spk")}
    for speaker in ("a-1", "b-2"):
        for number, text in enumerate(TEXTS):
            utt = f"{speaker}-{number}"
            audio = path.parent / f"audio/{seed}-{utt}.wav"
            audio.parent.mkdir(exist_ok=True)
            samples = (3000 * random.standard_normal(3200 + 37 * number)).astype(np.int16)
            soundfile.write(audio, samples, 16000)
            lists["wav.scp"] += f"{utt} audio/{audio.name}\n"
            lists["text"] += f"{utt} {text}\n"
            lists["utt2spk"] += f"{utt} {speaker}\n"
    path.mkdir()
    for name, lines in lists.items():
        (path / name).write_text(lines)
    (path / "spk2gender").write_text("a-1 f\nb-2 m\n")
    return path


def test_the_recipe_reads_what_was_put_in(maker, tmp_path, capsys):
    parts = {part: source(tmp_path / part, seed) for seed, part in enumerate(("train", "dev", "test"))}
    maker.MAX_TALK = 0.7  # the speakers' words take more than one talk
    maker.make_tree(parts, tmp_path / "tree")
    assert "train: 4 talks, 10 utterances, " in capsys.readouterr().out
    done = prepare_tedlium2(tmp_path / "tree", tmp_path / "data")
    assert done.endswith("data/local/lm/text.gz: 2 texts, 4 sentences, 11 words, 0.00% of them outside the dictionary")
    assert gzip.open(tmp_path / "data/local/lm/text.gz", "rt").read().split("\n") == [
        "they're the boys' dogs", "don't", "'cause it's five o'clock", "hello world", ""]
    for part in parts:
        validate(tmp_path / "data" / part, need_text=True, need_feats=False)
        given, found = read_dir(parts[part]), read_dir(tmp_path / "data" / part)
        assert set(found["utt2spk"].values()) == {"A1_01", "A1_02", "B2_01", "B2_02"}
        assert found["spk2gender"] == {"A1_01": "f", "A1_02": "f", "B2_01": "m", "B2_02": "m"}
        for was, utt in zip(sorted(given["text"]), sorted(found["text"]), strict=True):
            assert found["text"][utt] == given["text"][was].lower()
            talk, start, end = found["segments"][utt].split()
            samples, _ = soundfile.read(tmp_path / given["wav.scp"][was], dtype="int16")
            whole, rate = soundfile.read(found["wav.scp"][talk], dtype="int16")
            part_of_it = whole[round(float(start) * rate) : round(float(end) * rate)]
            assert rate == 16000 and 0 <= len(part_of_it) - len(samples) < 160
            assert np.abs(part_of_it[: len(samples)].astype(int) - samples).max() <= 1


def test_stm_lines(maker):
    one = maker.Utterance(Path("x"), "a", "female", "it 's five o 'clock")
    assert maker.apart(" IT'S  FIVE O'CLOCK BOYS' 'EM ROCK'N'ROLL") == "it 's five o 'clock boys ' 'em rock'n 'roll"
    assert maker.stm_line("A_01", 150, 325, "test", one) == "A_01 1 A_01 1.50 3.25 <o,f0,female> it 's five o 'clock\n"
    assert maker.stm_line("A_01", 150, 325, "dev", one) == "A_01 1 A_01 1.50 3.25 <F0_F> it 's five o 'clock\n"
    assert maker.stm_line("A_01", 0, 150, "dev", None) == (
        "A_01 1 inter_segment_gap 0.00 1.50 <o,,unknown> ignore_time_segment_in_scoring\n")


def test_nothing_half_made(tmp_path):
    train = source(tmp_path / "train", 0)

    def run():
        arguments = [*(f"--{part}={train}" for part in ("train", "dev", "test")), tmp_path / "tree"]
        return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)

    (tmp_path / "audio/0-b-2-4.wav").write_bytes(b"RIFF")
    assert "0-b-2-4.wav" in run().stderr and not (tmp_path / "tree").exists()
    (tmp_path / "audio/0-b-2-4.wav").unlink()
    assert run().stderr.startswith(f"make_tree.py: {train}/wav.scp: b-2-4: no file 'audio/0-b-2-4.wav'; ")
    (tmp_path / "tree").mkdir()
    assert run().stderr == f"make_tree.py: {tmp_path}/tree: is there already; remove it or give another folder\n"
