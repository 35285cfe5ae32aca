"""pyser bottleneck dump on tiny archives."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from pyser.cli import cli
from pyser.errors import PyserError
from pyser.kaldi.tables import MatrixWriter, load_mat, read_scp
from pyser.nn import model_io
from pyser.nn.compute import ComputeConfig, compute
from pyser.nn.tdnnf import TdnnF, TdnnfConfig

CONFIG = TdnnfConfig(feat_dim=5, ivector_dim=4, dim=16, bottleneck_dim=6, prefinal_dim=8, strides=(1, 0, 3), num_pdfs=7)
LENGTHS = {"u1": 37, "u2": 1, "u3": 160}


@pytest.fixture
def data(tmp_path):
    """model/final.safetensors, feats.scp and iv/ivector_online.scp (10 frames a row)."""
    torch.manual_seed(0)
    model_io.save(tmp_path / "model" / "final.safetensors", TdnnF(CONFIG), CONFIG)
    rng = np.random.default_rng(0)
    (tmp_path / "iv").mkdir()
    with MatrixWriter(f"ark,scp:{tmp_path}/feats.ark,{tmp_path}/feats.scp", compress=False) as writer:
        for utt, frames in LENGTHS.items():
            writer.write(utt, rng.normal(size=(frames, 5)))
    iv = tmp_path / "iv" / "ivector_online"
    with MatrixWriter(f"ark,scp:{iv}.ark,{iv}.scp", compress=False) as writer:
        for utt, frames in LENGTHS.items():
            writer.write(utt, rng.normal(size=(-(-frames // 10), 4)))
    return tmp_path


def arguments(data, *more):
    return ["bottleneck", "dump", "--node", "tdnnf3", "--ivectors", f"scp:{data}/iv/ivector_online.scp", *more,
            f"{data}/model", f"scp:{data}/feats.scp", f"ark,scp:{data}/out/b.ark,{data}/out/b.scp"]


def run(data, *more):
    result = CliRunner().invoke(cli, arguments(data, *more))
    return result, {u: load_mat(at) for u, at in read_scp(data / "out/b.scp").items()} if not result.exit_code else {}


def expected(data, utt, node="tdnnf3", period=10, chunk=50, subsampling=1):
    feats, ivectors = read_scp(data / "feats.scp"), read_scp(data / "iv/ivector_online.scp")
    return compute(model_io.load_nnet3(data / "model"), load_mat(feats[utt]), load_mat(ivectors[utt]),
                   ComputeConfig(node, chunk, subsampling, period))


def test_writes_every_utterance(data):
    result, outputs = run(data, "--no-compress")
    assert result.exit_code == 0 and f"tdnnf3 of {data}/feats.scp: 3 utterances, 0 dropped" in result.output
    assert {utt: x.shape for utt, x in outputs.items()} == {"u1": (37, 16), "u2": (1, 16), "u3": (160, 16)}
    for utt, x in outputs.items():
        np.testing.assert_allclose(x, expected(data, utt), rtol=1e-5, atol=1e-5)


def test_compressed_by_default(data):
    _, outputs = run(data)
    plain = expected(data, "u3")
    assert (data / "out/b.ark").stat().st_size < 198 * (16 + 20) + 500  # a byte a value, not four
    np.testing.assert_allclose(outputs["u3"], plain, atol=np.ptp(plain) / 32)


@pytest.mark.parametrize("node, dim", [("tdnnf3.linear", 6), ("tdnn1", 16), ("lda", 19), ("output", 7)])
def test_other_nodes_chunks_and_rates(data, node, dim):
    _, outputs = run(data, "--no-compress", "--node", node, "--frames-per-chunk", "20", "--subsampling", "3")
    assert [x.shape for x in outputs.values()] == [(13, dim), (1, dim), (54, dim)]
    np.testing.assert_allclose(outputs["u3"], expected(data, "u3", node, 10, 20, 3), rtol=1e-5, atol=1e-5)


def test_period_of_the_ivector_directory(data):
    (data / "iv/ivector_period").write_text("40\n")
    _, outputs = run(data, "--no-compress", "--frames-per-chunk", "20")
    np.testing.assert_allclose(outputs["u3"], expected(data, "u3", period=40, chunk=20), rtol=1e-5, atol=1e-5)
    assert not np.allclose(outputs["u3"], expected(data, "u3", period=10, chunk=20), atol=1e-3)


@pytest.mark.parametrize("text", ["", "ten\n", "0\n"])
def test_a_bad_period(data, text):
    (data / "iv/ivector_period").write_text(text)
    result, _ = run(data)
    assert str(result.exception).startswith(f"{data}/iv/ivector_period: expected a whole number of frames")


def test_a_failing_utterance_is_named(data):
    (data / "iv/ivector_period").write_text("2\n")  # 16 rows now end at frame 32
    result, _ = run(data, "--frames-per-chunk", "20")
    assert str(result.exception).startswith("u3: 16 rows of i-vectors, one every 2 frames, are too few for 160 frames")
    assert list((data / "out").iterdir()) == []  # nothing was finished, so nothing stays


def test_an_utterance_without_ivectors(data):
    scp = data / "iv/ivector_online.scp"
    scp.write_text("".join(line + "\n" for line in scp.read_text().splitlines() if not line.startswith("u2 ")))
    result, outputs = run(data, "--max-dropped", "34%")
    assert result.output.rstrip().endswith("3 utterances, 1 dropped: 1 without i-vectors (e.g. u2)")
    assert list(outputs) == ["u1", "u3"]


def test_too_many_dropped(data):
    scp = data / "iv/ivector_online.scp"
    scp.write_text(scp.read_text().splitlines()[0] + "\n")
    result, _ = run(data)
    assert result.exit_code == 1 and isinstance(result.exception, PyserError)
    assert "3 utterances, 2 dropped: 2 without i-vectors (e.g. u2): more than --max-dropped 5%" in str(result.exception)
    assert {path.name for path in (data / "out").iterdir()} == {".b.ark.partial", ".b.scp.partial", ".b.ark.progress"}
    assert run(data, "--max-dropped", "90%")[0].exit_code == 0  # what was computed is not computed again
    assert {path.name for path in (data / "out").iterdir()} == {"b.ark", "b.scp"}
    command = [sys.executable, "-c", "from pyser.cli import main; main()", *arguments(data)]
    shell = subprocess.run(command, capture_output=True, text=True)
    assert shell.returncode == 1 and shell.stderr.startswith("pyser: tdnnf3 of ") and shell.stderr.count("\n") == 1


def test_a_wrong_node_fails_before_any_work(data):
    result, _ = run(data, "--node", "tdnnf12")
    assert result.exit_code == 1
    assert "no node 'tdnnf12'; it has ivector input lda tdnn1 tdnnf2 tdnnf3 tdnnf4" in str(result.exception)
    assert not (data / "out").exists()


def test_a_broken_off_dump_goes_on(data, monkeypatch):
    """Stopped in the second of three groups, with half of it written, and run again: the same bytes as in one go."""
    from pyser.kaldi.resumable import ResumableWriter
    from pyser.nn import bottleneck

    monkeypatch.setitem(bottleneck.GROUP_FRAMES, "cpu", 1)
    run(data)
    whole = {name: (data / "out" / name).read_bytes() for name in ("b.ark", "b.scp")}
    for name in whole:
        (data / "out" / name).unlink()
    calls, write = [], ResumableWriter.write

    def stop(writer, matrices, *more):
        calls.append([utt for utt, _ in matrices])
        if len(calls) == 2:
            writer._files[0].write(b"half a gro")
            raise KeyboardInterrupt
        write(writer, matrices, *more)

    monkeypatch.setattr(ResumableWriter, "write", stop)
    assert run(data)[0].exit_code != 0
    assert calls == [["u1"], ["u2"]] and not (data / "out/b.ark").exists()
    assert run(data)[0].exit_code == 0
    assert calls[2:] == [["u2"], ["u3"]]
    assert {name: (data / "out" / name).read_bytes() for name in whole} == whole
    assert {path.name for path in (data / "out").iterdir()} == {"b.ark", "b.scp"}
    # Another node is another dump: it does not go on from the rest of this one.
    calls.clear()
    assert run(data)[0].exit_code != 0 and len(calls) == 2
    calls.append([])
    result, outputs = run(data, "--no-compress", "--node", "tdnnf2")
    assert calls[3:] == [["u1"], ["u2"], ["u3"]]
    np.testing.assert_allclose(outputs["u1"], expected(data, "u1", "tdnnf2"), atol=1e-5)


@pytest.mark.parametrize("wspecifier", ["ark:o.ark", "scp:o.scp", "ark,t,scp:o.ark,o.scp", "ark,scp:-,o.scp", "ark,scp:o,o"])
def test_a_dump_goes_to_two_files(data, wspecifier, monkeypatch):
    monkeypatch.chdir(data)
    before = sorted(data.iterdir())
    result = CliRunner().invoke(cli, [*arguments(data)[:-1], wspecifier])
    assert str(result.exception) == f"'{wspecifier}': a dump goes to two files, ark,scp:FILE.ark,FILE.scp"
    assert sorted(data.iterdir()) == before


def test_a_dump_of_other_features_starts_afresh(data, monkeypatch):
    """The same scp file, but its archive was written anew in the meantime; and a progress file that is nonsense."""
    from pyser.nn import bottleneck

    monkeypatch.setitem(bottleneck.GROUP_FRAMES, "cpu", 1)
    whole = run(data)[0] and (data / "out/b.ark").read_bytes()
    outputs = bottleneck._outputs

    def stop(model, waiting, config):
        if waiting[0][0] != "u1":
            raise KeyboardInterrupt
        return outputs(model, waiting, config)

    monkeypatch.setattr(bottleneck, "_outputs", stop)
    for name in ("b.ark", "b.scp"):
        (data / "out" / name).unlink()
    assert run(data)[0].exit_code != 0 and (data / "out/.b.ark.progress").exists()
    monkeypatch.setattr(bottleneck, "_outputs", outputs)
    archive = (data / "feats.ark").read_bytes()
    (data / "feats.ark").write_bytes(archive)
    for nonsense in (None, "[1]", ""):
        if nonsense is not None:
            (data / "out/.b.ark.progress").write_text(nonsense)
        assert run(data)[0].exit_code == 0
        assert (data / "out/b.ark").read_bytes() == whole
