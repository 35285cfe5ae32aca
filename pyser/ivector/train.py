"""Train an online i-vector extractor from a data directory, as Kaldi's get_pca_transform.sh, train_diag_ubm.sh and
train_ivector_extractor.sh (steps/online/nnet2) do one after the other:

    global_cmvn.stats -> final.mat (PCA) -> final.dubm -> N.ie … final.ie
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.features.cmvn import apply_online_cmvn, cmvn_stats, read_stats, write_stats
from pyser.features.splice import splice
from pyser.files import read_json, read_lines, write_json, write_text
from pyser.ivector.em import ExtractorConfig, UtteranceStats, accumulate, add_scatter, initialise, update
from pyser.ivector.extractor import read_extractor, write_extractor
from pyser.ivector.online import FrontEnd
from pyser.ivector.pca import estimate_pca, read_transform, write_transform
from pyser.ivector.ubm import DiagGmm, UbmConfig, posteriors, read_diag_gmm, train_ubm, write_diag_gmm
from pyser.kaldi.tables import load_matrix, read_scp

STEPS = ("global_cmvn.stats", "final.mat", "final.dubm", "final.ie")


@dataclass(frozen=True)
class TrainConfig:
    """num_utts utterances, drawn at random, are used if there are more (the extractor gains little from the rest), and
    of them about num_frames frames for the UBM."""

    num_gauss: int = 512
    ivector_dim: int = 100
    num_iters: int = 10
    num_utts: int = 20_000
    num_frames: int = 400_000
    lda_dim: int = 40
    left_context: int = 3
    right_context: int = 3
    subsample: int = 2
    num_gselect: int = 5
    min_post: float = 0.025
    posterior_scale: float = 0.1
    seed: int = 0


def train(data_dir: str | Path, out_dir: str | Path, config: TrainConfig) -> None:
    """Write Kaldi's extractor directory `out_dir`. Finished steps of an earlier, stopped run of the same are kept."""
    out = Path(out_dir)
    corpus = _Corpus(Path(data_dir), config)
    stamp = {**asdict(config), "feats": zlib.crc32("\n".join(corpus.feats.values()).encode())}
    _forget_other_runs(out, stamp)
    write_text(out / "splice_opts", f"--left-context={config.left_context} --right-context={config.right_context}\n")
    write_text(out / "online_cmvn.conf", "")
    stats, lda, ubm, final = (out / name for name in STEPS)

    if not stats.exists():
        print(f"ivector train: CMVN statistics of {len(corpus)} utterances", flush=True)
        write_stats(stats, np.sum([cmvn_stats(feats) for _, feats in corpus.utterances()], axis=0))
    global_stats = read_stats(stats)
    if not lda.exists():
        print("ivector train: PCA of spliced features", flush=True)
        write_transform(_pca(corpus, global_stats, config), lda)
    front_end = FrontEnd(read_transform(lda), global_stats, config.left_context, config.right_context)
    if not ubm.exists():
        frames = _frame_sample(corpus, front_end, global_stats[0, -1], config)
        print(f"ivector train: UBM of {config.num_gauss} Gaussians on {len(frames)} frames", flush=True)
        ubm_config = UbmConfig(config.num_gauss, seed=config.seed)
        write_diag_gmm(train_ubm(frames, ubm_config, lambda line: print(f"ivector train: {line}", flush=True)), ubm)
    if not final.exists():
        _train_extractor(corpus, front_end, read_diag_gmm(ubm), out, config)


def _forget_other_runs(out: Path, stamp: dict[str, object]) -> None:
    """Steps finished with other options or other features are not this run's."""
    path = out / "train.json"
    if not path.exists() or read_json(path) != stamp:
        for old in [*(out / name for name in STEPS), *out.glob("*.ie")]:
            old.unlink(missing_ok=True)
        write_json(path, stamp)


class _Corpus:
    """The features of the chosen utterances, speaker by speaker."""

    def __init__(self, data_dir: Path, config: TrainConfig):
        self.feats = read_scp(data_dir / "feats.scp")
        speakers = [line.split() for line in read_lines(data_dir / "spk2utt")]
        utts = [(speaker, utt) for speaker, *utts in speakers for utt in utts if utt in self.feats]
        if not utts:
            raise PyserError(f"{data_dir}: no utterance of spk2utt is in feats.scp; run the feature stage again")
        if len(utts) > config.num_utts:
            chosen = np.sort(np.random.default_rng(config.seed).choice(len(utts), config.num_utts, replace=False))
            utts = [utts[i] for i in chosen]
        self.utts = utts

    def __len__(self) -> int:
        return len(self.utts)

    def utterances(self) -> Iterator[tuple[str, np.ndarray]]:
        """(speaker, features (T, D))."""
        for speaker, utt in self.utts:
            try:
                yield speaker, load_matrix(self.feats[utt])
            except PyserError as error:
                raise PyserError(f"{utt}: {error}") from None

    def normalised(self, global_stats: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(features (T, D), the same after online CMVN that goes on from the speaker's earlier utterances)."""
        earlier: dict[str, np.ndarray] = {}
        for speaker, feats in self.utterances():
            yield feats, apply_online_cmvn(feats, global_stats, earlier.get(speaker))
            earlier = {speaker: earlier.get(speaker, 0) + cmvn_stats(feats)}


def _pca(corpus: _Corpus, global_stats: np.ndarray, config: TrainConfig) -> np.ndarray:
    # (get_pca_transform.sh normalises every utterance on its own; here the speaker's earlier ones count, as they do in
    # extraction. That alone makes the difference to a final.mat of Kaldi's from the same features.)
    count, first, second = 0, np.zeros(1), np.zeros((1, 1))
    for _, feats in corpus.normalised(global_stats):
        x = splice(feats, config.left_context, config.right_context)[:: config.subsample]
        count, first, second = count + len(x), first + x.sum(0), second + x.T @ x
    return estimate_pca(count, first, second, config.lda_dim)


def _frame_sample(corpus: _Corpus, front_end: FrontEnd, total: float, config: TrainConfig) -> np.ndarray:
    """About num_frames frames (N, lda_dim) float32, evenly from the whole corpus."""
    random = np.random.default_rng(config.seed)
    share = min(1.0, config.num_frames / total)
    return np.concatenate([
        front_end.project(feats)[random.random(len(feats)) < share].astype(np.float32)
        for _, feats in corpus.normalised(front_end.global_stats)
    ])


def _train_extractor(corpus: _Corpus, front_end: FrontEnd, ubm: DiagGmm, out: Path, config: TrainConfig) -> None:
    num_gauss = len(ubm.weights)
    utterances, scatters = [], np.zeros((num_gauss, ubm.means.shape[1], ubm.means.shape[1]))
    scale = config.posterior_scale * config.subsample  # the frames that subsampling leaves out count all the same
    for number, (feats, normalised) in enumerate(corpus.normalised(front_end.global_stats), start=1):
        likes = ubm.loglikes(front_end.project(normalised)[:: config.subsample])
        indices, post = posteriors(likes, config.num_gselect, config.min_post)
        raw, post = front_end.project(feats)[:: config.subsample], post * scale
        utterances.append(UtteranceStats.of(raw, indices, post, num_gauss))
        add_scatter(scatters, raw, indices, post)
        if number % 1000 == 0:
            print(f"ivector train: statistics of {number} of {len(corpus)} utterances", flush=True)
    em = ExtractorConfig(config.ivector_dim, seed=config.seed)
    done = max((int(path.stem) for path in out.glob("[0-9]*.ie")), default=0)
    extractor = read_extractor(out / f"{done}.ie") if done else initialise(ubm, em)
    for iteration in range(done + 1, config.num_iters + 1):
        sums = accumulate(extractor, utterances, scatters)
        extractor = update(extractor, sums, scatters, em)
        write_extractor(extractor, out / f"{iteration}.ie")
        (out / f"{iteration - 1}.ie").unlink(missing_ok=True)
        print(f"ivector train: iteration {iteration} of {config.num_iters}: auxiliary function "
              f"{sums.auxf / sums.gamma.sum():.3f} per frame, prior offset {extractor.prior_offset:.2f}", flush=True)
    write_extractor(extractor, out / "final.ie")
    (out / f"{config.num_iters}.ie").unlink()
