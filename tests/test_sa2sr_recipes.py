"""The recipes of pretraining and of emotion regression on corpora of a minute."""

import json
import re

import pytest
import tiny_corpus
from recipes import recipe

import pyser

PRETRAIN = "--layers=1\n--units=16\n--num-epochs=2\n--lr-initial=1e-2\n--lr-final=1e-2\n--max-duration=15\n--negatives=16\n"
REGRESSION = "--layers=1\n--units=16\n--nodes=8\n--heads=2\n--num-epochs=3\n--lr-initial=1e-2\n--batch-utterances=16\n"
RATINGS = {"ang": "[1.5000, 4.5000, 4.0000]", "hap": "[4.5000, 4.0000, 3.5000]", "neu": "[3.0000, 2.5000, 3.0000]",
           "sad": "[2.0000, 1.5000, 2.0000]"}
SYSTEMS = "none", "asr", "sa2sr_frozen"


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
             "--objectives", "asr sa2sr"]
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
    for number, rows in ((2, ("avd_none", "avd_asr")), (4, ("avd_asr", "avd_sa2sr_frozen"))):
        text = (work / f"ser_exp/table{number}.txt").read_text()
        assert all(row in text for row in rows) and "valence of B - A" in text
    assert not (work / "ser_exp/table3.txt").exists()  # one of its systems is not enough
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


def test_what_is_missing_is_one_line(work, tmp_path):
    for script, options, said in (
        ("librispeech/sa2sr/run.sh", ("--train", work / "train"), "give --train DIR and --dev DIR"),
        ("librispeech/sa2sr/run.sh", ("--corpus", work / "nowhere"), "nowhere: no such folder"),
        ("iemocap/sa2sr/run.sh", ("--systems", "bert", "--stage", 2), "--systems bert: they are none, asr, cpc and sa2sr"),
    ):
        log = recipe(script, *options, "--data", tmp_path / "d", "--exp", tmp_path / "e", ok=False)
        assert said in log and "Traceback" not in log
