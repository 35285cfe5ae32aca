"""Systems of speech and the words heard in it, fold by fold, on tiny random encoders."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from ser_corpus import make_corpus
from test_encoders_text import make_bert

from pyser.cli import cli
from pyser.encoders.speech import load_speech
from pyser.encoders.untrained import init_speech
from pyser.errors import PyserError
from pyser.kaldi.datadir import read_table, write_table
from pyser.scoring.results import read_results, score_experiment
from pyser.scoring.tables import results_table
from pyser.ser.cmgi import CmgiSystem, train_cmgi
from pyser.ser.cmgi_model import CmgiTraining, build, read_cmgi
from pyser.ser.cmgi_rows import ROWS, TABLES, rows_of, settings
from pyser.training import checkpoints

WORDS = {"ang": "THE CAT", "neu": "A MAT", "sad": "CATS SAT ON"}
SMALL = {"nodes": 8, "heads": 2, "num_epochs": 2, "batch_utterances": 3, "accumulate": 2, "lr_initial": 1e-3,
         "lr_final": 1e-3}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("cmgi"), 3, 2)


def make_tiny(root, num_speakers, per_emotion):
    """Tones of a pitch for each emotion, words of each, speech encoders and a text encoder."""
    data, _ = make_corpus(root, num_speakers, per_emotion)
    rng, emotions, wavs = np.random.default_rng(2), read_table(data / "utt2emo"), {}
    for utt, emotion in emotions.items():
        t = np.arange(int(rng.integers(6000, 9000))) / 16000
        wavs[utt] = str(data / f"{utt}.wav")
        soundfile.write(wavs[utt], 0.3 * np.sin(2 * np.pi * 300 * 2 ** list(WORDS).index(emotion) * t), 16000)
    write_table(data / "wav.scp", wavs)
    write_table(data / "text", {utt: WORDS[emotion].lower() + "!" for utt, emotion in emotions.items()})
    init_speech(root / "hubert", "tiny", "hubert")
    init_speech(root / "wav2vec2", "tiny")
    make_bert(make_dir(root / "bert"))
    return root


def make_dir(path):
    path.mkdir()
    return path


def config_of(tiny, name="cmgi", **options):
    found = settings(name, str(tiny / "hubert"), str(tiny / "wav2vec2"), str(tiny / "bert"), str(tiny / "data/text"),
                     "-" if ROWS[name].first else "")
    return CmgiTraining(**{**found, "init": "", **SMALL, **options})


def run(tiny, exp, config, only=(), data=None):
    return train_cmgi(data or tiny / "data", tiny / "data/folds", exp, config, only)


@pytest.mark.parametrize("names", [("2", "cmgi"), ("4",), ("8",)])
def test_emotions_are_learnt(names, tmp_path):
    """Of tones that say what they are; an LSTM learns to spell them too."""
    tiny = make_tiny(tmp_path, 4, 8)
    for name in names:
        config = config_of(tiny, name, num_epochs=10, batch_utterances=8, accumulate=1, dropout=0.0, lr_final=5e-4,
                           lr_initial=1e-3 if name == "4" else 3e-3, head_factor=2.0, nodes=16,
                           init=str(tmp_path / "exp2") if ROWS[name].first else "")
        run(tiny, tmp_path / f"exp{name}", config, ["1"])
        result = score_experiment(tmp_path / f"exp{name}")
        assert result["mean"]["ua"] > 0.9
        assert name != "4" or result["wer"]["pooled"] < 30


@pytest.fixture(scope="module")
def first(tiny, tmp_path_factory):
    """The first stage, row 2."""
    exp = tmp_path_factory.mktemp("exp") / "cmgi_2"
    run(tiny, exp, config_of(tiny, "2"))
    return exp


@pytest.fixture(scope="module")
def second(tiny, first, tmp_path_factory):
    exp = tmp_path_factory.mktemp("exp") / "cmgi"
    run(tiny, exp, config_of(tiny, init=str(first)))
    return exp


def posteriors(exp, fold):
    return (exp / f"fold{fold}/test_posteriors.txt").read_text()


def test_results_have_wer(first, second):
    results = [score_experiment(exp) for exp in (first, second)]
    for result in results:
        assert set(result["wer"]["folds"]) == {"1", "2", "3"} and result["pooled"]["n"] == 18
        assert result["wer"]["words"] == 6 * (2 + 2 + 3)
        hyps = read_table(first.parent / "cmgi_2/fold1/hyp.txt")
        assert len(hyps) == 6
    assert results_table([read_results(second)]).splitlines()[0].endswith("WER")
    (second / "fold2/hyp.txt").rename(second / "hyp")
    (second / "fold2/hyp.txt").write_text("stranger THE CAT\n")
    with pytest.raises(PyserError, match="differ from test.list"):
        score_experiment(second)
    (second / "fold2/hyp.txt").unlink()
    with pytest.raises(PyserError, match="fold2/hyp.txt: missing, other folds have one"):
        score_experiment(second)
    (second / "hyp").rename(second / "fold2/hyp.txt")


def test_seeds_of_two_stages_are_one_system(second):
    """Each begins with the first stage of its own seed."""
    result = score_experiment(second)
    other = {**result, "name": "cmgi_seed1", "seed": 1, "wer": {**result["wer"], "pooled": result["wer"]["pooled"] + 2},
             "config": {**result["config"], "seed": 1, "init": result["config"]["init"] + "_seed1"}}
    last = results_table([result, other]).split("\n\n")[0].splitlines()[-1]
    assert last.startswith("cmgi, 2 seeds")
    assert float(last.split()[-1]) == pytest.approx(result["wer"]["pooled"] + 1, abs=0.06)


def test_the_second_stage_begins_with_the_first(tiny, first, tmp_path):
    """Fold by fold, and never with a model of other lists."""
    config = config_of(tiny, init=str(first))
    system = CmgiSystem(config, None, {})
    from pyser.ser.folds import read_fold

    fold = read_fold(first / "fold2", "2")
    model = system.model(["ang", "neu", "sad"], None, fold)
    trained, _ = read_cmgi(first / "fold2/final.safetensors")
    for name, value in trained.speech.state_dict().items():
        torch.testing.assert_close(model.speech.state_dict()[name], value, atol=0, rtol=0)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all("feature_extractor" in name for name in frozen)
    other = replace(fold, train=fold.train[1:])
    system.model(["ang", "neu", "sad"], None, other)  # (this stage leaves one out)
    with pytest.raises(PyserError, match="trained with another train.list"):
        system.model(["ang", "neu", "sad"], None, replace(fold, train=(*fold.train, "stranger")))
    with pytest.raises(PyserError, match="trained with another valid.list"):
        system.model(["ang", "neu", "sad"], None, replace(fold, train=fold.train[1:], valid=(*fold.valid, fold.train[0])))
    with pytest.raises(PyserError, match="fold7/final.safetensors: missing; train the first stage"):
        system.model(["ang", "neu", "sad"], None, replace(fold, name="7"))
    with pytest.raises(PyserError, match="trained with seed 0, this stage has seed 1"):
        CmgiSystem(replace(config, seed=1), None, {}).model(["ang", "neu", "sad"], None, fold)
    run(tiny, tmp_path / "deaf", config_of(tiny, "1", num_epochs=1), ["2"])
    with pytest.raises(PyserError, match="has not learnt to hear words"):
        CmgiSystem(replace(config, init=str(tmp_path / "deaf")), None, {}).model(["ang", "neu", "sad"], None, fold)
    with pytest.raises(PyserError, match="give both stages the same --speech"):
        CmgiSystem(replace(config, speech=str(tiny / "wav2vec2")), None, {}).model(["ang", "neu", "sad"], None, fold)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.transcript != "text"])
def test_evaluation_sees_no_text(tiny, first, name, tmp_path):
    """The same predictions, to the last digit, where no validation or test utterance has a transcript."""
    config = config_of(tiny, name, init=str(first) if ROWS[name].first else "", num_epochs=1)
    if ROWS[name].transcript == "hyp":
        heard = {utt: words.replace("CAT", "HAT") for utt, words in read_table(tiny / "data/text").items()}
        write_table(tmp_path / "hyp.txt", heard)
        config = replace(config, transcript=str(tmp_path / "hyp.txt"))
    run(tiny, tmp_path / "with", config, ["1"])
    blind = tmp_path / "data"
    blind.mkdir()
    for file in ("wav.scp", "utt2emo", "utt2spk"):
        write_table(blind / file, read_table(tiny / "data" / file))
    learnt = (tiny / "data/folds/1/train.list").read_text().split()
    write_table(blind / "text", {utt: words for utt, words in read_table(tiny / "data/text").items() if utt in learnt})
    run(tiny, tmp_path / "without", config, ["1"], blind)
    assert posteriors(tmp_path / "with", 1) == posteriors(tmp_path / "without", 1)
    validated = [json.loads((tmp_path / part / "fold1/history.json").read_text()) for part in ("with", "without")]
    figures = [[row[key] for key in ("loss", "valid_loss", "valid_ua")] for (row,) in validated]
    assert figures[0] == figures[1]
    if ROWS[name].asr:
        hyps = [(tmp_path / part / "fold1/hyp.txt").read_text() for part in ("with", "without")]
        assert hyps[0] == hyps[1]
        assert score_experiment(tmp_path / "with")["wer"] and not score_experiment(tmp_path / "without")["wer"]


def test_true_words_are_seen_where_they_are_asked_for(tiny, tmp_path):
    """Row 8 reads the transcript in evaluation too: other words, another prediction, and none without."""
    config = config_of(tiny, "8")
    run(tiny, tmp_path / "a", config, ["1"])
    other = tmp_path / "data"
    other.mkdir()
    for file in ("wav.scp", "utt2emo", "utt2spk", "text"):
        write_table(other / file, read_table(tiny / "data" / file))
    tested = (tiny / "data/folds/1/test.list").read_text().split()
    write_table(other / "text", {utt: "on a mat" if utt in tested else words
                                 for utt, words in read_table(tiny / "data/text").items()})
    run(tiny, tmp_path / "b", config, ["1"], other)
    assert posteriors(tmp_path / "a", 1) != posteriors(tmp_path / "b", 1)
    write_table(other / "text", {utt: "a mat" for utt in read_table(other / "text") if utt not in tested})
    with pytest.raises(PyserError, match="6 dropped: 6 without words to read"):
        run(tiny, tmp_path / "c", config, ["1"], other)


def test_nothing_heard(tiny):
    """An utterance that is decoded to nothing still gets a prediction, next to others the same as alone."""
    model = build(config_of(tiny), ["ang", "neu", "sad"]).eval()
    rng = np.random.default_rng(0)
    waves = [0.1 * rng.normal(size=size).astype(np.float32) for size in (9000, 6000, 12000)]
    with torch.no_grad():
        model.speech.encoder.model.lm_head.bias[0] += 1e4  # blanks everywhere
        output = model(waves, None)
        assert output.heard == ["", "", ""]
        for n, wave in enumerate(waves):
            torch.testing.assert_close(model([wave], None).log_posteriors[0], output.log_posteriors[n], atol=1e-5, rtol=1e-5)
        mixed = model(waves, ["", "the cat sat on the mat", "a"])
        torch.testing.assert_close(mixed.log_posteriors[0], output.log_posteriors[0], atol=1e-5, rtol=1e-5)
        assert bool(mixed.log_posteriors.isfinite().all())
        assert (mixed.log_posteriors[1] - output.log_posteriors[1]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ROWS)
def test_each_row_trains_a_step(tiny, name):
    """And all that it is made of learns."""
    config = config_of(tiny, name, accumulate=1, dropout=0.0)
    texts = {utt: words.upper() for utt, words in read_table(tiny / "data/text").items()}
    from pyser.encoders.waves import Waves

    waves = Waves(tiny / "data") if config.speech else None
    system = CmgiSystem(config, waves, texts, texts if ROWS[name].transcript == "hyp" else None)
    utts, labels = sorted(texts), list(WORDS)
    classes = {utt: labels.index(emotion) for utt, emotion in read_table(tiny / "data/utt2emo").items()}
    examples = system.load(utts, classes, "fold 1 train")
    torch.manual_seed(0)
    from pyser.ser.folds import Fold

    model = system.model(labels, examples, Fold("1", tuple(utts), (), ())).train()
    loss, stats = system.loss(model, examples, np.arange(3), torch.ones(3))
    loss.backward()
    assert bool(loss.isfinite()) and ("asr" in stats) == ROWS[name].asr
    learns = {key for key, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)}
    parts = {"network": True, "speech": bool(config.speech), "words": bool(config.text)}
    for part, there in parts.items():
        assert any(key.startswith(part) for key in learns) == there, part
    if ROWS[name].speech in ("hubert", "wav2vec2"):
        heads = {key for key in learns if "lm_head" in key}
        convolutions = {key for key in learns if "feature_extractor" in key}
        assert bool(heads) == ROWS[name].asr and bool(convolutions) == (not ROWS[name].first)
    alpha = config.asr_weight
    with torch.no_grad():
        again = model.eval()(*examples.of([0, 1, 2]))
        emotions = -again.log_posteriors[torch.arange(3), torch.from_numpy(examples.label[:3])].mean()
        asr = model.asr_loss(again.speech, [texts[utt] for utt in utts[:3]]) if alpha else torch.zeros(())
        loss, stats = system.loss(model, examples, np.arange(3), torch.ones(3))
    assert loss.item() == pytest.approx(alpha * float(asr) + (1 - alpha) * float(emotions), rel=1e-5)
    assert not alpha or stats["asr"] == pytest.approx(3 * float(asr), rel=1e-5) and float(asr) > 0.1
    factors = system.training.learning_rate_factors
    fast = {key for key, _ in model.named_parameters() if any(key.startswith(start) for start, _ in factors)}
    assert {key for key in learns if key.startswith("network")} <= fast and any("lm_head" in key for key in fast) == (
        ROWS[name].speech in ("hubert", "wav2vec2"))


def test_utterances_without_transcript_learn_emotions_alone(tiny):
    config = config_of(tiny, "2", accumulate=1)
    model = build(config, list(WORDS)).eval()
    rng = np.random.default_rng(0)
    waves = [0.1 * rng.normal(size=size).astype(np.float32) for size in (9000, 6000)]
    output = model(waves, ["A CAT", ""])
    both = model.asr_loss(output.speech, ["A CAT", ""])
    alone = model.asr_loss(model([waves[0]], ["A CAT"]).speech, ["A CAT"])
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=1e-4)
    nothing = model.asr_loss(output.speech, ["", ""])
    assert float(nothing) == 0
    nothing.backward()


def test_killed_in_the_third_fold(tiny, first, second, tmp_path, monkeypatch):
    """It goes on from the last checkpoint, to the same result."""
    config, save, calls = config_of(tiny, init=str(first)), checkpoints.save, []

    def stop_in_fold_3(path, state):
        save(path, state)
        calls.append(path)
        if "fold3" in str(path):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", stop_in_fold_3)
        with pytest.raises(KeyboardInterrupt):
            run(tiny, tmp_path, config)
    assert [path.name for path in calls] == ["epoch-1.pt", "epoch-2.pt"] * 2 + ["epoch-1.pt"]
    calls.clear()
    monkeypatch.setattr(checkpoints, "save", lambda path, state: (save(path, state), calls.append(path)))
    run(tiny, tmp_path, config)
    assert [path.name for path in calls] == ["epoch-2.pt"]
    for fold in "123":
        assert posteriors(tmp_path, fold) == posteriors(second, fold)
        assert (tmp_path / f"fold{fold}/hyp.txt").read_text() == (second / f"fold{fold}/hyp.txt").read_text()
    keys = "mean", "pooled", "wer", "decisions"
    assert [score_experiment(tmp_path)[key] for key in keys] == [score_experiment(second)[key] for key in keys]


def test_another_first_stage_is_trained_on_anew(tiny, first, tmp_path, capsys):
    """Only the fold that begins with it."""
    shutil.copytree(first, tmp_path / "first")
    config = config_of(tiny, init=str(tmp_path / "first"), num_epochs=1)
    run(tiny, tmp_path / "exp", config, ["1", "2"])
    again = tmp_path / "first/fold2/final.safetensors"
    again.write_bytes(again.read_bytes())
    os.utime(again, (1, 1))
    capsys.readouterr()
    run(tiny, tmp_path / "exp", config, ["1", "2"])
    said = capsys.readouterr().out
    assert "fold 1: finished before" in said and "fold 2: the features have changed since; training it again" in said


def test_what_changed_is_trained_on_anew(tiny, tmp_path, capsys):
    """Other words, another encoder at the same place: nothing half of them, half of what was there."""
    shutil.copytree(tiny / "hubert", tmp_path / "hubert")
    data = make_dir(tmp_path / "data")
    for file in ("wav.scp", "utt2emo", "utt2spk", "text"):
        write_table(data / file, read_table(tiny / "data" / file))
    config = config_of(tiny, "2", speech=str(tmp_path / "hubert"), num_epochs=1)

    def again():
        capsys.readouterr()
        run(tiny, tmp_path / "exp", config, ["1"], data)
        said = capsys.readouterr().out
        return said, posteriors(tmp_path / "exp", 1)

    _, first = again()
    assert "fold 1: finished before" in again()[0]
    write_table(data / "text", {utt: "a mat" for utt in read_table(data / "text")})
    said, second = again()
    assert "training it again" in said and second != first
    init_speech(tmp_path / "other", "tiny", "hubert", seed=1)
    shutil.copy(tmp_path / "other/model.safetensors", tmp_path / "hubert/model.safetensors")
    said, third = again()
    assert "training it again" in said and third != second
    assert "fold 1: finished before" in again()[0]


def test_words_of_another_recogniser_are_scored(tiny, tmp_path):
    """Row 5 hears nothing itself; its WER is that of what it reads."""
    heard = {utt: words if utt.startswith("spk1") else "a" for utt, words in read_table(tiny / "data/text").items()}
    write_table(tmp_path / "hyp.txt", heard)
    run(tiny, tmp_path / "exp", config_of(tiny, "5", transcript=str(tmp_path / "hyp.txt"), num_epochs=1))
    wer = score_experiment(tmp_path / "exp")["wer"]
    assert sorted(wer["folds"].values())[0] == 0 and wer["pooled"] > 30


def test_classes_that_count_the_same(tiny):
    """Also where a batch has one class only."""
    config = config_of(tiny, "1", accumulate=1, dropout=0.0, class_balanced=True)
    from pyser.encoders.waves import Waves

    system = CmgiSystem(config, Waves(tiny / "data"), {})
    emotions = read_table(tiny / "data/utt2emo")
    utts = [utt for utt in emotions if emotions[utt] == "sad"][:2]
    examples = system.load(utts, dict.fromkeys(utts, 2), "fold 1 train")
    model = build(config, list(WORDS)).eval()
    losses = [float(system.loss(model, examples, np.arange(2), torch.tensor([1.0, 1.0, weight]))[0]) for weight in (1, 3)]
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)


def test_a_head_of_its_own_for_an_encoder_without(tiny, tmp_path, monkeypatch):
    """Pretrained HuBERT has no CTC head; what was trained is read back the same."""
    speech = load_speech(tiny / "hubert")
    speech.model.base_model.save_pretrained(tmp_path / "bare")
    assert load_speech(tmp_path / "bare").vocabulary is None
    def fast(speech, **options):
        seen = []
        with monkeypatch.context() as patch:
            patch.setattr("pyser.ser.cmgi.run_folds", lambda system, *_: seen.extend(system.training.learning_rate_factors))
            run(tiny, tmp_path / "none", config_of(tiny, speech=str(speech), **options))
        return [name for name, _ in seen]

    assert fast(tmp_path / "bare") == ["network.", "speech.encoder.model.lm_head."]
    assert fast(tiny / "hubert") == fast(tmp_path / "bare", init="first") == ["network."]
    config = config_of(tiny, speech=str(tmp_path / "bare"), num_epochs=1)
    run(tiny, tmp_path / "exp", config, ["1"])
    model, metadata = read_cmgi(tmp_path / "exp/fold1/final.safetensors")
    assert model.speech.vocabulary.tokens[5] == "E" and json.loads(metadata["config"])["speech"] == str(tmp_path / "bare")
    for utt, said in read_table(tmp_path / "exp/fold1/test_posteriors.txt").items():
        wave = soundfile.read(tiny / f"data/{utt}.wav", dtype="float32")[0]
        with torch.no_grad():
            found = model([wave], None).log_posteriors.exp()[0].tolist()
        assert found == pytest.approx([float(p) for p in said.split()], abs=1e-4)


def test_checkpointed_gradients_are_the_same(tiny):
    def gradients(checkpointed):
        torch.manual_seed(0)
        model = build(config_of(tiny, dropout=0.0), list(WORDS)).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for encoder in (model.speech.encoder, model.text.model):
            encoder.config.mask_time_prob = encoder.config.attention_dropout = 0.0
        for module in model.modules():
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        if checkpointed:
            model.checkpoint_gradients()
        rng = np.random.default_rng(0)
        waves = [0.1 * rng.normal(size=size).astype(np.float32) for size in (9000, 6000)]
        output = model(waves, ["A CAT", "THE MATS"])
        (output.log_posteriors[:, 0].sum() + model.asr_loss(output.speech, ["A CAT", "THE MATS"])).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys() and len(plain) > 40
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6)


def test_rows():
    assert rows_of("table1") == ["2", "1", "3", "4", "5", "6", "7", "cmgi", "8", "9", "10"]
    assert rows_of("7") == ["2", "7"] and rows_of("9") == ["1", "9"] and rows_of("6") == ["6"]
    assert set().union(*TABLES.values()) == set(ROWS)
    for wrong, said in ((("11", "h", "w", "b"), "--row 11"), (("5", "h", "w", "b"), "give its words, --hyp"),
                        (("7", "h", "w", "b"), "begins with row 2"), (("6", "h", "w", "b", "", "x"), "has one stage")):
        with pytest.raises(PyserError, match=said):
            settings(*wrong)
    with pytest.raises(PyserError, match="--exp table3: there are table1 table2"):
        rows_of("table3")


def test_bad_settings(tiny, tmp_path):
    for wrong, said in (({"asr_weight": 1.5}, "between 0 and 1"), ({"freeze": "all"}, "freeze"),
                        ({"accumulate": 0}, "accumulate"), ({"speech": ""}, "are of a speech encoder"),
                        ({"speech": "", "text": ""}, "give an encoder"),
                        ({"head_factor": 0.0}, "above 0"), ({"selection": "best"}, "selection")):
        with pytest.raises(PyserError, match=said):
            config_of(tiny, **wrong)
    blind = tmp_path / "data"
    blind.mkdir()
    for file in ("wav.scp", "utt2emo", "utt2spk"):
        write_table(blind / file, read_table(tiny / "data" / file))
    with pytest.raises(PyserError, match="text: missing; the words to learn from"):
        run(tiny, tmp_path / "exp", config_of(tiny), data=blind)
    run(tiny, tmp_path / "exp", config_of(tiny, "1", num_epochs=1), ["1"], blind)  # (HuBERT alone needs none)
    soundfile.write(blind / "short.wav", np.zeros(200), 16000)
    write_table(blind / "wav.scp", {**read_table(tiny / "data/wav.scp"), "spk1-03": str(blind / "short.wav")})
    with pytest.raises(PyserError, match="spk1-03: 200 samples, and the speech encoder needs"):
        run(tiny, tmp_path / "short", config_of(tiny, "1", num_epochs=1), ["1"], blind)
    with pytest.raises(PyserError, match="not a pyser cmgi"):
        from pyser.nn.model_io import save

        save(tmp_path / "other.safetensors", torch.nn.Linear(1, 1), config_of(tiny), {"kind": "other"})
        read_cmgi(tmp_path / "other.safetensors")


def test_command(tiny, tmp_path):
    (tmp_path / "cmgi.conf").write_text("--nodes=8\n--heads=2\n--num-epochs=1\n--batch-utterances=3\n--accumulate=2\n")
    options = ["--conf", str(tmp_path / "cmgi.conf"), "--hubert", str(tiny / "hubert"), "--bert", str(tiny / "bert")]
    places = [str(tiny / "data"), str(tiny / "data/folds")]
    for row, more in (("2", []), ("7", ["--init", str(tmp_path / "2"), "--gradient-checkpointing", "true"])):
        done = CliRunner().invoke(cli, ["cmgi", "train", "--row", row, "--fold", "1", *options, *more, *places,
                                        str(tmp_path / row)])
        assert done.exit_code == 0, done.output
        assert "fold 1: epoch 1" in done.output
    (tmp_path / "bad.conf").write_text("--freeze=none\n")
    done = CliRunner().invoke(cli, ["cmgi", "train", "--row", "2", "--conf", str(tmp_path / "bad.conf"), *places, "x"])
    assert "bad.conf: --freeze is what a row says; take it out" in str(done.exception)
    config = json.loads((tmp_path / "7/ser.json").read_text())["config"]
    assert config["interaction"] == "none" and config["gradient_checkpointing"] and config["lr_initial"] == 1e-5
    said = " ".join(CliRunner().invoke(cli, ["cmgi", "train", "--help"]).output.split())
    assert "The paper prints the learning rate 10e-5; the default is 1e-5" in said
    assert CliRunner().invoke(cli, ["cmgi", "rows", "9"]).output.splitlines() == [
        "1 - HuBERT", "9 1 HuBERT, BERT, true words, without CTC"]


def test_prediction_is_what_the_test_list_got(tiny, second, capsys):
    """Of a data directory, which may have no text; what is heard is said too."""
    import pyser
    from pyser.ser.listing import print_predictions

    predictor = pyser.load(second / "fold1")
    said, heard = read_table(second / "fold1/test_posteriors.txt"), read_table(second / "fold1/hyp.txt")
    for utt, expected in said.items():
        found = predictor.predict(str(tiny / f"data/{utt}.wav"))
        assert list(found.posteriors.values()) == pytest.approx([float(p) for p in expected.split()], abs=1e-3)
        assert found.transcript == heard[utt]
    assert predictor.seen == {"spk2", "spk3"}
    outputs = []
    for text in (True, False):
        (tiny / "data/text").rename(tiny / "aside") if not text else None
        assert print_predictions(predictor, [str(tiny / "data")], "json") == 0
        outputs.append(capsys.readouterr().out)
    (tiny / "aside").rename(tiny / "data/text")
    assert outputs[0] == outputs[1] and len(outputs[0].splitlines()) == 18
    assert len(pyser.load(second).models) == 3
    with pytest.raises(PyserError, match="nothing to draw over time"):
        from pyser.ser.plot import plot_posteriors

        plot_posteriors(predictor, str(tiny / "data/spk1-00.wav"), tiny / "a.png")


def test_no_prediction_of_words_that_are_not_heard(tiny, tmp_path):
    import pyser

    run(tiny, tmp_path, config_of(tiny, "8", num_epochs=1), ["1"])
    with pytest.raises(PyserError, match="reads words that it does not hear"):
        pyser.load(tmp_path)
