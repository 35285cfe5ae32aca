"""Pretraining of an encoder for emotion regression: to read speech, to read it and to know the sentiment of what is said, or
to predict it.

    asr     L_CTC                                      sa2sr   L_CTC + sentiment_weight * L_sentiment (see pyser.nn.sa2sr)
    cpc     the baseline without labels (see pyser.nn.cpc)

L_CTC is a sum over an utterance's frames, L_sentiment one cross-entropy; both are means over the utterances of a batch.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyser.config import write_conf
from pyser.device import choose_device
from pyser.encoders.vocabulary import Vocabulary
from pyser.errors import Dropped, PyserError
from pyser.files import read_json, write_json, write_text
from pyser.kaldi.datadir import read_table
from pyser.nn import model_io
from pyser.nn.cpc import CpcConfig, Predictor
from pyser.nn.sa2sr import Encoder, EncoderConfig, SpeechReader
from pyser.scoring.metrics import area_under_curve, confusion, weighted_accuracy
from pyser.scoring.wer import Errors, word_errors
from pyser.ser.filterbanks import FRAME_SECONDS, Filterbanks, buckets, padding
from pyser.ser.folds import digest
from pyser.ser.sentiment import SENTIMENTS, read_sentiment
from pyser.training import checkpoints
from pyser.training.loop import Stats, TrainConfig, best_epoch, set_seed
from pyser.training.loop import train as train_loop

KIND = "pyser sa2sr"
OBJECTIVES = ("asr", "sa2sr", "cpc")
CHARACTERS = Vocabulary(("<pad>", "|", "'", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"))  # 29 with the blank
LOOKAHEAD = 3  # batches read in the background while the network computes


@dataclass(frozen=True)
class PretrainConfig:
    """A line `--name=value` each in conf/pretrain.conf; the defaults are the paper's where it gives them.

    max_duration: seconds of speech in a batch, padding included. max_utt_duration: longer utterances are dropped.
    patience: training stops after so many epochs in which CER - AUC (CER, and cpc's loss, where there is no sentiment) has
    not fallen; the best epoch is kept. spec_augment: the probability of each of its masks, none for cpc. stack: frames that
    become one.
    """

    objective: str = "sa2sr"
    sentiment_weight: float = 200.0
    stack: int = 3
    spec_augment: float = 0.5
    layers: int = 5
    units: int = 192
    dropout: float = 0.0
    codes: int = 64
    steps: int = 12
    negatives: int = 128
    num_epochs: int = 500
    patience: int = 25
    optimizer: str = "adam"
    lr_initial: float = 5e-5
    lr_final: float = 5e-5
    max_grad_norm: float = 5.0
    precision: str = "float32"
    max_duration: float = 200.0
    max_utt_duration: float = 30.0
    max_dropped: float = 0.05
    num_threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise PyserError(f"--objective={self.objective}; known: {' '.join(OBJECTIVES)}")
        if self.sentiment_weight <= 0 or self.stack < 1 or not 0 <= self.spec_augment <= 1 or self.max_duration <= 0:
            raise PyserError("--sentiment-weight and --max-duration must be above 0, --stack at least 1, --spec-augment from "
                             "0 to 1")

    def encoder(self, feat_dim: int) -> EncoderConfig:
        return EncoderConfig(feat_dim, self.layers, self.units, self.dropout)

    def loop(self) -> TrainConfig:
        return TrainConfig(
            self.num_epochs, self.lr_initial, self.lr_final, self.max_grad_norm, seed=self.seed, keep_checkpoints=1,
            keep_best="score", patience=self.patience, optimizer=self.optimizer, precision=self.precision,
            counted="predictions" if self.objective == "cpc" else "utterances",
        )


@dataclass(frozen=True)
class Spoken:
    """What is learnt from an utterance: its text, normalised, the labels of that, and the number of its sentiment (0 where
    none is learnt)."""

    text: str
    labels: list[int]
    sentiment: int


@dataclass(frozen=True)
class Batch:
    """x (N, T, dim) and lengths (N,) of N utterances."""

    ids: list[str]
    x: Tensor
    lengths: Tensor
    spoken: list[Spoken]

    def __str__(self) -> str:
        return f"utterances {self.ids[0]} … {self.ids[-1]}" if len(self.ids) > 1 else f"utterance {self.ids[0]}"


@dataclass(frozen=True)
class SpokenData:
    """Batches of the utterances in `spoken`; in training masked and in another order in each epoch, else sorted by length."""

    feats: Filterbanks
    spoken: Mapping[str, Spoken]
    max_duration: float
    training: bool

    @property
    def lengths(self) -> dict[str, int]:
        """Stacked frames of each utterance."""
        return {utt: self.feats.length(utt) for utt in self.spoken}

    @property
    def hours(self) -> float:
        return sum(self.feats.frames[utt] for utt in self.spoken) * FRAME_SECONDS / 3600

    def groups(self, epoch: int) -> list[list[str]]:
        rng = np.random.default_rng([self.feats.seed, epoch]) if self.training else None
        return buckets(self.lengths, int(self.max_duration / FRAME_SECONDS / self.feats.stack), rng)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """All utterances once, read in the background."""
        with ThreadPoolExecutor(1) as pool:
            pending: deque[Future[Batch]] = deque()
            for group in self.groups(epoch):
                pending.append(pool.submit(self._load, group, epoch if self.training else 0))
                if len(pending) > LOOKAHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def _load(self, ids: list[str], epoch: int) -> Batch:
        return Batch(ids, *self.feats.load(ids, epoch), [self.spoken[utt] for utt in ids])


def read_spoken(data_dir: str | Path, feats: Filterbanks, config: PretrainConfig) -> tuple[dict[str, Spoken], str]:
    """The utterances of data_dir that config.objective can learn from, and the line that says which cannot be. PyserError
    without transcripts or sentiments where they are needed."""
    data_dir, reads = Path(data_dir), config.objective != "cpc"
    texts = read_table(data_dir / "text") if reads else {}
    sentiments = read_sentiment(data_dir) if config.objective == "sa2sr" else {}
    dropped, found = Dropped(f"{config.objective} data of {data_dir}", config.max_dropped), {}
    for utt in sorted(feats.frames, key=str.encode):
        text = CHARACTERS.normalise(texts.get(utt, ""))
        labels = CHARACTERS.encode(text)
        needed = len(labels) + sum(a == b for a, b in pairwise(labels))  # between equal labels there is a blank
        if reads and not labels:
            dropped.add(utt, "without words")
        elif feats.frames[utt] * FRAME_SECONDS > config.max_utt_duration:
            dropped.add(utt, f"longer than {config.max_utt_duration:g} s (--max-utt-duration)")
        elif reads and feats.length(utt) < needed:
            dropped.add(utt, "too short for their characters")
        elif config.objective == "sa2sr" and utt not in sentiments:
            dropped.add(utt, "without sentiment in utt2sentiment")
        else:
            sentiment = SENTIMENTS.index(sentiments[utt].label) if utt in sentiments else 0
            found[utt] = Spoken(text, labels, sentiment)
    return found, dropped.finish(len(feats.frames))


class Objective(Protocol):
    """What a network learns. Its figures hold `loss` and `score`, of which the highest is the best."""

    def network(self, encoder: EncoderConfig) -> nn.Module: ...

    def loss(self, network: Any, batch: Batch) -> tuple[Tensor, Stats]: ...

    def validate(self, network: Any, batches: Iterable[Batch]) -> Stats: ...


@dataclass(frozen=True)
class Reading:
    """CTC, and the sentiment where its weight is above 0."""

    sentiment_weight: float

    def network(self, encoder: EncoderConfig) -> SpeechReader:
        return SpeechReader(encoder, len(CHARACTERS), len(SENTIMENTS) if self.sentiment_weight else 0)

    def loss(self, network: SpeechReader, batch: Batch) -> tuple[Tensor, Stats]:
        return self._losses(network, batch)[:2]

    def _losses(self, network: SpeechReader, batch: Batch) -> tuple[Tensor, Stats, Tensor, Tensor | None]:
        logits, sentiments = network(*_on_device(network, batch))
        count, device = len(batch.ids), logits.device
        targets = torch.tensor([label for one in batch.spoken for label in one.labels], device=device)
        sizes = torch.tensor([len(one.labels) for one in batch.spoken], device=device)
        log_probs = logits.float().log_softmax(dim=2).transpose(0, 1)  # (T, N, V)
        ctc = F.ctc_loss(log_probs, targets, batch.lengths.to(device), sizes, CHARACTERS.blank, reduction="sum") / count
        stats = {"weight": float(count), "ctc": float(ctc.detach()) * count}
        if sentiments is None:
            return ctc, stats, logits, None
        classes = torch.tensor([one.sentiment for one in batch.spoken], device=device)
        said = F.cross_entropy(sentiments.float(), classes)
        return ctc + self.sentiment_weight * said, stats | {"sentiment": float(said.detach()) * count}, logits, sentiments

    def validate(self, network: SpeechReader, batches: Iterable[Batch]) -> Stats:
        """Loss; CER in per cent; of sentiments the mean area under the curve of each against the others, the weighted
        average recall (which is the accuracy); score: AUC - CER, of fractions."""
        total, count, errors = 0.0, 0, Errors()
        classes: list[int] = []
        posteriors: list[np.ndarray] = []
        for batch in batches:
            loss, stats, logits, sentiments = self._losses(network, batch)
            total, count = total + float(loss) * stats["weight"], count + len(batch.ids)
            best = logits.argmax(dim=2).tolist()
            for spoken, row, length in zip(batch.spoken, best, batch.lengths.tolist(), strict=True):
                errors += word_errors(list(spoken.text), list(CHARACTERS.decode(row[:length])))
            if sentiments is not None:
                classes += [spoken.sentiment for spoken in batch.spoken]
                posteriors.append(sentiments.float().softmax(dim=1).cpu().numpy())
        found = {"loss": total / count, "cer": errors.rate, "score": -errors.rate / 100}
        if classes:
            scores, labels = np.concatenate(posteriors), np.array(classes)
            found["auc"] = area_under_curve(scores, labels)
            names = [str(number) for number in range(len(SENTIMENTS))]
            counts = confusion([str(one) for one in labels], [str(one) for one in scores.argmax(axis=1)], names)
            found["war"] = weighted_accuracy(counts)
            found["score"] += found["auc"]
        return found


@dataclass(frozen=True)
class Predicting:
    """Contrastive predictive coding; score: minus the loss."""

    config: CpcConfig

    def network(self, encoder: EncoderConfig) -> Predictor:
        return Predictor(encoder, self.config)

    def loss(self, network: Predictor, batch: Batch, generator: torch.Generator | None = None) -> tuple[Tensor, Stats]:
        loss, right, predictions = network(*_on_device(network, batch), generator)
        return loss, {"weight": float(predictions), "accuracy": float(right) * predictions}

    def validate(self, network: Predictor, batches: Iterable[Batch]) -> Stats:
        """With the same negatives every time."""
        generator = torch.Generator().manual_seed(0)
        sums: Stats = {"loss": 0.0, "accuracy": 0.0, "weight": 0.0}
        for batch in batches:
            loss, stats = self.loss(network, batch, generator)
            for name, value in {**stats, "loss": float(loss) * stats["weight"]}.items():
                sums[name] += value
        means = {name: sums[name] / max(sums["weight"], 1) for name in ("loss", "accuracy")}
        return means | {"score": -means["loss"]}


def objective_of(config: PretrainConfig) -> Objective:
    if config.objective == "cpc":
        return Predicting(CpcConfig(config.codes, config.steps, config.negatives))
    return Reading(config.sentiment_weight if config.objective == "sa2sr" else 0.0)


def _on_device(network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.x.to(next(network.parameters()).device), batch.lengths


def pretrain(data_dir: str | Path, valid_dir: str | Path, exp_dir: str | Path, config: PretrainConfig) -> list[Stats]:
    """Train on data_dir's feats.scp, text and utt2sentiment (where config.objective needs them), choose the epoch on
    valid_dir's; returns one row of figures per epoch.

    Writes exp_dir/{pretrain.conf,history.json}, at the end final.safetensors and pretraining.json (the chosen epoch, its
    figures, the share of padding, hours of speech learnt from in an hour, validation included). Goes on where an interrupted
    run stopped; PyserError if that had other settings or learnt from other speech (exp_dir/digests.json).
    """
    torch.set_num_threads(config.num_threads)
    exp_dir, sets = Path(exp_dir), []
    for directory, training in ((data_dir, True), (valid_dir, False)):
        # What is masked could not be told, and what is masked alike would be: CPC's frames are whole.
        masks = config.spec_augment if config.objective != "cpc" else 0.0
        feats = Filterbanks.of(directory, config.stack, masks, config.seed)
        spoken, line = read_spoken(directory, feats, config)
        print(line, flush=True)
        sets.append(SpokenData(feats, spoken, config.max_duration, training))
    data, valid = sets
    if config.objective == "sa2sr" and len({one.sentiment for one in valid.spoken.values()}) < 2:
        raise PyserError(f"{valid_dir}/utt2sentiment: all utterances are of one sentiment, which no AUC can be computed of; "
                         "take more of them")
    _same_as_before(exp_dir, config, {"train": data, "valid": valid})
    groups, objective, device = data.groups(1), objective_of(config), choose_device("optional")
    encoder, padded = config.encoder(data.feats.dim), padding(groups, data.lengths)
    set_seed(config.seed)
    network = objective.network(encoder).to(device)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{len(data.spoken)} utterances, {data.hours:.2f} h, {parameters} parameters, on {device}: at most "
          f"{config.num_epochs} epochs of {len(groups)} steps, {100 * padded:.1f}% padding", flush=True)
    write_text(exp_dir / "pretrain.conf", write_conf(config))
    rows = train_loop(
        network, data.batches, len(groups), lambda trained, batch, _: objective.loss(trained, batch), exp_dir, config.loop(),
        valid_fn=lambda trained: objective.validate(trained, valid.batches(0)),
    )
    best = best_epoch(rows, "score")
    epoch = int(best["epoch"])
    network.load_state_dict(checkpoints.load(checkpoints.path_of(exp_dir, epoch))["model"])
    hours_per_hour = data.hours * len(rows) / (sum(row["seconds"] for row in rows) / 3600)
    model_io.save(exp_dir / "final.safetensors", network, config, {
        "kind": KIND, "objective": config.objective, "epoch": str(epoch), "encoder": json.dumps(asdict(encoder))})
    write_json(exp_dir / "pretraining.json", {
        "objective": config.objective, "epochs": len(rows), "epoch": epoch, "hours": data.hours, "parameters": parameters,
        "padding": padded, "hours_per_hour": hours_per_hour, "device": str(device),
        **{name: value for name, value in best.items() if name.startswith("valid_")}})
    figures = " ".join(f"{name} {value:.4g}" for name, value in best.items() if name.startswith("valid_"))
    print(f"{exp_dir}: epoch {epoch} of {len(rows)}, {figures}; {hours_per_hour:.0f} hours of speech an hour", flush=True)
    return rows


def _same_as_before(exp_dir: Path, config: PretrainConfig, sets: Mapping[str, SpokenData]) -> None:
    """Write exp_dir/digests.json, of all that decides what is learnt, or check that the one that is there says the same."""
    free = "patience", "num_threads", "max_dropped"  # (who is dropped shows in what is learnt from)
    now = {f"--{name.replace('_', '-')}": str(value) for name, value in asdict(config).items() if name not in free}
    for name, data in sets.items():
        now[f"{name} utterances"] = digest(f"{utt} {data.lengths[utt]}" for utt in data.spoken)
        now[f"{name} text"] = digest(one.text for one in data.spoken.values())
        now[f"{name} utt2sentiment"] = digest(str(one.sentiment) for one in data.spoken.values())
    path = exp_dir / "digests.json"
    if checkpoints.latest(exp_dir) is not None:
        then = read_json(path) if path.exists() else {}
        changed = [name for name in now if then.get(name) != now[name]]
        if changed:
            raise PyserError(f"{exp_dir}: pretrained with other {', '.join(changed)}; delete it or use another directory")
    write_json(path, now)


def load_encoder(exp_dir: str | Path) -> tuple[Encoder, dict[str, str]]:
    """The encoder that `pretrain` left in exp_dir, and the metadata of its file."""
    path = Path(exp_dir) / "final.safetensors"
    state, metadata = model_io.read(path)
    if metadata.get("kind") != KIND:
        raise PyserError(f"{path}: not a {KIND}; give the directory that `pyser sa2sr pretrain` wrote")
    try:
        encoder = Encoder(EncoderConfig(**json.loads(metadata["encoder"])))
        prefix = "encoder."
        encoder.load_state_dict({name[len(prefix):]: value for name, value in state.items() if name.startswith(prefix)})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PyserError(f"{path}: not readable ({str(error).splitlines()[0][:80]}); pretrain again") from None
    return encoder, metadata
