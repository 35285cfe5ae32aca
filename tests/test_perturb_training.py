"""Speeds perturbed while training, against the same in a data directory."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from test_chain import CONFIG, toy  # noqa: F401

from pyser.chain.data import ChainData
from pyser.chain.perturb import SpeedPerturber
from pyser.cli import cli
from pyser.config import write_conf
from pyser.errors import PyserError
from pyser.features.compute import Lists, compute_features
from pyser.features.mfcc import MfccConfig
from pyser.ivector.online import extract_utterance, load_extractor
from pyser.kaldi import datadir
from pyser.kaldi.manifests import read_cuts
from pyser.kaldi.tables import read_mats

EXTRACTOR = Path(__file__).parent / "golden/ivector/extractor"
MFCC = MfccConfig(num_mel_bins=40, num_ceps=40, low_freq=20.0, high_freq=-400.0, use_energy=False, dither=0.0)
TEXT = {"a-1": "ba dib", "a-2": "dada", "b-1": "ab bi"}


@pytest.fixture
def spoken(tmp_path):
    """Three recordings of noise with features, and a directory of parts of one of them."""
    rng = np.random.default_rng(0)
    directory = tmp_path / "data"
    directory.mkdir()
    lines = {"wav.scp": {}, "text": TEXT, "utt2spk": {utt: utt[0] for utt in TEXT}}
    for utt in TEXT:
        path = tmp_path / f"{utt}.wav"
        soundfile.write(path, (3000 * rng.standard_normal(int(rng.integers(16000, 32000)))).astype(np.int16), 16000)
        lines["wav.scp"][utt] = str(path)
    for name, table in lines.items():
        datadir.write_table(directory / name, table)
    datadir.write_table(directory / "spk2utt", {"a": "a-1 a-2", "b": "b-1"})
    make_features(directory)
    return directory


def make_features(directory):
    segments = directory / "segments"
    compute_features(f"scp:{directory}/wav.scp", f"ark,scp:{directory}/feats.ark,{directory}/feats.scp", MFCC,
                     Lists(segments=str(segments) if segments.exists() else None,
                           write_num_frames=f"ark,t:{directory}/utt2num_frames"), compress=False)


def test_as_in_a_data_directory(spoken, tmp_path):
    datadir.perturb_speed(spoken, tmp_path / "sp", (0.9, 1.0, 1.1))
    make_features(tmp_path / "sp")
    theirs = dict(read_mats(f"scp:{tmp_path}/sp/feats.scp"))
    extractor = load_extractor(EXTRACTOR)
    perturb = SpeedPerturber(spoken, (0.9, 1.0, 1.1), MFCC, extractor)
    for utt in TEXT:
        for factor, prefix in ((0.9, "sp0.9-"), (1.0, ""), (1.1, "sp1.1-")):
            feats, ivectors = perturb(utt, factor)
            np.testing.assert_array_equal(feats, theirs[prefix + utt])
            np.testing.assert_array_equal(ivectors, extract_utterance(extractor, feats))
            known = len(theirs[utt])
            assert len(feats) <= perturb.most_frames(known, factor) <= len(feats) + 6


def test_parts_of_recordings(spoken, tmp_path):
    shutil.copytree(spoken, tmp_path / "parts")
    datadir.write_table(tmp_path / "parts/segments", {"a-1": "a-2 0.1 0.6", "a-2": "a-2 0.35 -1", "b-1": "b-1 0.2 0.9"})
    make_features(tmp_path / "parts")
    perturb = SpeedPerturber(tmp_path / "parts", (1.0, 1.5), MFCC)
    for utt, theirs in read_mats(f"scp:{tmp_path}/parts/feats.scp"):
        feats, ivectors = perturb(utt, 1.0)
        np.testing.assert_array_equal(feats, theirs)
        assert ivectors is None and abs(len(perturb(utt, 1.5)[0]) - len(theirs) / 1.5) < 2


def test_batches(spoken):
    """One of the speeds for each utterance and epoch; the same in every process; validation is left alone."""
    asked = []

    def numerators(ids, texts, lengths, speeds):
        asked.append(dict(zip(ids, zip(lengths, speeds, strict=True), strict=True)))
        return [None] * len(ids)

    perturb = SpeedPerturber(spoken, (0.5, 1.0, 2.0), MFCC)
    cuts = read_cuts(spoken)
    data = ChainData(cuts, 5, 5, 3, 100.0, 1, True, numerators=numerators, speeds=perturb)
    frames = {cut.id: cut.num_frames for cut in cuts}
    found = set()
    for epoch in range(1, 7):
        (batch,) = data.batches(epoch)
        halves = [next(replace(data, rank=rank, world_size=2).batches(epoch)) for rank in (0, 1)]
        assert {half.feats.shape[1] for half in halves} == {batch.feats.shape[1]}
        assert asked[-3] == asked[-2] | asked[-1]
        for utt, (length, speed) in asked[-3].items():
            assert abs(3 * length - frames[utt] / speed) < 6
            found.add((utt, speed))
        assert batch.feats.shape[1] - 10 >= 3 * int(batch.lengths.max())
    assert len(found) > 5
    whole = replace(data, training=False)
    assert {utt: speed for utt, (_, speed) in (next(whole.batches(0)), asked[-1])[1].items()} == dict.fromkeys(TEXT, 1.0)


def test_train(spoken, toy, tmp_path):  # noqa: F811
    """The options of the command line."""
    conf = tmp_path / "tdnn.conf"
    conf.write_text(write_conf(replace(CONFIG, num_epochs=1, perturb_speed=(0.9, 1.0, 1.1))))
    (tmp_path / "mfcc.conf").write_text(write_conf(MFCC))
    words = ["chain", "train", "--conf", conf, "--mfcc-config", tmp_path / "mfcc.conf"]
    words += [spoken, spoken, toy / "lang", "-", "-"]
    result = CliRunner().invoke(cli, [*map(str, words), str(tmp_path / "exp")], catch_exceptions=False)
    assert result.exit_code == 0 and (tmp_path / "exp/epoch-1.pt").exists()
    result = CliRunner().invoke(cli, [*map(str, words[:4] + words[6:]), str(tmp_path / "other")])
    assert result.exit_code != 0 and "give --mfcc-config" in str(result.exception)


def test_bad_input(spoken, tmp_path):
    with pytest.raises(PyserError, match="give factors"):
        SpeedPerturber(spoken, (), MFCC)
    (tmp_path / "a-2.wav").write_bytes(b"RIFF")
    with pytest.raises(PyserError, match="a-2 at speed 0.9: .*not readable"):
        SpeedPerturber(spoken, (0.9,), MFCC)("a-2", 0.9)
    (spoken / "wav.scp").write_text("a-1 cat a.wav |\na-2 x.wav\nb-1 x.wav\n")
    with pytest.raises(PyserError, match="a command, which could not be run in every epoch, for a-1"):
        SpeedPerturber(spoken, (0.9,), MFCC)
