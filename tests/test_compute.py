"""A network over whole utterances, against a loop that follows src/nnet3/nnet-am-decodable-simple.cc literally."""

import numpy as np
import pytest
import torch

from pyser.errors import PyserError
from pyser.nn import compute as compute_module
from pyser.nn.compute import ComputeConfig
from pyser.nn.compute import compute as compute_config
from pyser.nn.nnet3 import Nnet3
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.nn.tdnnf_nnet3 import to_nnet3

CONFIG = TdnnfConfig(feat_dim=5, ivector_dim=4, dim=16, bottleneck_dim=6, prefinal_dim=8, strides=(1, 0, 3), num_pdfs=7)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return network(CONFIG)


def network(config):
    return Nnet3(to_nnet3(TdnnF(config))).eval()


def compute(model, feats, ivectors, node, period=10, frames_per_chunk=50, subsampling=1):
    return compute_config(model, feats, ivectors, ComputeConfig(node, frames_per_chunk, subsampling, period))


def utterance(frames, rows, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(frames, 5)).astype(np.float32), rng.normal(size=(rows, 4)).astype(np.float32)


def ivector_row(first, last, period, rows):
    return min((first + (last - first) // 2) // period, rows - 1)


@torch.no_grad()
def naive(model, feats, ivectors, node, period, frames_per_chunk, subsampling):
    """One output frame at a time, each from its own window of input frames."""
    while frames_per_chunk % subsampling:
        frames_per_chunk += 1
    outputs = []
    for start in range(0, len(feats), frames_per_chunk):
        wanted = [t for t in range(start, min(start + frames_per_chunk, len(feats))) if (t - start) % subsampling == 0]
        row = ivectors[ivector_row(wanted[0], wanted[-1], period, len(ivectors))]
        for t in wanted:
            left, right = model.context(model.full_name(node))
            window = [feats[min(max(t + offset, 0), len(feats) - 1)] for offset in range(-left, right + 1)]
            value = model(torch.tensor(np.array(window))[:, None], torch.tensor(row)[None], model.full_name(node))
            outputs.append(value[0, 0].numpy())
    return np.array(outputs)


@pytest.mark.parametrize("subsampling", [1, 3])
@pytest.mark.parametrize("frames_per_chunk", [1, 7, 21, 50, 150])
@pytest.mark.parametrize("frames", [1, 2, 20, 21, 64])
def test_as_the_naive_loop(model, frames, frames_per_chunk, subsampling):
    feats, ivectors = utterance(frames, -(-frames // 10))
    for node in ("tdnnf4", "tdnnf2.linear", "output"):
        found = compute(model, feats, ivectors, node, 10, frames_per_chunk, subsampling)
        expected = naive(model, feats, ivectors, node, 10, frames_per_chunk, subsampling)
        assert found.shape == (-(-frames // subsampling), model.dim(node)) and found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_too_few_ivectors(model):
    """Frame 124, the middle of the last chunk, wants row 12: row 7 is 50 frames away, row 6 too far, as for Kaldi."""
    feats, ivectors = utterance(150, 8)
    assert compute(model, feats, ivectors, "tdnnf4").shape == (150, 16)
    for rows in (7, 0):
        with pytest.raises(PyserError, match=f"^{rows} rows of i-vectors, one every 10 frames, are too few for 150 frames"):
            compute(model, feats, ivectors[:rows], "tdnnf4")


@pytest.mark.parametrize("frames, chunk, subsampling, rows, expected", [
    (100, 50, 1, 10, [2, 7]),  # chunks 0 … 49 and 50 … 99, middles 24 and 74
    (100, 50, 1, 4, [2, 3]),  # no row 7: the last one
    (60, 50, 1, 6, [2, 5]),  # 50 … 59, middle 54
    (100, 50, 3, 10, [2, 7]),  # chunks of 51: 0 … 48 and 51 … 99, middles 24 and 75
    (44, 20, 3, 5, [0, 3, 4]),  # chunks of 21: 0 … 18 (9), 21 … 39 (30), 42 (42)
    (1, 150, 1, 1, [0]),
])
def test_ivector_of_a_chunk(frames, chunk, subsampling, rows, expected):
    """The lda node, an identity here, ends in the i-vector itself: row r holds r."""
    model = network(CONFIG)
    ivectors = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 4, axis=1)
    output = compute(model, np.zeros((frames, 5), np.float32), ivectors, "lda", 10, chunk, subsampling)
    per_chunk = -(-chunk // subsampling)
    assert output[::per_chunk, -1].tolist() == expected
    assert output[:, -1].tolist() == np.repeat(expected, per_chunk)[: len(output)].tolist()


def test_period_divides_the_frame():
    ivectors = np.repeat(np.arange(30, dtype=np.float32)[:, None], 4, axis=1)
    output = compute(network(CONFIG), np.zeros((90, 5), np.float32), ivectors, "lda", 3, 30)
    assert output[::30, -1].tolist() == [4, 14, 24]  # middles 14, 44, 74


def test_edges_are_repeated():
    """The lda node of an identity transform is frames t - 1, t, t + 1."""
    feats, ivectors = utterance(4, 1)
    output = compute(network(CONFIG), feats, ivectors, "lda", 10, 3)
    np.testing.assert_array_equal(output[:, :5], feats[[0, 0, 1, 2]])
    np.testing.assert_array_equal(output[:, 5:10], feats)
    np.testing.assert_array_equal(output[:, 10:15], feats[[1, 2, 3, 3]])


def test_more_chunks_than_one_forward_pass_takes(model):
    frames = 2 * compute_module.ROWS_AT_ONCE["cpu"] + 5
    feats, ivectors = utterance(frames, -(-frames // 10))
    np.testing.assert_allclose(compute(model, feats, ivectors, "tdnnf4", 10, 2),
                               naive(model, feats, ivectors, "tdnnf4", 10, 2, 1), rtol=1e-4, atol=1e-4)


def test_without_ivectors_the_chunk_does_not_matter():
    torch.manual_seed(1)
    model = network(TdnnfConfig(**{**CONFIG.__dict__, "ivector_dim": 0}))
    feats, _ = utterance(40, 1)
    whole = compute(model, feats, None, "tdnnf4", frames_per_chunk=150)
    np.testing.assert_allclose(compute(model, feats, None, "tdnnf4", frames_per_chunk=7), whole, rtol=1e-4, atol=1e-4)


def test_no_frames(model):
    with pytest.raises(PyserError, match="no frames; the utterance is too short"):
        compute(model, np.zeros((0, 5), np.float32), np.zeros((1, 4), np.float32), "tdnnf4")
