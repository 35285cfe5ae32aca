"""Data directories at other speeds and volumes: wav.scp gets sox's forms, which pyser.kaldi.wav computes itself."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pyser.errors import PyserError
from pyser.kaldi.lists import FEATURE_LISTS, Table, read_dir, words, write_dir
from pyser.kaldi.segments import BadSegment, Segment
from pyser.kaldi.wav import Source, parse_entry


def unperturbed(name: str) -> str:
    """The speaker or utterance that `perturb_speed` named so: spk1 for sp0.9-spk1."""
    return re.sub(r"^sp\d+\.\d+-", "", name)


def perturb_speed(source: str | Path, target: str | Path, factors: Iterable[float]) -> None:
    """Copies of the data at each speed, ids prefixed sp0.9- and so on, as utils/data/perturb_data_dir_speed_3way.sh.

    Adds utt2uniq (perturbed -> original utterance). Factor 1 keeps its ids.
    """
    lists = read_dir(source)
    out: dict[str, Table] = {name: {} for name in lists if name not in FEATURE_LISTS}
    out["utt2uniq"] = {}
    for factor in factors:
        prefix = "" if factor == 1.0 else f"sp{factor:g}-"

        def seconds(value: str, factor: float = factor) -> str:
            return value if factor == 1.0 or value == "-1" else f"{float(value) / factor:.7g}"

        def segment(value: str, prefix: str = prefix, seconds: Callable[[str], str] = seconds) -> str:
            try:
                recording = Segment.parse(value).recording
            except BadSegment as error:
                raise PyserError(f"{source}/segments: {error}; take the line out") from None
            start, end, *channel = words(value)[1:]
            return " ".join([prefix + recording, seconds(start), seconds(end), *channel])

        def wav(value: str, factor: float = factor) -> str:
            known = _source(source, value)
            return Source(known.path, round(known.speed * factor, 6), known.volume).entry()

        rules: dict[str, Callable[[str], str]] = {
            "wav.scp": wav, "segments": segment, "utt2dur": seconds, "reco2dur": seconds,
            "utt2spk": lambda spk, prefix=prefix: prefix + spk,  # type: ignore[misc]
        }
        for name in out:
            if name == "utt2uniq":
                out[name] |= {prefix + utt: lists.get(name, {}).get(utt, utt) for utt in lists["utt2spk"]}
            else:
                rule = rules.get(name, str)
                out[name] |= {prefix + key: rule(value) for key, value in lists[name].items()}
    write_dir(target, out)


def perturb_volume(source: str | Path, target: str | Path, seed: int = 0, low: float = 0.125, high: float = 2.0) -> None:
    """Each recording at a volume drawn from [low, high], as utils/data/perturb_data_dir_volume.sh."""
    lists = read_dir(source)
    draw = random.Random(seed)
    for recording in sorted(lists["wav.scp"], key=str.encode):
        known = _source(source, lists["wav.scp"][recording])
        louder = Source(known.path, known.speed, round(known.volume * draw.uniform(low, high), 4))
        lists["wav.scp"][recording] = louder.entry()
    write_dir(target, {name: table for name, table in lists.items() if name not in FEATURE_LISTS})


def _source(directory: str | Path, entry: str) -> Source:
    known = parse_entry(entry)
    if known is None:
        raise PyserError(f"{directory}/wav.scp: cannot perturb the command '{entry[:60]}'; write its audio to a file")
    return known
