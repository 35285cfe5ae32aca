"""CTC training of speech encoders."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny_corpus import make_data_dir
from transformers import AutoModelForCTC, AutoProcessor

from pyser.cli import cli
from pyser.config import write_conf
from pyser.encoders.ctc import CtcConfig, ctc_loss, greedy, train
from pyser.encoders.data import CtcData, Transcript, read_transcripts
from pyser.encoders.speech import SpeechOutput, load_speech
from pyser.encoders.untrained import init_speech
from pyser.encoders.waves import Waves
from pyser.errors import PyserError
from pyser.kaldi.lists import read_dir
from pyser.scoring.wer import score

CONFIG = CtcConfig(num_epochs=28, lr_initial=6e-3, lr_final=6e-4, max_duration=12, avg=3)


def tiny_dir(path, speakers, utts, seed):
    """With absolute paths in wav.scp."""
    make_data_dir(path, speakers, utts, seed)
    text = (path / "wav.scp").read_text()
    (path / "wav.scp").write_text(text.replace(" wav/", f" {path}/wav/"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Data, an untrained model, and what is trained with CONFIG."""
    root = tmp_path_factory.mktemp("tiny")
    tiny_dir(root / "train", 6, 16, 1)
    tiny_dir(root / "dev", 3, 5, 2)
    init_speech(root / "init", "tiny")
    train(root / "init", root / "train", root / "dev", root / "exp", CONFIG)
    return root


def history(exp):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads((exp / "history.json").read_text())]


def spellings(labels, frames, size):
    """All label sequences of so many frames that collapse to `labels`, blank 0."""
    for path in itertools.product(range(size), repeat=frames):
        if [label for label, _ in itertools.groupby(path) if label] == list(labels):
            yield path


def test_loss_is_the_sum_over_all_alignments():
    generator = torch.Generator().manual_seed(0)
    logits, lengths, labels = torch.randn(3, 5, 4, generator=generator), torch.tensor([5, 3, 4]), [[1, 1], [3], [2, 3]]
    found = ctc_loss(SpeechOutput(logits, (), lengths), labels, blank=0)
    for n in range(3):
        log_probs = logits[n, : lengths[n]].double().log_softmax(-1).numpy()
        paths = spellings(labels[n], int(lengths[n]), 4)
        expected = -np.log(sum(np.exp(sum(log_probs[t, label] for t, label in enumerate(path))) for path in paths))
        assert float(found[n]) == pytest.approx(expected, rel=1e-5)
    assert torch.isinf(ctc_loss(SpeechOutput(logits, (), lengths), [[1], [1, 1, 1], [2]], blank=0))[1]


def test_learning_rate():
    """Up in the first tenth, then exponentially down."""
    settings = CtcConfig(lr_initial=1e-3, lr_final=1e-5, warmup=0.1).loop()
    rates = [settings.learning_rate(progress) for progress in (0.0, 0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([0.0, 5e-4, 1e-3, 1e-4, 1e-5])
    assert CtcConfig(warmup=0.0, lr_initial=1e-3).loop().learning_rate(0.0) == 1e-3


def test_it_learns_words(tiny):
    """Of unseen speakers; the model that is left behind is heard by transformers' own classes alike."""
    rows = history(tiny / "exp")
    assert rows[-1]["valid_cer"] < 30 and rows[-1]["valid_loss"] < 0.3 < rows[0]["valid_loss"]
    assert sorted(path.name for path in (tiny / "exp").glob("epoch-*.pt")) == ["epoch-26.pt", "epoch-27.pt", "epoch-28.pt"]
    encoder, waves, texts = load_speech(tiny / "exp"), Waves(tiny / "dev"), read_dir(tiny / "dev")["text"]
    processor, model = AutoProcessor.from_pretrained(tiny / "exp"), AutoModelForCTC.from_pretrained(tiny / "exp").eval()
    found = {}
    with torch.no_grad():
        for utt in waves.utterances:
            found[utt] = greedy(encoder, encoder([waves[utt]]))[0]
            inputs = processor(waves[utt], sampling_rate=16000, return_tensors="pt")
            assert processor.batch_decode(model(inputs.input_values).logits.argmax(-1)) == [found[utt]]
    assert score(texts, found)[0].rate == pytest.approx(rows[-1]["valid_wer"], abs=12)  # (the model is an average)


def test_going_on_is_the_same_as_not_stopping(tiny, tmp_path):
    """Also when the model is masked at random and its convolutions are frozen."""
    shutil.copytree(tiny / "init", tmp_path / "init")
    config = json.loads((tmp_path / "init/config.json").read_text())
    (tmp_path / "init/config.json").write_text(json.dumps({**config, "mask_time_prob": 0.3, "mask_time_length": 3}))
    settings = replace(CONFIG, num_epochs=3, freeze="features", gradient_checkpointing=True)

    def run(exp):
        train(tmp_path / "init", tiny / "train", tiny / "dev", exp, settings)
        return history(exp)

    whole = run(tmp_path / "whole")
    (tmp_path / "broken").mkdir()
    shutil.copy(tmp_path / "whole/epoch-1.pt", tmp_path / "broken")
    assert run(tmp_path / "broken") == whole and len(whole) == 3
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]
    before, after = (load_speech(tmp_path / name).state_dict() for name in ("init", "whole"))
    same = {name.split(".")[2] for name in before if torch.equal(before[name], after[name])}
    assert "feature_extractor" in same and not same & {"encoder", "feature_projection", "weight"}


def test_batches(tiny):
    """Every utterance once, similar lengths together, others in each epoch, halves for two processes."""
    lengths = np.random.default_rng(0).uniform(1, 10, 300)
    transcripts = {f"u{n:03d}": Transcript("A", [7], float(seconds)) for n, seconds in enumerate(lengths)}
    data = CtcData(Waves(tiny / "train"), transcripts, 40.0, 0, True)
    first, again, second = data.groups(1), data.groups(1), data.groups(2)
    assert first == again != second
    for groups in (first, second, replace(data, training=False).groups(0)):
        assert sorted(itertools.chain(*groups)) == sorted(transcripts)
        sizes = [len(group) * max(transcripts[utt].seconds for utt in group) for group in groups]
        assert max(sizes) <= 40 and np.mean(sizes) > 30
        assert sum(transcripts[utt].seconds for utt in transcripts) > 0.85 * sum(sizes)
    loaded = [list(CtcData(data.waves, read_transcripts(data.waves, load_speech(tiny / "init"), 30)[0], 12.0 / size, 0, True,
                           rank, size).batches(1)) for size in (1, 2) for rank in range(size)]
    for whole, one, two in zip(*loaded, strict=True):
        assert (one.ids, two.ids) == (whole.ids[::2], whole.ids[1::2])
        assert all(np.array_equal(wave, data.waves[utt]) for utt, wave in zip(whole.ids, whole.waves, strict=True))


def test_what_is_dropped(tiny, tmp_path):
    shutil.copytree(tiny / "dev", tmp_path / "d")
    encoder, texts = load_speech(tiny / "init"), read_dir(tmp_path / "d")["text"]
    short, silent, *_ = texts
    changed = {**texts, short: "SEE " * 40, silent: "[LAUGHTER] -"}
    (tmp_path / "d/text").write_text("".join(f"{utt} {text}\n" for utt, text in changed.items()))
    found, line = read_transcripts(Waves(tmp_path / "d"), encoder, 30, max_dropped=0.2)
    assert set(found) == set(texts) - {short, silent}
    assert "15 utterances, 2 dropped" in line and f"without words (e.g. {silent})" in line
    assert f"too short for their characters (e.g. {short})" in line
    with pytest.raises(PyserError, match="longer than 0.1 s"):
        read_transcripts(Waves(tmp_path / "d"), encoder, 0.1)


def test_command_line(tiny, tmp_path):
    (tmp_path / "ctc.conf").write_text(write_conf(replace(CONFIG, num_epochs=9, avg=1)))

    def run(*words):
        return CliRunner().invoke(cli, ["encoder", "train-ctc", "--conf", *(str(word) for word in (
            tmp_path / "ctc.conf", "--num-epochs", 1, *words, tiny / "train", tiny / "dev", tmp_path / "exp"))])

    done = run("--freeze", "encoder", tiny / "init")
    assert done.exit_code == 0 and f"{33 * 32} learn" in done.output and "epoch 1/1" in done.output
    assert "--freeze=encoder" in (tmp_path / "exp/ctc.conf").read_text()
    before, after = load_speech(tiny / "init").state_dict(), load_speech(tmp_path / "exp").state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "model.lm_head.weight", "model.lm_head.bias"}
    refused = run(tmp_path / "exp")
    assert isinstance(refused.exception, PyserError) and "training begins with" in str(refused.exception)
    (tmp_path / "ctc.conf").write_text("--warmup=2\n")
    assert "--warmup=2" in str(run(tiny / "init").exception)
    (tmp_path / "ctc.conf").write_text("--learning-rate=2\n")
    assert "unknown option --learning-rate" in str(run(tiny / "init").exception)
