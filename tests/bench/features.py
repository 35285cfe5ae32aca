"""How fast hires MFCC are: python tests/bench/features.py [seconds of audio]

pyser and kaldi-native-fbank take turns on the same samples, one thread; then the whole stage, from wav files to an archive.
CPU seconds, medians of 5; the real-time factor is CPU time over audio time. A matrix product is the machine's yardstick.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import soundfile  # noqa: E402

from pyser.features.compute import compute_features  # noqa: E402
from pyser.features.mfcc import MfccConfig, mfcc  # noqa: E402
from pyser.features.streaming import OnlineFeatures  # noqa: E402

HIRES = MfccConfig(use_energy=False, num_mel_bins=40, num_ceps=40, low_freq=20, high_freq=-400)
PIECE = 5 * 16000  # samples of an utterance


def by_knf(samples: np.ndarray) -> np.ndarray:
    online = OnlineFeatures(HIRES)
    return np.concatenate([online.accept(samples), online.finish()])


def cpu(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    samples = np.random.default_rng(0).normal(0, 1000, (seconds * 16000 // PIECE, PIECE)).astype(np.int16)
    floats = samples.astype(np.float32)
    square = np.ones((2048, 2048), np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, utterance in enumerate(samples):
            soundfile.write(folder / f"{number}.wav", utterance, 16000)
        (folder / "wav.scp").write_text("".join(f"{number:05} {folder}/{number}.wav\n" for number in range(len(samples))))
        scp, ark = f"scp:{folder}/wav.scp", f"ark,scp:{folder}/a.ark,{folder}/a.scp"
        candidates: dict[str, Callable[[], object]] = {
            "mfcc": lambda: [mfcc(utterance, HIRES) for utterance in floats],
            "kaldi-native-fbank": lambda: [by_knf(utterance) for utterance in floats],
            "stage, uncompressed": lambda: compute_features(scp, ark, HIRES, compress=False),
            "stage, compressed": lambda: compute_features(scp, ark, HIRES),
            "2048³ matrix product": lambda: square @ square,
        }
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for turn in range(6):
            for name, function in candidates.items():
                spent = cpu(function)
                if turn:  # (the first warms up)
                    times[name].append(spent)
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    print(f"{seconds} s of audio")
    for name, median in medians.items():
        print(f"{name:22} {median:7.3f} s" + (f"   real-time factor {median / seconds:.6f}" if "2048" not in name else ""))
    print(f"kaldi-native-fbank / mfcc: {medians['kaldi-native-fbank'] / medians['mfcc']:.1f}")


if __name__ == "__main__":
    main()
