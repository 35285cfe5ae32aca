"""Speech and the words that it is heard to say, by cross-modal gated interaction, as a system of experiments (Y. Gao, H. Shi,
C. Chu, T. Kawahara, "Speech emotion recognition with multi-level acoustic and semantic information extraction and
interaction", Interspeech 2024).

    waves -> speech encoder -> frames -----------------------------------> CmGI -> emotion
                            -> CTC -> words -> text encoder -> subwords -/

    loss = asr_weight * CTC + (1 - asr_weight) * cross-entropy of the emotions

In training the text encoder reads the transcript, in evaluation, on validation speakers too, what CTC hears. A second stage
begins with the speech encoders of the first, fold by fold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyser.device import choose_device
from pyser.encoders.ctc import weighted
from pyser.encoders.huggingface import absolute, files_of
from pyser.encoders.lstm import WINDOW
from pyser.encoders.speech import load_speech
from pyser.encoders.vocabulary import ENGLISH
from pyser.encoders.waves import Waves
from pyser.errors import PyserError
from pyser.kaldi.datadir import write_table
from pyser.kaldi.tables import read_table
from pyser.nn import model_io
from pyser.ser.cmgi_model import KIND, LSTM, CmgiModel, CmgiTraining, build, read_cmgi
from pyser.ser.examples import bucketed
from pyser.ser.experiment import Loss, run_folds
from pyser.ser.folds import PARTS, Fold, read_fold
from pyser.training.loop import TrainConfig

EVALUATED_UTTERANCES = 8  # at a time


@dataclass(frozen=True)
class CmgiExamples:
    """label (U,): the class of each utterance; waves: samples (T,), -1 to 1, of each. transcripts: the words to learn to
    hear, "" of an utterance that has none; only in training. sentences: what the text encoder reads, None: what is heard."""

    label: np.ndarray
    waves: Sequence[np.ndarray] | None
    transcripts: Sequence[str] | None
    sentences: Sequence[str] | None

    @property
    def lengths(self) -> np.ndarray:
        """(U,): samples, or characters where there are none."""
        return np.array([len(one) for one in (self.waves if self.waves is not None else self.sentences or ())])

    def of(self, utts: Sequence[int]) -> tuple[list[np.ndarray] | None, list[str] | None]:
        """Waves and sentences of these utterances, as the model takes them."""
        return (None if self.waves is None else [self.waves[utt] for utt in utts],
                None if self.sentences is None else [self.sentences[utt] for utt in utts])


@dataclass(frozen=True)
class CmgiSystem:
    """waves: None without a speech encoder. transcripts: utterance -> words, normalised; read by nothing but training, where
    config.transcript does not say `text`. others: of another recogniser, likewise. shortest: samples that a wave must
    have. new_head: whether CTC's layer begins at random."""

    config: CmgiTraining
    waves: Waves | None
    transcripts: Mapping[str, str]
    others: Mapping[str, str] | None = None
    shortest: int = 1
    new_head: bool = True

    @property
    def selection(self) -> str:
        return self.config.selection

    @property
    def training(self) -> TrainConfig:
        c = self.config
        new = ["network."]
        if c.speech == LSTM:
            new.append("speech.")
        elif self.new_head:
            new.append("speech.encoder.model.lm_head.")
        if c.text == LSTM:
            new.append("words.")
        return TrainConfig(
            c.num_epochs, c.lr_initial, c.lr_final, weight_decay=c.weight_decay, seed=c.seed, precision=c.precision,
            accumulate=c.accumulate, learning_rate_factors=tuple((name, c.head_factor) for name in new), counted="utterances")

    @property
    def read(self) -> Mapping[str, str] | None:
        """What the text encoder reads in evaluation; None: what is heard, or nothing."""
        if not self.config.text or self.config.hears:
            return None
        return self.transcripts if self.others is None else self.others

    def settings(self) -> dict[str, Any]:
        return asdict(self.config)

    def tables(self) -> dict[str, Mapping[str, object] | None]:
        recordings = None if self.waves is None else dict.fromkeys(self.waves.utterances)
        return {"recording in wav.scp": recordings, "words to read": self.read}

    def inputs(self, utts: Sequence[str], fold: str = "") -> list[str]:
        c = self.config
        found = [*files_of(c.speech), *files_of(c.text), *(path for path in (c.lm, c.words) if path)]
        found += [str(first_stage(c, fold))] if fold and c.init else []
        found += [f"{utt} {table[utt]}" for table in (self.transcripts, self.others or {}) for utt in utts if utt in table]
        return found + (self.waves.inputs(utts) if self.waves is not None else [])

    def load(self, utts: Sequence[str], classes: Mapping[str, int], part: str) -> CmgiExamples:
        label = np.array([classes[utt] for utt in utts], dtype=np.int64)
        waves = None if self.waves is None else [self.waves[utt] for utt in utts]
        for utt, wave in zip(utts, waves or (), strict=False):
            if len(wave) < self.shortest:
                raise PyserError(f"{utt}: {len(wave)} samples, and the speech encoder needs {self.shortest}; take it out of "
                                 "the data directory")
        size = sum(wave.nbytes for wave in waves or ())
        print(f"{part}: {len(utts)} utterances, {size / 2**20:.0f} MiB of memory", flush=True)
        read = self.read
        if not part.endswith("train"):
            return CmgiExamples(label, waves, None, None if read is None else [read[utt] for utt in utts])
        transcripts = [self.transcripts.get(utt, "") for utt in utts]
        lacking = sum(not words for words in transcripts)
        if lacking and (self.config.asr_weight or self.config.hears):
            print(f"{part}: {lacking} without transcript: nothing to hear, nothing to read", flush=True)
        sentences = transcripts if read is None else [read[utt] for utt in utts]
        return CmgiExamples(label, waves, transcripts, sentences)

    def class_counts(self, examples: CmgiExamples, num_classes: int) -> np.ndarray:
        return np.bincount(examples.label, minlength=num_classes)

    def model(self, labels: Sequence[str], examples: CmgiExamples, fold: Fold) -> CmgiModel:
        model = build(self.config, labels)
        if self.config.init:
            begin_with(model, first_stage(self.config, fold.name), fold)
        if model.speech is not None:
            model.speech.freeze(self.config.freeze)
        if self.config.gradient_checkpointing:
            model.checkpoint_gradients()
        return model.to(choose_device("optional"))

    def batches(self, examples: CmgiExamples, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([self.config.seed, epoch])
        return bucketed(examples.lengths, self.config.batch_utterances, rng, least=1)

    def loss(self, model: CmgiModel, examples: CmgiExamples, batch: np.ndarray, weight: Tensor) -> Loss:
        utts = batch.tolist()
        output = model(*examples.of(utts))
        label = torch.from_numpy(examples.label[batch]).to(output.log_posteriors.device)
        weights = weight.to(label.device) if self.config.class_balanced else None
        # (A mean over the utterances, not over their weights, which would cancel out in a batch of one class.)
        loss = F.nll_loss(output.log_posteriors, label, weights, reduction="sum") / len(utts)
        stats = {"weight": float(len(utts)), "wa": float((output.log_posteriors.argmax(dim=1) == label).sum())}
        if self.config.asr_weight:
            assert examples.transcripts is not None and output.speech is not None
            asr = model.asr_loss(output.speech, [examples.transcripts[utt] for utt in utts])
            loss = weighted(self.config.asr_weight, asr, loss)
            stats["asr"] = float(asr.detach()) * len(utts)
        return loss, stats

    def posteriors(self, model: CmgiModel, examples: CmgiExamples) -> Tensor:
        return evaluate(model, examples)[0]

    def test(self, model: CmgiModel, examples: CmgiExamples, utts: Sequence[str], out_dir: Path) -> Tensor:
        posteriors, heard = evaluate(model, examples, hear=bool(self.config.asr_weight))
        if heard is None and self.others is not None:
            heard = [self.others[utt] for utt in utts]
        if heard is not None:
            write_table(out_dir / "hyp.txt", dict(zip(utts, heard, strict=True)))
        return posteriors

    def save(self, path: Path, model: CmgiModel, metadata: dict[str, str]) -> None:
        model_io.save(path, model, self.config, {"kind": KIND, "labels": json.dumps(list(model.labels)), **metadata})


def evaluate(model: CmgiModel, examples: CmgiExamples, hear: bool = False) -> tuple[Tensor, list[str] | None]:
    """Posteriors (U, K) float64, and what was heard in each utterance, None where nothing was listened for. The model is in
    eval mode."""
    order = np.argsort(examples.lengths, kind="stable")
    found = torch.zeros(len(order), len(model.labels), dtype=torch.float64)
    heard: dict[int, str] = {}
    for group in np.array_split(order, -(-len(order) // EVALUATED_UTTERANCES)):
        utts = group.tolist()
        output = model(*examples.of(utts), hear)
        found[torch.from_numpy(group)] = output.log_posteriors.cpu().double().exp()
        heard |= dict(zip(utts, output.heard or (), strict=False))
    return found, [heard[utt] for utt in range(len(order))] if heard else None


def first_stage(config: CmgiTraining, fold: str) -> Path:
    """The model whose speech encoder a fold begins with."""
    return Path(config.init) / f"fold{fold}" / "final.safetensors"


def begin_with(model: CmgiModel, path: Path, fold: Fold) -> None:
    """Take the speech encoder of a first stage's fold. PyserError if it is another one, or was trained with other lists, and
    so perhaps on what is tested here; it may have had utterances that this stage leaves out."""
    if not path.exists():
        raise PyserError(f"{path}: missing; train the first stage of fold {fold.name}, or give another --init")
    first, metadata = read_cmgi(path)
    then, told = read_fold(path.parent, fold.name), json.loads(metadata["digests"])
    if any(told.get(part) != digest for part, digest in then.digests().items()):
        raise PyserError(f"{path.parent}: its lists are not those that it was trained with; train it again")
    odd = [part for part in PARTS if not set(getattr(fold, part)) <= set(getattr(then, part))]
    if odd:
        raise PyserError(f"{path}: trained with another {odd[0]}.list than fold {fold.name} has now; train it again, with "
                         "the same --selection")
    if first.speech is None or model.speech is None or first.config.speech != model.config.speech:
        raise PyserError(f"{path}: has the speech encoder '{first.config.speech}', not '{model.config.speech}'; give both "
                         "stages the same --speech")
    if model.config.asr_weight and not first.config.asr_weight:
        raise PyserError(f"{path}: has not learnt to hear words (--asr-weight=0), which this stage begins with; give row 2")
    if first.config.seed != model.config.seed:
        raise PyserError(f"{path}: trained with seed {first.config.seed}, this stage has seed {model.config.seed}; give the "
                         "first stage of the same seed, or the seeds' spread would miss its part")
    model.speech.load_state_dict(first.speech.state_dict())


def train_cmgi(
    data_dir: str | Path, folds_dir: str | Path, exp_dir: str | Path, config: CmgiTraining, only: Sequence[str] = (),
    max_dropped: float = 0.05,
) -> list[str]:
    """Train the folds in `folds_dir` on data_dir's wav.scp, text, utt2emo and utt2spk; see `run_folds`.

    exp_dir/text: the transcripts, normalised, for WER; foldN/hyp.txt: what was heard on the test list, or by another
    recogniser.
    """
    data_dir = Path(data_dir)
    config = _from_everywhere(config)
    vocabulary, shortest, new_head = ENGLISH, WINDOW, False
    if config.speech not in ("", LSTM):
        encoder = load_speech(config.speech)
        vocabulary, shortest = encoder.vocabulary or ENGLISH, encoder.num_samples(1)
        new_head = encoder.vocabulary is None and not config.init

    def words(path: str | Path) -> dict[str, str]:
        return {utt: vocabulary.normalise(said) for utt, said in read_table(path).items()}

    text = data_dir / "text"
    reads = config.asr_weight or config.hears or (config.text and config.transcript == "text")
    if reads and not text.exists():
        raise PyserError(f"{text}: missing; the words to learn from are in it")
    transcripts = words(text) if reads else {}
    others = words(config.transcript) if config.text and config.transcript not in ("asr", "text") else None
    if config.asr_weight or config.hears:
        write_table(Path(exp_dir) / "text", transcripts)
    elif others is not None and text.exists():
        write_table(Path(exp_dir) / "text", words(text))
    system = CmgiSystem(config, Waves(data_dir) if config.speech else None, transcripts, others, shortest, new_head)
    return run_folds(system, data_dir, folds_dir, exp_dir, only, max_dropped)


def _from_everywhere(config: CmgiTraining) -> CmgiTraining:
    """With absolute paths: a model is read from other directories than it was trained in."""
    def of(name: str) -> str:
        return name if name in (LSTM, "asr", "text") else absolute(name)

    c = config
    return replace(c, speech=of(c.speech), text=of(c.text), transcript=of(c.transcript), init=of(c.init), lm=of(c.lm),
                   words=of(c.words))
