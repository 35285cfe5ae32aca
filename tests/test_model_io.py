"""Networks in safetensors files: round trip, and what is said about files that are none."""

import json

import pytest
import torch
from safetensors.torch import save_file

from pyser.errors import PyserError
from pyser.nn import model_io
from pyser.nn.tdnnf import TdnnF, TdnnfConfig

CONFIG = TdnnfConfig(feat_dim=5, ivector_dim=4, dim=16, bottleneck_dim=6, prefinal_dim=8, strides=(1, 0, 3), num_pdfs=7)


def network():
    torch.manual_seed(0)
    model = TdnnF(CONFIG)
    model.set_lda(torch.randn(19, 19), torch.randn(19))
    model.train()(torch.randn(3, 30, 5), torch.randn(3, 4))  # moves the batchnorm statistics
    return model.eval()


def message_of(path):
    with pytest.raises(PyserError) as error:
        model_io.load_tdnnf(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    return str(error.value)


def test_round_trip(tmp_path):
    model = network()
    model_io.save(tmp_path / "deep" / "final.safetensors", model, CONFIG, {"seed": "3"})
    for path in (tmp_path / "deep" / "final.safetensors", tmp_path / "deep", str(tmp_path / "deep")):
        loaded = model_io.load_tdnnf(path)
        assert loaded.config == CONFIG and loaded.config.strides == (1, 0, 3) and not loaded.training
        assert loaded.state_dict().keys() == model.state_dict().keys()
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    x, ivector = torch.randn(1, 20, 5), torch.randn(1, 4)
    with torch.no_grad():
        assert torch.equal(loaded(x, ivector)[0], model(x, ivector)[0])
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["final.safetensors"]


def test_metadata(tmp_path):
    model_io.save(tmp_path / "a.safetensors", network(), CONFIG, {"seed": "3"})
    state, metadata = model_io.read(tmp_path / "a.safetensors")
    assert metadata["seed"] == "3" and json.loads(metadata["config"])["strides"] == [1, 0, 3]
    assert state["layers.0.linear.weight"].shape == (6, 16, 2) and state["lda_offset"].shape == (19,)


def test_missing(tmp_path):
    assert "no such model; train it first" in message_of(tmp_path / "none.safetensors")
    with pytest.raises(PyserError, match="no model in it \\(final.safetensors, final.raw or final.mdl\\)"):
        model_io.load_tdnnf(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, -1])
def test_truncated(tmp_path, kept):
    path = tmp_path / "a.safetensors"
    model_io.save(path, network(), CONFIG)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    assert "not a whole safetensors file" in message_of(path)


@pytest.mark.parametrize("content", [b"not a model\n", b"\x00" * 4096, b"# Kaldi\n<Nnet3>\n" * 50])
def test_other_formats(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    assert "not a whole safetensors file" in message_of(tmp_path / "a.safetensors")


def test_a_torch_checkpoint(tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pt")
    assert "not a whole safetensors file" in message_of(tmp_path / "a.pt")


@pytest.mark.parametrize("metadata", [
    None,  # another program's weights
    {"format": "pt"},
    {"config": "{}"},  # the default sizes, other parameters
    {"config": '{"hidden": 3}'},
    {"config": "[1, 2]"},
    {"config": "model.yaml"},
    {"config": '{"dim": "16"}'},
    {"config": '{"dim": 0}'},
    {"config": '{"strides": 1}'},
])
def test_foreign_weights(tmp_path, metadata):
    save_file({"weight": torch.zeros(2, 3)}, str(tmp_path / "a.safetensors"), metadata=metadata)
    assert "not a TDNN-F model" in message_of(tmp_path / "a.safetensors")


def test_other_sizes_than_its_config(tmp_path):
    model_io.save(tmp_path / "a.safetensors", network(), TdnnfConfig(**{**CONFIG.__dict__, "num_pdfs": 8}))
    assert "not a TDNN-F model" in message_of(tmp_path / "a.safetensors")
