"""Seconds for a fold, or all five, of classifiers on bottlenecks of IEMOCAP's size, 5531 utterances of 4.6 s, 1024 dimensions
at 33 Hz (--subsampling 3 of the recipes): `python tests/bench/ser.py FOLDS [pooling ...]`. The features are random numbers
with a direction for each emotion; all settings are the recipes'."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pyser  # noqa: F401  (before torch)

import numpy as np  # isort: skip

from pyser.config import read_conf
from pyser.kaldi.datadir import write_table
from pyser.kaldi.tables import MatrixWriter
from pyser.ser.frame_classifier import SerConfig
from pyser.ser.train import train_folds

UTTERANCES, DIM, SESSIONS = 5531, 1024, 5
CONF = Path(__file__).parents[2] / "egs/iemocap/tdnn/conf"


def write_features(data: Path) -> None:
    """feats.scp, utt2emo, utt2spk and folds, their lists by session."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(4, DIM)).astype(np.float32)
    emotions, speakers = {}, {}
    data.mkdir()
    with MatrixWriter(f"ark,scp:{data}/feats.ark,{data}/feats.scp") as writer:
        for number in range(UTTERANCES):
            speaker = number * SESSIONS // UTTERANCES + 1
            utt, emotion = f"Ses{speaker:02d}-{number:05d}", number % 4
            frames = int(rng.integers(50, 255))
            writer.write(utt, 0.2 * directions[emotion] + rng.standard_normal((frames, DIM), np.float32))
            emotions[utt], speakers[utt] = "anger happy neutral sad".split()[emotion], f"Ses{speaker:02d}"
    write_table(data / "utt2emo", emotions)
    write_table(data / "utt2spk", speakers)
    for fold in range(1, SESSIONS + 1):
        folder = data / f"folds/{fold}"
        folder.mkdir(parents=True)
        of = {f"Ses{session:02d}": "train" for session in range(1, SESSIONS + 1)}
        of |= {f"Ses{fold:02d}": "test", f"Ses{fold % SESSIONS + 1:02d}": "valid"}
        for part in ("train", "valid", "test"):
            (folder / f"{part}.list").write_text("".join(f"{utt}\n" for utt, spk in speakers.items() if of[spk] == part))


def main() -> None:
    seconds = {}
    folds, poolings = int(sys.argv[1]), sys.argv[2:] or ["sum", "statistics", "attention"]
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        write_features(data)
        for pooling in poolings:
            conf = CONF / ("ser.conf" if pooling in ("sum", "log") else "ser_utterances.conf")
            config = read_conf(conf, SerConfig, pooling=pooling, subsample=1)
            started = time.monotonic()
            train_folds(data, data / "folds", Path(directory) / pooling, config, [str(fold + 1) for fold in range(folds)])
            seconds[pooling] = time.monotonic() - started
    for pooling, value in seconds.items():
        print(f"{pooling}: {value:.0f} s for {folds} of {SESSIONS} folds of {UTTERANCES} utterances, tested")


if __name__ == "__main__":
    main()
