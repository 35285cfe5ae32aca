"""How many times faster than the speech emotions are predicted, i-vectors included:

    python tests/bench/predict.py [recipe ...]

An experiment of a recipe's size with random parameters: the network of egs/<recipe>/tdnn (kaldi_dir the narrow one, tedlium2
the full one), i-vectors of 100 dimensions from 512 Gaussians, the classifiers of five folds on every frame of tdnnf12. The
audio is made up. One thread; processor seconds of `predict`, once it has predicted one file, and of `pyser ser predict` in a
process of its own, which starts, loads and predicts.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pyser  # noqa: E402  (before torch)

# isort: split
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402

from pyser.chain.train import ChainConfig  # noqa: E402
from pyser.config import read_conf  # noqa: E402
from pyser.features.cmvn import cmvn_stats, write_stats  # noqa: E402
from pyser.features.mfcc import MfccConfig, mfcc  # noqa: E402
from pyser.ivector.em import ExtractorConfig, initialise  # noqa: E402
from pyser.ivector.extractor import write_extractor  # noqa: E402
from pyser.ivector.frontend import FrontEnd  # noqa: E402
from pyser.ivector.pca import write_transform  # noqa: E402
from pyser.ivector.ubm import DiagGmm, write_diag_gmm  # noqa: E402
from pyser.kaldi.wav import INT16  # noqa: E402
from pyser.nn.model_io import save  # noqa: E402
from pyser.nn.tdnnf import TdnnF, TdnnfConfig  # noqa: E402
from pyser.ser.frame_classifier import FrameClassifier, SerConfig, save_classifier  # noqa: E402
from pyser.ser.predict import package_frontend  # noqa: E402

EGS = Path(__file__).parents[2] / "egs"
UTTERANCES, SECONDS, RATE, PIECE = 60, 5, 16000, 1280
NODE, FOLDS, LABELS = "tdnnf12", 5, ("ang", "hap", "neu", "sad")


def voice(rng: np.random.Generator) -> np.ndarray:
    """Harmonics below three formants, all others every 80 ms, some pieces noise; between -1 and 1."""
    pieces, t = [], np.arange(PIECE) / RATE
    for _ in range(SECONDS * RATE // PIECE):
        harmonics = rng.uniform(90, 250) * np.arange(1, 32)
        formants = rng.uniform((250, 800, 2000), (850, 2500, 3500))[:, None]
        loud = np.exp(-0.5 * ((harmonics - formants) / 150) ** 2).sum(axis=0)
        tone = loud @ np.sin(2 * np.pi * harmonics[:, None] * t + rng.uniform(0, 6, (31, 1)))
        pieces.append(0.1 * (tone if rng.random() < 0.7 else rng.normal(size=PIECE)) + 0.003 * rng.normal(size=PIECE))
    return np.concatenate(pieces).clip(-1, 1)


def make_extractor(folder: Path, waves: list[np.ndarray]) -> None:
    """512 Gaussians about frames of the audio, each as wide as all of it: about three of them matter for a frame, as in
    speech."""
    rng = np.random.default_rng(0)
    feats = [mfcc(samples, read_conf(EGS / "kaldi_dir/tdnn/conf/mfcc_hires.conf", MfccConfig)) for samples in waves]
    stats = np.sum([cmvn_stats(x) for x in feats], axis=0)
    lda = np.zeros((40, 7 * 40))
    lda[:, 120:160] = np.eye(40)  # the middle one of the spliced frames
    front_end = FrontEnd(lda, stats)
    frames = np.concatenate([front_end.normalise(x) for x in feats]).astype(np.float64)
    means = frames[rng.choice(len(frames), 512, replace=False)]
    ubm = DiagGmm(np.full(512, 1 / 512), means, np.tile(frames.var(axis=0), (512, 1)))
    folder.mkdir()
    write_stats(folder / "global_cmvn.stats", stats)
    write_transform(lda, folder / "final.mat")
    write_diag_gmm(ubm, folder / "final.dubm")
    write_extractor(initialise(ubm, ExtractorConfig()), folder / "final.ie")
    (folder / "splice_opts").write_text("--left-context=3 --right-context=3\n")
    (folder / "online_cmvn.conf").write_text("")


def make_experiment(exp: Path, recipe: str, extractor: Path) -> int:
    """Front end and classifiers; returns how wide the network is."""
    chain = read_conf(EGS / recipe / "tdnn/conf/tdnn.conf", ChainConfig)
    network = TdnnF(TdnnfConfig(dim=chain.dim, bottleneck_dim=chain.bottleneck_dim, prefinal_dim=chain.prefinal_dim))
    exp.mkdir()
    save(exp / "am.safetensors", network.eval(), network.config)
    for fold in range(1, FOLDS + 1):
        (exp / f"fold{fold}").mkdir()
        save_classifier(exp / f"fold{fold}/final.safetensors", FrameClassifier(chain.dim, LABELS, SerConfig()).eval(), {})
    package_frontend(exp, exp / "am.safetensors", extractor, EGS / recipe / "tdnn/conf/mfcc_hires.conf", NODE)
    return chain.dim


def spent(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    audio = UTTERANCES * SECONDS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        waves = [voice(rng) for _ in range(UTTERANCES)]
        paths = [str(folder / f"{number:02d}.wav") for number in range(UTTERANCES)]
        for path, samples in zip(paths, waves, strict=True):
            soundfile.write(path, samples, RATE)
        make_extractor(folder / "extractor", [(INT16 * samples).astype(np.float32) for samples in waves])
        for recipe in sys.argv[1:] or ["kaldi_dir", "tedlium2"]:
            exp = folder / recipe
            dim = make_experiment(exp, recipe, folder / "extractor")
            predictor = pyser.load(exp)
            predictor.predict(paths[0])
            wall, before = time.monotonic(), spent(resource.RUSAGE_SELF)
            predictor.predict(paths)
            once = spent(resource.RUSAGE_SELF) - before
            elapsed, before = time.monotonic() - wall, spent(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-c", "from pyser.cli import main; main()", "ser", "predict", "--model", str(exp)]
            subprocess.run([*command, *paths], check=True, stdout=subprocess.DEVNULL)
            whole = spent(resource.RUSAGE_CHILDREN) - before
            print(f"{recipe}, {dim} wide, {audio} s in {UTTERANCES} files: {once:.2f} s, {audio / once:.0f} times faster "
                  f"than the speech ({audio / elapsed:.0f} by the clock); with start-up {whole:.2f} s, {audio / whole:.0f} "
                  "times", flush=True)


if __name__ == "__main__":
    main()
