"""Training of a speech encoder with CTC (Graves et al., "Connectionist temporal classification", ICML 2006)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pyser.config import write_conf
from pyser.device import choose_device
from pyser.encoders.data import Batch, CtcData, read_transcripts
from pyser.encoders.speech import SpeechEncoder, SpeechOutput, load_speech
from pyser.encoders.vocabulary import ENGLISH
from pyser.encoders.waves import Waves
from pyser.errors import PyserError
from pyser.files import write_text
from pyser.scoring.wer import Errors, word_errors
from pyser.training import checkpoints, distributed
from pyser.training.loop import Stats, TrainConfig, set_seed
from pyser.training.loop import train as train_loop


@dataclass(frozen=True)
class CtcConfig:
    """A line `--name=value` each in conf/ctc.conf. SpecAugment and dropout are those of the model's config.json.

    lr_initial: after the share `warmup` of the training, in which it rises from 0; it falls exponentially to lr_final. That
    of a pretrained model should be a tenth or less.
    max_duration: seconds of speech in a batch, padding included, for each process. max_utt_duration: longer utterances are
    dropped. freeze: features (the convolutions keep their parameters), encoder (all but the CTC head) or none.
    avg: how many of the last epochs are averaged into the final model; so many checkpoints are kept.
    gradient_checkpointing: less memory, slower. See TrainConfig for the others; num_threads: torch's.
    """

    num_epochs: int = 40
    optimizer: str = "adamw"
    lr_initial: float = 1e-3
    lr_final: float = 1e-5
    warmup: float = 0.1
    max_grad_norm: float = 5.0
    weight_decay: float = 0.01
    precision: str = "float32"
    freeze: str = "none"
    gradient_checkpointing: bool = False
    max_duration: float = 120.0
    max_utt_duration: float = 30.0
    max_dropped: float = 0.05
    avg: int = 5
    num_threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise PyserError(f"--warmup={self.warmup:g}: it is a share of the training, from 0 to below 1")
        if not 1 <= self.avg <= self.num_epochs:
            raise PyserError(f"--avg={self.avg}: it must be one of 1 to {self.num_epochs}, the epochs")

    def loop(self) -> TrainConfig:
        return WarmupConfig(
            self.num_epochs, self.lr_initial, self.lr_final, self.max_grad_norm, self.weight_decay, self.seed,
            keep_checkpoints=self.avg, optimizer=self.optimizer, precision=self.precision, warmup=self.warmup,
        )


@dataclass(frozen=True)
class WarmupConfig(TrainConfig):
    """TrainConfig with a learning rate that rises from 0 over the share `warmup` and then falls exponentially."""

    warmup: float = 0.0

    def learning_rate(self, progress: float) -> float:
        if progress < self.warmup:
            return self.lr_initial * progress / self.warmup
        return super().learning_rate((progress - self.warmup) / (1 - self.warmup))


def ctc_loss(output: SpeechOutput, labels: Sequence[Sequence[int]], blank: int) -> Tensor:
    """-log p(labels) of each utterance, (N,) nats; infinite where the labels do not fit into its frames."""
    assert output.logits is not None
    log_probs = output.logits.float().log_softmax(-1).transpose(0, 1)  # (T, N, V)
    # On a GPU int64 labels keep torch from cuDNN's CTC, which is not deterministic.
    targets = torch.tensor([label for one in labels for label in one], dtype=torch.int64, device=log_probs.device)
    lengths = torch.tensor([len(one) for one in labels], dtype=torch.int64, device=log_probs.device)
    return F.ctc_loss(log_probs, targets, output.lengths, lengths, blank, reduction="none")


def weighted(asr_weight: float, asr: Tensor, emotion: Tensor) -> Tensor:
    """asr_weight * asr + (1 - asr_weight) * emotion. What has no weight has no gradient: one of zero would be pulled
    towards zero by the weight decay."""
    if asr_weight == 0:
        return emotion
    return asr if asr_weight == 1 else asr_weight * asr + (1 - asr_weight) * emotion


def mean_ctc_loss(logits: Tensor, lengths: Tensor, labels: Sequence[Sequence[int]], blank: int) -> Tensor:
    """Mean over utterances of CTC's loss per label, 0 of those whose labels do not fit into their frames. logits (N, T, V),
    lengths (N,)."""
    targets = torch.tensor([label for one in labels for label in one], dtype=torch.long)
    sizes = torch.tensor([len(one) for one in labels])
    log_probs = logits.float().log_softmax(dim=2).transpose(0, 1)  # (T, N, V)
    return F.ctc_loss(log_probs, targets.to(logits.device), lengths.cpu(), sizes, blank, zero_infinity=True)


def loss(encoder: SpeechEncoder, batch: Batch) -> tuple[Tensor, Stats, SpeechOutput]:
    """The mean loss of a frame, with the frames as its weight."""
    assert encoder.vocabulary is not None
    output = encoder(batch.waves)
    frames = float(output.lengths.sum())
    labels = [transcript.labels for transcript in batch.transcripts]
    return ctc_loss(output, labels, encoder.vocabulary.blank).sum() / frames, {"weight": frames}, output


def greedy(encoder: SpeechEncoder, output: SpeechOutput) -> list[str]:
    """The words of the best label of every frame, for each utterance."""
    assert encoder.vocabulary is not None and output.logits is not None
    best = output.logits.argmax(-1).tolist()
    return [encoder.vocabulary.decode(row[:length]) for row, length in zip(best, output.lengths.tolist(), strict=True)]


def validate(encoder: SpeechEncoder, batches: Iterable[Batch]) -> Stats:
    """Loss per frame, and errors of greedy decoding, in per cent of the characters (spaces are some) and of the words."""
    total, frames, characters, words = 0.0, 0.0, Errors(), Errors()
    for batch in batches:
        value, stats, output = loss(encoder, batch)
        total, frames = total + float(value) * stats["weight"], frames + stats["weight"]
        for reference, found in zip(batch.transcripts, greedy(encoder, output), strict=True):
            characters += word_errors(list(reference.text), list(found))
            words += word_errors(reference.text.split(), found.split())
    return {"loss": total / frames, "cer": characters.rate, "wer": words.rate}


def train(
    model: str | Path, data_dir: str | Path, valid_dir: str | Path, exp_dir: str | Path, config: CtcConfig
) -> list[dict[str, float]]:
    """Train a model (a directory, or a name on the hub) on data_dir's wav.scp and text; returns one row of figures per epoch.

    A model without a CTC head gets one for English characters. Writes exp_dir/{ctc.conf,epoch-N.pt,best-valid-loss.pt,
    history.json} and at the end the model as a directory of Hugging Face's; goes on where an interrupted run stopped. One of
    several processes within pyser.training.distributed.launch.
    """
    torch.set_num_threads(config.num_threads)
    exp_dir = Path(exp_dir)
    if exp_dir.resolve() == Path(model).resolve():
        raise PyserError(f"{exp_dir}: holds the model that the training begins with; use a new directory")
    set_seed(config.seed)  # also for what the checkpoint lacks
    encoder = load_speech(model)
    if encoder.vocabulary is None:
        encoder.new_head(ENGLISH)
    assert encoder.vocabulary is not None
    encoder.freeze(config.freeze)
    if config.gradient_checkpointing:
        encoder.checkpoint_gradients()
    sets = []
    for name, training in ((data_dir, True), (valid_dir, False)):
        waves = Waves(name)
        transcripts, line = read_transcripts(waves, encoder, config.max_utt_duration, config.max_dropped)
        say(line)
        sets.append(CtcData(waves, transcripts, config.max_duration, config.seed, training))
    data, valid = replace(sets[0], rank=distributed.rank(), world_size=distributed.world_size()), sets[1]
    steps, hours = len(data.groups(1)), sum(one.seconds for one in data.transcripts.values()) / 3600
    device = choose_device("optional")
    encoder.to(device)
    learning = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    say(f"{model}: {sum(p.numel() for p in encoder.parameters())} parameters, {learning} learn")
    say(f"{len(data.transcripts)} utterances, {hours:.2f} h, on {device}: {config.num_epochs} epochs of {steps} steps")
    if distributed.rank() == 0:
        write_text(exp_dir / "ctc.conf", write_conf(config))
    history = train_loop(
        encoder, data.batches, steps, lambda trained, batch, _: loss(trained, batch)[:2], exp_dir, config.loop(),
        valid_fn=lambda trained: validate(trained, valid.batches(0)),
    )
    if distributed.rank() == 0:
        last = range(config.num_epochs - config.avg + 1, config.num_epochs + 1)
        encoder.load_state_dict(checkpoints.average([checkpoints.path_of(exp_dir, epoch) for epoch in last]))
        encoder.cpu().eval().save(exp_dir)
        say(f"{exp_dir}: the average of the last {config.avg} epochs")
    return history


def say(line: str) -> None:
    """On stdout, by one of the processes."""
    if distributed.rank() == 0:
        print(line, flush=True)
