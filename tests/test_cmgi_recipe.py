"""egs/iemocap/cmgi on a corpus of a minute and tiny random encoders: rows with their first stages, and a table of them."""

import json
from pathlib import Path

import pytest
import tiny_corpus
from recipes import recipe
from test_encoders_text import make_bert

from pyser.encoders.untrained import init_speech

CONF = "--nodes=8\n--heads=2\n--num-epochs=1\n--batch-utterances=8\n--accumulate=2\n--lr-initial=1e-3\n--lr-final=1e-3\n"


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    work = tmp_path_factory.mktemp("cmgi")
    (work / "bert").mkdir()
    make_bert(work / "bert")
    init_speech(work / "hubert", "tiny", "hubert")
    (work / "cmgi.conf").write_text(CONF)
    return ["--corpus", tiny_corpus.make_iemocap(work / "IEMOCAP"), "--data", work / "data", "--exp-dir", work / "exp",
            "--hubert", work / "hubert", "--w2v2", work / "hubert", "--bert", work / "bert",
            "--cmgi-config", work / "cmgi.conf"]


def test_a_row_brings_its_first_stage(options):
    log = recipe("iemocap/cmgi/run.sh", *options)
    exp = Path(options[5])
    assert sorted(path.name for path in exp.iterdir()) == ["cmgi.txt", "cmgi_2", "cmgi_cmgi"]
    results = json.loads((exp / "cmgi_cmgi/results.json").read_text())
    assert results["pooled"]["n"] == 80 and len(results["folds"]) == 5 and results["wer"]["words"] == 320
    assert results["label_set"] == "5531" and results["config"]["init"] == str(exp / "cmgi_2")
    header, first, second = (exp / "cmgi.txt").read_text().splitlines()[:3]
    assert header.split()[-1] == "WER" and first.startswith("cmgi_2 ") and second.startswith("cmgi_cmgi ")
    assert "stage 1: row cmgi, CmGI (seed 0" in log
    again = recipe("iemocap/cmgi/run.sh", *options, "--stop-stage", 1)
    assert again.count("already done: run.sh") == 2
    hubert = options[7]
    init_speech(hubert.parent / "other", "tiny", "hubert", seed=1)
    (hubert.parent / "other/model.safetensors").replace(hubert / "model.safetensors")
    anew = recipe("iemocap/cmgi/run.sh", *options, "--stage", 1, "--stop-stage", 1)
    assert "already done" not in anew
    logs = [(exp / name / "log/train.log").read_text() for name in ("cmgi_2", "cmgi_cmgi")]
    assert all(log.count("training it again") == 5 for log in logs)


def test_options_choose_rows_seeds_and_selection(options):
    recipe("iemocap/cmgi/run.sh", *options, "--exp", 8, "--seeds", 1, "--selection", "last", "--stage", 1,
           "--stop-stage", 1)
    exp = Path(options[5])
    config = json.loads((exp / "cmgi_8_last_seed1/ser.json").read_text())["config"]
    assert config["selection"] == "last" and config["seed"] == 1 and not config["speech"]
    log = recipe("iemocap/cmgi/run.sh", *options, "--exp", "table1", "--stage", 9)
    assert "row 5 is left out: it reads what a DNN-HMM hears, --hyp FILE" in log


def test_bad_options(options):
    for wrong, said in ((["--exp", "table3"], "--exp table3: there are table1 table2 1 2"),
                        (["--exp", 5, "--stage", 1], "row 5 reads what a DNN-HMM hears"),
                        (["--gradient-checkpointing", "maybe"], "takes true or false"),
                        (["--exp=3"], "write '--name value'")):
        log = recipe("iemocap/cmgi/run.sh", *options, *wrong, ok=False)
        assert said in log and "Traceback" not in log
    log = recipe("iemocap/cmgi/run.sh", "--help")
    assert "--exp table1|table2|ROW" in log
