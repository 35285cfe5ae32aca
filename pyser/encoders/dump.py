"""Hidden states, CTC outputs and text features, computed once for every utterance, into Kaldi archives."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pyser.device import choose_device
from pyser.encoders.speech import SpeechEncoder, load_speech
from pyser.encoders.text import batches, load_text
from pyser.encoders.waves import RATE, Waves
from pyser.errors import Dropped, PyserError
from pyser.files import read_json, write_json
from pyser.kaldi.resumable import FRAME_SHIFT, ResumableWriter, describe
from pyser.kaldi.stream import split_offset
from pyser.kaldi.tables import read_table
from pyser.kaldi.wav import parse_entry

GROUP_SECONDS = {"cpu": 60.0, "cuda": 600.0}  # of speech that is written at once
BATCH_SECONDS = {"cpu": 20.0, "cuda": 200.0}  # that is computed at once, padding included
GROUP_SENTENCES = 200
REPORT_SECONDS = 10.0
LOGITS = "logits"


@dataclass(frozen=True)
class Group:
    """outputs : archive -> (utterance, matrix). taken : utterances, those that were dropped (utterance, why) included."""

    outputs: dict[str, list[tuple[str, np.ndarray]]]
    dropped: list[tuple[str, str]]
    taken: int
    seconds: float


def parse_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """`all`, `0,6,12`, or `three`: first, middle and last. 0 is the input of the first transformer layer."""
    if text == "all":
        return tuple(range(num_layers + 1))
    if text == "three":
        return tuple(sorted({0, num_layers // 2, num_layers}))
    layers = [int(part) if part.strip().isdigit() else -1 for part in text.split(",")]
    if not all(0 <= layer <= num_layers for layer in layers):
        raise PyserError(f"--layers {text}: expected all, three or some of 0 (the input of the transformer) to {num_layers}, "
                         "with commas")
    return tuple(sorted(set(layers)))


def dump(
    model: str | Path, data_dir: str | Path, out_dir: str | Path, layers: str = "three", compress: bool = False,
    max_dropped: float = 0.05, use_gpu: str = "no", allow_pipes: bool = False,
) -> str:
    """Write out_dir/layerN.{ark,scp}, hidden states (frames, dim), and out_dir/logits.{ark,scp}, log-probabilities (frames,
    V) of a model with a CTC head, for the utterances of data_dir; returns the closing line.

    compress : the hidden states. A dump that was broken off goes on where it was, with the same bytes in the end. dump.json,
    written last, says of what the archives are: {model, dim, layers, num_layers, frame_shift, …}; what it speaks of is not
    done again, and layers that are asked for later come beside the others. Those of another model are removed.
    Recordings that cannot be read and those too short for a frame are dropped and counted.
    """
    out_dir = Path(out_dir)
    encoder = load_speech(model).to(choose_device(use_gpu))
    chosen = parse_layers(layers, encoder.num_layers)
    waves = Waves(data_dir, allow_pipes)
    inputs = [waves.lists.get(name) for name in ("utt2spk", "segments", "wav.scp")], stamps(waves.lists["wav.scp"].values())
    device = next(encoder.parameters()).device.type
    identity = identity_of(encoder, encoder.config.to_json_string(), encoder.normalise, compress, device, inputs)
    marker = out_dir / "dump.json"
    there = [n for n in _layers_there(marker, identity) if (out_dir / f"layer{n}.scp").exists()]
    names = [f"layer{n}" for n in chosen if n not in there]
    if encoder.vocabulary and not (there and (out_dir / f"{LOGITS}.scp").exists()):
        names.append(LOGITS)
    if not names:
        return f"already done: layers {' '.join(map(str, chosen))} of {data_dir} in {out_dir}"
    dropped = Dropped(f"{', '.join(names)} of {data_dir}", max_dropped)
    if not there:
        marker.unlink(missing_ok=True)
        for old in out_dir.glob("layer*.scp"):
            if old.stem not in names:
                old.unlink()
                old.with_suffix(".ark").unlink(missing_ok=True)
    reported = time.monotonic()
    with ExitStack() as stack:
        writers = {name: stack.enter_context(ResumableWriter(
            out_dir / f"{name}.ark", out_dir / f"{name}.scp", compress and name != LOGITS, identity, len(waves)))
            for name in names}
        place = min(writer.position for writer in writers.values())  # (broken off between two, one is a group ahead)
        for group in groups(encoder, waves, waves.utterances[place:], [n for n in chosen if n not in there]):
            place += group.taken
            for name, writer in writers.items():
                if writer.position < place:
                    writer.write(group.outputs[name], group.taken, round(group.seconds / FRAME_SHIFT), group.dropped)
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                state = writers[names[0]].state
                print(describe(state["position"], state["total"], state["frames"], state["seconds"]), flush=True)
        for utt, reason in writers[names[0]].dropped:
            dropped.add(utt, reason)
        line = dropped.finish(len(waves))
    write_json(marker, {"identity": identity, "model": str(model), "data": str(data_dir), "dim": encoder.dim,
                        "layers": sorted({*chosen, *there}), "num_layers": encoder.num_layers,
                        "frame_shift": encoder.frame_shift, "utterances": len(waves)})
    return line


def groups(encoder: SpeechEncoder, waves: Waves, utterances: Sequence[str], layers: Sequence[int]) -> Iterator[Group]:
    """Outputs of the utterances. Where a group ends depends on them alone, so a run that begins at the end of one makes the
    same groups, and the same numbers to the last bit."""
    device = next(encoder.parameters()).device.type
    waiting: list[tuple[str, np.ndarray]] = []
    dropped: list[tuple[str, str]] = []
    seconds = 0.0
    for number, utt in enumerate(utterances, start=1):
        try:
            wave = waves[utt]
            if encoder.num_frames(len(wave)):
                waiting.append((utt, wave))
                seconds += len(wave) / RATE
            else:
                dropped.append((utt, "too short for a frame"))
        except PyserError as error:
            print(error, flush=True)
            dropped.append((utt, "unreadable"))
        if seconds >= GROUP_SECONDS[device] or number == len(utterances):
            outputs = _outputs(encoder, waiting, layers, round(BATCH_SECONDS[device] * RATE))
            yield Group(outputs, dropped, len(waiting) + len(dropped), seconds)
            waiting, dropped, seconds = [], [], 0.0


@torch.no_grad()
def _outputs(
    encoder: SpeechEncoder, waiting: Sequence[tuple[str, np.ndarray]], layers: Sequence[int], most: int
) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Archive -> (utterance, matrix), in batches of at most so many samples."""
    found: dict[str, dict[int, np.ndarray]] = {**{f"layer{n}": {} for n in layers}, LOGITS: {}}
    for batch in batches([len(wave) for _, wave in waiting], most):
        output = encoder([waiting[i][1] for i in batch])
        outputs = {f"layer{n}": output.hidden[n] for n in layers}
        if output.logits is not None:
            outputs[LOGITS] = output.logits.float().log_softmax(dim=-1)
        for name, values in outputs.items():
            matrices = values.float().cpu().numpy()
            for row, i in enumerate(batch):
                found[name][i] = matrices[row, : int(output.lengths[row])]
    return {name: [(waiting[i][0], matrices[i]) for i in sorted(matrices)] for name, matrices in found.items()}


def dump_text(model: str | Path, text: str | Path, ark: str | Path, scp: str | Path, use_gpu: str = "no") -> str:
    """Write TextEncoder.features of the lines `utterance words` of a file; returns the closing line. A dump that was broken
    off goes on where it was."""
    encoder = load_text(model, use_gpu)
    sentences = read_table(text)
    if not sentences:
        raise PyserError(f"{text}: holds no utterances; run the stage that writes it")
    utts = list(sentences)
    tokens = [encoder.tokens(sentences[utt]) for utt in utts]
    cut = sum(len(ids) == encoder.max_tokens for ids in tokens)
    identity = identity_of(encoder.model, use_gpu, utts, tokens)
    with ResumableWriter(ark, scp, False, identity, len(utts)) as writer:
        for start in range(writer.position, len(utts), GROUP_SENTENCES):
            some = utts[start : start + GROUP_SENTENCES]
            features = encoder.features([sentences[utt] for utt in some])
            writer.write(list(zip(some, features, strict=True)), len(some), 0)
    long = f", {cut} as long as the model takes, {encoder.max_tokens} tokens: more is cut off" if cut else ""
    return f"text features of {text}: {len(utts)} utterances, {sum(map(len, tokens))} tokens, {encoder.dim} columns{long}"


def identity_of(model: nn.Module, *others: Any) -> str:
    """What tells the outputs of a model, for such options and inputs, from others."""
    digest = hashlib.sha256(repr(others).encode(errors="surrogateescape"))
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def stamps(entries: Iterable[str]) -> list[tuple[int, int] | None]:
    """Size and age of the files in wav.scp, None of those that are not there: when they come, a dump begins anew."""
    found: list[tuple[int, int] | None] = []
    for entry in entries:
        source = parse_entry(entry)
        try:
            stat = os.stat(split_offset(source.path)[0]) if source else None
        except OSError:
            stat = None
        found.append((stat.st_size, stat.st_mtime_ns) if stat else None)
    return found


def _layers_there(marker: Path, identity: str) -> list[int]:
    """Those of the dump that `marker` speaks of, if it is this one."""
    try:
        said = read_json(marker)
        return [int(n) for n in said["layers"]] if said["identity"] == identity else []
    except (PyserError, KeyError):
        return []
