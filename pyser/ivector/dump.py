"""Online i-vectors of a table of features, into another table (online2bin/ivector-extract-online2.cc)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pyser.errors import PyserError
from pyser.ivector.directory import OnlineExtractor, OnlineIvectorConfig
from pyser.ivector.online import SpeakerState, check_feats, extract_batch
from pyser.kaldi.maps import read_map
from pyser.kaldi.tables import MatrixTable, MatrixWriter, VectorTable, read_mats

BATCH_FRAMES = 8192
GPU_BATCH_FRAMES = 1_000_000  # of many speakers, for only these are computed side by side; about 2 GB on the GPU

Extract = Callable[..., list[np.ndarray]]


@dataclass(frozen=True)
class DumpConfig:
    """spk2utt: a file, or an rspecifier of one; a speaker's utterances go on from each other in its order. Without it
    every utterance is alone.

    utts_per_spk_max: speakers are split into pseudo-speakers of so many utterances (modify_speaker_info.sh: training
    sees many short speakers, so that it meets unsure i-vectors too).
    length_tolerance: by how many frames the frame weights may be off before the utterance is left out.
    use_gpu: yes, no or, if there is one, optional or wait.
    """

    spk2utt: str | None = None
    utts_per_spk_max: int | None = None
    frame_weights: str | None = None
    length_tolerance: int = 0
    compress: bool | int = True
    allow_pipes: bool = False
    use_gpu: str = "no"


@dataclass(frozen=True)
class _Utterance:
    key: str
    feats: np.ndarray
    weights: np.ndarray | None
    state: SpeakerState


class _Source:
    """The utterances in the order of extraction, each with its speaker's state; counts those left out, as Kaldi does."""

    def __init__(self, online: OnlineExtractor, rspecifier: str, config: DumpConfig):
        self.online, self.rspecifier, self.config = online, rspecifier, config
        self.weights = VectorTable(config.frame_weights, config.allow_pipes) if config.frame_weights else None
        self.left_out = 0
        self.cut = False  # whether pitch has been left out

    def __iter__(self) -> Iterator[_Utterance]:
        for key, feats, state in self._features():
            try:
                weights = self.weights.get(key) if self.weights is not None else None
                if self.weights is not None and weights is None:
                    self._leave_out(f"{key}: no frame weights in {self.config.frame_weights}; left out")
                    continue
                if weights is not None and abs(len(weights) - len(feats)) > self.config.length_tolerance:
                    self._leave_out(f"{key}: {len(feats)} frames but {len(weights)} frame weights; left out")
                    continue
                checked = check_feats(self.online, feats, weights)
                if checked.shape != feats.shape and not self.cut:
                    self.cut = True
                    print(f"ivector extract: WARNING: {key}: {feats.shape[1]} dimensions, the last 3 taken for pitch and "
                          "left out; so are all others of this kind", file=sys.stderr, flush=True)
                yield _Utterance(key, checked, weights, state)
            except PyserError as error:
                raise PyserError(f"{key}: {error}") from None

    def _features(self) -> Iterator[tuple[str, np.ndarray, SpeakerState]]:
        if self.config.spk2utt is None:
            for key, feats in read_mats(self.rspecifier, self.config.allow_pipes):
                yield key, feats, SpeakerState.new(self.online)
            return
        speakers = read_map(self.config.spk2utt, self.config.allow_pipes)
        table = MatrixTable(self.rspecifier, self.config.allow_pipes)
        for listed in speakers.values():
            utts = listed.split()
            size = self.config.utts_per_spk_max or max(1, len(utts))
            for start in range(0, len(utts), size):
                state = SpeakerState.new(self.online)
                for key in utts[start : start + size]:
                    found = table.get(key)
                    if found is None:
                        self._leave_out(f"{key}: in {self.config.spk2utt} but not in {self.rspecifier}; left out")
                    else:
                        yield key, found, state

    def _leave_out(self, why: str) -> None:
        print(f"ivector extract: WARNING: {why}", file=sys.stderr, flush=True)
        self.left_out += 1


def dump(
    online: OnlineExtractor, feats: str | Path, wspecifier: str, config: OnlineIvectorConfig,
    options: DumpConfig = DumpConfig(),  # noqa: B008 (frozen)
) -> str:
    """Write the i-vectors (rows, S) of the rspecifier `feats` to `wspecifier`; returns the closing line."""
    source = _Source(online, str(feats), options)
    extract, size = _extraction(options.use_gpu)
    frames, waiting, clock = 0, 0, time.monotonic()
    with MatrixWriter(wspecifier, options.compress, allow_pipes=options.allow_pipes) as writer:
        batch: list[_Utterance] = []
        for utterance in source:
            batch.append(utterance)
            waiting += len(utterance.feats)
            if waiting >= size:
                _write(extract, online, batch, writer, config)
                batch, waiting, frames = [], 0, frames + waiting
            if time.monotonic() - clock > 5:
                clock = time.monotonic()
                print(f"ivector extract: {writer.count} utterances", file=sys.stderr, flush=True)
        if batch:
            _write(extract, online, batch, writer, config)
            frames += waiting
        if not writer.count:
            raise PyserError(f"{feats}: no i-vectors estimated, {source.left_out} utterances with errors; check the lists")
    return f"ivector extract: {writer.count} utterances, {source.left_out} with errors, {frames} frames"


def _extraction(use_gpu: str) -> tuple[Extract, int]:
    """What extracts a batch, and of how many frames a batch should be."""
    if use_gpu != "no":  # (torch takes a second to import)
        from pyser.device import choose_device
        from pyser.ivector import batched

        device = choose_device(use_gpu)
        if device.type != "cpu":
            return partial(batched.extract_batch, device=device), GPU_BATCH_FRAMES
    return extract_batch, BATCH_FRAMES


def _write(
    extract: Extract, online: OnlineExtractor, batch: list[_Utterance], writer: MatrixWriter, config: OnlineIvectorConfig
) -> None:
    weights = [one.weights for one in batch if one.weights is not None] or None
    results = extract(online, [one.feats for one in batch], [one.state for one in batch], config, weights)
    for one, rows in zip(batch, results, strict=True):
        writer.write(one.key, rows)
