"""Hidden states, log-probabilities and text features in Kaldi archives, whole, in part and broken off."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from test_encoders_text import make_bert

from pyser.cli.encoder_dump import group as encoder_group
from pyser.encoders import dump as module
from pyser.encoders.dump import dump, dump_text, parse_layers
from pyser.encoders.speech import load_speech
from pyser.encoders.text import load_text
from pyser.encoders.untrained import init_speech
from pyser.encoders.waves import Waves
from pyser.errors import PyserError
from pyser.kaldi.resumable import ResumableWriter
from pyser.kaldi.tables import read_mats, read_scp

UTTS = [f"spk-u{n}" for n in range(7)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    init_speech(folder, "tiny")
    return folder


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data")


def make_data(folder, seconds=0.3):
    """Utterances of different lengths, the last one a segment of the first's recording."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for n, utt in enumerate(UTTS[:-1]):
        soundfile.write(folder / f"{utt}.wav", 0.1 * rng.standard_normal(int(16000 * seconds * (1 + n % 3))), 16000)
    (folder / "wav.scp").write_text("".join(f"{utt} {folder}/{utt}.wav\n" for utt in UTTS[:-1]))
    (folder / "segments").write_text("".join(f"{utt} {utt} 0 -1\n" for utt in UTTS[:-1]) + f"{UTTS[-1]} {UTTS[0]} 0.1 0.25\n")
    (folder / "utt2spk").write_text("".join(f"{utt} spk\n" for utt in UTTS))
    (folder / "text").write_text("".join(f"{utt} words\n" for utt in UTTS))
    return folder


def table(path):
    return dict(read_mats(f"scp:{path}"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.ark")}


def test_as_the_model_alone(model, data, tmp_path):
    """Every layer and the log-probabilities of each utterance by itself, though they are computed in batches."""
    line = dump(model, data, tmp_path / "out", "all")
    assert line == f"layer0, layer1, layer2, logits of {data}: 7 utterances, 0 dropped"
    encoder, waves = load_speech(model), Waves(data)
    for utt in UTTS:
        with torch.no_grad():
            alone = encoder([waves[utt]])
        frames = int(alone.lengths[0])
        for n, hidden in enumerate(alone.hidden):
            found = table(tmp_path / f"out/layer{n}.scp")[utt]
            assert found.shape == (frames, encoder.dim) and np.abs(found - hidden[0].numpy()).max() < 1e-4
        found = table(tmp_path / "out/logits.scp")[utt]
        assert np.abs(found - alone.logits[0].log_softmax(-1).numpy()).max() < 1e-4
        assert np.exp(found).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert list(read_scp(tmp_path / "out/logits.scp")) == UTTS
    said = json.loads((tmp_path / "out/dump.json").read_text())
    assert (said["layers"], said["dim"], said["utterances"]) == ([0, 1, 2], 32, 7)
    assert said["frame_shift"] == encoder.frame_shift
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".ark", ".scp", ".json"}


def test_layers():
    assert parse_layers("three", 12) == (0, 6, 12) and parse_layers("three", 1) == (0, 1)
    assert parse_layers("all", 2) == (0, 1, 2) and parse_layers("12,0, 6,6", 12) == (0, 6, 12)
    for text in ("13", "-1", "0,", "last"):
        with pytest.raises(PyserError, match="to 12"):
            parse_layers(text, 12)


def test_compressed(model, data, tmp_path):
    dump(model, data, tmp_path / "whole", "2")
    dump(model, data, tmp_path / "small", "2", compress=True)
    sizes = {name: (tmp_path / name / "layer2.ark").stat().st_size for name in ("whole", "small")}
    assert sizes["small"] < 0.5 * sizes["whole"]
    for utt, exact in table(tmp_path / "whole/layer2.scp").items():
        assert 0 < np.abs(table(tmp_path / "small/layer2.scp")[utt] - exact).max() < 0.1
    assert contents(tmp_path / "whole")["logits.ark"] == contents(tmp_path / "small")["logits.ark"]


def test_a_dump_is_made_once(model, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    dump(model, data, out, "0,2")
    age = (out / "layer0.ark").stat().st_mtime_ns
    assert dump(model, data, out, "0,2") == f"already done: layers 0 2 of {data} in {out}"
    (out / "layer2.scp").unlink()  # what is missing is made again, and nothing else
    assert dump(model, data, out, "0,2") == f"layer2 of {data}: 7 utterances, 0 dropped"
    assert dump(model, data, out, "all") == f"layer1 of {data}: 7 utterances, 0 dropped"
    assert dump(model, data, out, "three") == f"already done: layers 0 1 2 of {data} in {out}"
    assert (out / "layer0.ark").stat().st_mtime_ns == age
    said = json.loads((out / "dump.json").read_text())
    assert said["layers"] == [0, 1, 2] and said["num_layers"] == 2
    dump(model, data, tmp_path / "at_once", "all")
    assert contents(out) == contents(tmp_path / "at_once")
    before = contents(out)
    init_speech(tmp_path / "other", "tiny", seed=1)  # so is what another model would give
    assert "7 utterances" in dump(tmp_path / "other", data, out, "0,2") and contents(out) != before
    assert not list(out.glob("layer1.*"))  # (the first model's)
    text = (data / "segments").read_text()  # and other utterances
    (data / "segments").write_text(text.replace("0.1 0.25", "0.1 0.3"))
    assert "7 utterances" in dump(tmp_path / "other", data, out, "0,2")
    monkeypatch.setattr(Waves, "__getitem__", None)  # what is no longer true is not said while another is made
    with pytest.raises(TypeError):
        dump(model, data, out, "0,2")
    assert not (out / "dump.json").exists()


@pytest.mark.parametrize("call", range(2, 8))
def test_goes_on_where_it_was_broken_off(model, data, tmp_path, monkeypatch, call):
    """Broken off at any of the writes, also where one archive is a group ahead of the other; the same bytes in the end."""
    monkeypatch.setitem(module.GROUP_SECONDS, "cpu", 1.5)  # groups of 3, 3 and 1
    dump(model, data, tmp_path / "whole", "1")
    out, computed, calls = tmp_path / "out", [], []

    class Failing(ResumableWriter):
        def write(self, *arguments):
            calls.append(self.ark.name)
            if len(calls) == call:
                raise KeyboardInterrupt
            super().write(*arguments)

    monkeypatch.setattr(module, "ResumableWriter", Failing)
    if call <= 6:
        with pytest.raises(KeyboardInterrupt):
            dump(model, data, out, "1")
        assert not list(out.glob("*.scp")) and not (out / "dump.json").exists()
    else:
        dump(model, data, out, "1")
    monkeypatch.setattr(module, "ResumableWriter", ResumableWriter)
    read = Waves.__getitem__
    monkeypatch.setattr(Waves, "__getitem__", lambda self, utt: computed.append(utt) or read(self, utt))
    dump(model, data, out, "1")
    # Two writes for each group: a group that both archives have is not computed again.
    assert computed == UTTS[(0, 3, 6, 7)[(call - 1) // 2] :]
    assert contents(out) == contents(tmp_path / "whole")
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())


def test_killed(model, tmp_path, monkeypatch):
    """Of a real process that is killed, no archive has its name; the next run ends with the same bytes."""
    data, out = make_data(tmp_path / "data", seconds=15), tmp_path / "out"
    code = "import sys, pyser; from pyser.encoders import dump; dump.GROUP_SECONDS['cpu'] = 1.0; dump.dump(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(model), str(data), str(out), "all"],
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    progress = out / ".logits.ark.progress"
    while process.poll() is None and not progress.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 0 < json.loads(progress.read_text())["position"] < 7 and not list(out.glob("[!.]*"))
    monkeypatch.setitem(module.GROUP_SECONDS, "cpu", 1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        dump(model, data, out, "all")
        dump(model, data, tmp_path / "whole", "all")
    finally:
        torch.set_num_threads(threads)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_cannot_be_computed_is_dropped(model, data, tmp_path, capsys):
    (data / f"{UTTS[1]}.wav").write_bytes(b"no audio")
    soundfile.write(data / f"{UTTS[2]}.wav", np.zeros(100), 16000)
    with pytest.raises(PyserError, match="7 utterances, 2 dropped.*more than --max-dropped"):
        dump(model, data, tmp_path / "out")
    assert f"{UTTS[1]}: {data}/{UTTS[1]}.wav: not readable as audio" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*.scp"))
    line = dump(model, data, tmp_path / "out", max_dropped=0.5)  # (nothing is left to compute)
    assert f"2 dropped: 1 unreadable (e.g. {UTTS[1]}); 1 too short for a frame (e.g. {UTTS[2]})" in line
    assert list(read_scp(tmp_path / "out/layer1.scp")) == [UTTS[0], *UTTS[3:]]
    soundfile.write(data / f"{UTTS[1]}.wav", np.zeros(16000), 16000)  # mended
    assert "7 utterances, 1 dropped: 1 too short" in dump(model, data, tmp_path / "out", max_dropped=0.5)


def test_text_features(tmp_path, monkeypatch):
    bert = make_bert(tmp_path / "bert")
    text = tmp_path / "text"
    text.write_text("u1 the cat sat\nu2\nu3 a mat\nu4 THE CATS\nu5 the cat sat on the mat the cat sat on the mat\n")
    ark, scp = tmp_path / "text.ark", tmp_path / "text.scp"
    said = f"text features of {text}: 5 utterances, 28 tokens, 16 columns, 1 as long as the model takes, 12 tokens: "
    assert dump_text(bert, text, ark, scp) == said + "more is cut off"
    encoder, found = load_text(bert), table(scp)
    assert list(found) == ["u1", "u2", "u3", "u4", "u5"] and found["u2"].shape == (2, 16)
    for utt, sentence in (("u1", "the cat sat"), ("u2", ""), ("u4", "the cats")):
        assert np.abs(found[utt] - encoder.features([sentence])[0]).max() < 1e-5

    monkeypatch.setattr(module, "GROUP_SENTENCES", 2)
    whole, write, calls = contents(tmp_path), ResumableWriter.write, []

    def failing(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, *arguments)

    dump_text(bert, text, tmp_path / "two/text.ark", tmp_path / "two/text.scp")
    monkeypatch.setattr(ResumableWriter, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        dump_text(bert, text, tmp_path / "again/text.ark", tmp_path / "again/text.scp")
    assert not list((tmp_path / "again").glob("*.scp")) and len(calls) == 3
    dump_text(bert, text, tmp_path / "again/text.ark", tmp_path / "again/text.scp")
    assert len(calls) == 4 and contents(tmp_path / "again") == contents(tmp_path / "two")
    assert whole.keys() == {"text.ark"}
    text.write_text("")
    with pytest.raises(PyserError, match="no utterances"):
        dump_text(bert, text, ark, scp)


def test_commands(model, data, tmp_path):
    def run(*arguments):
        return CliRunner().invoke(encoder_group, [str(argument) for argument in arguments], catch_exceptions=False)

    out = tmp_path / "out"
    result = run("dump", "--layers", "all", model, data, out)
    assert result.output == f"layer0, layer1, layer2, logits of {data}: 7 utterances, 0 dropped\n"
    result = run("decode", "--data", data, model, out / "logits.scp", tmp_path / "decode")
    assert result.output.startswith("%WER ") and "(greedy, without language model)" in result.output
    assert {"hyp.txt", "ref.txt", "wer.txt"} <= {path.name for path in (tmp_path / "decode").iterdir()}
    bert = make_bert(tmp_path / "bert")
    wspecifier = f"ark,scp:{tmp_path}/bert.ark,{tmp_path}/bert.scp"
    assert "7 utterances" in run("text-features", bert, tmp_path / "decode/hyp.txt", wspecifier).output
    assert list(table(tmp_path / "bert.scp")) == UTTS
    for bad in ("ark:a.ark", "ark,t,scp:a.ark,a.scp", "ark,scp:-,a.scp"):
        with pytest.raises(PyserError, match="goes to two files"):
            run("text-features", bert, tmp_path / "decode/hyp.txt", bad)
