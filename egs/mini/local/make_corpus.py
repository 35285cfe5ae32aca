#!/usr/bin/env python3
"""Synthesise two small corpora with espeak-ng, in the layouts of the real ones: make_corpus.py OUT_DIR

OUT_DIR/TEDLIUM_release2   talks in NIST sphere with stm transcripts and a dictionary, as TED-LIUM 2
OUT_DIR/IEMOCAP            Session1 … Session5, two speakers each, evaluations and transcriptions, as IEMOCAP

Emotions are pitch, pitch range, rate and loudness, with so much jitter that they overlap; the words say nothing about
them. A finished tree is kept, a half-made one is made again.
"""

from __future__ import annotations

import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from espeak import synthesise
from scipy.signal import resample_poly

from pyser.errors import PyserError
from pyser.lang.lexicon import cmudict, read_lexicon

RATE = 16000
# Talks of each part: espeak-ng voices, none of them in two parts. 25 minutes of training talks, two of dev, three of test.
# (f2, f3, f5, Alicia, victor and sandro breathe differently in every process: corpora would not be repeatable.)
TALKS = {
    "train": ("en-us+m1", "en-us+f1", "en+m3", "en-us+linda", "en-us+m4", "en+steph", "en-us+m5", "en-us+f4", "en+m6",
              "en-us+Annie", "en+m7", "en+aunty"),
    "dev": ("en-us+m2", "en+Andrea"),
    "test": ("en-us+travis", "en-us+belinda", "en+m8"),
}
WOMEN = {"f1", "f4", "linda", "steph", "steph2", "steph3", "Annie", "aunty", "Andrea", "belinda"}
SEGMENTS = {"train": 36, "dev": 18, "test": 18}  # in a talk
ACTORS = {  # a woman and a man in each session
    1: {"F": "en-us+steph2", "M": "en-us+max"}, 2: {"F": "en+belinda", "M": "en-us+miguel"},
    3: {"F": "en+f1", "M": "en+john"}, 4: {"F": "en-us+steph3", "M": "en-us+Marco"}, 5: {"F": "en+Annie", "M": "en+norbert"},
}


@dataclass(frozen=True)
class Manner:
    """pitch: espeak-ng's 0-99; pitch_range: % of the voice's own; rate: words a minute; loudness: RMS."""

    pitch: float
    pitch_range: float
    rate: float
    loudness: float

    def varied(self, random: np.random.Generator, much: float = 1.0) -> Manner:
        """A neighbour: standard deviations of 6 in pitch, 22 in range, 11 in rate, 2.2 dB in loudness."""
        pitch, spread, rate, loudness = much * random.standard_normal(4)
        return Manner(float(np.clip(self.pitch + 6 * pitch, 5, 95)), max(20.0, self.pitch_range + 22 * spread),
                      float(np.clip(self.rate + 11 * rate, 100, 230)), self.loudness * float(np.exp(0.25 * loudness)))


NEUTRAL = Manner(42, 90, 158, 0.030)
EMOTIONS = {
    "ang": Manner(52, 135, 190, 0.058), "hap": Manner(66, 170, 172, 0.042), "neu": NEUTRAL, "sad": Manner(30, 50, 128, 0.019),
}
NAMES = {"ang": "Anger", "hap": "Happiness", "exc": "Excited", "neu": "Neutral state", "sad": "Sadness"}
SCORES = {"ang": (1.9, 3.8, 3.9), "hap": (4.0, 3.5, 3.2), "neu": (2.9, 2.6, 2.8), "sad": (2.2, 2.1, 2.3)}  # V, A, D

WHO = """the teacher|my brother|the doctor|our neighbor|the driver|her sister|the farmer|a young student|the captain|
his father|the writer|an old friend|the manager|your cousin|the waiter|a little boy|the engineer|their mother|the singer|
a police officer|the nurse|the baker|that woman|this man|the painter|the judge|the children|two people|everybody|nobody"""
DOES = """opened|closed|found|lost|carried|painted|sold|bought|moved|cleaned|broke|fixed|watched|forgot|brought|counted|
described|finished|covered|borrowed|remembered|changed|ordered|answered|noticed|picked up|asked about|talked about|
looked at|walked around"""
WHAT = """the window|a letter|the garden|his coat|the table|an apple|the kitchen door|a heavy box|the yellow car|
some bread|the broken clock|a paper bag|the green bottle|her book|the machine|a new computer|the river|seven chairs|
the small boat|a piece of cheese|the picture|an empty glass|the blue bicycle|their house|a warm blanket|the old bridge|
three oranges|the radio|a silver ring|the answer|the whole story|a question|the telephone|some water|the basket"""
WHERE = """in the city|on the train|near the station|behind the church|at the market|under the tree|in the office|
by the lake|across the street|at the hospital|in front of the school|on the island|beside the fire|at home|
in another country|on the hill|inside the museum|next to the bank|over there|in the dark"""
WHEN = """this morning|last night|on monday|after dinner|before the meeting|in the summer|every evening|at noon|
two weeks ago|a long time ago|in december|on a rainy day|yesterday|again|for the first time|as usual|at ten o'clock|
during the winter|very early|without any help"""
GRAMMAR = ("{who} {does} {what} {where}", "{when} {who} {does} {what}", "{who} {does} {what} {when}",
           "i think {who} {does} {what} {where}", "we know that {who} {does} {what}", "{who} and {who} {does} {what} {when}",
           "{when} {who} {does} {what} {where}", "do you believe that {who} {does} {what} {when}")
SLOTS = {name: [" ".join(one.split()) for one in text.split("|")]
         for name, text in (("who", WHO), ("does", DOES), ("what", WHAT), ("where", WHERE), ("when", WHEN))}


def sentence(random: np.random.Generator) -> str:
    """Lower-case words of one sentence."""
    words = str(random.choice(GRAMMAR))
    while "{" in words:
        name = words[words.index("{") + 1 : words.index("}")]
        words = words.replace("{" + name + "}", str(random.choice(SLOTS[name])), 1)
    return words


def speak(voice: str, text: str, manner: Manner) -> np.ndarray:
    """Samples (T,) at 16 kHz, about manner.loudness RMS, in [-1, 1]."""
    samples, rate = synthesise(voice, f"{text}.", manner.pitch, manner.pitch_range, manner.rate)
    loud = np.flatnonzero(np.abs(samples) > 0.005)
    samples = resample_poly(samples[loud[0] : loud[-1] + 1], RATE, rate)
    samples *= manner.loudness / np.sqrt(np.mean(samples**2))
    return limited(samples)


def limited(samples: np.ndarray) -> np.ndarray:
    """Peaks bent below 0.9: clipping would itself mark the loud emotions."""
    return 0.9 * np.tanh(samples / 0.9)


def pause(seconds: float, random: np.random.Generator) -> np.ndarray:
    """A quiet room."""
    return 0.0002 * random.standard_normal(int(RATE * seconds))


def stm_line(talk: str, start: float, end: float, words: str, gender: str) -> str:
    """A line of TED-LIUM 2's stm files."""
    if words == "ignore_time_segment_in_scoring":
        return f"{talk} 1 inter_segment_gap {start:.2f} {end:.2f} <o,,unknown> {words}\n"
    return f"{talk} 1 {talk} {start:.2f} {end:.2f} <o,f0,{gender}> {words}\n"


def make_talk(folder: Path, part: str, number: int) -> None:
    """<part>/sph/<talk>.sph and <part>/stm/<talk>.stm."""
    random, voice = np.random.default_rng([number, len(part)]), TALKS[part][number]
    talk, gender = f"{part.capitalize()}Speaker{number + 1:02d}_2026", "female" if voice.split("+")[1] in WOMEN else "male"
    usual = NEUTRAL.varied(random, 1.5)
    samples, lines, clock = [pause(0.5, random)], [], 0.5
    for segment in range(SEGMENTS[part]):
        words = sentence(random)
        # (TED-LIUM writes suffixes apart: o 'clock)
        spoken = np.concatenate([pause(0.15, random), speak(voice, words, usual.varied(random, 2)), pause(0.15, random)])
        end = clock + len(spoken) / RATE
        lines.append(stm_line(talk, clock, end, words.replace("o'clock", "o 'clock"), gender))
        gap = float(random.uniform(0.1, 0.6))
        if segment % 12 == 11:
            lines.append(stm_line(talk, end, end + gap, "ignore_time_segment_in_scoring", gender))
        samples += [spoken, pause(gap, random)]
        clock = end + len(samples[-1]) / RATE
    audio = np.concatenate(samples)
    audio += 0.0002 * random.standard_normal(len(audio))
    soundfile.write(folder / part / "sph" / f"{talk}.sph", audio, RATE, format="NIST", subtype="PCM_16")
    (folder / part / "stm" / f"{talk}.stm").write_text("".join(lines))


def dictionary() -> str:
    """Lines of a TEDLIUM.152k.dic: the grammar's words with CMUdict's pronunciations, variants as word(2)."""
    spoken = {word for phrases in (*SLOTS.values(), GRAMMAR) for phrase in phrases for word in phrase.split()}
    lexicon, lines = read_lexicon(cmudict()), []
    for word in sorted(word for word in spoken if "{" not in word):
        for number, phones in enumerate(lexicon[word], start=1):
            lines.append(f"{word}{f'({number})' if number > 1 else ''} {' '.join(phones)}\n")
    return "".join(lines)


def evaluation_block(utt: str, start: float, end: float, category: str, scores: Iterable[float]) -> str:
    """The summary line of IEMOCAP's EmoEvaluation files and some annotators' lines below it."""
    valence, activation, dominance = scores
    name = NAMES.get(category, "Other")
    return (f"[{start:.4f} - {end:.4f}]\t{utt}\t{category}\t[{valence:.4f}, {activation:.4f}, {dominance:.4f}]\n"
            f"C-E2:\t{name};\t()\nC-E4:\t{name};\t()\n"
            f"A-E3:\tval {valence:.0f}; act {activation:.0f}; dom  {dominance:.0f};\t()\n\n")


def make_dialog(folder: Path, session: int, dialog: str, seed: int) -> None:
    """Wavs, evaluation and transcription of one dialog: five utterances of each emotion and speaker, and one of no
    agreement (xxx)."""
    random, root = np.random.default_rng(seed), folder / f"Session{session}"
    (root / "sentences/wav" / dialog).mkdir(parents=True)
    evaluation, transcription, clock = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"], [], 1.0
    voice_of = {speaker: NEUTRAL.varied(random) for speaker in "FM"}
    turns = [(speaker, emotion) for speaker in "FM" for emotion in [*EMOTIONS] * 5 + ["xxx"]]
    count = {"F": 0, "M": 0}
    for turn in random.permutation(len(turns)):
        speaker, emotion = turns[turn]
        utt, words = f"{dialog}_{speaker}{count[speaker]:03d}", sentence(random)
        count[speaker] += 1
        own, manner = voice_of[speaker], EMOTIONS.get(emotion, NEUTRAL).varied(random)
        manner = Manner(manner.pitch + own.pitch - NEUTRAL.pitch, manner.pitch_range, manner.rate, manner.loudness)
        samples = speak(ACTORS[session][speaker], words, manner)
        samples = np.concatenate([pause(0.2, random), samples, pause(0.2, random)])
        soundfile.write(root / "sentences/wav" / dialog / f"{utt}.wav", samples, RATE, subtype="PCM_16")
        end = clock + len(samples) / RATE
        category = "exc" if emotion == "hap" and random.random() < 0.5 else emotion
        scores = np.clip(np.array(SCORES.get(emotion, (3, 3, 3))) + 0.4 * random.standard_normal(3), 1, 5)
        evaluation.append(evaluation_block(utt, clock, end, category, scores))
        transcription.append(f"{utt} [{clock:08.4f}-{end:08.4f}]: {words.capitalize()}.\n")
        clock = end + 0.3
    (root / "dialog/EmoEvaluation" / f"{dialog}.txt").write_text("".join(evaluation))
    (root / "dialog/transcriptions" / f"{dialog}.txt").write_text("".join(transcription))


def make_tedlium(folder: Path) -> list[Callable[[], None]]:
    for part in TALKS:
        for kind in ("sph", "stm"):
            (folder / part / kind).mkdir(parents=True)
    (folder / "TEDLIUM.152k.dic").write_text(dictionary())
    return [partial(make_talk, folder, part, number) for part in TALKS for number in range(len(TALKS[part]))]


def make_iemocap(folder: Path) -> list[Callable[[], None]]:
    jobs: list[Callable[[], None]] = []
    for session in ACTORS:
        for kind in ("EmoEvaluation", "transcriptions"):
            (folder / f"Session{session}" / "dialog" / kind).mkdir(parents=True)
        (folder / f"Session{session}" / "dialog/EmoEvaluation/._Ses01F_impro01.txt").write_bytes(b"\0\5\26\7")  # a Mac's
        for seed, dialog in enumerate((f"Ses{session:02d}F_impro01", f"Ses{session:02d}M_script01_1")):
            jobs.append(partial(make_dialog, folder, session, dialog, 10 * session + seed))
    return jobs


def make_tree(out: Path, name: str, maker: Callable[[Path], list[Callable[[], None]]]) -> None:
    """Make out/name whole, unless this very program has made it before."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    stamp, done = str(zlib.crc32(code)), out / name / ".made_by"
    if done.exists() and done.read_text() == stamp:
        print(f"  already made: {out / name}", flush=True)
        return
    if (out / name).exists() and not done.exists():  # it may be the real corpus
        raise PyserError(f"{out / name} was not made by this program and is left alone; give another OUT_DIR")
    unfinished, start = out / f".{name}.partial", time.monotonic()
    shutil.rmtree(unfinished, ignore_errors=True)
    jobs = maker(unfinished)
    clock = start
    for number, job in enumerate(jobs, start=1):
        job()
        if time.monotonic() - clock > 5:
            clock = time.monotonic()
            print(f"  {name}: {number} of {len(jobs)} talks or dialogs", flush=True)
    (unfinished / ".made_by").write_text(stamp)
    shutil.rmtree(out / name, ignore_errors=True)
    unfinished.rename(out / name)
    seconds = sum(soundfile.info(str(path)).duration for path in (out / name).rglob("*") if path.suffix in (".sph", ".wav"))
    print(f"  {name}: {seconds / 60:.1f} minutes of synthetic speech in {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: make_corpus.py OUT_DIR")
    out = Path(sys.argv[1])
    try:
        out.mkdir(parents=True, exist_ok=True)
        make_tree(out, "TEDLIUM_release2", make_tedlium)
        make_tree(out, "IEMOCAP", make_iemocap)
    except (PyserError, OSError) as error:
        sys.exit(f"make_corpus.py: {error}")


if __name__ == "__main__":
    main()
