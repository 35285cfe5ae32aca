"""egs/kaldi_dir/ctc on a corpus of a minute, and egs/iemocap/fusion with the encoder that it leaves."""

import json

import pytest
import tiny_corpus
from recipes import recipe
from test_encoders_text import make_bert

CTC = "--num-epochs=2\n--lr-initial=5e-3\n--lr-final=1e-3\n--max-duration=12\n--avg=1\n"
FUSION = "--units=4\n--heads=2\n--nodes=4\n--num-epochs=2\n--lr-initial=1e-2\n--lr-final=1e-2\n--batch-utterances=16\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder, options of both recipes after they have run once, and what they said."""
    work = tmp_path_factory.mktemp("fusion")
    for seed, name in enumerate(("train", "dev", "test"), 1):
        tiny_corpus.make_data_dir(work / name, speakers=2, utts=8, seed=seed)
    (work / "bert").mkdir()
    make_bert(work / "bert")
    (work / "ctc.conf").write_text(CTC)
    (work / "fusion.conf").write_text(FUSION)
    first = ["--train", work / "train", "--dev", work / "dev", "--test", work / "test", "--like", "tiny", "--nj", 1,
             "--ctc-config", work / "ctc.conf", "--data", work / "data", "--exp", work / "exp"]
    second = ["--corpus", tiny_corpus.make_iemocap(work / "IEMOCAP"), "--data", work / "ser_data", "--exp", work / "ser_exp",
              "--w2v2", work / "exp/encoder", "--bert", work / "bert", "--fusion-config", work / "fusion.conf",
              "--selection", "last", "--nj", 1]
    log = recipe("kaldi_dir/ctc/run.sh", *first)
    return work, first, second, log + recipe("iemocap/fusion/run.sh", *second)


def test_what_they_leave(run):
    work, _, _, log = run
    assert (work / "exp/encoder/model.safetensors").exists() and (work / "exp/untrained_wav2vec2_tiny/config.json").exists()
    for name in ("dev", "test"):
        assert len((work / f"exp/decode_{name}/hyp.txt").read_text().splitlines()) == 16
        assert (work / f"exp/decode_{name}/wer.txt").read_text().splitlines()[0] in log
    exp = work / "ser_exp"
    results = json.loads((exp / "fusion_mfcc+hidden+text-layer2_hierarchical_last/results.json").read_text())
    assert results["pooled"]["n"] == 80 and len(results["folds"]) == 5
    assert all((exp / f"decode/wer_by_{name}").exists() for name in ("emotion.csv", "length.csv", "emotion_length.png"))


def test_nothing_is_done_twice(run):
    work, first, second, _ = run
    log = recipe("kaldi_dir/ctc/run.sh", *first)
    assert log.count("already done: run.sh") == 1 and log.count("already done: pyser encoder decode") == 2
    log = recipe("iemocap/fusion/run.sh", *second, "--stage", 2)
    assert log.count("already done: pyser encoder") == 3 and log.count("already done: run.sh") == 1
    log = recipe("iemocap/fusion/run.sh", *second, "--stage", 4, "--streams", "text,gt", "--seeds", "0 1")
    table = (work / "ser_exp/table.txt").read_text()
    assert table in log and all(f"fusion_text+gt_hierarchical_last{seed} " in table for seed in ("", "_seed1"))


def test_every_layer_has_a_row_and_a_bar(run):
    work, _, second, _ = run
    log = recipe("iemocap/fusion/run.sh", *second, "--stage", 4, "--grid", "table4")
    assert (work / "ser_exp/layers.png").exists()
    rows = [line.split() for line in log[log.index("test UA"):].splitlines()[1:4]]
    assert [row[0] for row in rows] == ["layer0", "layer1", "layer2"] and all(0 <= float(row[1]) <= 100 for row in rows)


def test_a_prepared_directory_and_an_encoder_that_learns(run):
    """egs/kaldi_dir/fusion on what egs/iemocap/fusion has prepared: its folds are taken; only systems with hidden states
    are joint ones."""
    work, _, second, _ = run
    options = dict(zip(second[::2], second[1::2], strict=True))
    options |= {"--corpus": work / "ser_data/iemocap", "--data": work / "kaldi_data", "--exp": work / "kaldi_exp",
                "--freeze": "features", "--streams": "mfcc,hidden", "--layer": "middle", "--fusion": "concat"}
    log = recipe("kaldi_dir/fusion/run.sh", *(part for pair in options.items() for part in pair))
    assert "without --lm words are spelled greedily" in log
    lists = [(folder / "folds/2/train.list").read_text() for folder in (work / "ser_data/iemocap", work / "kaldi_data/kaldi")]
    assert lists[0] == lists[1]
    results = json.loads((work / "kaldi_exp/fusion_mfcc+hidden-layer1_concat_joint_last/results.json").read_text())
    assert results["pooled"]["n"] == 80 and len(results["folds"]) == 5 and results["wer"]["words"] == 320
    assert results["node"] == "layer1" and results["config"]["speech"] == str((work / "exp/encoder").resolve())
    options |= {"--streams": "mfcc", "--stage": 4, "--stop-stage": 4}
    recipe("kaldi_dir/fusion/run.sh", *(part for pair in options.items() for part in pair))
    found = sorted(path.name for path in (work / "kaldi_exp").glob("fusion_*"))
    assert found == ["fusion_mfcc+hidden-layer1_concat_joint_last", "fusion_mfcc_last"]


def test_bad_options(run):
    work, first, second, _ = run
    for script, options, said in (
        ("kaldi_dir/ctc/run.sh", ["--train", work / "train"], "give --train DIR and --dev DIR"),
        ("kaldi_dir/ctc/run.sh", ["--train", work / "nowhere", "--dev", work / "dev"], "nowhere"),
        ("kaldi_dir/ctc/run.sh", [*first, "--exp", work / "other", "--like", "huge"], "huge"),
        ("kaldi_dir/fusion/run.sh", ["--corpus", work / "dev", "--data", work / "none"], "has no emotions (utt2emo)"),
        ("iemocap/fusion/run.sh", [*second, "--grid", "table9"], "--grid table9: it is table3 or table4"),
        ("iemocap/fusion/run.sh", [*second, "--streams", "mfcc,video"], "--streams mfcc,video: they are"),
    ):
        log = recipe(script, *options, ok=False)
        assert said in log and "Traceback" not in log
