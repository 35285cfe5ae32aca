"""A small made-up corpus of bottleneck features: emotions are directions, speakers are offsets."""

from pathlib import Path

import numpy as np

from pyser.kaldi.datadir import write_table
from pyser.kaldi.tables import MatrixWriter

EMOTIONS = ("ang", "neu", "sad")


def make_corpus(root: Path, num_speakers: int = 4, per_emotion: int = 4, dim: int = 8, noise: float = 1.5):
    """data/ with feats.scp, utt2emo, utt2spk and folds/<k>: one speaker tested, the next one for validation."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(len(EMOTIONS), dim))
    data, utt2emo, utt2spk = root / "data", {}, {}
    data.mkdir(parents=True, exist_ok=True)
    with MatrixWriter(f"ark,scp:{data}/feats.ark,{data}/feats.scp", compress=True) as writer:
        for speaker in range(1, num_speakers + 1):
            offset = rng.normal(size=dim) * 0.5
            for number in range(per_emotion * len(EMOTIONS)):
                utt, emotion = f"spk{speaker}-{number:02d}", number % len(EMOTIONS)
                frames = directions[emotion] + offset + noise * rng.normal(size=(int(rng.integers(20, 40)), dim))
                writer.write(utt, frames.astype(np.float32))
                utt2emo[utt], utt2spk[utt] = EMOTIONS[emotion], f"spk{speaker}"
    write_table(data / "utt2emo", utt2emo)
    write_table(data / "utt2spk", utt2spk)
    for fold in range(1, num_speakers + 1):
        valid = fold % num_speakers + 1
        parts = {"train": [], "valid": [], "test": []}
        for utt, spk in utt2spk.items():
            number = int(spk[3:])
            parts["test" if number == fold else "valid" if number == valid else "train"].append(utt)
        directory = data / "folds" / str(fold)
        directory.mkdir(parents=True, exist_ok=True)
        for part, utts in parts.items():
            (directory / f"{part}.list").write_text("".join(f"{utt}\n" for utt in utts))
    return data, data / "folds"
