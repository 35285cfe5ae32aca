"""Damaged model files: i-vector extractors, UBMs, transforms, statistics, transition models (networks: test_nnet3_files)."""

import functools
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyser.errors import PyserError
from pyser.features.cmvn import read_stats
from pyser.ivector.extractor import read_extractor, write_extractor
from pyser.ivector.pca import read_transform
from pyser.ivector.ubm import read_diag_gmm, write_diag_gmm
from pyser.kaldi.binary import Reader
from pyser.kaldi.transition_model import read_transition_model

GOLDEN = Path(__file__).parent / "golden"
READERS = {
    "ivector/0.ie": read_extractor,
    "ivector/2.dubm": read_diag_gmm,
    "ivector/extractor/final.mat": read_transform,
    "ivector/extractor/global_cmvn.stats": read_stats,
    "nnet3/transition_model.txt": lambda path: read_transition_model(Reader(path)),
}


@functools.cache
def whole(name):
    """A golden file, or the text form of a binary one."""
    if name in READERS:
        return (GOLDEN / name).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text"
        if name == "ie":
            write_extractor(read_extractor(GOLDEN / "ivector/0.ie"), path, binary=False)
        else:
            write_diag_gmm(read_diag_gmm(GOLDEN / "ivector/2.dubm"), path, binary=False)
        return path.read_bytes()


@pytest.mark.parametrize("name", [*READERS, "ie", "dubm"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
@settings(max_examples=60, deadline=2000, suppress_health_check=list(HealthCheck))
@given(place=st.integers(0, 10**6), head=st.booleans(), new=st.binary(max_size=8), removed=st.integers(0, 8))
def test_damage_is_one_line(tmp_path_factory, name, place, head, new, removed):
    read = READERS.get(name) or {"ie": read_extractor, "dubm": read_diag_gmm}[name]
    path, data = tmp_path_factory.getbasetemp() / "damaged", whole(name)
    place %= min(len(data), 300) if head else len(data)  # (most of what can go wrong stands at the beginning)
    path.write_bytes(data[:place] + new + data[place + removed :])
    try:
        read(path)
    except PyserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
