#!/usr/bin/env python3
"""Make a tree in TED-LIUM 2's layout of transcribed speech, to try the recipe without the corpus:
make_tree.py --train DIR --dev DIR --test DIR OUT

The three are Kaldi data directories with a file for each utterance. A talk of OUT/{train,dev,test}/{sph,stm} is what a
speaker says there, up to ten minutes of it, with silence between; OUT/TEDLIUM.152k.dic is CMUdict, OUT/LM/*.en.gz are the
distinct sentences of the training talks. Texts are written as in the release, suffixes apart (they 're).
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from pyser.errors import PyserError
from pyser.kaldi.datadir import read_dir
from pyser.lang.lexicon import cmudict, read_lexicon

RATE, FRAME = 16000, 160  # stm files have hundredths of a second
MAX_TALK = 600  # seconds
IGNORED = "ignore_time_segment_in_scoring"
GENDERS = {"m": "male", "f": "female"}


@dataclass(frozen=True)
class Utterance:
    """path : of its audio. gender : male, female or unknown. words : in lower case, suffixes apart."""

    path: Path
    speaker: str
    gender: str
    words: str


def utterances(directory: Path) -> list[Utterance]:
    """Of a data directory, sorted by speaker; paths in wav.scp may be relative to it or to its parent."""
    lists = read_dir(directory)
    if "segments" in lists or "text" not in lists:
        raise PyserError(f"{directory}: it needs text, and a file for each utterance instead of segments")
    found = []
    for utt, text in lists["text"].items():
        entry = lists["wav.scp"].get(utt, "")
        path = next((path for path in (Path(entry), directory / entry, directory.parent / entry) if path.is_file()), None)
        if path is None:
            raise PyserError(f"{directory}/wav.scp: {utt}: no file '{entry}'; it must be a path, not a command")
        speaker = lists["utt2spk"][utt]
        gender = GENDERS.get(lists.get("spk2gender", {}).get(speaker, ""), "unknown")
        found.append(Utterance(path, speaker, gender, apart(text)))
    return sorted(found, key=lambda one: one.speaker)  # (stable)


def apart(text: str) -> str:
    """THEY'RE THE BOYS' -> they 're the boys '"""
    return re.sub(r"(?<=\w)'(?=\w*(?: |$))", " '", " ".join(text.lower().split()))


def talks(found: list[Utterance]) -> Iterator[tuple[str, list[tuple[Utterance, np.ndarray]]]]:
    """(name, its utterances and their samples in [-1, 1])."""
    spoken: list[tuple[Utterance, np.ndarray]] = []
    number = length = 0
    for one, following in zip(found, [*found[1:], None], strict=True):
        samples, rate = soundfile.read(one.path, dtype="float32")
        if rate != RATE or samples.ndim > 1:
            raise PyserError(f"{one.path}: {rate} Hz; make it {RATE} Hz, one channel")
        spoken.append((one, samples))
        length += len(samples)
        last = following is None or following.speaker != one.speaker
        if last or length > MAX_TALK * RATE:
            name = re.sub(r"[^A-Za-z0-9]", "", one.speaker.title())
            yield f"{name}_{number + 1:02d}", spoken
            spoken, length, number = [], 0, 0 if last else number + 1


def stm_line(talk: str, start: int, end: int, part: str, one: Utterance | None) -> str:
    """A line of the release: training talks have utterances' names and <sil>, dev talks other labels. start, end : frames of
    10 ms. one : None in a gap."""
    times = f"{start / 100:.2f} {end / 100:.2f}"
    if one is None:
        return f"{talk} 1 inter_segment_gap {times} <o,,unknown> {IGNORED}\n"
    label = f"<F0_{one.gender[0].upper()}>" if part == "dev" else f"<o,f0,{one.gender}>"
    words = f"<sil> {one.words} <sil> ({talk}-{times.replace(' ', '-')})" if part == "train" else one.words
    return f"{talk} 1 {talk} {times} {label} {words}\n"


def write_talk(folder: Path, part: str, talk: str, spoken: list[tuple[Utterance, np.ndarray]]) -> float:
    """folder/sph/<talk>.sph and folder/stm/<talk>.stm; seconds of it. Utterances begin at full frames, unchanged."""
    random = np.random.default_rng(list(talk.encode()))
    audio, lines, clock = [], [], 0

    def silence(samples: int) -> np.ndarray:
        return (0.0002 * random.standard_normal(samples)).astype(np.float32)

    for one, samples in spoken:
        gap, frames = int(random.integers(20, 120)), -(-len(samples) // FRAME)
        audio += [silence(gap * FRAME), samples, silence(frames * FRAME - len(samples))]
        lines.append(stm_line(talk, clock, clock + gap, part, None))
        lines.append(stm_line(talk, clock + gap, clock + gap + frames, part, one))
        clock += gap + frames
    for kind in ("sph", "stm"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "sph" / f"{talk}.sph", np.concatenate(audio), RATE, format="NIST", subtype="PCM_16")
    (folder / "stm" / f"{talk}.stm").write_text("".join(lines))
    return clock / 100


def dictionary() -> str:
    """CMUdict as TEDLIUM.152k.dic has it: lower case, further pronunciations as word(2), marks among the words."""
    lines = ["<s> SIL\n", "</s> SIL\n", "<sil> SIL\n", "<unk> NSN\n"]
    for word, pronunciations in read_lexicon(cmudict()).items():
        for number, phones in enumerate(pronunciations, start=1):
            lines.append(f"{word.lower()}{f'({number})' if number > 1 else ''} {' '.join(phones)}\n")
    return "".join(lines)


def make_tree(sources: dict[str, Path], out: Path) -> None:
    """The whole tree or nothing; a line for each part."""
    if out.exists():
        raise PyserError(f"{out}: is there already; remove it or give another folder")
    unfinished = out.with_name(f".{out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part, directory in sources.items():
        found, names, seconds = utterances(directory), set(), 0.0
        for talk, spoken in talks(found):
            if talk in names:
                raise PyserError(f"{directory}: two speakers are called {talk[:-3]} without signs; rename one")
            names.add(talk)
            seconds += write_talk(unfinished / part, part, talk, spoken)
        print(f"  {part}: {len(names)} talks, {len(found)} utterances, {seconds / 60:.1f} minutes", flush=True)
        if part == "train":
            sentences = list(dict.fromkeys(one.words for one in found))
            (unfinished / "LM").mkdir()
            for number in (0, 1):
                text = "".join(f"{words} </s>\n" for words in sentences[number::2])
                (unfinished / "LM" / f"transcripts-{number + 1}.en.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    (unfinished / "TEDLIUM.152k.dic").write_text(dictionary())
    unfinished.rename(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for part in ("train", "dev", "test"):
        parser.add_argument(f"--{part}", type=Path, required=True, metavar="DIR")
    parser.add_argument("out", type=Path, metavar="OUT")
    given = parser.parse_args()
    try:
        make_tree({part: getattr(given, part) for part in ("train", "dev", "test")}, given.out)
    except (PyserError, OSError, soundfile.SoundFileError) as error:
        sys.exit(f"make_tree.py: {error}")


if __name__ == "__main__":
    main()
