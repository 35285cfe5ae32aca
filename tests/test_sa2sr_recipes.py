"""The recipes of pretraining and of emotion regression on corpora of a minute."""

import json
import re

import numpy as np
import pytest
import soundfile
import tiny_corpus
from recipes import recipe

import pyser

PRETRAIN = "--layers=1\n--units=16\n--num-epochs=2\n--lr-initial=1e-2\n--lr-final=1e-2\n--max-duration=15\n--negatives=16\n"
REGRESSION = "--layers=1\n--units=16\n--nodes=8\n--heads=2\n--num-epochs=3\n--lr-initial=1e-2\n--batch-utterances=16\n"
RATINGS = {"ang": "[1.5000, 4.5000, 4.0000]", "hap": "[4.5000, 4.0000, 3.5000]", "neu": "[3.0000, 2.5000, 3.0000]",
           "sad": "[2.0000, 1.5000, 2.0000]"}
SYSTEMS = "none", "asr", "cpc", "sa2sr_frozen"


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    root = tmp_path_factory.mktemp("sa2sr")
    for name, seed in (("train", 1), ("dev", 2)):
        directory = tiny_corpus.make_data_dir(root / name, speakers=3, utts=8, seed=seed)
        text = (directory / "text").read_text()  # two of the words get a sentiment
        (directory / "text").write_text(text.replace("MOO", "LOVE").replace("SAW", "HATE"))
    for path in tiny_corpus.make_iemocap(root / "IEMOCAP").glob("Session*/dialog/EmoEvaluation/*.txt"):
        lines = [re.sub(r"\[2.5000.*", RATINGS.get(line.split("\t")[-2], ""), line) if line.startswith("[") else line
                 for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines) + "\n")
    (root / "pretrain.conf").write_text(PRETRAIN)
    (root / "regression.conf").write_text(REGRESSION)
    return root


@pytest.fixture(scope="module")
def run(work):
    """Options of both recipes after they have run once, and what they said."""
    first = ["--train", work / "train", "--dev", work / "dev", "--data", work / "data", "--exp", work / "exp", "--sentiment",
             "vader", "--speeds", "0.9,1.0", "--pretrain-config", work / "pretrain.conf", "--nj", 2,
             "--objectives", "asr sa2sr cpc"]
    second = ["--corpus", work / "IEMOCAP", "--data", work / "ser_data", "--exp", work / "ser_exp", "--sentiment", "vader",
              "--pretrained", work / "exp", "--regression-config", work / "regression.conf", "--nj", 2,
              "--systems", " ".join(SYSTEMS)]
    return first, second, recipe("librispeech/sa2sr/run.sh", *first) + recipe("iemocap/sa2sr/run.sh", *second)


def test_what_they_leave(work, run):
    for objective in ("asr", "sa2sr"):
        summary = json.loads((work / f"exp/pretrain_{objective}/pretraining.json").read_text())
        assert summary["epochs"] == 2 and summary["padding"] < 0.1 and summary["hours_per_hour"] > 1
    for system in SYSTEMS:
        results = json.loads((work / f"ser_exp/avd_{system}/results.json").read_text())
        assert results["pooled"]["n"] == 80 and len(results["folds"]) == 5 and results["scale"] == "1-5"
        assert results["config"]["pretraining"] == system.split("_")[0]
    for number, rows in ((2, ("avd_none", "avd_asr")), (3, ("avd_asr", "avd_cpc")), (4, ("avd_asr", "avd_sa2sr_frozen"))):
        text = (work / f"ser_exp/table{number}.txt").read_text()
        assert all(row in text for row in rows) and "valence of B - A" in text
    assert "Spearman's rho" in (work / "ser_exp/table1.txt").read_text()
    assert (work / "ser_exp/table1.png").stat().st_size > 1000
    recording = min((work / "IEMOCAP").rglob("*.wav"))
    assert list(pyser.load(work / "ser_exp/avd_asr").predict(recording).ratings) == ["activation", "valence", "dominance"]


def test_a_second_run_changes_nothing(work, run):
    first, second, _ = run
    files = [work / "exp/pretrain_sa2sr/final.safetensors", work / "ser_exp/avd_asr/fold1/final.safetensors"]
    before = [path.read_bytes() for path in files]
    log = recipe("librispeech/sa2sr/run.sh", *first)
    log += recipe("iemocap/sa2sr/run.sh", *second, "--stage", 2, "--stop-stage", 2)
    assert log.count("already done") >= 9
    assert [path.read_bytes() for path in files] == before
    dev = work / "data/dev/utt2sentiment"
    labels = dev.read_text()
    dev.write_text("".join(f"{line.split()[0]} negative 0.8 0.1 0.1\n" for line in labels.splitlines()[:3])
                   + "".join(f"{line}\n" for line in labels.splitlines()[3:]))
    log = recipe("librispeech/sa2sr/run.sh", *first, "--stage", 4, "--objectives", "sa2sr", ok=False)
    assert "pretrained with other valid utt2sentiment; delete it" in log
    dev.write_text(labels)


def test_a_prepared_directory(work, run):
    """egs/kaldi_dir/sa2sr on what egs/iemocap/sa2sr has prepared: its folds and what it says of its ratings are taken."""
    _, second, _ = run
    options = dict(zip(second[::2], second[1::2], strict=True))
    options |= {"--corpus": work / "ser_data/iemocap", "--data": work / "kaldi_data", "--exp": work / "kaldi_exp",
                "--systems": "none"}
    recipe("kaldi_dir/sa2sr/run.sh", *(part for pair in options.items() for part in pair))
    new, old = (json.loads((work / place / "avd_none/results.json").read_text()) for place in ("kaldi_exp", "ser_exp"))
    assert [new[name] for name in ("corpus", "scale", "ratings")] == [old[name] for name in ("corpus", "scale", "ratings")]


def test_what_is_missing_is_one_line(work, tmp_path):
    for script, options, said in (
        ("librispeech/sa2sr/run.sh", ("--train", work / "train"), "give --train DIR and --dev DIR"),
        ("librispeech/sa2sr/run.sh", ("--corpus", work / "nowhere"), "nowhere: no such folder"),
        ("kaldi_dir/sa2sr/run.sh", ("--corpus", work / "dev"), "has no ratings (utt2avd)"),
        ("iemocap/sa2sr/run.sh", ("--systems", "bert", "--stage", 2), "--systems bert: they are none, asr, cpc and sa2sr"),
    ):
        log = recipe(script, *options, "--data", tmp_path / "d", "--exp", tmp_path / "e", ok=False)
        assert said in log and "Traceback" not in log


def test_ratings_of_categories_are_called_that(work, tmp_path):
    """RAVDESS, a second an utterance: three actors of three folds."""
    rng = np.random.default_rng(0)
    for actor in (1, 5, 9):
        folder = tmp_path / f"RAVDESS/Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in range(1, 9):
            for statement in (1, 2):
                t = np.arange(16000) / 16000
                wave = 0.3 * np.sin(2 * np.pi * 100 * (emotion + actor / 10) * t) + 0.01 * rng.normal(size=len(t))
                soundfile.write(folder / f"03-01-{emotion:02d}-01-{statement:02d}-01-{actor:02d}.wav", wave, 16000)
    options = ["--corpus", tmp_path / "RAVDESS", "--data", tmp_path / "data", "--exp", tmp_path / "exp", "--nj", 1,
               "--regression-config", work / "regression.conf", "--systems", "none"]
    log = recipe("ravdess/sa2sr/run.sh", *options)
    assert "DERIVED FROM THEIR CATEGORIES" in log and "not annotated" in log
    results = json.loads((tmp_path / "exp/avd_none/results.json").read_text())
    assert results["scale"].startswith("category-derived") and results["labels"] == ["activation", "valence"]
    assert len(results["folds"]) == 3 and results["pooled"]["n"] == 48
    assert not list((tmp_path / "exp").glob("table*"))  # one system is not enough for any
