"""local/make_bottleneck_features.sh, used as Kaldi's script of this name."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pyser.kaldi.tables import MatrixWriter, read_mats

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "nnet3"
EXPECTED = np.load(GOLDEN / "expected.npz")
UTTS = ("spk1-u4", "spk2-u1", "spk3-u3")


@pytest.fixture
def folder(tmp_path):
    """data/, iv/ and nnet/ with Kaldi's golden network."""
    for name in ("data", "iv", "nnet"):
        (tmp_path / name).mkdir()
    for what, name in (("feats", "data/feats"), ("ivectors", "iv/ivector_online")):
        with MatrixWriter(f"ark,scp:{tmp_path}/{name}.ark,{tmp_path}/{name}.scp", compress=False) as writer:
            for utt in UTTS:
                writer.write(utt, EXPECTED[f"{what}/{utt}"])
    lists = {"utt2spk": "{0} {1}\n", "spk2utt": "{1} {0}\n", "utt2emo": "{0} neu\n", "wav.scp": "{0} /no/{0}.wav\n"}
    for name, line in lists.items():
        (tmp_path / "data" / name).write_text("".join(line.format(utt, utt[:4]) for utt in UTTS))
    (tmp_path / "nnet" / "final.mdl").write_bytes((GOLDEN / "final.mdl").read_bytes())
    (tmp_path / "nnet" / "cmvn_opts").write_text("--norm-means=false --norm-vars=false\n")
    (tmp_path / "iv" / "ivector_period").write_text("10\n")
    for name in ("iv", "nnet"):
        (tmp_path / name / "final.ie.id").write_text("0123\n")
    return tmp_path


def run(folder, *arguments):
    path = f"{Path(sys.executable).parent}:{ROOT}/local:{ROOT}/local/steps:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "LC_ALL": "C", "PYTHONUTF8": "1"}
    done = subprocess.run(["make_bottleneck_features.sh", "--nj", "2", *arguments], cwd=folder, env=env, capture_output=True,
                          text=True)
    return done.returncode, done.stdout + done.stderr


def outputs(folder, where="bnf"):
    return dict(read_mats(f"scp:{folder}/{where}/feats.scp"))


def test_as_kaldi(folder):
    arguments = ["--ivector-dir", "iv", "--compress", "false", "output", "data", "bnf", "nnet"]
    code, text = run(folder, *arguments)
    assert code == 0, text
    for utt in ("spk1-u4", "spk3-u3"):
        assert np.abs(outputs(folder)[utt] - EXPECTED[f"nnet3/output_fpc50/{utt}"]).max() < 3e-5
    bnf = folder / "bnf"
    assert (bnf / "output.config").read_text() == "output-node name=output input=output\n"
    assert (bnf / "data" / "num_jobs").read_text() == "2\n" and (bnf / "frame_shift").read_text() == "0.01\n"
    assert (bnf / "utt2num_frames").read_text() == "spk1-u4 28\nspk2-u1 257\nspk3-u3 99\n"
    assert (bnf / "utt2emo").read_text() == (folder / "data" / "utt2emo").read_text()
    assert {path.name for path in (bnf / "data").iterdir()} >= {"raw_bnfeat_data.1.ark", "raw_bnfeat_data.2.scp"}
    assert (bnf / "log" / "make_bnf_data.1.log").exists() and (bnf / "cmvn.scp").exists()

    age = (bnf / "data" / "raw_bnfeat_data.1.ark").stat().st_mtime_ns
    assert run(folder, *arguments)[0] == 0 and (bnf / "data" / "raw_bnfeat_data.1.ark").stat().st_mtime_ns == age
    for name in ("raw_bnfeat_data.1.ark", "raw_bnfeat_data.2.scp"):  # what was removed is made again
        (bnf / "data" / name).unlink()
    assert run(folder, *arguments)[0] == 0 and len(outputs(folder)) == 3
    (folder / "iv" / "ivector_period").write_text("5\n")  # so is what would be another
    code, text = run(folder, *arguments)
    assert code != 0 and "26 rows of i-vectors, one every 5 frames, are too few for 257 frames" in text
    (folder / "nnet" / "final.raw").write_bytes((GOLDEN / "noivector.raw").read_bytes())  # final.raw comes before final.mdl
    assert run(folder, *arguments[2:])[0] == 0
    found = outputs(folder)["spk1-u4"]
    assert np.abs(found - EXPECTED["nnet3_noivector/output_fpc50/spk1-u4"]).max() < 3e-5


def test_normalised_input(folder):
    """cmvn_opts that ask for it, and online CMVN."""
    (folder / "nnet" / "final.mdl").unlink()
    (folder / "nnet" / "final.raw").write_bytes((GOLDEN / "noivector.raw").read_bytes())
    (folder / "nnet" / "cmvn_opts").write_text("--norm_means=false --norm-vars=true\n")
    code, text = run(folder, "bn", "data", "bnf", "nnet")
    assert code != 0 and "variances are normalised only together with means" in text
    (folder / "nnet" / "cmvn_opts").write_text("--norm-means=true --norm_vars=true\n")
    code, text = run(folder, "bn", "data", "bnf", "nnet")
    assert code != 0 and "data/cmvn.scp is missing" in text
    pyser = [sys.executable, "-c", "from pyser.cli import main; main()"]
    subprocess.run([*pyser, "cmvn", "compute", "--spk2utt", "data/spk2utt", "scp:data/feats.scp",
                    "ark,scp:cmvn.ark,data/cmvn.scp"], cwd=folder, check=True)
    assert run(folder, "--compress", "false", "bn", "data", "bnf", "nnet")[0] == 0
    subprocess.run([*pyser, "cmvn", "apply", "--norm-vars=true", "--utt2spk", "data/utt2spk", "scp:data/cmvn.scp",
                    "scp:data/feats.scp", "ark:normalised.ark"], cwd=folder, check=True)
    subprocess.run([*pyser, "nnet3", "compute", "--output-node", "bn", "nnet", "ark:normalised.ark", "ark:bn.ark"],
                   cwd=folder, check=True)
    for utt, expected in read_mats(f"ark:{folder}/bn.ark"):
        np.testing.assert_allclose(outputs(folder)[utt], expected, atol=1e-4)
    assert not list((folder / "bnf" / "data").glob(".cmvn*"))
    (folder / "nnet" / "online_cmvn").touch()
    (folder / "nnet" / "global_cmvn.stats").write_bytes(
        (GOLDEN.parent / "ivector" / "extractor" / "global_cmvn.stats").read_bytes())
    (folder / "nnet" / "cmvn_opts").write_text("\n")
    assert run(folder, "--compress", "false", "bn", "data", "online", "nnet")[0] == 0
    assert not np.allclose(outputs(folder, "online")["spk3-u3"], outputs(folder)["spk3-u3"], atol=0.01)


@pytest.mark.parametrize("arguments, what", [
    (["tdnnf5", "data", "bnf"], "usage: make_bottleneck_features.sh"),
    (["--ivector-dir", "iv", "tdnnf9", "data", "bnf", "nnet"], "the network has no node 'tdnnf9'"),
    (["--ivector-dir", "iv", "tdnnf5", "nodata", "bnf", "nnet"], "nodata/feats.scp is missing or empty"),
    (["--ivector-dir", "iv", "tdnnf5", "data", "bnf", "nonet"], "nonet: no such directory or model"),
    (["--ivector-dir", "noiv", "tdnnf5", "data", "bnf", "nnet"], "noiv/ivector_online.scp is missing"),
    (["tdnnf5", "data", "bnf", "nnet"], "no i-vectors, the network was trained with i-vectors of 30"),
    (["--ivector-dir", "other", "tdnnf5", "data", "bnf", "nnet"], "are not from the extractor"),
    (["--nj", "0", "tdnnf5", "data", "bnf", "nnet"], "at least one job"),
])
def test_bad_input(folder, arguments, what):
    (folder / "other").mkdir()
    (folder / "other" / "ivector_online.scp").write_bytes((folder / "iv" / "ivector_online.scp").read_bytes())
    (folder / "other" / "final.ie.id").write_text("4567\n")
    code, text = run(folder, *arguments)
    assert code != 0 and what in text
    assert not list(folder.glob("bnf/feats.scp")) and not list(folder.glob("bnf/data/raw*"))
