"""`import pyser; pyser.kaldi…` as in a notebook."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pyser
from pyser.errors import PyserError

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = np.load(GOLDEN / "nnet3" / "expected.npz")


def test_network():
    model = pyser.kaldi.load_nnet3(GOLDEN / "nnet3" / "final.mdl")
    assert repr(model).endswith("final.mdl': input (40) + ivector (30) -> output, output-xent)")
    assert model.nodes["tdnnf5.linear"] == 32 and model.nodes["output"] == 80
    feats, ivectors = EXPECTED["feats/spk1-u4"], EXPECTED["ivectors/spk1-u4"]
    for node in ("tdnnf5.noop", "tdnnf5"):
        assert np.abs(model(feats, ivectors, node=node) - EXPECTED["nnet3/node_tdnnf5.noop/spk1-u4"]).max() < 3e-5
    output = model(feats.astype(np.float64).tolist(), ivectors, frame_subsampling_factor=3)
    assert np.abs(output - EXPECTED["nnet3/output_sub3_fpc50/spk1-u4"]).max() < 3e-5
    with pytest.raises(PyserError, match="no node 'tdnnf9'"):
        model(feats, ivectors, node="tdnnf9")
    with pytest.raises(PyserError, match="no i-vectors"):
        model(feats)


def test_tables(tmp_path):
    mats = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones((1, 3))}
    assert pyser.kaldi.write_mats(f"ark,scp:{tmp_path}/m.ark,{tmp_path}/m.scp", mats.items()) == 2
    for rspecifier in (f"scp:{tmp_path}/m.scp", f"ark:{tmp_path}/m.ark"):
        found = dict(pyser.kaldi.read_mats(rspecifier))
        assert list(found) == ["a", "b"] and found["a"].dtype == np.float32
        np.testing.assert_array_equal(found["a"], mats["a"])
    entry = (tmp_path / "m.scp").read_text().split()[1]
    np.testing.assert_array_equal(pyser.kaldi.load_mat(entry + "[1:1]"), mats["a"][1:])
    ali = dict(pyser.kaldi.read_ints(f"ark:{GOLDEN}/tables/ali.ark"))
    assert all(value.dtype == np.int32 for value in ali.values())


def test_import_is_light():
    """`import pyser` loads neither torch nor numpy, `pyser.kaldi` not torch."""
    code = ("import sys, pyser; assert 'numpy' not in sys.modules; pyser.kaldi.read_mats; assert 'torch' not in sys.modules\n"
            "try: pyser.nothing\nexcept AttributeError as error: print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "module 'pyser' has no attribute 'nothing'\n", done.stderr


def test_extractor():
    golden = np.load(GOLDEN / "ivector" / "online.npz")
    extract = pyser.kaldi.load_extractor(GOLDEN / "ivector" / "extractor")
    assert repr(extract).endswith("extractor': 40 -> 30)")
    feats = [golden[f"feats/spk2-u{n}"] for n in (1, 2)]
    for ours, utt in zip(extract.speaker(feats), ("spk2-u1", "spk2-u2"), strict=True):
        assert np.abs(ours - golden[f"a_spk/{utt}"]).max() < 0.02
    assert np.abs(extract(feats[1]) - golden["b_utt/spk2-u2"]).max() < 0.02
    assert extract(feats[0], ivector_period=5).shape == (52, 30)
    with pytest.raises(PyserError, match="features of 30 dimensions"):
        extract(EXPECTED["ivectors/spk1-u4"])
