"""A short recording, for trees of corpora."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def wav(path: Path, seconds: float = 0.2, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(int(RATE * seconds)), RATE, **options)
    return path
