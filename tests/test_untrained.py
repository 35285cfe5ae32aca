"""The untrained counterpart of a network."""

import numpy as np
import pytest
import torch

from pyser.errors import PyserError
from pyser.kaldi.tables import MatrixWriter, load_mat, read_scp
from pyser.nn import model_io
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.nn.untrained import middle, untrained

CONFIG = TdnnfConfig(feat_dim=5, ivector_dim=4, dim=16, bottleneck_dim=6, prefinal_dim=8, strides=(1, 0, 3), num_pdfs=7)
CONTEXT = 5


def write(directory, num, ivector_dim=4):
    """final.safetensors, feats.scp and ivectors.scp of `num` utterances, shorter and longer than 150 frames."""
    config = TdnnfConfig(**{**CONFIG.__dict__, "ivector_dim": ivector_dim})
    torch.manual_seed(99)
    model = TdnnF(config)
    model.set_lda(torch.randn(15 + ivector_dim, 15 + ivector_dim) / 4, torch.randn(15 + ivector_dim))
    torch.nn.init.normal_(model.chain.output.weight)
    model_io.save(directory / "final.safetensors", model, config)
    rng = np.random.default_rng(0)
    for name, rows, dim in (("feats", 45, 5), ("ivectors", 3, 4)):
        with MatrixWriter(f"ark,scp:{directory}/{name}.ark,{directory}/{name}.scp", compress=False) as writer:
            for number in range(num):
                writer.write(f"u{number:03d}", 3 * rng.normal(size=(rows * (number % 5 + 1), dim)) + number % 7)
    return directory


def make(data, name="a", seed=0):
    path = data / f"{name}.safetensors"
    line = untrained(data / "final.safetensors", path, data / "feats.scp", data / "ivectors.scp", seed)
    return model_io.load_tdnnf(path), line


def test_same_config_and_transform_other_parameters(tmp_path):
    trained, (model, line) = model_io.load_tdnnf(write(tmp_path, 5)), make(tmp_path)
    assert line == f"{tmp_path}/a.safetensors: random parameters (seed 0), batch normalisation over 5 utterances"
    assert model.config == CONFIG
    assert torch.equal(model.lda_matrix, trained.lda_matrix) and torch.equal(model.lda_offset, trained.lda_offset)
    theirs = dict(trained.named_parameters())
    for name, value in model.named_parameters():
        if ".output." in name:
            assert not value.any()  # a fresh output layer is zero
        else:
            assert not torch.equal(value, theirs[name]), name


@torch.no_grad()
@pytest.mark.parametrize("num, sizes", [(5, [5]), (33, [17, 16]), (300, [32] * 8)])
def test_batchnorm_statistics_are_averages_over_the_batches(tmp_path, num, sizes):
    """Of tdnn1's: mean and unbiased variance of its input in each batch; of 300 utterances 256 are taken."""
    model, line = make(write(tmp_path, num))
    assert line.endswith(f"batch normalisation over {sum(sizes)} utterances")
    feats, ivectors, relus = read_scp(tmp_path / "feats.scp"), read_scp(tmp_path / "ivectors.scp"), []
    for i in range(sum(sizes)):
        utt = f"u{i * num // sum(sizes):03d}"
        x, first = load_mat(feats[utt]), (len(load_mat(feats[utt])) - 150) // 2
        x = np.array([x[min(max(t, 0), len(x) - 1)] for t in range(first - CONTEXT, first + 150 + CONTEXT)])
        spliced = model.splice(torch.tensor(x)[None], torch.tensor(load_mat(ivectors[utt])[-1:]))[0]  # last i-vector
        lda = model.lda_matrix @ spliced.t() + model.lda_offset[:, None]
        relus.append((model.affine1.weight[:, :, 0] @ lda + model.affine1.bias[:, None]).clamp_min(0))
    batches = [torch.cat(relus[sum(sizes[:k]) : sum(sizes[: k + 1])], dim=1) for k in range(len(sizes))]
    mean, variance = (torch.stack(v).mean(0) for v in ([b.mean(1) for b in batches], [b.var(1) for b in batches]))
    torch.testing.assert_close(model.batchnorm1.running_mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.batchnorm1.running_var, variance, rtol=1e-4, atol=1e-4)
    for batchnorm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)):
        assert batchnorm.running_mean.any() and (batchnorm.running_var != 1).any()
        assert int(batchnorm.num_batches_tracked) == len(sizes)


def test_middle_frames():
    frames = np.arange(200)[:, None]
    assert middle(frames, 28, 28)[:, 0].tolist() == [*([0] * 3), *range(200), *([199] * 3)]
    assert middle(frames, 2, 1)[:, 0].tolist() == list(range(23, 176))
    assert middle(frames[:4], 2, 2)[:, 0].tolist() == [0] * 75 + [0, 1, 2, 3] + [3] * 75


def test_the_seed_decides(tmp_path):
    write(tmp_path, 5)
    first, second, other = (make(tmp_path, *seed)[0].state_dict() for seed in (("a", 3), ("b", 3), ("c", 4)))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["affine1.weight"], other["affine1.weight"])
    assert model_io.read(tmp_path / "c.safetensors")[1]["seed"] == "4"
    names = [model_io.identity(tmp_path / f"{name}.safetensors") for name in ("final", "a", "c")]
    assert names[1:] == [f"{names[0]}, random parameters"] * 2


def test_without_ivectors(tmp_path):
    write(tmp_path, 5, ivector_dim=0)
    untrained(tmp_path / "final.safetensors", tmp_path / "a.safetensors", tmp_path / "feats.scp", None)
    assert model_io.load_tdnnf(tmp_path / "a.safetensors").config.ivector_dim == 0
    with pytest.raises(PyserError, match="give --ivectors if and only if"):
        make(tmp_path, "b")


def test_utterances_without_ivectors(tmp_path):
    scp = write(tmp_path, 5) / "ivectors.scp"
    with pytest.raises(PyserError, match="give --ivectors if and only if"):
        untrained(tmp_path / "final.safetensors", tmp_path / "a.safetensors", tmp_path / "feats.scp", None)
    scp.write_text("".join(line + "\n" for line in scp.read_text().splitlines() if not line.startswith("u003 ")))
    assert make(tmp_path)[1].endswith("over 4 utterances")
    scp.write_text(scp.read_text().replace("u0", "v0"))
    with pytest.raises(PyserError, match="feats.scp: no utterance with features and i-vectors"):
        make(tmp_path, "b")
    assert not (tmp_path / "b.safetensors").exists()
