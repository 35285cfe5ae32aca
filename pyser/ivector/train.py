"""Train an online i-vector extractor from a data directory, as Kaldi's get_pca_transform.sh, train_diag_ubm.sh and
train_ivector_extractor.sh (steps/online/nnet2) do one after the other:

    global_cmvn.stats -> final.mat (PCA, or LDA of alignments) -> final.dubm -> N.ie … final.ie
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.features.cmvn import apply_online_cmvn, cmvn_stats, read_stats, write_stats
from pyser.features.splice import splice
from pyser.files import read_json, read_lines, write_json, write_text
from pyser.ivector.em import (
    ExtractorConfig,
    UtteranceStats,
    accumulate,
    add_scatter,
    explained_variance,
    initialise,
    update,
    utterance_stats,
)
from pyser.ivector.extractor import read_extractor, write_extractor
from pyser.ivector.frontend import FrontEnd
from pyser.ivector.pca import estimate_lda, estimate_pca, read_transform, write_transform
from pyser.ivector.ubm import (
    DiagGmm,
    UbmConfig,
    initialise_ubm,
    posteriors,
    read_diag_gmm,
    train_ubm,
    write_diag_gmm,
)
from pyser.kaldi.tables import INTEGERS, Table, load_mat, read_scp

BATCH_FRAMES = 8192
STEPS = ("global_cmvn.stats", "final.mat", "final.dubm", "final.ie")


@dataclass(frozen=True)
class TrainConfig:
    """num_utts utterances, drawn at random, are used if there are more (the extractor gains little from the rest), and
    of them about num_frames frames to initialise the UBM.

    ali: rspecifier of alignments (a class for each frame, pdf ids say): final.mat is their LDA, else it is a PCA.
    subsample: every so manieth frame trains; online_cmvn_iextractor: the statistics, too, are of normalised features.
    """

    num_gauss: int = 512
    ivector_dim: int = 100
    num_iters: int = 10
    num_utts: int = 20_000
    num_frames: int = 500_000
    lda_dim: int = 40
    ali: str = ""
    left_context: int = 3
    right_context: int = 3
    subsample: int = 2
    num_gselect: int = 5
    min_post: float = 0.025
    posterior_scale: float = 0.1
    update_variances: bool = True
    online_cmvn_iextractor: bool = False
    seed: int = 0


def train(data_dir: str | Path, out_dir: str | Path, config: TrainConfig) -> None:
    """Write Kaldi's extractor directory `out_dir`. Finished steps of an earlier, stopped run of the same are kept."""
    out = Path(out_dir)
    corpus = _Corpus(Path(data_dir), config)
    stamp = {**asdict(config), "feats": zlib.crc32("\n".join(corpus.feats.values()).encode())}
    _forget_other_runs(out, stamp)
    write_text(out / "splice_opts", f"--left-context={config.left_context} --right-context={config.right_context}\n")
    write_text(out / "online_cmvn.conf", "")
    (out / "online_cmvn_iextractor").unlink(missing_ok=True)
    if config.online_cmvn_iextractor:
        write_text(out / "online_cmvn_iextractor", "")
    stats, lda, ubm, final = (out / name for name in STEPS)

    if not stats.exists():
        _say(f"CMVN statistics of {len(corpus)} utterances")
        write_stats(stats, np.sum([cmvn_stats(feats) for _, feats in corpus.utterances()], axis=0))
    global_stats = read_stats(stats)
    if not lda.exists():
        _say(f"{'LDA' if config.ali else 'PCA'} of spliced features")
        write_transform((_lda if config.ali else _pca)(corpus, global_stats, config), lda)
    front_end = FrontEnd(read_transform(lda), global_stats, config.left_context, config.right_context)
    if not ubm.exists():
        ubm_config = UbmConfig(config.num_gauss, seed=config.seed)
        sample = _frame_sample(corpus, front_end, global_stats[0, -1], config)
        _say(f"UBM of {config.num_gauss} Gaussians, initialised on {len(sample)} frames")
        first = initialise_ubm(sample, ubm_config, _say)
        write_diag_gmm(train_ubm(first, lambda: _normalised(corpus, front_end, config), ubm_config, _say), ubm)
    if not final.exists():
        _train_extractor(corpus, front_end, read_diag_gmm(ubm), out, config)
    write_text(out / "final.ie.id", hashlib.md5(final.read_bytes()).hexdigest() + "\n")


def _say(line: str) -> None:
    print(f"ivector train: {line}", flush=True)


def _forget_other_runs(out: Path, stamp: dict[str, object]) -> None:
    """Steps finished with other options or other features are not this run's."""
    path = out / "train.json"
    if not path.exists() or read_json(path) != stamp:
        for old in [*(out / name for name in STEPS), *out.glob("*.ie"), out / "iterations.json", out / "final.ie.id"]:
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
        columns = 0
        for speaker, utt in self.utts:
            try:
                feats = load_mat(self.feats[utt])
            except PyserError as error:
                raise PyserError(f"{utt}: {error}") from None
            columns = columns or feats.shape[1]
            if not feats.size or feats.shape[1] != columns:
                raise PyserError(f"{utt}: features of shape {feats.shape}, others have {columns} columns; make them again")
            if not np.isfinite(feats).all():
                raise PyserError(f"{utt}: not a number or infinite among its features; make them again")
            yield speaker, feats

    def projected(self, front_end: FrontEnd) -> Iterator[tuple[np.ndarray, np.ndarray, list[slice]]]:
        """Batches: all frames as they are and normalised, both (rows, D') float32, and where the utterances lie.

        Online CMVN goes on from the speaker's earlier utterances.
        """
        batch: list[np.ndarray] = []
        before: list[np.ndarray] = []
        earlier, current = np.zeros_like(front_end.global_stats), ""
        for speaker, feats in self.utterances():
            if speaker != current:
                earlier, current = np.zeros_like(earlier), speaker
            batch.append(feats)
            before.append(earlier)
            earlier = earlier + cmvn_stats(feats)
            if sum(map(len, batch)) >= BATCH_FRAMES:
                yield _project(front_end, batch, before)
                batch, before = [], []
        if batch:
            yield _project(front_end, batch, before)


def _project(
    front_end: FrontEnd, batch: list[np.ndarray], before: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    (raw, normalised), starts = front_end.project_batch(batch, before)
    return raw, normalised, [slice(start, start + len(one)) for start, one in zip(starts, batch, strict=True)]


def _pca(corpus: _Corpus, global_stats: np.ndarray, config: TrainConfig) -> np.ndarray:
    # (Every utterance is normalised on its own, whatever its speaker said before: get_pca_transform.sh)
    count, first, second = 0, np.zeros(1), np.zeros((1, 1))
    for _, x in _spliced(corpus, global_stats, config):
        x = x[:: config.subsample]
        count, first, second = count + len(x), first + x.sum(0), second + x.T @ x
    return estimate_pca(count, first, second, config.lda_dim)


def _lda(corpus: _Corpus, global_stats: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Utterances without an alignment do not count."""
    alignments = Table(config.ali, INTEGERS)
    counts, first, second = np.zeros(0), np.zeros((0, 1)), np.zeros((1, 1))
    for utt, x in _spliced(corpus, global_stats, config):
        if utt not in alignments:
            continue
        classes = alignments[utt]
        if len(classes) != len(x) or not len(classes) or classes.min() < 0:
            raise PyserError(f"{config.ali}: {utt}: {len(classes)} classes for {len(x)} frames; align these features")
        missing = int(classes.max()) + 1 - len(counts)
        if missing > 0:
            counts = np.append(counts, np.zeros(missing))
            first = np.concatenate([first + np.zeros(x.shape[1]), np.zeros((missing, x.shape[1]))])
        counts += np.bincount(classes, minlength=len(counts))
        np.add.at(first, classes, x)
        second = second + x.T @ x
    return estimate_lda(counts, first, second, config.lda_dim)


def _spliced(corpus: _Corpus, global_stats: np.ndarray, config: TrainConfig) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance, spliced frames after online CMVN (T, N D))."""
    for (_, utt), (_, feats) in zip(corpus.utts, corpus.utterances(), strict=True):
        normalised = apply_online_cmvn(feats, global_stats)
        yield utt, splice(normalised, config.left_context, config.right_context)


def _normalised(corpus: _Corpus, front_end: FrontEnd, config: TrainConfig) -> Iterator[np.ndarray]:
    """The UBM's frames (T, D') float32, subsampled, in parts."""
    for _, normalised, places in corpus.projected(front_end):
        yield np.concatenate([normalised[place][:: config.subsample] for place in places])


def _frame_sample(corpus: _Corpus, front_end: FrontEnd, total: float, config: TrainConfig) -> np.ndarray:
    """About num_frames frames (N, D') float32, evenly from the whole corpus."""
    random = np.random.default_rng(config.seed)
    share = min(1.0, config.num_frames / total)
    return np.concatenate([
        normalised[place][random.random(place.stop - place.start) < share]
        for _, normalised, places in corpus.projected(front_end) for place in places
    ])


def _statistics(
    corpus: _Corpus, front_end: FrontEnd, ubm: DiagGmm, config: TrainConfig
) -> tuple[list[UtteranceStats], np.ndarray]:
    """Of all utterances; and the Gaussians' scatter (G, D', D')."""
    num_gauss, dim = ubm.means.shape
    utterances: list[UtteranceStats] = []
    scatters = np.zeros((num_gauss, dim, dim))
    scale = config.posterior_scale * config.subsample  # the frames that subsampling leaves out count all the same
    for raw, normalised, places in corpus.projected(front_end):
        rows = [np.arange(place.start, place.stop, config.subsample) for place in places]
        chosen, edges = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
        whole = np.ones(len(chosen), np.float32)
        post = posteriors(ubm, normalised[chosen], whole, config.num_gselect, config.min_post, scale)
        feats = (normalised if config.online_cmvn_iextractor else raw)[chosen]
        before = len(utterances) // 5000
        utterances += utterance_stats(feats, post, edges, num_gauss)
        add_scatter(scatters, feats, post)
        if len(utterances) // 5000 > before:
            _say(f"statistics of {len(utterances)} of {len(corpus)} utterances")
    return utterances, scatters


def _train_extractor(corpus: _Corpus, front_end: FrontEnd, ubm: DiagGmm, out: Path, config: TrainConfig) -> None:
    utterances, scatters = _statistics(corpus, front_end, ubm, config)
    em = ExtractorConfig(config.ivector_dim, config.update_variances, seed=config.seed)
    done = max((int(path.stem) for path in out.glob("[0-9]*.ie")), default=0)
    extractor = read_extractor(out / f"{done}.ie") if done else initialise(ubm, em)
    table = read_json(out / "iterations.json") if done and (out / "iterations.json").exists() else {}
    for iteration in range(done + 1, config.num_iters + 1):
        sums = accumulate(extractor, utterances, scatters)
        extractor = update(extractor, sums, scatters, em)
        frames = float(sums.gamma.sum())
        table[str(iteration)] = {
            "frames": frames, "auxf_per_frame": sums.auxf / frames, "prior_offset": extractor.prior_offset,
            "explained_variance": explained_variance(extractor, sums.gamma),
        }
        write_json(out / "iterations.json", table)
        write_extractor(extractor, out / f"{iteration}.ie")
        (out / f"{iteration - 1}.ie").unlink(missing_ok=True)
        _say(f"iteration {iteration} of {config.num_iters}: auxiliary function {sums.auxf / frames:.4f} per frame before the "
             f"update, then {100 * table[str(iteration)]['explained_variance']:.2f} % of the within-Gaussian variance "
             f"explained by i-vectors, prior offset {extractor.prior_offset:.2f}")
    write_extractor(extractor, out / "final.ie")
    (out / f"{config.num_iters}.ie").unlink()
