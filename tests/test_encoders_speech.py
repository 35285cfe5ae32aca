"""Speech encoders: padding, hidden states, files, what is refused."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCTC, AutoProcessor, Wav2Vec2FeatureExtractor

from pyser.cli import cli
from pyser.encoders.huggingface import SAFE_PICKLES
from pyser.encoders.speech import TYPES, SpeechEncoder, load_speech
from pyser.encoders.untrained import filterbank, init_speech
from pyser.encoders.vocabulary import ENGLISH
from pyser.errors import PyserError

SMALL = {
    "conv_dim": (16, 16, 24), "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_feat_extract_layers": 3,
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48,
    "num_conv_pos_embeddings": 9, "num_conv_pos_embedding_groups": 2, "vocab_size": 32, "pad_token_id": 0,
    "layerdrop": 0.5, "mask_time_prob": 0.0,
}


def model_of(model_type, norm, **options):
    torch.manual_seed(0)
    model = AutoModelForCTC.from_config(AutoConfig.for_model(
        model_type, feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", **{**SMALL, **options}))
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:  # (as if trained)
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    return model.eval()


def waves_of(*lengths):
    rng = np.random.default_rng(0)
    return [np.float32(0.1) * rng.standard_normal(length, np.float32) + np.float32(0.05) for length in lengths]


def dropouts(value):
    return {f"{name}_dropout": value for name in ("hidden", "attention", "activation", "feat_proj", "final")}


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_changes_nothing(model_type, norm):
    """Alone, between longer ones, and as Hugging Face's own model computes it without any padding."""
    model, waves = model_of(model_type, norm), waves_of(4000, 7011, 1203)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    with torch.no_grad():
        expected = [model(extractor(wave, sampling_rate=16000, return_tensors="pt").input_values,
                          output_hidden_states=True) for wave in waves]
        encoder = SpeechEncoder(model, ENGLISH).eval()
        for several in ([0], [1], [2], [2, 0], [0, 1, 2], [2, 2]):
            output = encoder([waves[n] for n in several])
            for row, n in enumerate(several):
                length = int(output.lengths[row])
                assert length == expected[n].logits.shape[1] == encoder.num_frames(len(waves[n]))
                torch.testing.assert_close(output.logits[row, :length], expected[n].logits[0], atol=2e-5, rtol=1e-4)
                for found, right in zip(output.hidden[:-1], expected[n].hidden_states[:-1], strict=True):
                    torch.testing.assert_close(found[row, :length], right[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_gradients_of_a_padded_batch(norm):
    """The sum of those of its utterances, dropout being 0; also with gradient checkpointing."""
    encoder, waves = SpeechEncoder(model_of("wav2vec2", norm, **dropouts(0.0)), ENGLISH).train(), waves_of(3000, 1203)

    def gradients(batches):
        encoder.zero_grad()
        for batch in batches:
            output = encoder(batch)
            for n, length in enumerate(output.lengths):
                (output.logits[n, :length].log_softmax(-1)[:, 3].sum() + (output.hidden[1][n, :length] ** 2).sum()).backward(
                    retain_graph=True)
        return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}

    alone, together = gradients([[wave] for wave in waves]), gradients([waves])
    assert len(alone) == len(list(encoder.parameters()))
    for name, right in alone.items():
        assert (together[name] - right).norm() < 1e-4 * right.norm() + 1e-5, name
    encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
    for name, found in gradients([waves]).items():
        assert (found - alone[name]).norm() < 1e-4 * alone[name].norm() + 1e-5, name


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_hidden_states(model_type, norm):
    """The first is what the first layer is given, the last is what the CTC head sees; there is one more than layers, in
    training too."""
    encoder = SpeechEncoder(model_of(model_type, norm), ENGLISH).eval()
    given = []
    first = encoder.model.base_model.encoder.layers[0]
    handle = first.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    with torch.no_grad():
        output = encoder(waves_of(4000, 3000))
        handle.remove()
        assert len(output.hidden) == encoder.num_layers + 1 == 4
        assert all(state.shape == (2, int(output.lengths.max()), encoder.dim) for state in output.hidden)
        torch.testing.assert_close(output.hidden[0], given[0])
        torch.testing.assert_close(encoder.model.lm_head(output.hidden[-1]), output.logits)
    encoder.train()
    assert all(len(encoder(waves_of(4000)).hidden) == 4 for _ in range(5))


def test_frames():
    encoder = SpeechEncoder(model_of("wav2vec2", "layer"), ENGLISH).eval()
    assert encoder.frame_shift == 20 / 16000
    assert [encoder.num_frames(n) for n in (0, 9, 39, 40, 59, 60)] == [0, 0, 0, 1, 1, 2]
    assert [encoder.num_samples(n) for n in (1, 2, 5)] == [40, 60, 120]
    with pytest.raises(PyserError, match="39 samples .* needs 40"):
        encoder(waves_of(4000, 39))
    assert encoder(waves_of(40)).lengths.tolist() == [1]


def test_masks_of_spec_augment_fit_into_short_waves():
    encoder = SpeechEncoder(model_of("wav2vec2", "group", mask_time_prob=0.5, mask_time_length=30), ENGLISH).train()
    output = encoder(waves_of(500, 45))
    assert output.lengths.tolist() == [24, 1] and bool(output.logits[0, :24].isfinite().all())


def test_freeze():
    for what, learning in (("none", {"feature_extractor", "encoder", "lm_head"}), ("features", {"encoder", "lm_head"}),
                           ("encoder", {"lm_head"})):
        encoder = SpeechEncoder(model_of("hubert", "group"), ENGLISH).train()
        encoder.freeze(what)
        output = encoder(waves_of(4000))
        (output.logits ** 2).sum().backward()
        parts = {"feature_extractor", "encoder", "lm_head"}
        assert {part for part in parts for name, p in encoder.named_parameters() if f".{part}." in name
                and p.grad is not None and float(p.grad.norm()) > 0} == learning
    with pytest.raises(PyserError, match="--freeze is half"):
        encoder.freeze("half")


@pytest.mark.parametrize("model_type", TYPES)
def test_directory_of_hugging_face(tmp_path, model_type):
    """What is saved is opened by transformers, and gives the same there; and loads here again."""
    assert "32 ms" not in init_speech(tmp_path, "tiny", model_type, seed=3)
    encoder, wave = load_speech(tmp_path), waves_of(16000)[0]
    processor, model = AutoProcessor.from_pretrained(tmp_path), AutoModelForCTC.from_pretrained(tmp_path).eval()
    assert processor.tokenizer("HELLO IT'S").input_ids == encoder.vocabulary.encode("hello it's")
    inputs = processor(wave, sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(encoder([wave]).logits, model(inputs.input_values).logits, atol=1e-5, rtol=1e-4)
    best = [label for label in np.random.default_rng(0).integers(32, size=400).tolist() if label not in (1, 2, 3)]
    assert encoder.vocabulary.decode(best) == " ".join(processor.tokenizer.decode(best).split())
    encoder.save(tmp_path / "again")
    assert all(torch.equal(a, b) for a, b in zip(encoder.state_dict().values(), load_speech(tmp_path / "again")
                                                 .state_dict().values(), strict=True))


def test_same_seed_same_model(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        init_speech(tmp_path / name, "tiny", seed=seed)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_model_without_a_head(tmp_path):
    """Hidden states are those of the model with one; a new head reads English."""
    init_speech(tmp_path / "ctc", "tiny")
    AutoModel.from_pretrained(tmp_path / "ctc").save_pretrained(tmp_path / "base")
    encoder, waves = load_speech(tmp_path / "base"), waves_of(16000)
    with torch.no_grad():
        output, expected = encoder(waves), load_speech(tmp_path / "ctc")(waves)
        assert output.logits is None
        torch.testing.assert_close(output.hidden, expected.hidden)
        encoder.new_head(ENGLISH)
        assert encoder(waves).logits.shape == expected.logits.shape
    encoder.save(tmp_path / "new")
    assert load_speech(tmp_path / "new").vocabulary == ENGLISH


def test_filterbank():
    """A tone excites its own band, whatever its phase."""
    filters = filterbank(160, 400)
    peaks = []
    for hertz in (200, 500, 1000, 2000, 4000):
        for phase in np.linspace(0, np.pi, 5):
            tone = np.cos(2 * np.pi * hertz / 16000 * np.arange(400) + phase)
            energy = np.maximum(filters @ tone, 0).reshape(40, 4).sum(axis=1)
            peaks.append(int(energy.argmax()))
    bands = np.array(peaks).reshape(5, 5)
    assert (np.ptp(bands, axis=1) <= 1).all() and (np.diff(bands[:, 0]) > 3).all()


class Poison:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_do_not_run(tmp_path):
    init_speech(tmp_path / "m", "tiny")
    (tmp_path / "m/model.safetensors").unlink()
    with open(tmp_path / "m/pytorch_model.bin", "wb") as stream:
        pickle.dump(Poison(tmp_path / "ran"), stream)
    with pytest.raises(PyserError, match="transformers can load" if SAFE_PICKLES else "no model.safetensors, and torch"):
        load_speech(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not SAFE_PICKLES, reason="torch before 2.6")
def test_weights_in_a_pickle(tmp_path):
    init_speech(tmp_path, "tiny")
    before = load_speech(tmp_path).state_dict()
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), load_speech(tmp_path).state_dict().values(), strict=True))


def test_code_of_a_model_does_not_run(tmp_path):
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "config.json").write_text(json.dumps(
        {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModelForCTC": "code.Mine"}}))
    with pytest.raises(PyserError, match="transformers can load"):
        load_speech(tmp_path)
    assert not (tmp_path / "ran").exists()


def damaged(path, how):
    if how == "cut":
        data = (path / "model.safetensors").read_bytes()
        (path / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif how == "lacking":
        state = load_file(path / "model.safetensors")
        del state[next(name for name in state if "layers.1.attention.k_proj.weight" in name)]
        save_file(state, path / "model.safetensors", {"format": "pt"})
    elif how == "vocabulary":
        (path / "vocab.json").unlink()
    elif how in ("rate", "json"):
        (path / "preprocessor_config.json").write_text('{"sampling_rate": 8000}' if how == "rate" else "{")
    else:
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, **how}))
    return path


@pytest.mark.parametrize("how, reason", [
    ("cut", "not a model that transformers can load"), ("lacking", "lacks 1 tensors .*k_proj"),
    ("vocabulary", "no vocab.json"), ("rate", "8000 Hz"), ("json", "not JSON"), ({"add_adapter": True}, "adapter"),
    ({"model_type": "bert"}, "type bert"), ({"pad_token_id": 99}, "blank"), ({"pad_token_id": None}, "blank"),
    ({"hidden_size": 48}, "transformers can load"),
])
def test_models_that_are_refused(tmp_path, how, reason):
    init_speech(tmp_path, "tiny")
    with pytest.raises(PyserError, match=reason) as error:
        load_speech(damaged(tmp_path, how))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_names_that_are_no_models(tmp_path):
    for name in (tmp_path / "none", "./none", "a/b/c"):
        with pytest.raises(PyserError, match=f"{name}: no such directory"):
            load_speech(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PyserError, match="not a model"):
        load_speech(tmp_path / "empty")


def test_init_on_the_command_line(tmp_path):
    done = CliRunner().invoke(cli, ["encoder", "init", "--like", "small", "--type", "hubert", str(tmp_path / "m")])
    assert done.exit_code == 0 and "hubert like small, 3984832 parameters, 6 layers of 224, frames of 30 ms" in done.output
    again = CliRunner().invoke(cli, ["encoder", "init", str(tmp_path / "m")])
    assert isinstance(again.exception, PyserError) and "holds a model" in str(again.exception)
    shutil.rmtree(tmp_path / "m")


def test_mask_that_the_checkpoint_lacks_is_no_garbage(tmp_path):
    """A model saved without masking has no vector for masked frames; one is made, the same each time."""
    init_speech(tmp_path, "tiny")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "mask_time_prob": 0.3}))
    vectors = [load_speech(tmp_path).model.base_model.masked_spec_embed for _ in range(2)]
    assert torch.equal(*vectors) and 0 <= vectors[0].min() < vectors[0].max() <= 1
