"""Pretraining to read speech, to know its sentiment and to predict it, on a few made-up words."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_corpus import make_data_dir

from pyser.cli import cli
from pyser.config import write_conf
from pyser.errors import PyserError
from pyser.features.compute import compute_features
from pyser.features.fbank import FbankConfig
from pyser.kaldi.datadir import collect_feats, read_table, write_table
from pyser.nn import model_io
from pyser.scoring.metrics import area_under_curve
from pyser.scoring.wer import Errors, word_errors
from pyser.ser.filterbanks import Filterbanks, buckets, even_batches, mask, padding, stack_frames
from pyser.ser.pretraining import CHARACTERS, PretrainConfig, load_encoder, objective_of, pretrain, read_spoken
from pyser.training import checkpoints

SMALL = PretrainConfig(layers=1, units=32, num_epochs=14, lr_initial=2e-2, lr_final=4e-3, max_duration=6.0, spec_augment=0.1,
                       steps=3, negatives=20, codes=8, sentiment_weight=3.0)


def make_set(path, speakers, utts, seed):
    """Filterbanks, transcripts, and a sentiment that the words tell: MOM and ME are pleasant, SAW is not."""
    make_data_dir(path, speakers, utts, seed)
    scp = (path / "wav.scp").read_text().replace(" wav/", f" {path}/wav/")
    (path / "wav.scp").write_text(scp)
    compute_features(f"scp:{path}/wav.scp", f"ark,scp:{path}/fbank.ark,{path}/fbank.scp", FbankConfig(num_mel_bins=40))
    collect_feats(path, [path / "fbank.scp"])
    table = {}
    for utt, text in read_table(path / "text").items():
        words = text.split()
        place = 2 if {"MOM", "ME"} & set(words) else 0 if "SAW" in words else 1
        label = ("negative", "neutral", "positive")[place]
        table[utt] = " ".join([label, *("0.8" if n == place else "0.1" for n in range(3))])
    write_table(path / "utt2sentiment", table)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretraining")
    make_set(root / "train", 5, 12, 1)
    make_set(root / "dev", 3, 6, 2)
    pretrain(root / "train", root / "dev", root / "exp", SMALL)
    return root


def history(exp):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads((exp / "history.json").read_text())]


def test_it_learns_words_and_their_sentiment(tiny):
    """Of unseen speakers; the epoch kept is that of the lowest CER - AUC."""
    rows = history(tiny / "exp")
    assert rows[-1]["valid_cer"] < 15 and max(row["valid_auc"] for row in rows) > 0.65
    for row in rows:
        assert row["valid_score"] == pytest.approx(row["valid_auc"] - row["valid_cer"] / 100)
        assert row["loss"] == pytest.approx(row["ctc"] + 3 * row["sentiment"], rel=1e-4) and 0 <= row["valid_war"] <= 1
    summary = json.loads((tiny / "exp/pretraining.json").read_text())
    best = max(rows, key=lambda row: (row["valid_score"], -row["valid_loss"]))
    assert summary["epoch"] == best["epoch"] and summary["valid_auc"] == best["valid_auc"]
    assert summary["padding"] < 0.1 and summary["hours_per_hour"] > 1 and summary["hours"] > 0.01


def test_figures_are_those_of_the_saved_encoder(tiny):
    """CER, computed again utterance by utterance from the file that is left behind."""
    state, metadata = model_io.read(tiny / "exp/final.safetensors")
    encoder, _ = load_encoder(tiny / "exp")
    network = objective_of(SMALL).network(encoder.config).eval()
    network.load_state_dict(state)
    feats, errors = Filterbanks.of(tiny / "dev", SMALL.stack, 0, 0), Errors()
    with torch.no_grad():
        for utt, text in read_table(tiny / "dev/text").items():
            logits, _ = network(*feats.load([utt]))
            errors += word_errors(list(text), list(CHARACTERS.decode(logits[0].argmax(-1).tolist())))
    row = history(tiny / "exp")[int(metadata["epoch"]) - 1]
    assert errors.rate == pytest.approx(row["valid_cer"])
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[f"encoder.{name}"])


def test_going_on_is_the_same_as_not_stopping(tiny, tmp_path, monkeypatch):
    settings, save = replace(SMALL, num_epochs=2), checkpoints.save

    def stop_after_one(path, state):
        save(path, state)
        if state["epoch"] == 1:
            raise KeyboardInterrupt

    pretrain(tiny / "train", tiny / "dev", tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            pretrain(tiny / "train", tiny / "dev", tmp_path / "broken", settings)
    pretrain(tiny / "train", tiny / "dev", tmp_path / "broken", settings)
    assert history(tmp_path / "broken") == history(tmp_path / "whole") and len(history(tmp_path / "whole")) == 2
    (whole, said), (broken, says) = (model_io.read(tmp_path / name / "final.safetensors") for name in ("whole", "broken"))
    assert said == says and all(torch.equal(whole[name], broken[name]) for name in whole)


def test_other_settings_are_not_gone_on_with(tiny, tmp_path):
    """Nor other words or sentiments; more patience is."""
    settings = replace(SMALL, num_epochs=1)
    for name in ("train", "dev"):
        shutil.copytree(tiny / name, tmp_path / name)
    pretrain(tmp_path / "train", tmp_path / "dev", tmp_path / "exp", settings)
    before = (tmp_path / "exp/final.safetensors").read_bytes()
    for wrong, said in (({"sentiment_weight": 200.0}, "--sentiment-weight"), ({"spec_augment": 0.0}, "--spec-augment"),
                        ({"max_duration": 3.0}, "--max-duration")):
        with pytest.raises(PyserError, match=f"pretrained with other {said}; delete it"):
            pretrain(tmp_path / "train", tmp_path / "dev", tmp_path / "exp", replace(settings, **wrong))
    labels = read_table(tmp_path / "train/utt2sentiment")
    write_table(tmp_path / "train/utt2sentiment", {utt: "negative 0.8 0.1 0.1" if said.startswith("positive") else said
                                                   for utt, said in labels.items()})
    with pytest.raises(PyserError, match="pretrained with other train utt2sentiment; delete it"):
        pretrain(tmp_path / "train", tmp_path / "dev", tmp_path / "exp", settings)
    write_table(tmp_path / "train/utt2sentiment", labels)
    assert (tmp_path / "exp/final.safetensors").read_bytes() == before
    pretrain(tmp_path / "train", tmp_path / "dev", tmp_path / "exp", replace(settings, patience=9))


def test_filterbanks_are_normalised_by_themselves(tiny):
    """Every column of every utterance, before frames are stacked."""
    feats = Filterbanks.of(tiny / "dev", 1, 0, 0)
    for utt in list(read_table(tiny / "dev/text"))[:4]:
        frames = feats.load([utt])[0][0].numpy()
        assert frames.shape[1] == 40 and np.abs(frames.mean(axis=0)).max() < 1e-4
        assert np.abs(frames.std(axis=0) - 1).max() < 1e-3


def test_it_stops_when_nothing_gets_better(tiny, tmp_path):
    """The learning rate is far too high for anything to be learnt after a while."""
    settings = replace(SMALL, num_epochs=40, patience=2, lr_initial=0.5, lr_final=0.5, objective="asr")
    rows = pretrain(tiny / "train", tiny / "dev", tmp_path / "exp", settings)
    best = int(max(rows, key=lambda row: (row["valid_score"], -row["valid_loss"]))["epoch"])
    assert len(rows) == best + 2 < 40 and "valid_auc" not in rows[0]
    again = pretrain(tiny / "train", tiny / "dev", tmp_path / "exp", settings)
    assert len(again) == len(rows)


def test_prediction(tiny, tmp_path):
    """It needs no transcripts, gets better than chance, and its encoder can be taken up."""
    shutil.copytree(tiny / "train", tmp_path / "train")
    (tmp_path / "train/text").unlink()
    settings = replace(SMALL, objective="cpc", num_epochs=5)
    rows = pretrain(tmp_path / "train", tiny / "dev", tmp_path / "exp", settings)
    assert rows[-1]["valid_loss"] < 0.8 * np.log(21) and rows[-1]["valid_accuracy"] > 3 / 21
    assert rows[-1]["valid_loss"] < rows[0]["valid_loss"]
    assert load_encoder(tmp_path / "exp")[1]["objective"] == "cpc"


def test_what_is_dropped(tiny, tmp_path):
    shutil.copytree(tiny / "dev", tmp_path / "dev")
    texts, sentiments = read_table(tmp_path / "dev/text"), read_table(tmp_path / "dev/utt2sentiment")
    silent, long, unlabelled, *_ = texts
    write_table(tmp_path / "dev/text", texts | {silent: "[NOISE]", long: "SEE " * 90})
    write_table(tmp_path / "dev/utt2sentiment", {utt: value for utt, value in sentiments.items() if utt != unlabelled})
    settings = replace(SMALL, max_dropped=0.5)
    feats = Filterbanks.of(tmp_path / "dev", 3, 0, 0)
    spoken, line = read_spoken(tmp_path / "dev", feats, settings)
    assert set(spoken) == set(texts) - {silent, long, unlabelled}
    for why in (f"without words (e.g. {silent})", f"too short for their characters (e.g. {long})", "without sentiment"):
        assert why in line
    assert unlabelled in read_spoken(tmp_path / "dev", feats, replace(settings, objective="asr"))[0]
    write_table(tmp_path / "dev/utt2sentiment", dict.fromkeys(texts, "neutral 0 1 0"))
    with pytest.raises(PyserError, match="all utterances are of one sentiment"):
        pretrain(tiny / "train", tmp_path / "dev", tmp_path / "exp", settings)
    write_table(tmp_path / "dev/utt2sentiment", dict.fromkeys(texts, "good 1"))
    with pytest.raises(PyserError, match="'good 1' is not one of"):
        read_spoken(tmp_path / "dev", feats, settings)


def test_batches_hold_every_utterance_once_and_little_padding():
    rng = np.random.default_rng(0)
    lengths = {f"u{n}": int(frames) for n, frames in enumerate(rng.gamma(3, 150, 500) + 10)}
    groups = [buckets(lengths, 4000), buckets(lengths, 4000, np.random.default_rng(1)), buckets(lengths, 4000,
              np.random.default_rng(2))]
    for some in groups:
        assert sorted(itertools.chain(*some)) == sorted(lengths)
        assert all(len(group) == 1 or len(group) * max(lengths[utt] for utt in group) <= 4000 for group in some)
        whole = sum(len(group) * max(lengths[utt] for utt in group) for group in some)
        assert padding(some, lengths) == pytest.approx(1 - sum(lengths.values()) / whole) and padding(some, lengths) < 0.1
    assert groups[1] != groups[2]
    sizes = np.array(list(lengths.values()))
    batches = [even_batches(sizes, 32, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    for some in batches:
        assert sorted(np.concatenate(some)) == list(range(500)) and {len(batch) for batch in some} <= {31, 32}
        whole = sum(len(batch) * sizes[batch].max() for batch in some)
        assert 1 - sizes.sum() / whole < 0.15
    same, other = ([one.tolist() for one in batches[0]] == [two.tolist() for two in batches[k]] for k in (1, 2))
    assert same and not other


def test_frames_are_stacked_and_masked():
    feats = np.arange(14.0, dtype=np.float32).reshape(7, 2)
    assert stack_frames(feats, 3).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13] * 3]
    assert np.array_equal(stack_frames(feats, 1), feats)
    ones, counts = np.ones((200, 40), np.float32), np.zeros(2)
    for number in range(400):
        masked = mask(ones, 0.5, np.random.default_rng(number))
        counts += [not masked.any(axis=0).all(), not masked.any(axis=1).all()]
        assert set(np.unique(masked)) <= {0.0, 1.0} and (~masked.any(axis=0)).sum() <= 12
    assert (100 < counts).all() and (counts < 240).all() and ones.all()
    assert np.array_equal(mask(ones, 0.0, np.random.default_rng(0)), ones)


def test_area_under_curve_counts_pairs():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, size=(40, 3)).astype(float), rng.integers(0, 3, size=40)
    areas = []
    for k in range(3):
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == k, k] for b in scores[labels != k, k]]
        areas.append(np.mean(pairs))
    assert area_under_curve(scores, labels) == pytest.approx(np.mean(areas))
    assert area_under_curve(scores[:, :2], np.zeros(40, int)) != area_under_curve(scores, labels)
    assert np.isnan(area_under_curve(scores[:1], labels[:1]))


def test_command_line(tiny, tmp_path):
    (tmp_path / "pretrain.conf").write_text(write_conf(replace(SMALL, num_epochs=1)))
    words = ["sa2sr", "pretrain", "--conf", str(tmp_path / "pretrain.conf"), "--objective", "asr", str(tiny / "train"),
             str(tiny / "dev"), str(tmp_path / "exp")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0 and "% padding" in done.output and "hours of speech an hour" in done.output
    assert "--objective=asr" in (tmp_path / "exp/pretrain.conf").read_text()
    (tmp_path / "pretrain.conf").write_text("--objective=mlm\n")
    refused = CliRunner().invoke(cli, words[:4] + words[6:])
    assert isinstance(refused.exception, PyserError) and "objective=mlm" in str(refused.exception)
