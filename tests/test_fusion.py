"""Fusions trained fold by fold, on streams from files and with a speech encoder that learns."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from ser_corpus import make_corpus

from pyser.encoders.speech import load_speech
from pyser.encoders.untrained import init_speech
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, write_table
from pyser.kaldi.tables import MatrixWriter, load_mat, read_scp
from pyser.scoring.results import score_experiment
from pyser.ser.fusion import FusionModel, FusionTraining, read_fusion, train_fusion
from pyser.ser.streams import StreamExamples
from pyser.training import checkpoints

SMALL = FusionTraining(units=8, nodes=8, heads=2, dropout=0.1, num_epochs=8, batch_utterances=8, lr_initial=1e-2,
                       lr_final=1e-3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Emotions are in the stream `text`; `mfcc` is noise."""
    root = tmp_path_factory.mktemp("fusion")
    data, folds = make_corpus(root, num_speakers=4, per_emotion=10, noise=0.5)
    rng = np.random.default_rng(1)
    with MatrixWriter(f"ark,scp:{data}/mfcc.ark,{data}/mfcc.scp") as writer:
        for utt in read_table(data / "utt2emo"):
            writer.write(utt, rng.normal(size=(int(rng.integers(10, 60)), 5)).astype(np.float32))
    return data, folds, {"mfcc": str(data / "mfcc.scp"), "text": str(data / "feats.scp")}


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    data, folds, streams = corpus
    exp = tmp_path_factory.mktemp("exp") / "hierarchical"
    train_fusion(data, folds, exp, SMALL, streams)
    return exp


def test_the_stream_that_knows_is_heard(corpus, trained):
    results = score_experiment(trained)
    assert results["mean"]["ua"] > 0.7 and results["pooled"]["n"] == 120  # (by chance 0.33)
    config = json.loads((trained / "ser.json").read_text())["config"]
    assert config["streams"] == {"mfcc": 5, "text": 8} and config["fusion"] == "hierarchical"
    assert not list(trained.glob("fold*/epoch-*.pt"))


def test_posteriors_are_the_saved_models(corpus, trained):
    data, _, streams = corpus
    model, metadata = read_fusion(trained / "fold1/final.safetensors")
    said = read_table(trained / "fold1/test_posteriors.txt")
    tables = {name: read_scp(path) for name, path in streams.items()}
    utts = sorted(said)
    examples = StreamExamples(np.zeros(len(utts), int), {n: [load_mat(t[u]) for u in utts] for n, t in tables.items()})
    with torch.no_grad():
        found = model(examples, range(len(utts)))[0].exp()
    expected = torch.tensor([[float(p) for p in said[utt].split()] for utt in utts])
    assert torch.allclose(found, expected, atol=1e-5) and metadata["fold"] == "1"


def test_interrupted_fold_gives_the_same_numbers(corpus, trained, tmp_path, monkeypatch):
    data, folds, streams = corpus
    save, calls = checkpoints.save, []

    def stop_after_three(path, state):
        save(path, state)
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stop_after_three)
        with pytest.raises(KeyboardInterrupt):
            train_fusion(data, folds, tmp_path, SMALL, streams, ["2"])
    assert len(list((tmp_path / "fold2").glob("epoch-*.pt"))) <= 3
    train_fusion(data, folds, tmp_path, SMALL, streams, ["2"])
    assert (tmp_path / "fold2/test_posteriors.txt").read_text() == (trained / "fold2/test_posteriors.txt").read_text()


def test_other_streams_are_other_settings(corpus, trained):
    data, folds, streams = corpus
    with pytest.raises(PyserError, match="made with other settings .streams"):
        train_fusion(data, folds, trained, SMALL, {"text": streams["text"]})


def test_bad_input(corpus, tmp_path):
    data, folds, streams = corpus
    bad = ({"asr_weight": 1.5}, "between 0 and 1"), ({"freeze": "encoder"}, "freeze"), ({"num_epochs": 0}, "epochs")
    for options, said in bad:
        with pytest.raises(PyserError, match=said):
            FusionTraining(**options)
    with pytest.raises(PyserError, match="name it among the streams"):
        train_fusion(data, folds, tmp_path, FusionTraining(speech="x"), streams)
    with pytest.raises(PyserError, match="fusion=sum"):
        train_fusion(data, folds, tmp_path, FusionTraining(fusion="sum"), streams)


@pytest.fixture(scope="module")
def speech_dir(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("speech") / "tiny")
    init_speech(directory, "tiny")
    return directory


def joint_model(speech_dir, weight, freeze="features"):
    config = FusionTraining(units=4, nodes=4, heads=2, dropout=0.0, asr_weight=weight, speech=speech_dir, freeze=freeze,
                            streams={"hidden": 32})
    speech = load_speech(speech_dir)
    speech.freeze(freeze)
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=size).astype(np.float32) * 0.1 for size in (16000, 24000)]
    examples = StreamExamples(np.array([0, 1]), {}, waves, [speech.vocabulary.encode(text) for text in ("A CAT", "DOGS")])
    return FusionModel(config, ["a", "b"], speech), examples


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
def test_what_the_weight_trains(speech_dir, weight):
    """With 0 the CTC head has nothing to learn from, with 1 the fusion has not; the encoder learns from either."""
    from pyser.ser.fusion import FusionSystem

    model, examples = joint_model(speech_dir, weight)
    system = FusionSystem(model.config, {}, None, None, model.speech)
    torch.manual_seed(0)
    loss, stats = system.loss(model.eval(), examples, np.array([0, 1]), torch.ones(2))
    loss.backward()

    def learns(parameters):
        return any(p.grad is not None and bool(p.grad.abs().max() > 0) for p in parameters)

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=1e-5)
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert any("lm_head" in name for name in moved) == (weight > 0)  # (weight decay, too, leaves alone what does not learn)
    assert any(name.startswith("network") for name in moved) == (weight < 1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(before[name])
    assert learns(model.speech.model.lm_head.parameters()) == (weight > 0)
    assert learns(model.network.parameters()) == (weight < 1)
    assert learns(model.speech.model.base_model.encoder.parameters())
    assert not learns(model.speech.model.base_model.feature_extractor.parameters())
    with torch.no_grad():
        emotions = -model(examples, [0, 1])[0][torch.arange(2), torch.from_numpy(examples.label)].mean()
    assert loss.item() == pytest.approx(weight * stats["ctc"] / 2 + (1 - weight) * float(emotions), rel=1e-4)


def test_precision(speech_dir, corpus, tmp_path):
    """Streams of files in bfloat16 everywhere; a speech encoder that learns, not with torch 1 on a processor."""
    data, folds, streams = corpus
    train_fusion(data, folds, tmp_path / "exp", replace(SMALL, precision="bfloat16"), streams, ["1"])
    said = read_table(tmp_path / "exp/fold1/test_posteriors.txt")
    posteriors = np.array([[float(p) for p in row.split()] for row in said.values()])
    assert np.allclose(posteriors.sum(axis=1), 1, atol=1e-5)
    emotions, labels = read_table(data / "utt2emo"), json.loads((tmp_path / "exp/ser.json").read_text())["labels"]
    right = [labels[k] == emotions[utt] for utt, k in zip(said, posteriors.argmax(axis=1), strict=True)]
    assert np.mean(right) > 0.6
    model, examples = joint_model(speech_dir, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        if torch.__version__.startswith("1."):
            with pytest.raises(PyserError, match="--precision float32, or torch 2"):
                model(examples, [0, 1])
        else:
            posteriors = model.eval()(examples, [0, 1])[0]
            assert posteriors.dtype == torch.float32 and bool(posteriors.isfinite().all())


def test_checkpointed_gradients_are_the_same(speech_dir):
    from pyser.ser.fusion import FusionSystem

    def gradients(checkpointed):
        torch.manual_seed(0)
        model, examples = joint_model(speech_dir, 0.2)
        if checkpointed:
            model.speech.checkpoint_gradients()
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.speech.config.mask_time_prob = 0.0
        system = FusionSystem(model.config, {}, None, None, model.speech)
        loss, _ = system.loss(model, examples, np.array([0, 1]), torch.ones(2))
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys() and len(plain) > 20
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6)


def test_joint_training_of_a_fold(corpus, speech_dir, tmp_path, monkeypatch):
    """A speech encoder learns with the fusion: tones of a pitch for each emotion. Its model is read from elsewhere."""
    import pyser
    from pyser.ser.fusion_predict import package

    (tmp_path / "mfcc.conf").write_text("--num-mel-bins=23\n--num-ceps=13\n--dither=0\n")
    source, folds, _ = corpus
    emotions = read_table(source / "utt2emo")
    data = tmp_path / "data"
    rng = np.random.default_rng(2)
    names = sorted(set(emotions.values()))
    wavs = {}
    for utt, emotion in emotions.items():
        t = np.arange(int(rng.integers(6000, 9000))) / 16000
        wavs[utt] = str(data / f"{utt}.wav")
        data.mkdir(exist_ok=True)
        soundfile.write(wavs[utt], 0.3 * np.sin(2 * np.pi * 300 * 2 ** names.index(emotion) * t), 16000)
    write_table(data / "wav.scp", wavs)
    write_table(data / "text", {utt: emotion for utt, emotion in emotions.items()})
    for name in ("utt2emo", "utt2spk"):
        write_table(data / name, read_table(source / name))
    config = FusionTraining(units=4, nodes=4, heads=2, dropout=0.0, num_epochs=2, batch_utterances=8, speech=speech_dir,
                            layer=1)
    monkeypatch.chdir(Path(speech_dir).parent)
    config = replace(config, speech=Path(speech_dir).name)
    train_fusion(data, folds, tmp_path / "exp", config, {"hidden": "-"}, ["1"])
    before, (model, _) = load_speech(speech_dir), read_fusion(tmp_path / "exp/fold1/final.safetensors")
    moved = {name.split(".")[0] + "." + name.split(".")[1] for (name, p), q in zip(
        model.speech.model.named_parameters(), before.model.parameters(), strict=True) if not torch.equal(p, q)}
    assert any("encoder" in name for name in moved) and any("lm_head" in name for name in moved)
    assert not any("feature_extractor" in name for name in moved)
    said = read_table(tmp_path / "exp/fold1/test_posteriors.txt")
    assert len(said) == 30
    assert score_experiment(tmp_path / "exp")["wer"]["folds"].keys() == {"1"}  # of the encoder that has learnt
    package(tmp_path / "exp", speech_dir, "", tmp_path / "mfcc.conf", layer=1)
    monkeypatch.chdir(tmp_path)
    predictor = pyser.load("exp/fold1")
    for utt in list(said)[:3]:
        posteriors = predictor.predict(wavs[utt]).posteriors.values()
        assert list(posteriors) == pytest.approx([float(p) for p in said[utt].split()], abs=1e-3)


def test_joint_hidden_states_are_normalised_as_frozen_ones(speech_dir):
    model, examples = joint_model(speech_dir, 0.2)
    from pyser.ser.fusion import FusionSystem

    built = FusionSystem(model.config, {}, None, None, model.speech).model(["a", "b"], examples, None)
    with torch.no_grad():
        frames = torch.cat([model.speech.eval()([wave]).hidden[model.config.layer][0] for wave in examples.waves]).numpy()
    mean, std = StreamExamples(examples.label, {"hidden": [frames]}).statistics("hidden")
    assert np.abs(built.network.encoders["hidden"].mean.numpy() - mean).max() < 1e-5
    assert np.abs(built.network.encoders["hidden"].std.numpy() / std - 1).max() < 1e-4
    assert built.training  # (as it was)


def test_prediction_is_what_the_test_list_got(speech_dir, tmp_path, capsys):
    """Streams dumped and a fusion trained on them; a recording of the test list then gets the same posteriors."""
    from test_encoders_text import make_bert

    import pyser
    from pyser.encoders.decode import decode
    from pyser.encoders.dump import dump, dump_text
    from pyser.features.mfcc import MfccConfig, mfcc
    from pyser.kaldi.wav import read_audio
    from pyser.ser.fusion_predict import package
    from pyser.ser.listing import print_predictions

    data, folds = make_corpus(tmp_path, num_speakers=3, per_emotion=2)
    rng = np.random.default_rng(3)
    wavs = {}
    for utt in read_table(data / "utt2emo"):
        wavs[utt] = str(data / f"{utt}.wav")
        soundfile.write(wavs[utt], 0.1 * rng.normal(size=int(rng.integers(9000, 16000))), 16000)
    write_table(data / "wav.scp", wavs)
    (tmp_path / "mfcc.conf").write_text("--num-mel-bins=23\n--num-ceps=13\n--dither=0\n")
    config = MfccConfig(num_mel_bins=23, num_ceps=13, dither=0.0)
    with MatrixWriter(f"ark,scp:{data}/feats.ark,{data}/feats.scp") as writer:
        for utt in wavs:
            writer.write(utt, mfcc(read_audio(wavs[utt])[0], config))
    bert = make_bert(tmp_path / "bert")
    dump(speech_dir, data, tmp_path / "dump", "1")
    decode(speech_dir, tmp_path / "dump/logits.scp", tmp_path / "decode")
    dump_text(bert, tmp_path / "decode/hyp.txt", tmp_path / "text.ark", tmp_path / "text.scp")
    streams = {"mfcc": data / "feats.scp", "hidden": tmp_path / "dump/layer1.scp", "text": tmp_path / "text.scp"}
    train_fusion(data, folds, tmp_path / "exp", SMALL, {name: str(path) for name, path in streams.items()}, ["1"])
    package(tmp_path / "exp", speech_dir, str(bert), tmp_path / "mfcc.conf", layer=1)
    predictor = pyser.load(tmp_path / "exp/fold1")
    said, heard = read_table(tmp_path / "exp/fold1/test_posteriors.txt"), read_table(tmp_path / "decode/hyp.txt")
    for utt, posteriors in said.items():
        found = predictor.predict(wavs[utt])
        assert list(found.posteriors.values()) == pytest.approx([float(p) for p in posteriors.split()], abs=1e-3)
        assert found.transcript == heard[utt]
    assert predictor.seen == {"spk2", "spk3"}  # fold 1 tests spk1
    assert print_predictions(predictor, [str(data), wavs["spk1-00"], "nothing.wav"], "json") == 1
    assert f"{data}: 12 of 18 utterances are of speakers that the model was trained on" in capsys.readouterr().err
    with pytest.raises(PyserError, match="no front end"):
        (tmp_path / "exp/frontend/frontend.json").unlink()
        pyser.load(tmp_path / "exp")
