"""local/steps/extract_ivectors_online.sh, used as Kaldi's script of this name: which extractor its i-vectors are from."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyser.kaldi.tables import MatrixWriter, read_mats

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
CONF = """--cmvn-config={0}/online_cmvn.conf
--splice-config={0}/splice_opts
--lda-matrix={0}/final.mat
--global-cmvn-stats={0}/global_cmvn.stats
--diag-ubm={0}/final.dubm
{1}={0}/final.ie   # the models
"""


@pytest.fixture
def folder(tmp_path):
    """data/ with one utterance, ie/ with Kaldi's extractor."""
    (tmp_path / "data").mkdir()
    with MatrixWriter(f"ark,scp:{tmp_path}/f.ark,{tmp_path}/data/feats.scp", compress=False) as writer:
        writer.write("spk1-u4", np.load(GOLDEN / "nnet3/expected.npz")["feats/spk1-u4"])
    for name, line in {"utt2spk": "spk1-u4 spk1\n", "spk2utt": "spk1 spk1-u4\n", "wav.scp": "spk1-u4 /no/u.wav\n"}.items():
        (tmp_path / "data" / name).write_text(line)
    shutil.copytree(GOLDEN / "ivector/extractor", tmp_path / "ie")
    return tmp_path


def run(folder, extractor):
    path = f"{Path(sys.executable).parent}:{ROOT}/local:{ROOT}/local/steps:{os.environ['PATH']}"
    done = subprocess.run(["extract_ivectors_online.sh", "--nj", "1", "data", extractor, "iv"], cwd=folder,
                          env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "iv/final.ie.id").read_text()


def test_the_id_of_the_extractor(folder):
    md5 = hashlib.md5((folder / "ie/final.ie").read_bytes()).hexdigest() + "\n"
    assert run(folder, "ie") == md5 == (folder / "ie/final.ie.id").read_text()  # kept there, as Kaldi does
    assert [key for key, _ in read_mats(f"scp:{folder}/iv/ivector_online.scp")] == ["spk1-u4"]
    (folder / "ie/final.ie.id").write_text("0123\n")
    assert run(folder, "ie") == "0123\n"


@pytest.mark.parametrize("place, extractor, names, option", [
    ("online/conf/ivector_extractor.conf", "online", "ie", "--ivector-extractor"),
    ("online/ivector_extractor.conf", "online", "../ie", "--ivector_extractor"),  # from the conf file's own directory
    ("ie.conf", "ie.conf", "ie", "  --ivector-extractor"),
])
def test_the_extractor_of_a_conf_file(folder, place, extractor, names, option):
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(CONF.format(names, option))
    (folder / "ie/final.ie.id").write_text("4567\n")
    assert run(folder, extractor) == "4567\n"
    if extractor == "ie.conf":  # by another name than Kaldi's there is no file that keeps the id
        (folder / "ie/final.ie").rename(folder / "ie/best.ie")
        (folder / place).write_text(CONF.format(names, option).replace("final.ie", "best.ie"))
        assert run(folder, extractor) == hashlib.md5((folder / "ie/best.ie").read_bytes()).hexdigest() + "\n"
        assert (folder / "ie/final.ie.id").read_text() == "4567\n"
