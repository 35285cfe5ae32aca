"""An extractor directory as Kaldi's scripts write and use it: the models, and the options that go with them.

Either the directory of steps/online/nnet2/train_ivector_extractor.sh, or the ivector_extractor.conf that names its files
(steps/online/nnet2/extract_ivectors_online.sh, steps/online/nnet3/prepare_online_decoding.sh).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from pyser.config import option_name, read_conf, read_options
from pyser.errors import PyserError
from pyser.features.cmvn import OnlineCmvnConfig, read_stats
from pyser.files import read_lines
from pyser.ivector import kernels
from pyser.ivector.extractor import IvectorExtractor, read_extractor
from pyser.ivector.frontend import FrontEnd
from pyser.ivector.pca import read_transform
from pyser.ivector.ubm import DiagGmm, read_diag_gmm

FILES = ("final.ie", "final.dubm", "final.mat", "global_cmvn.stats", "splice_opts", "online_cmvn.conf")
CONF = "ivector_extractor.conf"


@dataclass(frozen=True)
class OnlineIvectorConfig:
    """Kaldi's names and defaults (OnlineIvectorExtractionConfig, ivector-extract-online2).

    max_count > 0 keeps long utterances' i-vectors as close to the prior as if they had that many (scaled) frames;
    max_remembered_frames limits what a speaker's statistics weigh in the next utterance. online_cmvn_iextractor: the
    statistics, too, are of normalised features. greedy_ivector_extractor: all rows are the i-vector of the whole
    utterance. repeat: one row a frame. num_cg_iters 0 solves exactly, which Kaldi does not.
    """

    ivector_period: int = 10
    num_gselect: int = 5
    min_post: float = 0.025
    posterior_scale: float = 0.1
    max_count: float = 0.0
    max_remembered_frames: float = 1000.0
    online_cmvn_iextractor: bool = False
    greedy_ivector_extractor: bool = False
    repeat: bool = False
    num_cg_iters: int = 15

    def __post_init__(self) -> None:
        wrong = [
            name for name, right in (
                ("ivector-period", self.ivector_period > 0), ("num-gselect", self.num_gselect > 0),
                ("min-post", 0 <= self.min_post < 0.5), ("posterior-scale", 0 < self.posterior_scale <= 1),
                ("max-count", self.max_count >= 0), ("max-remembered-frames", self.max_remembered_frames >= 0),
                ("num-cg-iters", self.num_cg_iters >= 0),
            ) if not right
        ]
        if wrong:
            value = getattr(self, wrong[0].replace("-", "_"))
            raise PyserError(f"--{wrong[0]}={value:g}: out of range; Kaldi's default is a good choice")


@dataclass(frozen=True)
class OnlineExtractor:
    """A whole extractor directory; `config` is what its conf file says."""

    front_end: FrontEnd
    ubm: DiagGmm
    extractor: IvectorExtractor
    config: OnlineIvectorConfig = OnlineIvectorConfig()

    @cached_property
    def sigma_inv_m(self) -> np.ndarray:
        """(G, D, S padded to a multiple of 8) float64."""
        return kernels.padded(self.extractor.sigma_inv_m, 8, np.float64)

    @cached_property
    def quadratics(self) -> np.ndarray:
        """(G, packed) float32."""
        return self.extractor.quadratics.astype(np.float32)


@dataclass(frozen=True)
class ExtractorConf(OnlineIvectorConfig):
    """All that ivector_extractor.conf may say (OnlineIvectorExtractionConfig::Register).

    use_most_recent_ivector and num_threads change nothing in what is extracted offline.
    """

    cmvn_config: str = ""
    splice_config: str = ""
    lda_matrix: str = ""
    global_cmvn_stats: str = ""
    diag_ubm: str = ""
    ivector_extractor: str = ""
    use_most_recent_ivector: bool = True
    num_threads: int = 1
    verbose: int = 0


def load_extractor(path: str | Path, config: str | Path | None = None) -> OnlineExtractor:
    """Read an extractor directory or the .conf file that describes one; PyserError names what is missing or does not fit.

    A conf file in the directory or in its conf/ is taken for what it says, then `config` for what that says.
    """
    path = Path(path)
    files: dict[str, Path] = {}
    options: dict[str, object] = {}
    if path.is_dir():
        confs = [conf for conf in (path / CONF, path / "conf" / CONF) if conf.is_file()][:1]
        files = {field: path / name for field, name in zip(_FILE_OPTIONS, FILES, strict=True)}
        options["online_cmvn_iextractor"] = (path / "online_cmvn_iextractor").exists()
    else:
        confs = [path]
    for conf in [*confs, *([Path(config)] if config is not None else [])]:
        changed = read_options(conf, ExtractorConf)
        files |= {name: _located(str(changed[name]), conf) for name in _FILE_OPTIONS if name in changed}
        options |= {name: value for name, value in changed.items() if name not in _FILE_OPTIONS}
    for option in _FILE_OPTIONS:
        if option not in files:
            raise PyserError(f"{path}: has no --{option.replace('_', '-')}; Kaldi's conf names all of "
                             + " ".join(f"--{name.replace('_', '-')}" for name in _FILE_OPTIONS))
        if not files[option].exists():
            raise PyserError(f"{files[option]}: no such file; an extractor directory holds {' '.join(FILES)}")
    known = {field.name for field in fields(OnlineIvectorConfig)}
    kept = {name: value for name, value in options.items() if name in known}
    return _assemble(path, files, OnlineIvectorConfig(**kept))  # type: ignore[arg-type]


_FILE_OPTIONS = ("ivector_extractor", "diag_ubm", "lda_matrix", "global_cmvn_stats", "splice_config", "cmvn_config")


def _located(name: str, conf: Path) -> Path:
    """A file that `conf` names: from the current directory, as Kaldi; if it is not there, from that of the conf file."""
    beside = conf.parent / name
    return beside if not Path(name).exists() and beside.exists() else Path(name)


def _assemble(path: Path, files: dict[str, Path], config: OnlineIvectorConfig) -> OnlineExtractor:
    left, right = read_splice_opts(files["splice_config"])
    cmvn = read_conf(files["cmvn_config"], OnlineCmvnConfig)
    lda = read_transform(files["lda_matrix"])
    front_end = FrontEnd(lda, read_stats(files["global_cmvn_stats"]), left, right, cmvn)
    ubm, extractor = read_diag_gmm(files["diag_ubm"]), read_extractor(files["ivector_extractor"])
    spliced = front_end.feat_dim * (1 + left + right)
    shape = extractor.projections.shape[:2]
    if lda.shape[1] - spliced not in (0, 1) or shape != ubm.means.shape or shape[1] != len(lda):
        raise PyserError(f"{path}: final.mat, final.dubm, final.ie and global_cmvn.stats are of different sizes; "
                         "they must come from one training")
    return OnlineExtractor(front_end, ubm, extractor, config)


def read_splice_opts(path: str | Path) -> tuple[int, int]:
    """(left, right) context of a splice_opts or splice.conf file."""
    contexts = {"left-context": 4, "right-context": 4}  # splice-feats' own defaults
    for option in " ".join(line.split("#")[0] for line in read_lines(path)).split():
        name, _, value = option.lstrip("-").partition("=")
        name = option_name(name)
        if name not in contexts or not value.isdigit():
            raise PyserError(f"{path}: '{option}'; expected --left-context=N --right-context=N")
        contexts[name] = int(value)
    return contexts["left-context"], contexts["right-context"]
