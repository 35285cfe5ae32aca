"""The fusion of streams as a system of experiments (Y. Li, P. Bell, C. Lai, "Fusing ASR outputs in joint training for speech
emotion recognition", ICASSP 2022): MFCC, hidden states of a speech encoder, and words as a text encoder sees them.

Streams are read from files, each utterance's computed once; or the hidden states are computed from the samples in every step,
and the speech encoder learns with the fusion, from emotions and from transcripts:

    loss = asr_weight * CTC + (1 - asr_weight) * cross-entropy of the emotions
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyser.device import choose_device
from pyser.encoders.huggingface import absolute, files_of
from pyser.errors import PyserError
from pyser.kaldi.datadir import write_table
from pyser.kaldi.tables import load_mat, read_scp, read_table
from pyser.nn import model_io
from pyser.nn.fusion import FusionConfig, FusionNetwork
from pyser.ser.examples import bucketed
from pyser.ser.experiment import Loss, run_folds
from pyser.ser.folds import SELECTIONS, Fold
from pyser.ser.streams import HIDDEN, StreamExamples, load_stream
from pyser.training.loop import TrainConfig

if TYPE_CHECKING:
    from pyser.encoders.speech import SpeechEncoder
    from pyser.encoders.waves import Waves

KIND = "pyser fusion"
EVALUATED_UTTERANCES = 20  # at a time


@dataclass(frozen=True)
class FusionTraining:
    """How a fusion is made and trained; the defaults are the paper's. streams: name -> dimension, those of the data.

    asr_weight: the paper's lambda, of CTC, where the speech encoder learns. speech: its name or directory, "" where all
    streams are files; layer: of its hidden states, 0 the input of the first; freeze: features (its convolutions) or none;
    gradient_checkpointing: of its layers, less memory, slower. See TrainConfig for precision.
    """

    fusion: str = "hierarchical"
    units: int = 32
    heads: int = 16
    nodes: int = 64
    dropout: float = 0.5
    num_epochs: int = 100
    lr_initial: float = 1e-4
    lr_final: float = 1e-4
    weight_decay: float = 1e-5
    batch_utterances: int = 20
    class_balanced: bool = False
    asr_weight: float = 0.2
    speech: str = ""
    layer: int = -1
    freeze: str = "features"
    gradient_checkpointing: bool = False
    precision: str = "float32"
    seed: int = 0
    selection: str = "valid"
    streams: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise PyserError(f"--selection={self.selection}; known: {' '.join(SELECTIONS)}")
        if min(self.num_epochs, self.batch_utterances - 1) < 1:
            raise PyserError("--num-epochs must be at least 1, --batch-utterances at least 2")
        if not 0 <= self.asr_weight <= 1:
            raise PyserError(f"--asr-weight={self.asr_weight:g}; it must be between 0 and 1")
        if self.freeze not in ("features", "none"):
            raise PyserError(f"--freeze={self.freeze}; a speech encoder that learns has its features frozen, or none")

    def network(self, num_labels: int) -> FusionConfig:
        assert self.streams is not None
        return FusionConfig(self.streams, num_labels, self.fusion, self.units, self.heads, self.nodes, self.dropout)


class FusionModel(nn.Module):
    """speech: None where all streams are read."""

    def __init__(self, config: FusionTraining, labels: Sequence[str], speech: SpeechEncoder | None = None):
        super().__init__()
        self.config, self.labels, self.speech = config, tuple(labels), speech
        self.network = FusionNetwork(config.network(len(self.labels)))

    def forward(self, examples: StreamExamples, utts: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Log posteriors (N, K) of these utterances; of a speech encoder that learns also logits (N, T, V) and how long each
        is."""
        streams, lengths = examples.padded(utts)
        streams = {name: x.to(self.network.output.weight.device) for name, x in streams.items()}
        if self.speech is None:
            return self.network(streams, lengths), None, None
        assert examples.waves is not None
        output = self.speech([examples.waves[utt] for utt in utts])
        streams[HIDDEN], lengths[HIDDEN] = output.hidden[self.config.layer], output.lengths
        return self.network(streams, lengths), output.logits, output.lengths

    @torch.no_grad()
    def hidden_statistics(self, examples: StreamExamples) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (D,) of the hidden states over all frames, float64."""
        assert self.speech is not None and examples.waves is not None
        learning = self.training
        self.eval()
        count, total, square = 0, torch.zeros(()).double(), torch.zeros(()).double()
        for wave in examples.waves:
            frames = self.speech([wave]).hidden[self.config.layer][0].cpu().double()  # (T, D)
            count, total, square = count + len(frames), total + frames.sum(dim=0), square + (frames**2).sum(dim=0)
        self.train(learning)
        mean = total / max(count, 1)
        std = (square / max(count, 1) - mean**2).clamp_min(0).sqrt()
        return mean, torch.where(std > 1e-5, std, torch.ones(()).double())

    def ctc(self, logits: Tensor, lengths: Tensor, transcripts: Sequence[Sequence[int]]) -> Tensor:
        """As `mean_ctc_loss`."""
        from pyser.encoders.ctc import mean_ctc_loss

        assert self.speech is not None and self.speech.vocabulary is not None
        return mean_ctc_loss(logits, lengths, transcripts, self.speech.vocabulary.blank)


@dataclass(frozen=True)
class FusionSystem:
    """rxfilenames: stream -> utterance -> where it is. waves and transcripts (words by utterance): only where the speech
    encoder learns."""

    config: FusionTraining
    rxfilenames: Mapping[str, Mapping[str, str]]
    waves: Waves | None = None
    transcripts: Mapping[str, str] | None = None
    speech: SpeechEncoder | None = None

    @property
    def selection(self) -> str:
        return self.config.selection

    @property
    def training(self) -> TrainConfig:
        c = self.config
        return TrainConfig(c.num_epochs, c.lr_initial, c.lr_final, weight_decay=c.weight_decay, seed=c.seed, optimizer="adam",
                           precision=c.precision, counted="utterances")

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def tables(self) -> dict[str, Mapping[str, object] | None]:
        tables: dict[str, Mapping[str, object] | None] = {f"stream {name}": table for name, table in self.rxfilenames.items()}
        recordings = None if self.waves is None else dict.fromkeys(self.waves.utterances)
        return tables | {"recording in wav.scp": recordings, "transcript in text": self.transcripts}

    def inputs(self, utts: Sequence[str], fold: str = "") -> list[str]:
        found = [table[utt] for table in self.rxfilenames.values() for utt in utts]
        if self.waves is not None and self.transcripts is not None:  # of a speech encoder that learns
            found += [*files_of(self.config.speech), *self.waves.inputs(utts),
                      *(f"{utt} {self.transcripts[utt]}" for utt in utts)]
        return found

    def load(self, utts: Sequence[str], classes: Mapping[str, int], part: str) -> StreamExamples:
        streams = {name: load_stream(utts, table, name) for name, table in self.rxfilenames.items()}
        size = sum(matrix.nbytes for matrices in streams.values() for matrix in matrices)
        print(f"{part}: {len(utts)} utterances, streams {' '.join(streams)}: {size / 2**20:.0f} MiB of memory", flush=True)
        label = np.array([classes[utt] for utt in utts], dtype=np.int64)
        if self.waves is None or self.transcripts is None or self.speech is None:
            return StreamExamples(label, streams)
        assert self.speech.vocabulary is not None
        encode = self.speech.vocabulary.encode
        waves, transcripts = [self.waves[utt] for utt in utts], [encode(self.transcripts[utt]) for utt in utts]
        return StreamExamples(label, streams, waves, transcripts)

    def class_counts(self, examples: StreamExamples, num_classes: int) -> np.ndarray:
        return np.bincount(examples.label, minlength=num_classes)

    def model(self, labels: Sequence[str], examples: StreamExamples, fold: Fold) -> FusionModel:
        speech = None
        if self.speech is not None:  # every fold begins with the one that was given
            from pyser.encoders.speech import load_speech

            speech = load_speech(self.config.speech)
            speech.freeze(self.config.freeze)
            if self.config.gradient_checkpointing:
                speech.checkpoint_gradients()
        model = FusionModel(self.config, labels, speech)
        for name in examples.streams:
            mean, std = examples.statistics(name)
            model.network.normalise(name, torch.from_numpy(mean), torch.from_numpy(std))
        model = model.to(choose_device("optional"))
        if speech is not None:  # as of the file that a frozen one is dumped to
            model.network.normalise(HIDDEN, *model.hidden_statistics(examples))
        return model

    def batches(self, examples: StreamExamples, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([self.config.seed, epoch])
        return bucketed(examples.lengths, self.config.batch_utterances, rng)

    def loss(self, model: FusionModel, examples: StreamExamples, batch: np.ndarray, weight: Tensor) -> Loss:
        utts = batch.tolist()
        log_posteriors, logits, lengths = model(examples, utts)
        label = torch.from_numpy(examples.label[batch]).to(log_posteriors.device)
        loss = F.nll_loss(log_posteriors, label, weight.to(label.device) if self.config.class_balanced else None)
        stats = {"weight": float(len(utts)), "wa": float((log_posteriors.argmax(dim=1) == label).sum())}
        if logits is not None:
            assert examples.transcripts is not None and lengths is not None
            ctc = model.ctc(logits, lengths, [examples.transcripts[utt] for utt in utts])
            from pyser.encoders.ctc import weighted

            loss = weighted(self.config.asr_weight, ctc, loss)
            stats["ctc"] = float(ctc.detach()) * len(utts)
        return loss, stats

    def posteriors(self, model: FusionModel, examples: StreamExamples) -> Tensor:
        return self._evaluate(model, examples)[0]

    def _evaluate(self, model: FusionModel, examples: StreamExamples) -> tuple[Tensor, dict[int, str]]:
        """Posteriors (U, K) float64, and what an encoder that learnt hears in each utterance, greedily."""
        order = np.argsort(examples.lengths, kind="stable")
        found = torch.zeros(len(order), len(model.labels), dtype=torch.float64)
        heard: dict[int, str] = {}
        for group in np.array_split(order, -(-len(order) // EVALUATED_UTTERANCES)):
            log_posteriors, logits, lengths = model(examples, group.tolist())
            found[torch.from_numpy(group)] = log_posteriors.cpu().double().exp()
            if logits is not None:
                assert lengths is not None and model.speech is not None and model.speech.vocabulary is not None
                from pyser.encoders.decode import greedy

                search = greedy(model.speech.vocabulary)
                for utt, rows, length in zip(group.tolist(), logits.float().cpu().numpy(), lengths.tolist(), strict=True):
                    heard[utt] = search(rows[:length])
        return found, heard

    def test(self, model: FusionModel, examples: StreamExamples, utts: Sequence[str], out_dir: Path) -> Tensor:
        posteriors, heard = self._evaluate(model, examples)
        if heard:
            write_table(out_dir / "hyp.txt", {utt: heard[number] for number, utt in enumerate(utts)})
        return posteriors

    def save(self, path: Path, model: FusionModel, metadata: dict[str, str]) -> None:
        model_io.save(path, model, self.config, {"kind": KIND, "labels": json.dumps(list(model.labels)), **metadata})


def train_fusion(
    data_dir: str | Path, folds_dir: str | Path, exp_dir: str | Path, config: FusionTraining, streams: Mapping[str, str],
    only: Sequence[str] = (), max_dropped: float = 0.05,
) -> list[str]:
    """Train the folds in `folds_dir` on data_dir's utt2emo and utt2spk; see `run_folds`.

    streams : name -> scp file of its matrices, in the order of the fusion. With config.speech the stream "hidden" is computed
        from data_dir's wav.scp, in the place that its name (with any file) has among the streams, and the transcripts for CTC
        are data_dir's text; exp_dir/text has them, normalised, and foldN/hyp.txt what it heard on the test list.
    """
    data_dir = Path(data_dir)
    config = replace(config, speech=absolute(config.speech))
    if config.speech and HIDDEN not in streams:
        raise PyserError(f"--speech computes the stream '{HIDDEN}': name it among the streams, {HIDDEN}=-")
    rxfilenames = {name: read_scp(path) for name, path in streams.items() if not (config.speech and name == HIDDEN)}
    for name, table in rxfilenames.items():
        if not table:
            raise PyserError(f"{streams[name]}: no utterance in it; write the stream '{name}' again")
    dims = {name: load_mat(next(iter(table.values()))).shape[1] for name, table in rxfilenames.items()}
    speech = waves = transcripts = None
    if config.speech:
        from pyser.encoders.speech import load_speech
        from pyser.encoders.waves import Waves

        speech, waves, transcripts = load_speech(config.speech), Waves(data_dir), read_table(data_dir / "text")
        if not -speech.num_layers - 1 <= config.layer <= speech.num_layers:
            raise PyserError(f"--layer={config.layer}; {config.speech} has {speech.num_layers}, and 0 is their input")
        if speech.vocabulary is None:
            raise PyserError(f"{config.speech}: has no CTC head to train with the fusion; make one: pyser encoder train-ctc")
        dims[HIDDEN] = speech.dim
        vocabulary = speech.vocabulary
        write_table(Path(exp_dir) / "text", {utt: vocabulary.normalise(said) for utt, said in transcripts.items()})
    config = replace(config, streams={name: dims[name] for name in streams})
    system = FusionSystem(config, rxfilenames, waves, transcripts, speech)
    return run_folds(system, data_dir, folds_dir, exp_dir, only, max_dropped)


def read_fusion(path: str | Path) -> tuple[FusionModel, dict[str, str]]:
    """In eval mode, with its metadata; PyserError if the file is missing, damaged or another model's."""
    state, metadata = model_io.read(path)
    if metadata.get("kind") != KIND:
        raise PyserError(f"{path}: not a {KIND}; give the directory that `pyser fusion train` wrote")
    try:
        config, speech = FusionTraining(**json.loads(metadata["config"])), None
        if config.speech:
            from pyser.encoders.speech import load_speech

            speech = load_speech(config.speech)
        model = FusionModel(config, json.loads(metadata["labels"]), speech)
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PyserError(f"{path}: not readable ({str(error).splitlines()[0][:80]}); train this fold again") from None
    return model.eval(), metadata
