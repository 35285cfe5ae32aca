"""Train an online i-vector extractor from a data directory, as Kaldi's get_pca_transform.sh, train_diag_ubm.sh and
train_ivector_extractor.sh (steps/online/nnet2) do one after the other:

    global_cmvn.stats -> final.mat (PCA, or LDA of alignments) -> final.dubm -> N.ie … final.ie
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyser.errors import PyserError
from pyser.features.cmvn import apply_online_cmvn, cmvn_stats, read_stats, write_stats
from pyser.files import read_json, read_lines, write_json, write_text
from pyser.ivector import batched, kernels
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
from pyser.ivector.pairs import Pairs, sum_by
from pyser.ivector.pca import estimate_lda, estimate_pca, read_transform, write_transform
from pyser.ivector.ubm import DiagGmm, posteriors, read_diag_gmm, write_diag_gmm
from pyser.ivector.ubm_em import UbmConfig, initialise_ubm, train_ubm
from pyser.kaldi.tables import INTEGERS, Table, load_mat, read_scp

BATCH_FRAMES = {"cpu": 8192, "cuda": 65536}
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

    def __post_init__(self) -> None:
        for name in ("num_gauss", "ivector_dim", "num_iters", "num_utts", "num_frames", "lda_dim", "subsample",
                     "num_gselect"):
            if getattr(self, name) < 1:
                raise PyserError(f"--{name.replace('_', '-')}={getattr(self, name)}: expected a positive number")
        if self.seed < 0:
            raise PyserError(f"--seed={self.seed}: expected a number that is not negative")


def train(data_dir: str | Path, out_dir: str | Path, config: TrainConfig, device: torch.device | str = "cpu") -> None:
    """Write Kaldi's extractor directory `out_dir`. Finished steps of an earlier, stopped run of the same are kept.

    Features are read, and normalised before the PCA or LDA, on the CPU; all else is computed on `device`, batch by batch.
    """
    out = Path(out_dir)
    corpus = _Corpus(Path(data_dir), config, torch.device(device))
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
        write_diag_gmm(_train_ubm(corpus, front_end, config), ubm)
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

    def __init__(self, data_dir: Path, config: TrainConfig, device: torch.device):
        self.device, self.batch_frames = device, BATCH_FRAMES[device.type]
        self.compiled = device.type == "cpu" and kernels.available
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

    def projected(self, front_end: FrontEnd) -> Iterator[tuple[Tensor, Tensor, list[slice]]]:
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
            if sum(map(len, batch)) >= self.batch_frames:
                yield self._project(front_end, batch, before)
                batch, before = [], []
        if batch:
            yield self._project(front_end, batch, before)

    def _project(
        self, front_end: FrontEnd, batch: list[np.ndarray], before: list[np.ndarray]
    ) -> tuple[Tensor, Tensor, list[slice]]:
        if self.compiled:
            projected, starts = front_end.project_batch(batch, before)
            raw, normalised = torch.from_numpy(projected)
        else:
            (raw, normalised), starts = batched.project_batch(front_end, batch, before, self.device)
        return raw, normalised, [slice(start, start + len(one)) for start, one in zip(starts, batch, strict=True)]

    def posteriors(self, ubm: DiagGmm, feats: Tensor, config: TrainConfig) -> Pairs:
        """Of normalised frames (T, D'), each of which counts for itself and for those that subsampling leaves out."""
        weights = np.ones(len(feats), np.float32)
        how = config.num_gselect, config.min_post, config.posterior_scale * config.subsample
        if self.compiled:
            return Pairs.of(posteriors(ubm, feats.numpy(), weights, *how))
        return batched.posteriors(ubm, feats, torch.from_numpy(weights).to(self.device), *how)

    def spliced(
        self, global_stats: np.ndarray, config: TrainConfig, every: int, wanted: Container[str] | None = None
    ) -> Iterator[tuple[list[str], list[int], Tensor]]:
        """Batches of utterances, all or those in `wanted`: their names, frames and every so manieth frame after online
        CMVN, spliced, (rows, N D) float64. Every utterance is normalised on its own, whatever its speaker said before
        (get_pca_transform.sh)."""
        batch: list[tuple[str, np.ndarray]] = []
        for (_, utt), (_, feats) in zip(self.utts, self.utterances(), strict=True):
            if wanted is None or utt in wanted:
                batch.append((utt, apply_online_cmvn(feats, global_stats)))
            if sum(len(one) for _, one in batch) >= self.batch_frames:
                yield self._splice(batch, config, every)
                batch = []
        if batch:
            yield self._splice(batch, config, every)

    def _splice(
        self, batch: list[tuple[str, np.ndarray]], config: TrainConfig, every: int
    ) -> tuple[list[str], list[int], Tensor]:
        frames = torch.from_numpy(np.concatenate([feats for _, feats in batch])).to(self.device)
        context, start, rows = np.arange(-config.left_context, config.right_context + 1), 0, []
        for _, feats in batch:
            rows.append(start + (np.arange(0, len(feats), every)[:, None] + context).clip(0, len(feats) - 1))
            start += len(feats)
        spliced = frames[torch.from_numpy(np.concatenate(rows)).to(self.device)].flatten(1)
        return [utt for utt, _ in batch], [len(one) for one in rows], spliced


def _pca(corpus: _Corpus, global_stats: np.ndarray, config: TrainConfig) -> np.ndarray:
    count, first, second = 0, torch.zeros(()), torch.zeros(())
    for _, _, x in corpus.spliced(global_stats, config, config.subsample):
        count, first, second = count + len(x), first.to(x) + x.sum(0), second.to(x) + x.t() @ x
    return estimate_pca(count, first, second, config.lda_dim)


def _lda(corpus: _Corpus, global_stats: np.ndarray, config: TrainConfig) -> np.ndarray:
    """Utterances without an alignment do not count."""
    alignments = Table(config.ali, INTEGERS)
    dim = (global_stats.shape[1] - 1) * (config.left_context + 1 + config.right_context)
    counts, first, second = (torch.zeros(shape, dtype=torch.float64, device=corpus.device)
                             for shape in ((0,), (0, dim), (dim, dim)))
    for utts, lengths, x in corpus.spliced(global_stats, config, 1, alignments):
        given = [alignments[utt] for utt in utts]
        for utt, one, length in zip(utts, given, lengths, strict=True):
            if len(one) != length or one.min() < 0:
                raise PyserError(f"{config.ali}: {utt}: {len(one)} classes for {length} frames; align these features")
        classes = torch.from_numpy(np.concatenate(given)).long().to(x.device)
        size = max(len(counts), int(classes.max()) + 1)
        missing = size - len(counts)
        counts = torch.cat([counts, counts.new_zeros(missing)]) + torch.bincount(classes, minlength=size)
        first = torch.cat([first, first.new_zeros(missing, dim)]) + sum_by(classes, x, size)
        second += x.t() @ x
    return estimate_lda(counts, first, second, config.lda_dim)


def _train_ubm(corpus: _Corpus, front_end: FrontEnd, config: TrainConfig) -> DiagGmm:
    ubm_config = UbmConfig(config.num_gauss, seed=config.seed)
    sample = _frame_sample(corpus, front_end, config)
    _say(f"UBM of {config.num_gauss} Gaussians, initialised on {len(sample)} frames")
    first = initialise_ubm(sample, ubm_config, _say)
    del sample
    return train_ubm(first, lambda: _normalised(corpus, front_end, config), ubm_config, _say)


def _normalised(corpus: _Corpus, front_end: FrontEnd, config: TrainConfig) -> Iterator[Tensor]:
    """The UBM's frames (T, D') float32, subsampled, in parts."""
    for _, normalised, places in corpus.projected(front_end):
        yield torch.cat([normalised[place][:: config.subsample] for place in places])


def _frame_sample(corpus: _Corpus, front_end: FrontEnd, config: TrainConfig) -> Tensor:
    """About num_frames frames (N, D') float32, evenly from the whole corpus."""
    random = np.random.default_rng(config.seed)
    share = min(1.0, config.num_frames / front_end.global_stats[0, -1])
    parts = []
    for _, normalised, places in corpus.projected(front_end):
        drawn = [place.start + np.flatnonzero(random.random(place.stop - place.start) < share) for place in places]
        parts.append(normalised[torch.from_numpy(np.concatenate(drawn)).to(corpus.device)])
    return torch.cat(parts)


def _statistics(
    corpus: _Corpus, front_end: FrontEnd, ubm: DiagGmm, config: TrainConfig
) -> tuple[list[UtteranceStats], Tensor]:
    """Of all utterances; and the Gaussians' scatter (G, D', D')."""
    num_gauss, dim = ubm.means.shape
    utterances: list[UtteranceStats] = []
    scatters = torch.zeros(num_gauss, dim, dim, dtype=torch.float64, device=corpus.device)
    for raw, normalised, places in corpus.projected(front_end):
        rows = [np.arange(place.start, place.stop, config.subsample) for place in places]
        chosen, edges = torch.from_numpy(np.concatenate(rows)).to(corpus.device), np.cumsum([0, *map(len, rows)])
        pairs = corpus.posteriors(ubm, normalised[chosen], config)
        feats = (normalised if config.online_cmvn_iextractor else raw)[chosen]
        before = len(utterances) // 5000
        utterances += utterance_stats(feats, pairs, edges, num_gauss)
        add_scatter(scatters, feats, pairs)
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
