"""Train a TDNN-F with LF-MMI from data directories, and average its last epochs into one model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyser.chain.alignment import AlignedNumerators, read_phones
from pyser.chain.data import Batch, ChainData, Numerators, features_of, ivectors_of, select
from pyser.chain.graph import Graph
from pyser.chain.lfmmi import EXACT_BEAM, LfMmi, LfMmiConfig
from pyser.chain.perturb import SpeedPerturber
from pyser.chain.schedule import parse_schedule
from pyser.config import read_conf
from pyser.errors import PyserError
from pyser.features.mfcc import MfccConfig
from pyser.files import read_json, write_json
from pyser.ivector.directory import load_extractor
from pyser.nn import model_io
from pyser.nn.tdnnf import TdnnF, TdnnfConfig
from pyser.training import checkpoints, distributed
from pyser.training.loop import Stats, TrainConfig, set_seed, starting_point
from pyser.training.loop import train as train_loop
from pyser.training.ng_sgd import NgSgdConfig

CONSTRAIN_EVERY = 4  # steps between two orthonormal constraints of the linear factors on average, as in Kaldi
WHITENING_BATCHES = 50  # enough frames for the covariance of the input


@dataclass(frozen=True)
class ChainConfig:
    """A line `--name=value` each in conf/tdnn.conf. The network's sizes are run_tdnn_1g.sh's (see TdnnfConfig).

    optimizer, lr_initial, lr_final: adam, adamw or ng-sgd; of ng-sgd Kaldi's recipe takes 2.5e-4 to 2.5e-5 for batches of 64
    chunks. l2_regularize_factor: of the layers' l2-regularize, with ng-sgd. See TrainConfig for precision, start_epoch,
    max_grad_norm, max_param_change and weight_decay.
    max_duration: seconds of speech in a batch, padding included, for each process. max_utt_duration: longer utterances are
    dropped. perturb_volume: see ChainData. perturb_speed: factors (0.9,1.0,1.1), one of which each utterance gets in each
    epoch; features and i-vectors are then computed from its audio, see SpeedPerturber. Instead of a perturbed directory.
    spec_augment_schedule: of the proportion that pyser.chain.specaugment masks, as the dropout's, an epoch having that of its
    middle; for MFCCs as conf/mfcc_hires.conf makes them.
    ali_epochs: with an alignment, the epochs that are trained near it before the numerators are all ways to say the
    transcript, as without one; 0: all epochs.
    warmup: of the CTC topology, the share of the training before the denominator enters, plain CTC until then: 0.1, or 1.
    The chain topology would learn nothing but silence.
    engine: native or k2 (without a leak), see LfMmi. leaky_hmm_coefficient: Kaldi's; with 0 paths begin at the denominator's
    start and end in its final states. output_beam: nats, of the k2 engine, see LfMmiConfig. num_threads: torch's.
    """

    dim: int = 1024
    bottleneck_dim: int = 128
    prefinal_dim: int = 256
    strides: tuple[int, ...] = TdnnfConfig.strides
    frame_subsampling_factor: int = 3
    num_epochs: int = 6
    start_epoch: int = 0
    optimizer: str = "adam"
    lr_initial: float = 1e-3
    lr_final: float = 1e-4
    max_grad_norm: float = 5.0
    max_param_change: float = 2.0
    weight_decay: float = 0.0
    l2_regularize_factor: float = 1.0
    precision: str = "float32"
    max_duration: float = 150.0
    max_utt_duration: float = 30.0
    max_dropped: float = 0.05
    perturb_volume: bool = False
    perturb_speed: tuple[float, ...] = ()
    spec_augment_schedule: str = "0"
    ali_epochs: int = 0
    warmup: float = 0.0
    dropout_schedule: str = "0,0@0.20,0.5@0.50,0"
    xent_regularize: float = 0.1
    l2_regularize: float = 5e-5
    out_of_range_regularize: float = 0.01
    leaky_hmm_coefficient: float = 0.1
    engine: str = "native"
    output_beam: float = EXACT_BEAM
    num_threads: int = 1
    seed: int = 0

    def lfmmi(self) -> LfMmiConfig:
        return LfMmiConfig(self.leaky_hmm_coefficient, self.xent_regularize, self.l2_regularize,
                           self.out_of_range_regularize, self.output_beam)

    def loop(self) -> TrainConfig:
        return TrainConfig(
            self.num_epochs, self.lr_initial, self.lr_final, self.max_grad_norm, self.weight_decay, self.seed,
            optimizer=self.optimizer, max_param_change=self.max_param_change, precision=self.precision,
            start_epoch=self.start_epoch,
        )


class ChainLoss:
    """Forward pass and objective of one batch, for training (with warm-up and dropout schedule) or validation."""

    def __init__(self, lfmmi: LfMmi, config: ChainConfig, device: torch.device):
        self.lfmmi, self.config, self.device = lfmmi, config, device
        self.dropout = parse_schedule(config.dropout_schedule)

    def __call__(self, model: TdnnF, batch: Batch, progress: float) -> tuple[Tensor, Stats]:
        model.set_dropout(self.dropout(progress))
        return self.loss(model, batch, progress < self.config.warmup)

    def loss(self, model: TdnnF, batch: Batch, warm_up: bool = False) -> tuple[Tensor, Stats]:
        batch = batch.to(self.device)
        output, xent = model(batch.feats, batch.ivectors, subsampling=self.config.frame_subsampling_factor)
        return self.lfmmi(output, xent, batch.lengths, batch.graphs, warm_up)

    def validate(self, model: TdnnF, batches: Iterator[Batch]) -> Stats:
        """The full objective over a data set, per frame."""
        sums: Stats = {}
        for batch in batches:
            loss, stats = self.loss(model, batch)
            stats["loss"] = float(loss) * stats["weight"]
            sums = {name: sums.get(name, 0.0) + value for name, value in stats.items()}
        frames = max(sums.pop("weight", 0.0), 1.0)
        return {name: value / frames for name, value in sums.items()}


def train(
    data_dir: str | Path,
    valid_dir: str | Path,
    lang_dir: str | Path,
    ivector_dir: str | Path | None,
    valid_ivector_dir: str | Path | None,
    exp_dir: str | Path,
    config: ChainConfig,
    ali_dir: str | Path | None = None,
    init: str | Path | None = None,
    mfcc_config: str | Path | None = None,
    extractor: str | Path | None = None,
) -> list[dict[str, float]]:
    """Train on `data_dir` (feats.scp, text) with the graphs of `lang_dir`; returns one row of figures per epoch.

    ali_dir : an alignment of data_dir (phones.ctm), near which the phones of the numerators are kept; without it, and in
        validation, a numerator is all ways to say the transcript
    mfcc_config, extractor : for config.perturb_speed, what data_dir's features and i-vectors were made with
    init : another training's exp_dir; the network begins with its layers, but for those of another size

    Writes exp_dir/config.json, epoch-N.pt, best-valid-loss.pt and history.json; goes on where an interrupted run stopped.
    One of several processes within pyser.training.distributed.launch.
    """
    from pyser.kaldi.manifests import read_cuts
    from pyser.lang.denominator import load_denominator, normalization
    from pyser.lang.lang import read_tokens
    from pyser.lang.numerator import NumeratorCompiler
    from pyser.lang.supervision import SupervisionCompiler, SupervisionConfig
    from pyser.lang.topology import load_topology
    from pyser.nn.lda import estimate_whitening

    torch.set_num_threads(config.num_threads)
    exp_dir = Path(exp_dir)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    topology = load_topology(lang_dir)
    if config.warmup > 0 and not topology.ctc:
        raise PyserError(f"--warmup={config.warmup:g}: without the denominator a chain topology learns nothing but silence; "
                         "take --warmup=0")
    den_graph, num_pdfs = load_denominator(lang_dir), topology.num_pdfs
    # Paths of the denominator begin and end anywhere with a leak, else at its start and in its final states.
    weights = normalization(den_graph) if config.leaky_hmm_coefficient > 0 else den_graph
    compiler = NumeratorCompiler.load(lang_dir, weights)
    lfmmi = LfMmi(den_graph, config.engine, config.lfmmi())
    subsampling = config.frame_subsampling_factor
    sets = []
    for name, ivectors in ((data_dir, ivector_dir), (valid_dir, valid_ivector_dir)):
        cuts, line = select(
            read_cuts(name, ivectors), config.max_utt_duration, subsampling, compiler.min_frames, config.max_dropped
        )
        say(f"{name}: {line}")
        sets.append(cuts)

    def transcripts(ids: Sequence[str], texts: Sequence[str], *_: Sequence[float]) -> list[Graph]:
        return compiler.graphs(ids, texts)

    tokens = read_tokens(lang_dir)
    numerators: Numerators = transcripts
    if ali_dir is not None:
        aligned = AlignedNumerators(
            read_phones(Path(ali_dir) / "phones.ctm", tokens),
            SupervisionCompiler(topology, weights, SupervisionConfig(frame_subsampling_factor=subsampling)),
            lambda utterance, text: compiler.graphs([utterance], [text])[0],
        )
        say(check_coverage(sets[0], aligned, Path(ali_dir), config.max_dropped))
        numerators = aligned

    set_seed(config.seed)
    feat_dim, ivector_dim = dimensions(sets[0][0])
    model = TdnnF(TdnnfConfig(
        feat_dim, ivector_dim, config.dim, config.bottleneck_dim, config.prefinal_dim, config.strides,
        num_pdfs=num_pdfs,
    ))
    masked = parse_schedule(config.spec_augment_schedule)
    context = model.left_context  # as many frames on the right
    shape = (context, context, subsampling, config.max_duration, config.seed)
    data = ChainData(sets[0], *shape, True, distributed.rank(), distributed.world_size(), config.perturb_volume,
                     numerators, perturber(data_dir, config, mfcc_config, extractor, ivector_dir),
                     lambda epoch: masked((epoch - 0.5) / config.num_epochs))
    free = replace(data, numerators=transcripts)
    valid = ChainData(sets[1], *shape, training=False, numerators=transcripts)  # all of it in each process
    steps = data.steps()
    if distributed.rank() == 0:  # (the others take process 0's parameters)
        begins = starting_point(exp_dir, config.loop()) is None
        write_description(exp_dir, config, model.config, list(tokens))
        if begins and init is not None:
            say(take_layers(model, Path(init)))
        elif begins:
            model.set_lda(*estimate_whitening(spliced(model, data.whole())))
    model.to(device)
    parameters = sum(p.numel() for p in model.parameters())
    say(f"TDNN-F: {parameters} parameters, context -{context} +{context} frames, "
          f"{num_pdfs} outputs every {subsampling} frames; "
          f"denominator: {den_graph.num_states} states, {len(den_graph.arcs)} arcs")
    say(f"{len(data.cuts)} utterances, {sum(cut.duration for cut in data.cuts) / 3600:.2f} h, on {device}: "
          f"{config.num_epochs} epochs of {steps} steps"
        + (f", CTC for the first {100 * config.warmup:g}%" if config.warmup > 0 else ""))
    loss = ChainLoss(lfmmi, config, device)
    return train_loop(
        model, lambda epoch: (free if 0 < config.ali_epochs < epoch else data).batches(epoch), steps, loss, exp_dir,
        config.loop(), valid_fn=lambda trained: loss.validate(trained, valid.batches(0)), after_step=constrain_sometimes,
        components=model.components(config.xent_regularize),
        ng_config=NgSgdConfig(l2_regularize_factor=config.l2_regularize_factor),
    )


def take_layers(model: TdnnF, exp_dir: Path) -> str:
    """Put the layers of the model in exp_dir into this one, but for those of another size; returns a line about it."""
    theirs = model_io.load_tdnnf(exp_dir).state_dict()
    ours = model.state_dict()
    taken = {name: value for name, value in theirs.items() if name in ours and ours[name].shape == value.shape}
    if "lda_matrix" not in taken:
        raise PyserError(f"{exp_dir}: its input has another size, {tuple(theirs['lda_matrix'].shape)}; "
                         "take a model of the same features and i-vectors")
    new = sorted({name.rpartition(".")[0] for name in ours.keys() - taken.keys()})
    model.load_state_dict(ours | taken)
    return f"{exp_dir}: {len(taken)} of {len(ours)} tensors taken, new: {', '.join(new) or 'none'}"


def perturber(
    data_dir: str | Path, config: ChainConfig, mfcc_config: str | Path | None, extractor: str | Path | None,
    ivector_dir: str | Path | None,
) -> SpeedPerturber | None:
    """What config.perturb_speed asks for."""
    if not config.perturb_speed:
        return None
    if mfcc_config is None or (extractor is None and ivector_dir is not None):
        raise PyserError("--perturb-speed computes features and i-vectors: give --mfcc-config and --extractor")
    found = load_extractor(extractor) if extractor is not None and ivector_dir is not None else None
    return SpeedPerturber(Path(data_dir), config.perturb_speed, read_conf(mfcc_config, MfccConfig), found)


def check_coverage(cuts: Any, aligned: AlignedNumerators, ali_dir: Path, max_dropped: float) -> str:
    """A line about the utterances that no alignment is there for, which must be few."""
    missing = [cut.id for cut in cuts if cut.id not in aligned.times]
    line = f"{ali_dir}: {len(cuts) - len(missing)} utterances aligned, {len(missing)} not"
    if len(missing) > max_dropped * len(cuts):
        raise PyserError(f"{line} (e.g. {missing[0]}); align this data directory: pyser chain align")
    return line


def constrain_sometimes(model: TdnnF) -> None:
    """The orthonormal constraint, at random in one of CONSTRAIN_EVERY steps: no counter that a resume would lose. The dice
    are Python's, which fall alike in all processes."""
    if random.randrange(CONSTRAIN_EVERY) == 0:
        model.constrain_orthonormal()


def say(line: str) -> None:
    """On stdout, by one of the processes."""
    if distributed.rank() == 0:
        print(line, flush=True)


def spliced(model: TdnnF, data: ChainData) -> Iterator[Tensor]:
    """Spliced input (N, T, D) of some batches, without the context that only repeats edges."""
    edge = model.left_context - 1
    for batch in islice(data.batches(0), WHITENING_BATCHES):
        yield model.splice(batch.feats[:, edge : batch.feats.shape[1] - edge], batch.ivectors)


def dimensions(cut: Any) -> tuple[int, int]:
    """Columns of the features and of the i-vectors (0: none) of one utterance."""
    ivectors = ivectors_of(cut)
    return features_of(cut).shape[1], 0 if ivectors is None else ivectors.shape[1]


def write_description(exp_dir: Path, config: ChainConfig, network: TdnnfConfig, tokens: list[str]) -> None:
    """exp_dir/config.json, what `average` needs to know; another network than an earlier run's is an error."""
    path = exp_dir / "config.json"
    description = json.loads(json.dumps({"chain": asdict(config), "network": asdict(network), "tokens": tokens}))
    if path.exists() and checkpoints.numbers(exp_dir):
        before = read_json(path, "network", "tokens")
        for part in ("network", "tokens"):
            if before[part] != description[part]:
                raise PyserError(f"{path}: this directory holds a run with another {part}; use a new directory")
    write_json(path, description)
