"""Fine-tuning to activation, valence and dominance: folds, scores, tables and tests."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

import pyser
from pyser.cli import cli
from pyser.config import write_conf
from pyser.errors import PyserError
from pyser.features.fbank import FbankConfig, fbank
from pyser.kaldi.datadir import read_table, write_table
from pyser.kaldi.tables import MatrixWriter
from pyser.nn import model_io
from pyser.nn.sa2sr import EncoderConfig, SpeechReader
from pyser.scoring.ratings import comparison, ratings_table, read_ratings, score_ratings
from pyser.scoring.significance import ccc_bootstrap
from pyser.ser.filterbanks import Filterbanks
from pyser.ser.pretraining import CHARACTERS, KIND, PretrainConfig
from pyser.ser.regression import RegressionConfig, fine_tune, read_regression
from pyser.ser.regression_predict import package
from pyser.ser.targets import RATINGS
from pyser.training import checkpoints

SMALL = RegressionConfig(layers=1, units=8, nodes=8, heads=2, num_epochs=12, lr_initial=1e-2, lr_final=2e-3,
                         batch_utterances=16, spec_augment=0.0)
BINS = 6


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Activation is how much the lower bins fall, valence how much the upper ones rise; dominance is not rated."""
    root, rng = tmp_path_factory.mktemp("regression"), np.random.default_rng(0)
    data = root / "data"
    data.mkdir()
    lists = {name: {} for name in ("utt2spk", "utt2avd", "utt2num_frames")}
    with MatrixWriter(f"ark,scp:{data}/feats.ark,{data}/feats.scp", compress=False) as writer:
        for speaker in range(4):
            for number in range(24):
                utt, frames = f"spk{speaker}-{number:02d}", int(rng.integers(24, 60))
                rated, slope = rng.uniform(1, 7, size=2), np.linspace(-1, 1, frames)[:, None]
                x = rng.normal(size=(frames, BINS))
                x[:, :3] -= slope * (rated[0] - 4)
                x[:, 3:] += slope * (rated[1] - 4)
                writer.write(utt, x.astype(np.float32))
                lists["utt2spk"][utt], lists["utt2num_frames"][utt] = f"spk{speaker}", str(frames)
                lists["utt2avd"][utt] = f"{rated[0]:.3f} {rated[1]:.3f} -"
    for name, table in lists.items():
        write_table(data / name, table)
    for fold in (1, 2):
        parts = {part: [utt for utt in lists["utt2spk"] if int(utt[3]) in speakers]
                 for part, speakers in (("test", [fold]), ("valid", [3]), ("train", [0, 3 - fold]))}
        directory = data / "folds" / str(fold)
        directory.mkdir(parents=True)
        for part, utts in parts.items():
            (directory / f"{part}.list").write_text("".join(f"{utt}\n" for utt in utts))
    (data / "folds/info.json").write_text(json.dumps({"corpus": "made-up", "avd": "1-7"}))
    return data


def pretrained(directory, objective="asr", dim=3 * BINS):
    """What pretraining leaves, of random parameters."""
    torch.manual_seed(5)
    encoder = EncoderConfig(dim, 1, 8)
    reader, config = SpeechReader(encoder, len(CHARACTERS)), PretrainConfig(objective=objective)
    model_io.save(directory / "final.safetensors", reader, config, {
        "kind": KIND, "objective": objective, "epoch": "1", "encoder": json.dumps(asdict(encoder))})
    return str(directory)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    exp = tmp_path_factory.mktemp("exp") / "plain"
    fine_tune(corpus, corpus / "folds", exp, SMALL)
    score_ratings(exp)
    return exp


def test_it_learns_and_is_scored_on_the_whole_set(corpus, trained):
    """CCC again in double precision, from the files."""
    results = read_ratings(trained)
    assert results["labels"] == ["activation", "valence"] and results["scale"] == "1-7" and results["pooled"]["n"] == 48
    assert min(results["pooled"][label] for label in results["labels"]) > 0.6
    rated = read_table(corpus / "utt2avd")
    for d, label in enumerate(results["labels"]):
        found, gold = [], []
        for fold in (1, 2):
            for utt, row in read_table(trained / f"fold{fold}/test_ratings.txt").items():
                found.append(float(row.split()[d]))
                gold.append(float(rated[utt].split()[d]))
        a, b = np.array(found), np.array(gold)
        assert 1 < a.mean() < 7  # on the scale of the corpus
        below = a.var() + b.var() + (a.mean() - b.mean()) ** 2
        expected = 2 * ((a - a.mean()) * (b - b.mean())).mean() / below
        assert results["pooled"][label] == pytest.approx(expected, abs=1e-9)
        means = [fold[label] for fold in results["folds"]]
        assert results["mean"][label] == pytest.approx(np.mean(means)) and results["pooled"][label] not in means


def test_the_epoch_is_chosen_on_the_validation_list(trained):
    for fold in json.loads((trained / "results.json").read_text())["folds"]:
        rows = json.loads((trained / f"fold{fold['name']}/history.json").read_text())
        best = max(rows, key=lambda row: (row["valid_ccc"], -row["valid_loss"]))
        assert (fold["epoch"], fold["valid_ccc"]) == (best["epoch"], best["valid_ccc"])


def test_ratings_are_the_saved_models(corpus, trained):
    model, metadata = read_regression(trained / "fold1/final.safetensors")
    said, feats = read_table(trained / "fold1/test_ratings.txt"), Filterbanks.of(corpus, 3, 0, 0)
    with torch.no_grad():
        found = torch.cat([model(*feats.load([utt])) for utt in said])
    assert torch.allclose(found, torch.tensor([[float(x) for x in row.split()] for row in said.values()]), atol=1e-4)
    assert metadata["fold"] == "1" and not model.training


def test_interrupted_fold_gives_the_same_numbers(corpus, trained, tmp_path, monkeypatch):
    save = checkpoints.save

    def stop_after_three(path, state):
        save(path, state)
        if state["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(corpus, corpus / "folds", tmp_path, SMALL, ["2"])
    fine_tune(corpus, corpus / "folds", tmp_path, SMALL, ["2"])
    assert (tmp_path / "fold2/test_ratings.txt").read_text() == (trained / "fold2/test_ratings.txt").read_text()


@pytest.mark.parametrize("freeze", [True, False])
def test_pretrained_encoder(corpus, tmp_path, freeze):
    """It is begun with, keeps its parameters if frozen, and results say what it was."""
    encoder = pretrained(tmp_path / "asr")
    fine_tune(corpus, corpus / "folds", tmp_path / "exp", replace(SMALL, encoder=encoder, freeze=freeze, num_epochs=2), ["1"])
    model, _ = read_regression(tmp_path / "exp/fold1/final.safetensors")
    state = model_io.read(tmp_path / "asr/final.safetensors")[0]
    same = [torch.equal(value, state[f"encoder.{name}"]) for name, value in model.encoder.state_dict().items()]
    assert all(same) if freeze else not any(same)
    assert model.train().training and model.encoder.training is not freeze
    result = score_ratings(tmp_path / "exp")
    assert result["config"]["pretraining"] == "asr" and result["folds_missing"] == ["2"]
    table = ratings_table([result])
    assert " asr " in table and ("frozen" if freeze else "learns") in table and "1 of 2" in table
    (tmp_path / "asr/final.safetensors").unlink()
    pretrained(tmp_path / "asr", "cpc")
    with pytest.raises(PyserError, match="made with other settings .pretraining asr -> cpc"):
        fine_tune(corpus, corpus / "folds", tmp_path / "exp", replace(SMALL, encoder=encoder, freeze=freeze, num_epochs=2))


def test_scores_are_refused(trained, tmp_path):
    exp = tmp_path / "exp"
    shutil.copytree(trained, exp)
    path = exp / "fold1/test_ratings.txt"
    path.write_text(path.read_text().replace(".", ".1"))
    with pytest.raises(PyserError, match="not what the checkpoint beside it gave"):
        score_ratings(exp)
    shutil.copy(trained / "fold1/test_ratings.txt", path)
    valid = (exp / "fold1/valid.list").read_text()
    (exp / "fold1/valid.list").write_text((exp / "fold1/test.list").read_text())
    with pytest.raises(PyserError, match="test utterances are in valid.list"):
        score_ratings(exp)
    (exp / "fold1/valid.list").write_text(valid)
    score_ratings(exp)


def test_systems_are_compared(trained, tmp_path):
    """The better one wins, by the difference of the CCCs; a system is no better than itself."""
    good = read_ratings(trained)
    bad = json.loads(json.dumps(good)) | {"system": "noise", "name": "noise"}
    rng = np.random.default_rng(0)
    for row in bad["ratings"].values():
        row[2] = [value + 4 * rng.normal() for value in row[2]]
    text, found = comparison([bad], [good])
    assert "48 utterances in common" in text and "3 seeds or more" in text
    for difference in found.values():
        assert difference.low > 0 and difference.p < 0.01
    assert "begin with one pretrained encoder" not in text
    seeds = [good | {"seed": seed, "encoder": {"encoder": "asr", "encoder_id": "abc"}} for seed in (0, 1)]
    assert "all seeds of B begin with one pretrained encoder" in comparison([bad, bad], seeds)[0]
    assert all(difference.value == 0 and difference.p == 1 for difference in comparison([good], [good])[1].values())
    with pytest.raises(PyserError, match="no test utterance in common"):
        comparison([good], [bad | {"ratings": {}}])
    with pytest.raises(PyserError, match="ratings of valence, plain of"):
        comparison([good], [bad | {"labels": ["valence"]}])


def test_bootstrap_of_the_concordance():
    """The very draws of a loop in double precision, for the mean over two seeds of A."""
    rng = np.random.default_rng(0)
    gold = rng.normal(3, 1, 40)
    a, b = gold + rng.normal(size=(2, 40)), (gold + rng.normal(size=40))[None]

    def ccc(x, y):
        return 2 * ((x - x.mean()) * (y - y.mean())).mean() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)

    def gap(places):
        return ccc(b[0][places], gold[places]) - np.mean([ccc(one[places], gold[places]) for one in a])

    found = ccc_bootstrap(gold, a, b, seed=3, resamples=150)
    draws = np.random.default_rng(3)
    values = [gap(row) for size in (100, 50) for row in draws.integers(40, size=(size, 40))]
    assert found.value == pytest.approx(gap(np.arange(40)), abs=1e-10)
    low, high = np.percentile(values, [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    side = min(sum(value <= 0 for value in values), sum(value >= 0 for value in values))
    assert found.p == pytest.approx(min(1.0, 2 * (side + 1) / 151))


def test_bad_ratings(corpus, tmp_path):
    with pytest.raises(PyserError, match="u1: expected activation, valence, dominance, numbers or -, found '3 4'"):
        RATINGS.labels({"u1": "3 4"})
    with pytest.raises(PyserError, match="some utterance has no rating"):
        RATINGS.labels({"u1": "- - -"})
    assert RATINGS.labels({"u1": "1 2 3", "u2": "1 - 3"}) == ["activation", "dominance"]
    with pytest.raises(PyserError, match="keeps random parameters"):
        fine_tune(corpus, corpus / "folds", tmp_path, replace(SMALL, freeze=True))
    with pytest.raises(PyserError, match="features of 6 dimensions, .* was trained on 40"):
        fine_tune(corpus, corpus / "folds", tmp_path, replace(SMALL, encoder=pretrained(tmp_path / "wide", dim=120)))
    shutil.copytree(corpus, tmp_path / "data")
    write_table(tmp_path / "data/utt2avd", dict.fromkeys(read_table(corpus / "utt2avd"), "3 3 3"))
    with pytest.raises(PyserError, match="every training utterance has the same activation"):
        fine_tune(tmp_path / "data", corpus / "folds", tmp_path / "exp", SMALL)


def test_recordings_are_rated(trained, tmp_path):
    """A recording is rated as its filterbanks are, by the mean of the folds; other rates are resampled."""
    rng = np.random.default_rng(3)
    samples = (2000 * rng.standard_normal(20000)).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    conf = tmp_path / "fbank.conf"
    conf.write_text(f"--num-mel-bins={BINS}\n--dither=0\n")
    exp = shutil.copytree(trained, tmp_path / "exp")
    with pytest.raises(PyserError, match=r"frontend/fbank.conf: missing; run `pyser sa2sr package`"):
        pyser.load(exp)
    result = CliRunner().invoke(cli, ["sa2sr", "package", str(exp), str(conf)], catch_exceptions=False)
    assert result.exit_code == 0, result.output

    feats = fbank(samples.astype(np.float32), FbankConfig(num_mel_bins=BINS, dither=0.0))
    with MatrixWriter(f"ark,scp:{tmp_path}/feats.ark,{tmp_path}/feats.scp", compress=False) as writer:
        writer.write("a", feats)
    write_table(tmp_path / "utt2num_frames", {"a": str(len(feats))})
    x, lengths = Filterbanks.of(tmp_path, 3, 0.0, 0).load(["a"])
    with torch.no_grad():
        folds = [read_regression(exp / f"fold{n}/final.safetensors")[0](x, lengths)[0] for n in (1, 2)]
    expected = torch.stack(folds).mean(dim=0).tolist()
    found = pyser.load(exp).predict(str(tmp_path / "a.wav"))
    assert list(found.ratings) == ["activation", "valence"] and found.seconds == 1.25 and not found.converted
    np.testing.assert_allclose(list(found.ratings.values()), expected, atol=1e-4)
    alone = pyser.load(exp / "fold1").predict((samples, 16000))
    np.testing.assert_allclose(list(alone.ratings.values()), folds[0], atol=1e-4)
    stereo = np.stack([samples] * 2, axis=1), 8000
    assert pyser.load(exp).predict(stereo).converted == "8000 Hz, 2 channels -> 16000 Hz mono"
    with pytest.raises(PyserError, match="100 samples are less than one window of 25 ms"):
        pyser.load(exp).predict((samples[:100], 16000))

    result = CliRunner().invoke(cli, ["ser", "predict", "--model", str(exp), str(tmp_path / "a.wav")], catch_exceptions=False)
    head, row = (line.split() for line in result.output.splitlines())
    assert head == ["utterance", "seconds", "activation", "valence"] and row[0].endswith("a.wav") and row[1] == "1.25"
    np.testing.assert_allclose([float(one) for one in row[2:]], expected, atol=6e-4)
    result = CliRunner().invoke(cli, ["ser", "predict", "--model", str(exp), "--format", "json", str(tmp_path / "a.wav")])
    assert json.loads(result.output)["ratings"] == pytest.approx(found.ratings)
    conf.write_text("--num-mel-bins=40\n")
    with pytest.raises(PyserError, match="makes features of 40 dimensions, the encoder was trained on 6"):
        package(exp, conf)


def test_command_line(corpus, trained, tmp_path):
    def run(*words):
        return CliRunner().invoke(cli, [str(word) for word in words])

    (tmp_path / "regression.conf").write_text(write_conf(replace(SMALL, num_epochs=1)))
    for seed in (0, 1):
        done = run("sa2sr", "fine-tune", "--conf", tmp_path / "regression.conf", "--seed", seed, corpus, corpus / "folds",
                   tmp_path / f"a{'_seed1' * seed}")
        assert done.exit_code == 0 and "fold 1: epoch 1, validation CCC" in done.output
        scored = run("score", "ratings", tmp_path / f"a{'_seed1' * seed}")
        assert scored.exit_code == 0 and "pooled" in scored.output and "activation" in scored.output
    table = run("score", "ratings-table", "--format", "markdown", tmp_path / "a", tmp_path / "a_seed1")
    assert table.exit_code == 0 and "| a, 2 seeds" in table.output and "±" in table.output
    compared = run("score", "ratings-compare", tmp_path / "a", tmp_path / "a_seed1", trained)
    assert compared.exit_code == 0 and "A = a (2 seeds)" in compared.output and "valence of B - A: +" in compared.output
