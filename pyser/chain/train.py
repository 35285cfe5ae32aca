"""Train a TDNN-F with LF-MMI from data directories, and average its last epochs into one model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyser.chain.data import Batch, ChainData, select
from pyser.chain.lfmmi import EXACT_BEAM, LfMmi, LfMmiConfig
from pyser.chain.schedule import parse_schedule
from pyser.errors import PyserError
from pyser.files import read_lines, write_json
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.training import checkpoints
from pyser.training.loop import Stats, TrainConfig, set_seed
from pyser.training.loop import train as train_loop

CONSTRAIN_EVERY = 4  # steps between two orthonormal constraints of the linear factors, as in Kaldi


@dataclass(frozen=True)
class ChainConfig:
    """A line `--name=value` each in conf/tdnn.conf. The network's sizes are run_tdnn_1g.sh's (see TdnnfConfig).

    max_duration: seconds of speech in a batch, padding included. max_utt_duration: longer utterances are dropped.
    warmup: share of the training before the denominator enters (CTC until then; a flat start needs it).
    den_output_beam, num_output_beam: nats, see LfMmiConfig. num_threads: torch's; k2's small kernels slow down on
    contended threads, so use more only on an idle machine and with a large network.
    """

    dim: int = 1024
    bottleneck_dim: int = 128
    prefinal_dim: int = 256
    strides: tuple[int, ...] = TdnnfConfig.strides
    frame_subsampling_factor: int = 3
    num_epochs: int = 6
    lr_initial: float = 1e-3
    lr_final: float = 1e-4
    max_grad_norm: float = 5.0
    max_duration: float = 150.0
    max_utt_duration: float = 30.0
    max_dropped: float = 0.05
    warmup: float = 0.15
    dropout_schedule: str = "0,0@0.20,0.5@0.50,0"
    xent_regularize: float = 0.1
    l2_regularize: float = 5e-5
    den_output_beam: float = 0.0
    num_output_beam: float = EXACT_BEAM
    num_threads: int = 1
    seed: int = 0

    def lfmmi(self) -> LfMmiConfig:
        return LfMmiConfig(self.xent_regularize, self.l2_regularize, self.num_output_beam, self.den_output_beam)

    def loop(self) -> TrainConfig:
        return TrainConfig(self.num_epochs, self.lr_initial, self.lr_final, self.max_grad_norm, seed=self.seed)


class ChainLoss:
    """Forward pass and objective of one batch, for training (with warm-up and dropout schedule) or validation."""

    def __init__(self, lfmmi: LfMmi, compiler: Any, config: ChainConfig, device: torch.device):
        self.lfmmi, self.compiler, self.config, self.device = lfmmi, compiler, config, device
        self.dropout = parse_schedule(config.dropout_schedule)

    def __call__(self, model: nn.Module, batch: Batch, progress: float) -> tuple[Tensor, Stats]:
        model.set_dropout(self.dropout(progress))
        return self.loss(model, batch, progress < self.config.warmup)

    def loss(self, model: nn.Module, batch: Batch, warm_up: bool = False) -> tuple[Tensor, Stats]:
        batch = batch.to(self.device)
        output, xent = model(batch.feats, batch.ivectors, subsampling=self.config.frame_subsampling_factor)
        return self.lfmmi(output, xent, batch.lengths, self.compiler.compile(batch.texts), warm_up)

    def validate(self, model: nn.Module, batches: Iterator[Batch]) -> Stats:
        """The full objective per frame over a data set; `skipped` stays a count of utterances."""
        sums: Stats = {}
        for batch in batches:
            _, stats = self.loss(model, batch)
            sums = {name: sums.get(name, 0.0) + value for name, value in stats.items()}
        frames = max(sums.pop("weight"), 1.0)
        skipped = sums.pop("skipped")
        return {name: value / frames for name, value in sums.items()} | {"skipped": skipped}


def train(
    data_dir: str | Path,
    valid_dir: str | Path,
    lang_dir: str | Path,
    ivector_dir: str | Path | None,
    valid_ivector_dir: str | Path | None,
    exp_dir: str | Path,
    config: ChainConfig,
) -> list[dict[str, float]]:
    """Train on `data_dir` (feats.scp, text) with the graphs of `lang_dir`; returns one row of figures per epoch.

    Writes exp_dir/config.json, checkpoints/epoch-N.pt and history.json; goes on where an interrupted run stopped.
    """
    from pyser.kaldi.manifests import read_cuts
    from pyser.lang.graphs import NumeratorCompiler, load_denominator

    torch.set_num_threads(config.num_threads)
    exp_dir = Path(exp_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiler = NumeratorCompiler(lang_dir)
    lfmmi = LfMmi(load_denominator(lang_dir), config.lfmmi(), device)
    subsampling = config.frame_subsampling_factor
    sets = []
    for name, ivectors in ((data_dir, ivector_dir), (valid_dir, valid_ivector_dir)):
        cuts, line = select(
            read_cuts(name, ivectors), config.max_utt_duration, subsampling, compiler.min_frames, config.max_dropped
        )
        print(f"{name}: {line}", flush=True)
        sets.append(cuts)

    set_seed(config.seed)
    tokens = read_tokens(lang_dir)
    first = ChainData(sets[0], 0, 0, 1, config.max_duration, config.seed, training=False)
    model = TdnnF(network(config, *first.dims(), num_pdfs=len(tokens)))
    save_config(exp_dir, config, model.config, tokens)
    left, right = model.left_context, model.right_context
    data = ChainData(sets[0], left, right, subsampling, config.max_duration, config.seed, training=True)
    valid = ChainData(sets[1], left, right, subsampling, config.max_duration, config.seed, training=False)
    steps = data.steps()
    if checkpoints.latest(exp_dir / "checkpoints") is None:
        model.estimate_lda(data.batches(0))
    model.to(device)
    print_plan(model, lfmmi, data, valid, steps, config, device)

    loss = ChainLoss(lfmmi, compiler, config, device)
    count = 0

    def constrain(model: nn.Module) -> None:
        nonlocal count
        count += 1
        if count % CONSTRAIN_EVERY == 0:
            model.constrain_orthonormal()

    return train_loop(
        model, data.batches, steps, loss, exp_dir, config.loop(),
        valid_fn=lambda m: loss.validate(m, valid.batches(0)), after_step=constrain,
    )
