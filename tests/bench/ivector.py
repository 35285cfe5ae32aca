"""Real-time factor of online i-vector extraction on one thread, 256 and 512 Gaussians, dimension 100.

    OMP_NUM_THREADS=1 python tests/bench/ivector.py

The extractor is random, the features such that about three Gaussians of a frame survive, as in speech. The yardstick for
the machine is a float32 matrix product.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from pyser.features.cmvn import OnlineCmvnConfig
from pyser.ivector.dump import BATCH_FRAMES
from pyser.ivector.extractor import IvectorExtractor
from pyser.ivector.frontend import FrontEnd
from pyser.ivector.online import OnlineExtractor, SpeakerState, check_feats, extract_batch
from pyser.ivector.ubm import DiagGmm, posteriors

SECONDS, FRAMES_PER_UTTERANCE, UTTERANCES_PER_SPEAKER = 600, 600, 10
FEATS, DIM, IVECTOR = 40, 40, 100


def median_time(work: Callable[[], object], times: int = 7) -> float:
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def made_up_extractor(num_gauss: int, random: np.random.Generator) -> OnlineExtractor:
    lda = np.zeros((DIM, FEATS * 7))
    lda[:, 3 * FEATS : 4 * FEATS] = np.eye(DIM)  # (the middle frame: what is drawn from the UBM arrives there)
    stats = np.zeros((2, FEATS + 1))
    stats[0, -1], stats[1, :-1] = 1e6, 1e6
    means = 0.48 * random.standard_normal((num_gauss, DIM))
    ubm = DiagGmm(np.full(num_gauss, 1 / num_gauss), means, np.full((num_gauss, DIM), 0.5))
    projections = 0.1 * random.standard_normal((num_gauss, DIM, IVECTOR))
    projections[:, :, 0] = means / 50
    sigma_inv = np.stack([np.diag(1 / variance) for variance in ubm.vars])
    extractor = IvectorExtractor(projections, sigma_inv, ubm.weights, 50.0)
    return OnlineExtractor(FrontEnd(lda, stats, cmvn=OnlineCmvnConfig()), ubm, extractor)


def speech(online: OnlineExtractor, random: np.random.Generator) -> list[np.ndarray]:
    """Gaussians stay for about five frames, as sounds do."""
    utterances = []
    for _ in range(SECONDS * 100 // FRAMES_PER_UTTERANCE):
        changes = random.random(FRAMES_PER_UTTERANCE) < 0.2
        gaussians = random.integers(0, len(online.ubm.weights), FRAMES_PER_UTTERANCE)
        held = gaussians[np.maximum.accumulate(np.where(changes, np.arange(FRAMES_PER_UTTERANCE), 0))]
        noise = random.standard_normal((FRAMES_PER_UTTERANCE, DIM)) * np.sqrt(online.ubm.vars[held])
        utterances.append(check_feats(online, online.ubm.means[held] + noise))
    return utterances


def extract_all(online: OnlineExtractor, utterances: list[np.ndarray], chain: bool) -> None:
    states = [SpeakerState.new(online) for _ in utterances]
    if chain:
        states = [states[number // UTTERANCES_PER_SPEAKER] for number in range(len(utterances))]
    step = max(1, BATCH_FRAMES // FRAMES_PER_UTTERANCE)
    for start in range(0, len(utterances), step):
        part = slice(start, start + step)
        extract_batch(online, utterances[part], states[part], online.config)


def main() -> None:
    random = np.random.default_rng(0)
    square = random.standard_normal((2048, 2048)).astype(np.float32)
    yardstick = median_time(lambda: square @ square)
    print(f"yardstick: 2048^3 float32 product {yardstick:.3f} s, {2 * 2048**3 / yardstick / 1e9:.0f} GF/s")
    for num_gauss in (256, 512):
        online = made_up_extractor(num_gauss, random)
        utterances = speech(online, random)
        frames = np.concatenate(utterances)
        survivors = posteriors(online.ubm, frames, np.ones(len(frames), np.float32))[2].mean()
        for chain in (False, True):
            taken = median_time(lambda: extract_all(online, utterances, chain))  # noqa: B023 (called at once)
            print(f"{num_gauss} Gaussians, dimension {IVECTOR}, {survivors:.1f} of a frame, "
                  f"{'speakers of ten utterances' if chain else 'utterances alone'}: {taken:.3f} s for {SECONDS} s, "
                  f"real-time factor {taken / SECONDS:.6f}, {taken / yardstick:.2f} yardsticks")


if __name__ == "__main__":
    main()
