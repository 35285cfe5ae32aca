"""Prediction from audio: recordings, standard input, data directories, the plot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

import pyser
from pyser.cli import cli
from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig, mfcc
from pyser.kaldi.datadir import write_table
from pyser.ser import predict
from pyser.ser.frame_classifier import FrameClassifier, SerConfig, read_classifier, save_classifier, utterance_posteriors
from pyser.ser.listing import predictions, print_predictions
from pyser.ser.plot import plot_posteriors, running_mean, spectrogram
from pyser.ser.recording import Recording, read_recording
from pyser.ser.utterances import utterances

GOLDEN = Path(__file__).parent / "golden"
LABELS = ("angry", "neutral", "sad")
CONF = "--use-energy=false\n--num-mel-bins=40\n--num-ceps=40\n--low-freq=20\n--high-freq=-400\n"
NODE = "tdnnf5.linear"


def with_config(exp, **values):
    """The same classifiers, which claim to have been trained so."""
    for fold in (1, 2):
        classifier, _ = read_classifier(exp / f"fold{fold}" / "final.safetensors")
        again = FrameClassifier(len(classifier.mean), LABELS, SerConfig(hidden_dim=16, **values))
        again.load_state_dict(classifier.state_dict())
        save_classifier(exp / f"fold{fold}" / "final.safetensors", again, {})
    return exp


def make_experiment(root, mode="carry-over", node=NODE, subsampling=1):
    """Kaldi's own network and extractor, and behind them two random classifiers."""
    model = pyser.kaldi.load_nnet3(GOLDEN / "nnet3" / "final.mdl")
    torch.manual_seed(0)
    for fold in (1, 2):
        classifier = FrameClassifier(model.nodes[node], LABELS, SerConfig(hidden_dim=16)).eval()
        (root / f"fold{fold}").mkdir(parents=True)
        save_classifier(root / f"fold{fold}" / "final.safetensors", classifier, {})
    (root / "mfcc.conf").write_text(CONF + "--dither=1.0\n")
    predict.package_frontend(root, GOLDEN / "nnet3" / "final.mdl", GOLDEN / "ivector" / "extractor", root / "mfcc.conf", node,
                             subsampling, 150, 10, mode)
    return root


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    return make_experiment(tmp_path_factory.mktemp("exp") / "ser")


@pytest.fixture(scope="module")
def predictor(exp):
    return pyser.load(exp)


def voice(pitch=120.0, seconds=1.0, rate=16000, seed=0):
    """Harmonics that rise and fall, a little noise: (T,) between -1 and 1."""
    rng, t = np.random.default_rng(seed), np.arange(int(rate * seconds)) / rate
    tones = sum(np.sin(2 * np.pi * k * pitch * t + k) / k for k in range(1, 12))
    return 0.1 * tones * (1.1 + np.sin(2 * np.pi * 3 * t)) + 0.003 * rng.normal(size=len(t))


def write(path, samples, rate=16000):
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return str(path)


@pytest.fixture
def data(tmp_path):
    """Five utterances of two speakers, a file each."""
    directory = tmp_path / "data"
    directory.mkdir()
    utts = {f"{spk}-{n}": spk for spk, count in (("anna", 3), ("bert", 2)) for n in range(count)}
    wavs = {utt: write(tmp_path / f"{utt}.wav", voice(100 + 17 * n, 0.7 + 0.2 * n, seed=n)) for n, utt in enumerate(utts)}
    write_table(directory / "utt2spk", utts)
    write_table(directory / "wav.scp", wavs)
    return directory


def posteriors_of(found):
    return np.array([list(one.posteriors.values()) for one in found])


def by_hand(exp, recordings):
    """Posteriors (utterances, K) of a speaker's utterances, from Kaldi's tools as `pyser.kaldi` has them."""
    feats = [mfcc(samples, MfccConfig(use_energy=False, num_mel_bins=40, num_ceps=40, high_freq=-400.0))
             for samples in recordings]
    ivectors = pyser.kaldi.load_extractor(GOLDEN / "ivector" / "extractor").speaker(feats, ivector_period=10)
    network = pyser.kaldi.load_nnet3(GOLDEN / "nnet3" / "final.mdl")
    rows = []
    for x, rows_of_x in zip(feats, ivectors, strict=True):
        bottleneck = torch.from_numpy(network(x, rows_of_x, node=NODE, frames_per_chunk=150))
        with torch.no_grad():
            rows.append(np.mean([read_classifier(path)[0](bottleneck).exp().mean(dim=0).numpy()
                                 for path in sorted(exp.glob("fold*/final.safetensors"))], axis=0))
    return np.array(rows)


def int16(path):
    return soundfile.read(path, dtype="int16")[0].astype(np.float32)


def test_three_lines(predictor, tmp_path):
    path = write(tmp_path / "a.wav", np.stack([voice(rate=44100)] * 2, axis=1), 44100)
    found = predictor.predict(path)
    assert found.emotion == max(found.posteriors, key=found.posteriors.__getitem__)
    assert tuple(found.posteriors) == LABELS and sum(found.posteriors.values()) == pytest.approx(1)
    assert found.seconds == pytest.approx(1) and found.converted == "44100 Hz, 2 channels -> 16000 Hz mono"
    assert predictor.predict(Path(path)) == found  # no dither
    assert predictor.predict([path, (voice(200), 16000)]) == [found, predictor.predict((voice(200), 16000))]


def test_samples_agree_with_the_file(exp, predictor, tmp_path):
    path = write(tmp_path / "a.wav", voice())
    samples, rate = soundfile.read(path)
    from_file = predictor.predict(path)
    assert from_file.converted == ""
    for given in ((samples, rate), (int16(path).astype(np.int16), rate), (np.stack([samples, samples], axis=1), rate)):
        assert predictor.predict(given).posteriors == pytest.approx(from_file.posteriors, abs=1e-6)
    alone = [pyser.load(exp / f"fold{k}").predict(path).posteriors for k in (1, 2)]
    assert from_file.posteriors == pytest.approx({e: np.mean([p[e] for p in alone]) for e in LABELS})
    assert alone[0] != pytest.approx(alone[1], abs=1e-3)
    np.testing.assert_allclose(posteriors_of([from_file]), by_hand(exp, [int16(path)]), atol=1e-5)


def test_bad_input(predictor, tmp_path):
    with pytest.raises(PyserError, match="no such audio file"):
        predictor.predict(tmp_path / "none.wav")
    for samples, message in (
        (np.zeros(100), "samples: 100 samples are less than one window"), (np.zeros(0), "expected .T,. or"),
        (np.zeros(16000, np.int64), "give floats"), (np.full(16000, np.nan), "not a number"),
    ):
        with pytest.raises(PyserError, match=message):
            predictor.predict((samples, 16000))
    with pytest.raises(PyserError, match="no classifier in it"):
        pyser.load(tmp_path)


def test_package_frontend_refuses_nonsense(tmp_path):
    (tmp_path / "mfcc.conf").write_text(CONF)
    model, fixed = GOLDEN / "nnet3" / "final.mdl", GOLDEN / "nnet3" / "noivector.raw"
    for node, extractor, message in (("tdnnf99", GOLDEN / "ivector" / "extractor", "tdnnf99"),
                                     (NODE, None, "takes i-vectors of dimension 30"), (NODE, tmp_path, "final.ie: missing")):
        with pytest.raises(PyserError, match=message):
            predict.package_frontend(tmp_path / "e", model, extractor, tmp_path / "mfcc.conf", node)
    with pytest.raises(PyserError, match="takes no i-vectors"):
        predict.package_frontend(tmp_path / "e", fixed, tmp_path, tmp_path / "mfcc.conf", "tdnnf3")
    assert not (tmp_path / "e" / "frontend").exists()


def test_ivectors_are_carried_over_within_a_speaker_of_a_data_directory(exp, predictor, data, tmp_path, capsys):
    result = list(predictions(predictor, utterances(str(data))))
    assert [utt.name for utt, _ in result] == ["anna-0", "anna-1", "anna-2", "bert-0", "bert-1"]
    files = {utt.name: int16(tmp_path / f"{utt.name}.wav") for utt, _ in result}
    anna, bert = [by_hand(exp, [x for name, x in files.items() if spk in name]) for spk in ("anna", "bert")]
    found = posteriors_of([one for _, one in result])
    np.testing.assert_allclose(found, np.concatenate([anna, bert]), atol=1e-5)
    fresh = posteriors_of([predictor.predict(str(tmp_path / f"{name}.wav")) for name in files])
    apart = np.abs(found - fresh).max(axis=1)
    assert max(apart[[0, 3]]) < 1e-6 and min(apart[[1, 2, 4]]) > 1e-4  # each speaker's first one is a fresh one

    anew = pyser.load(make_experiment(tmp_path / "ser", "per-utterance"))
    np.testing.assert_allclose(posteriors_of([one for _, one in predictions(anew, utterances(str(data)))]), fresh, atol=1e-6)
    assert print_predictions(predictor, [str(data)]) == print_predictions(anew, [str(data)]) == 0
    assert capsys.readouterr().err == (f"{data}: i-vectors go on within a speaker, in the order of spk2utt\n"
                                       f"{data}: the i-vectors of every utterance begin anew\n")


def test_segments(predictor, tmp_path):
    left, right = voice(110, 3.0, 8000), voice(190, 3.0, 8000)
    path = write(tmp_path / "r.wav", np.stack([left, right], axis=1), 8000)
    directory = tmp_path / "data"
    directory.mkdir()
    write_table(directory / "wav.scp", {"r": path})
    write_table(directory / "utt2spk", {f"u{n}": f"u{n}" for n in range(5)})
    write_table(directory / "segments", {"u0": "r 0.5 1.75", "u1": "r 1 -1 1", "u2": "r 2.95 3", "u3": "s 0 1"})
    (whole, cut), (_, second), (_, short), (_, lost), (_, none) = predictions(predictor, utterances(str(directory)))
    assert whole.source == str(directory) and cut.converted == "8000 Hz, 2 channels -> 16000 Hz mono"
    stereo, _ = soundfile.read(path)
    assert cut.posteriors == pytest.approx(predictor.predict((stereo[4000:14000], 8000)).posteriors, abs=1e-6)
    assert second.posteriors == pytest.approx(predictor.predict((stereo[8000:, 1], 8000)).posteriors, abs=1e-6)
    assert cut.seconds == 1.25 and second.seconds == 2 and second.converted == "8000 Hz -> 16000 Hz mono"
    assert str(short).startswith("u2: segment 2.95-3 s is shorter")
    assert str(lost) == f"u3: no recording s in {directory}/wav.scp; run `pyser data fix`"
    assert str(none) == f"u4: not in {directory}/segments; run `pyser data fix`"


def test_broken_files_are_said_and_the_others_predicted(predictor, data, tmp_path, capsys):
    good = write(tmp_path / "good.wav", voice())
    wide = write(tmp_path / "wide.wav", voice(rate=22050), 22050)
    (tmp_path / "broken.wav").write_bytes(b"RIFF junk")
    (tmp_path / "bert-0.wav").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    sources = [str(tmp_path / name) for name in ("broken.wav", "empty", "none.flac")]
    assert print_predictions(predictor, [sources[0], good, sources[1], wide, sources[2], str(data)]) == 4
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split() == ["utterance", "emotion", "seconds", *LABELS]
    assert [row.split()[0] for row in rows] == [good, wide, "anna-0", "anna-1", "anna-2", "bert-1"]
    assert len({len(row) for row in out.splitlines()}) == 1  # aligned
    expected = predictor.predict(good)
    assert rows[0].split()[1:] == [expected.emotion, "1.00", *(f"{p:.3f}" for p in expected.posteriors.values())]
    lines = err.splitlines()
    assert f"{wide}: 22050 Hz -> 16000 Hz mono" in lines and len(lines) == 6
    for start in (f"{sources[0]}: not readable", f"{sources[1]}/wav.scp: missing", f"{sources[2]}: no such",
                  f"bert-0: {tmp_path}/bert-0.wav: not readable"):
        assert sum(line.startswith(f"pyser: {start}") for line in lines) == 1, (start, lines)


def test_conversions_of_a_data_directory_are_said_once(predictor, data, tmp_path, capsys):
    for utt in ("anna-1", "anna-2", "bert-1"):
        write(tmp_path / f"{utt}.wav", voice(rate=8000), 8000)
    print_predictions(predictor, [str(data)])
    assert capsys.readouterr().err.splitlines()[1:] == [f"{data}: 8000 Hz -> 16000 Hz mono"]


def test_pipes_are_run_only_when_allowed(predictor, data, tmp_path):
    wavs = {f"{spk}-{n}": f"cat {tmp_path}/{spk}-{n}.wav |" for spk, n in (("anna", 0), ("anna", 1), ("anna", 2))}
    wavs |= {"bert-0": f"sox --vol 0.5 -t wav {tmp_path}/bert-0.wav -t wav - |", "bert-1": f"{tmp_path}/bert-1.wav"}
    before = [one for _, one in predictions(predictor, utterances(str(data)))]
    write_table(data / "wav.scp", wavs)
    refused = [one for _, one in predictions(predictor, utterances(str(data)))]
    assert ["only with --allow-pipes" in str(one) for one in refused] == [True, True, True, False, False]
    allowed = [one for _, one in predictions(predictor, utterances(str(data), allow_pipes=True))]
    assert posteriors_of(allowed[:3]) == pytest.approx(posteriors_of(before[:3]), abs=1e-6)


def test_channels_are_said_wherever_they_come_from(predictor, data, tmp_path, capsys):
    stereo = write(tmp_path / "stereo.wav", np.stack([voice(110), voice(190)], axis=1))
    wavs = {"anna-0": f"cat {stereo} |", "anna-1": f"cat {tmp_path}/anna-1.wav |"}
    write_table(data / "wav.scp", wavs)
    write_table(data / "utt2spk", {"anna-0": "anna", "anna-1": "anna"})
    (_, two), (_, one) = predictions(predictor, utterances(str(data), allow_pipes=True))
    assert (two.converted, one.converted) == ("16000 Hz, 2 channels -> 16000 Hz mono", "")
    assert print_predictions(predictor, [str(data)], allow_pipes=True) == 0
    assert f"{data}: 16000 Hz, 2 channels -> 16000 Hz mono" in capsys.readouterr().err.splitlines()
    (tmp_path / "waves.ark").write_bytes(b"u " + Path(stereo).read_bytes())
    expected = predictor.predict(stereo)
    assert predictor.predict(f"{tmp_path}/waves.ark:2") == expected
    soundfile.write(tmp_path / "stereo.flac", soundfile.read(stereo)[0], 16000)
    for name in ("stereo.wav", "stereo.flac"):
        pipe = tmp_path / f"pipe-{name}"
        os.mkfifo(pipe)
        with subprocess.Popen(f"cat {tmp_path}/{name} > {pipe}", shell=True):
            assert predictor.predict(pipe) == expected


def test_standard_input_and_json(exp, predictor, tmp_path):
    soundfile.write(tmp_path / "a.flac", np.stack([voice(rate=48000)] * 2, axis=1), 48000)
    command = ["ser", "predict", "--model", str(exp), "--format", "json"]
    run = CliRunner().invoke(cli, [*command, "-"], input=(tmp_path / "a.flac").read_bytes())
    said, line = run.output.splitlines()
    assert run.exit_code == 0 and said == "standard input: 48000 Hz, 2 channels -> 16000 Hz mono"
    expected = predictor.predict(tmp_path / "a.flac")
    assert json.loads(line) == {"utterance": "-", "emotion": expected.emotion, "posteriors": expected.posteriors,
                                "seconds": expected.seconds}
    run = CliRunner().invoke(cli, [*command, "-", str(tmp_path / "a.flac")], input=b"")
    empty, said, line = run.output.splitlines()
    assert run.exit_code == 1 and empty.startswith("pyser: standard input: empty")
    assert json.loads(line)["utterance"] == str(tmp_path / "a.flac")


def test_names_of_files_may_be_any_bytes(predictor, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff $_{$.wav")
    soundfile.write(os.fsencode(name), np.stack([voice()] * 2, axis=1), 16000, format="WAV")
    assert read_recording(name, 16000).converted == "16000 Hz, 2 channels -> 16000 Hz mono"
    plot_posteriors(predictor, name, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_import_stays_light():
    code = "import sys, pyser; print({'torch', 'numpy', 'soundfile'} & set(sys.modules), callable(pyser.load))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set() True\n"


def test_frame_posteriors_are_those_the_decision_is_the_mean_of(predictor):
    recording = read_recording((voice(150, 2.0), 16000), 16000)
    feats = predictor.features(recording)
    frames = predictor.frame_posteriors(feats)
    assert frames.shape == (len(feats.folds[0]), 3) and np.allclose(frames.sum(axis=1), 1, atol=1e-5)
    mean = list(predictor.decide(recording, feats).posteriors.values())
    np.testing.assert_allclose(frames.mean(axis=0), mean, atol=1e-6)
    assert predictor.frontend.seconds(3) == pytest.approx([0.0125, 0.0225, 0.0325])


def test_frames_of_a_subsampled_front_end(tmp_path):
    predictor = pyser.load(make_experiment(tmp_path, subsampling=3))
    feats = predictor.features(read_recording((voice(), 16000), 16000))
    assert len(feats.folds[0]) == 33 and predictor.frontend.seconds(33)[[1, 32]] == pytest.approx([0.0425, 0.9725])


def test_running_mean():
    values = np.array([[0.0], [3.0], [6.0], [0.0]])
    assert running_mean(values, 3)[:, 0].tolist() == [1.5, 3, 3, 3]
    assert running_mean(values, 1)[:, 0].tolist() == [0, 3, 6, 0]
    assert running_mean(values, 99)[:, 0].tolist() == [2.25] * 4


def test_spectrogram_shows_a_tone_where_it_is():
    tone = np.concatenate([np.zeros(8000), 8000 * np.sin(2 * np.pi * 2000 / 16000 * np.arange(8000))]).astype(np.float32)
    image = spectrogram(Recording("tone", tone, 16000))
    rows, columns = image.shape
    assert rows == 513 and columns == 200 and image.max() == 0 and image.min() == -70
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert abs(row / (rows - 1) * 8000 - 2000) < 10 and column > 100
    assert (image[:, :95] == -70).all() and (image[row, 110:190] > -1).all()


def test_plot(exp, predictor, tmp_path):
    from matplotlib.image import imread

    path = write(tmp_path / "a.wav", voice(rate=8000), 8000)
    run = CliRunner().invoke(cli, ["ser", "plot", "--model", str(exp), path, str(tmp_path / "a.png")])
    assert run.exit_code == 0 and run.output == f"{path}: 8000 Hz -> 16000 Hz mono\n"
    image = imread(tmp_path / "a.png")[..., :3]
    colours = ((0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E), (0x2C, 0xA0, 0x2C))  # of matplotlib's cycle
    areas = np.array([(np.abs(image - np.divide(colour, 255)) < 0.01).all(axis=2).sum() for colour in colours])
    np.testing.assert_allclose(areas / areas.sum(), list(predictor.predict(path).posteriors.values()), atol=0.02)
    with pytest.raises(PyserError, match="less than one window"):
        plot_posteriors(predictor, (np.zeros(50), 16000), tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_plot_of_an_utterance_as_png_or_svg(predictor, tmp_path):
    write(tmp_path / "r.wav", np.stack([voice(110, 3.0, 8000), voice(190, 3.0, 8000)], axis=1), 8000)
    (tmp_path / "data").mkdir()
    write_table(tmp_path / "data/wav.scp", {"r": f"{tmp_path}/r.wav"})
    write_table(tmp_path / "data/utt2spk", {"u0": "u", "u1": "u"})
    write_table(tmp_path / "data/segments", {"u0": "r 0.5 1.75", "u1": "r 1 -1 1"})
    second = (soundfile.read(tmp_path / "r.wav")[0][8000:, 1], 8000)
    assert plot_posteriors(predictor, f"{tmp_path}/data:u1", tmp_path / "u1.svg") == "8000 Hz -> 16000 Hz mono"
    plot_posteriors(predictor, f"{tmp_path}/data:u1", tmp_path / "u1.png")
    plot_posteriors(predictor, second, tmp_path / "samples.png")
    assert (tmp_path / "u1.svg").read_text().startswith("<?xml") and "<svg" in (tmp_path / "u1.svg").read_text()
    from matplotlib.image import imread

    below_the_title = [imread(tmp_path / name)[60:] for name in ("u1.png", "samples.png")]
    assert (below_the_title[0] == below_the_title[1]).mean() > 0.99
    with pytest.raises(PyserError, match="data: no utterance u2; its utt2spk has them all"):
        plot_posteriors(predictor, f"{tmp_path}/data:u2", tmp_path / "u2.png")
    with pytest.raises(PyserError, match="none:u1: no such audio file"):
        plot_posteriors(predictor, f"{tmp_path}/none:u1", tmp_path / "u2.png")
    with pytest.raises(PyserError, match="a.pdf: figures are written as .png or .svg; name it so"):
        plot_posteriors(predictor, second, tmp_path / "a.pdf")
    assert not list(tmp_path.glob("a.*")) and not list(tmp_path.glob("u2*"))


def test_normalised_by_speaker(tmp_path, data, capsys):
    """All that a speaker says is heard before anything of it is decided."""
    predictor = pyser.load(with_config(make_experiment(tmp_path / "ser", "per-utterance"), cmvn="speaker"))
    path = tmp_path / "anna-0.wav"
    with pytest.raises(PyserError, match=r"anna-0.wav: the classifiers were trained on features normalised by speaker"):
        predictor.predict(path)
    assert print_predictions(predictor, [str(path)]) == 1
    found = {utt.name: one.posteriors for utt, one in predictions(predictor, utterances(str(data)))}
    assert list(found) == ["anna-0", "anna-1", "anna-2", "bert-0", "bert-1"]
    rows = {name: predictor.features(read_recording(tmp_path / f"{name}.wav", 16000)).folds[0] for name in found}
    for speaker in ("anna", "bert"):
        said = np.concatenate([x for name, x in rows.items() if speaker in name]).astype(np.float64)
        for name, x in rows.items():
            if speaker in name:
                normalised = ((x - said.mean(axis=0)) / said.std(axis=0)).astype(np.float32)
                folds = [utterance_posteriors(network.classifier, normalised) for network in predictor.networks]
                np.testing.assert_allclose(list(found[name].values()), np.mean(folds, axis=0), atol=1e-4)


def test_silence_is_left_out_of_the_decision_alone(tmp_path):
    exp = with_config(make_experiment(tmp_path, "per-utterance"), vad=True)
    with pytest.raises(PyserError, match="silence was left out in training; run `pyser ser package-frontend`"):
        pyser.load(exp)
    (tmp_path / "vad.conf").write_text("--vad-energy-threshold=31.6\n--vad-frames-context=2\n")
    predict.package_frontend(exp, GOLDEN / "nnet3" / "final.mdl", GOLDEN / "ivector" / "extractor", exp / "mfcc.conf", NODE,
                             ivector_mode="per-utterance", vad_conf=tmp_path / "vad.conf")
    predictor = pyser.load(exp)
    samples = np.concatenate([voice(), 1e-3 * np.random.default_rng(0).normal(size=16000)])
    recording = read_recording((samples, 16000), 16000)
    feats = predictor.features(recording)
    assert feats.speech.shape == (198,) and feats.speech[:95].mean() > 0.9 and feats.speech[105:].mean() < 0.1
    folds = [utterance_posteriors(network.classifier, feats.folds[0][feats.speech]) for network in predictor.networks]
    found = predictor.decide(recording, feats)
    np.testing.assert_allclose(list(found.posteriors.values()), np.mean(folds, axis=0), atol=1e-6)
    assert len(predictor.frame_posteriors(feats)) == 198
