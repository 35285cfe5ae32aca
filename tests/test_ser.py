"""Frame classifier and its training fold by fold."""

import json

import numpy as np
import pytest
import torch
from ser_corpus import EMOTIONS, make_corpus

from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, write_table
from pyser.ser.folds import Fold, check_leaks, fold_names, read_fold
from pyser.ser.frame_classifier import (
    FrameClassifier,
    SerConfig,
    read_classifier,
    save_classifier,
    utterance_posteriors,
)
from pyser.ser.frames import load_frames, mean_and_std
from pyser.ser.train import train_folds
from pyser.training import checkpoints

SMALL = SerConfig(hidden_dim=16, num_epochs=4, batch_frames=128, lr_initial=1e-2, lr_final=1e-3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("ser")
    data, folds = make_corpus(root)
    lines = train_folds(data, folds, root / "exp", SMALL)
    return root, data, folds, root / "exp", lines


def test_classifier_round_trip(tmp_path):
    torch.manual_seed(0)
    model = FrameClassifier(5, ["a", "b"], SMALL).eval()
    model.mean[:] = torch.arange(5.0)
    save_classifier(tmp_path / "m.safetensors", model, {"note": "x"})
    again, metadata = read_classifier(tmp_path / "m.safetensors")
    x = torch.randn(7, 5)
    assert torch.equal(model(x), again(x)) and again.config == SMALL and again.labels == ("a", "b")
    assert metadata["note"] == "x" and json.loads(metadata["labels"]) == ["a", "b"]


def test_posteriors_are_summed_over_frames():
    torch.manual_seed(0)
    model = FrameClassifier(5, ["a", "b", "c"], SMALL).eval()
    feats = np.random.default_rng(0).normal(size=(40000, 5)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(feats)).exp().mean(dim=0).numpy()
    assert np.abs(utterance_posteriors(model, feats) - expected).max() < 1e-6
    with pytest.raises(PyserError, match=r"takes \(frames, 5\)"):
        utterance_posteriors(model, feats[:, :4])
    with pytest.raises(PyserError, match="not finite"):
        utterance_posteriors(model, np.full((3, 5), np.nan, np.float32))


def test_bad_config():
    with pytest.raises(PyserError, match="known: valid last"):
        SerConfig(selection="test")


def test_mean_and_std():
    feats = (np.random.default_rng(0).normal(size=(1000, 3)) * [1, 2, 0] + [100, 5, 7]).astype(np.float16)
    mean, std = mean_and_std(feats, chunk=64)
    assert np.allclose(mean, feats.astype(np.float64).mean(axis=0))
    assert np.allclose(std[:2], feats.astype(np.float64).std(axis=0)[:2]) and std[2] == 1.0


def test_memory_is_checked_beforehand(trained, monkeypatch):
    _, data, *_ = trained
    feats, utts = read_table(data / "feats.scp"), ["spk1-00", "spk1-01"]
    frames = load_frames(utts, feats, dict.fromkeys(utts, 0), 3, "x")
    assert frames.feats.dtype == np.float16 and len(frames) == len(frames.utt) and set(frames.utt) == {0, 1}
    monkeypatch.setattr("pyser.ser.frames.available_memory", lambda: 100)
    with pytest.raises(PyserError, match="do not fit"):
        load_frames(utts, feats, dict.fromkeys(utts, 0), 1, "x")


def test_training_learns_and_writes_the_fold(trained):
    _, data, folds, exp, lines = trained
    emotions, right, total = read_table(data / "utt2emo"), 0, 0
    assert len(lines) == 4
    for name in fold_names(folds):
        directory = exp / f"fold{name}"
        assert read_fold(directory, name) == read_fold(folds / name, name)
        table = read_table(directory / "test_posteriors.txt")
        posteriors = {utt: [float(p) for p in value.split()] for utt, value in table.items()}
        assert all(abs(sum(p) - 1) < 1e-6 for p in posteriors.values())
        right += sum(EMOTIONS[int(np.argmax(p))] == emotions[utt] for utt, p in posteriors.items())
        total += len(posteriors)
        metadata = read_classifier(directory / "final.safetensors")[1]
        history = json.loads((directory / "history.json").read_text())
        best = max(history, key=lambda row: (row["valid_ua"], -row["valid_loss"]))
        assert metadata["selection"] == "valid" and int(metadata["epoch"]) == best["epoch"]
        assert not (directory / "checkpoints").exists()
    assert total == len(emotions) and right / total > 0.9


def test_finished_folds_are_left_alone(trained, capsys):
    _, data, folds, exp, _ = trained
    before = (exp / "fold1" / "final.safetensors").stat().st_mtime_ns
    assert train_folds(data, folds, exp, SMALL, ["1"]) == ["fold 1: finished before"]
    assert (exp / "fold1" / "final.safetensors").stat().st_mtime_ns == before
    with pytest.raises(PyserError, match="other settings .hidden_dim 16 -> 8"):
        train_folds(data, folds, exp, SerConfig(**{**SMALL.__dict__, "hidden_dim": 8}))
    with pytest.raises(PyserError, match="no fold 9"):
        train_folds(data, folds, exp, SMALL, ["9"])


def test_interrupted_fold_gives_the_same_numbers(trained, monkeypatch):
    root, data, folds, exp, _ = trained
    save, calls = checkpoints.save, []

    def stop_after_two(path, state):
        save(path, state)
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stop_after_two)
        with pytest.raises(KeyboardInterrupt):
            train_folds(data, folds, root / "resumed", SMALL, ["2"])
    assert not (root / "resumed" / "fold2" / "final.safetensors").exists()
    train_folds(data, folds, root / "resumed", SMALL, ["2"])
    once, twice = exp / "fold2", root / "resumed" / "fold2"
    assert (once / "test_posteriors.txt").read_text() == (twice / "test_posteriors.txt").read_text()
    models = [read_classifier(directory / "final.safetensors")[0].state_dict() for directory in (once, twice)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_changed_features_train_again_and_changed_lists_stop(tmp_path, capsys):
    data, folds = make_corpus(tmp_path, per_emotion=2)
    train_folds(data, folds, tmp_path / "exp", SMALL, ["1"])
    make_corpus(tmp_path, per_emotion=2, noise=1.0)
    train_folds(data, folds, tmp_path / "exp", SMALL, ["1"])
    assert "features have changed since" in capsys.readouterr().out
    (folds / "1" / "test.list").write_text("spk1-00\n")
    with pytest.raises(PyserError, match="other test list"):
        train_folds(data, folds, tmp_path / "exp", SMALL, ["1"])


def test_last_trains_on_the_validation_speakers(trained):
    root, data, folds, _, _ = trained
    train_folds(data, folds, root / "last", SerConfig(**{**SMALL.__dict__, "selection": "last"}), ["1"])
    fold, given = read_fold(root / "last" / "fold1", "1"), read_fold(folds / "1", "1")
    assert set(fold.train) == {*given.train, *given.valid} and not fold.valid
    metadata = read_classifier(root / "last" / "fold1" / "final.safetensors")[1]
    assert metadata["selection"] == "last" and metadata["epoch"] == "4" and metadata["selected_on"] == ""


def test_copies_at_other_speeds_are_trained_on(tmp_path, capsys):
    """With lists that were made before the copies: those of training utterances, and no others."""
    data, folds = make_corpus(tmp_path, per_emotion=2)
    for name in ("feats.scp", "utt2emo", "utt2spk"):
        table = read_table(data / name)
        speaker = "sp0.9-" if name == "utt2spk" else ""
        write_table(data / name, table | {f"sp0.9-{utt}": speaker + value for utt, value in table.items()})
    train_folds(data, folds, tmp_path / "exp", SMALL, ["1"])
    assert "fold 1: 12 copies of training utterances at other speeds" in capsys.readouterr().out
    given, fold = read_fold(folds / "1", "1"), read_fold(tmp_path / "exp/fold1", "1")
    assert set(fold.train) == {*given.train, *(f"sp0.9-{utt}" for utt in given.train)}
    assert (fold.valid, fold.test) == (given.valid, given.test)
    last = SerConfig(**{**SMALL.__dict__, "selection": "last", "num_epochs": 1})
    train_folds(data, folds, tmp_path / "last", last, ["1"])
    assert len(read_fold(tmp_path / "last/fold1", "1").train) == 2 * (len(given.train) + len(given.valid))


def test_unlabelled_and_featureless_utterances_are_counted(tmp_path, capsys):
    data, folds = make_corpus(tmp_path, per_emotion=8)
    emotions, feats = read_table(data / "utt2emo"), read_table(data / "feats.scp")
    del emotions["spk1-00"], feats["spk2-01"]
    write_table(data / "utt2emo", emotions)
    write_table(data / "feats.scp", feats)
    train_folds(data, folds, tmp_path / "exp", SMALL, ["1"])
    out = capsys.readouterr().out
    assert "ser train: 96 utterances, 2 dropped: 1 without label in utt2emo (e.g. spk1-00); 1 without features" in out
    assert "spk1-00" not in read_fold(tmp_path / "exp" / "fold1", "1").test
    with pytest.raises(PyserError, match="more than --max-dropped 1%"):
        train_folds(data, folds, tmp_path / "exp2", SMALL, ["1"], max_dropped=0.01)


def test_leaks_are_refused(tmp_path):
    spk = {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}
    check_leaks(Fold("1", ("a1", "a2"), ("b1",), ("c1",)), spk)
    with pytest.raises(PyserError, match="speaker a of the test list is also in train.list"):
        check_leaks(Fold("1", ("a1",), ("b1",), ("a2",)), spk)
    with pytest.raises(PyserError, match="speaker a of the test list is also in valid.list"):
        check_leaks(Fold("1", ("b1",), ("a1",), ("a2",)), spk)
    with pytest.raises(PyserError, match="test utterances are in train.list"):
        check_leaks(Fold("1", ("a1",), (), ("a1",)), spk)
    copies = spk | {f"sp0.9-{utt}": f"sp0.9-{name}" for utt, name in spk.items()}
    check_leaks(Fold("1", ("a1", "sp0.9-a1"), (), ("b1",)), copies)
    with pytest.raises(PyserError, match="speaker sp0.9-a of the test list is also in train.list"):
        check_leaks(Fold("1", ("b1", "sp0.9-a1"), (), ("a2",)), copies)
    with pytest.raises(PyserError, match="test utterances are in valid.list, e.g. sp0.9-a1"):
        check_leaks(Fold("1", ("b1",), ("sp0.9-a1",), ("a1",)), copies)
    data, folds = make_corpus(tmp_path, per_emotion=2)
    with open(folds / "1" / "train.list", "a") as file:
        file.write("spk1-00\n")
    with pytest.raises(PyserError, match="are in train.list"):
        train_folds(data, folds, tmp_path / "exp", SMALL)


def test_missing_class_and_missing_validation(tmp_path):
    data, folds = make_corpus(tmp_path, per_emotion=2)
    emotions = read_table(data / "utt2emo")
    write_table(data / "utt2emo", {u: "joy" if u.startswith("spk1") and e == "sad" else e for u, e in emotions.items()})
    with pytest.raises(PyserError, match="no training utterance is labelled joy"):
        train_folds(data, folds, tmp_path / "exp", SMALL, ["1"])
    (folds / "2" / "valid.list").unlink()
    with pytest.raises(PyserError, match="use --selection last"):
        train_folds(data, folds, tmp_path / "exp2", SMALL)
