"""Corpora of seconds for the end-to-end test: buzz and hiss through two formants for a phone, emotion in the pitch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import lfilter

RATE = 16000
FORMANTS = {"AA": (750, 1200), "IY": (300, 2300), "UW": (350, 800), "M": (250, 1100), "S": (4500, 6500)}
LEXICON = {"SEE": "S IY", "MOO": "M UW", "AM": "AA M", "SUE": "S UW", "ME": "M IY", "SAW": "S AA", "MOM": "M AA M"}
PITCH = {"ang": 260.0, "hap": 200.0, "neu": 140.0, "sad": 90.0}


def speak(words: list[str], pitch: float, random: np.random.Generator) -> np.ndarray:
    """Samples of `words` with the fundamental `pitch` Hz, a little silence around."""
    parts = [0.001 * random.standard_normal(1600)]
    for word in words:
        for phone in LEXICON[word].split():
            length = int(RATE * random.uniform(0.09, 0.14))
            phase = np.cumsum(np.full(length, pitch * random.uniform(0.97, 1.03) / RATE))
            source = random.standard_normal(length) * 0.3 if phone == "S" else np.diff(np.floor(phase), prepend=0)
            out = np.zeros(length)
            for frequency in FORMANTS[phone]:
                radius, angle = 0.97, 2 * np.pi * frequency / RATE
                out += lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], source)
            parts.append(out * np.hanning(length) ** 0.3)
        parts.append(0.001 * random.standard_normal(800))
    samples = np.concatenate(parts)
    return 0.3 * samples / np.abs(samples).max() + 0.001 * random.standard_normal(len(samples))


def make_data_dir(path: Path, speakers: int, utts: int, seed: int) -> Path:
    """A Kaldi data directory with audio; the lexicon lies beside it as lexicon.txt."""
    random = np.random.default_rng(seed)
    (path / "wav").mkdir(parents=True)
    lists: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
    for speaker in range(speakers):
        base = random.uniform(90, 260)
        for number in range(utts):
            utt = f"s{seed}{speaker}-u{number:02d}"
            words = list(random.choice(list(LEXICON), random.integers(3, 6)))
            soundfile.write(path / "wav" / f"{utt}.wav", speak(words, base, random), RATE)
            lists["wav.scp"].append(f"{utt} wav/{utt}.wav")
            lists["text"].append(f"{utt} {' '.join(words)}")
            lists["utt2spk"].append(f"{utt} s{seed}{speaker}")
    for name, lines in lists.items():
        (path / name).write_text("\n".join(lines) + "\n")
    (path.parent / "lexicon.txt").write_text("".join(f"{word} {phones}\n" for word, phones in sorted(LEXICON.items())))
    return path


def make_iemocap(path: Path, seed: int = 5) -> Path:
    """IEMOCAP's tree: five sessions, a woman and a man each, two utterances of each of four emotions a speaker."""
    random = np.random.default_rng(seed)
    for session in range(1, 6):
        root, dialog = path / f"Session{session}", f"Ses{session:02d}F_impro01"
        for folder in ("dialog/EmoEvaluation", "dialog/transcriptions", f"sentences/wav/{dialog}"):
            (root / folder).mkdir(parents=True)
        summary, transcript, clock = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"], [], 0.0
        for speaker in "FM":
            for number in range(8):
                emotion = list(PITCH)[number % 4]
                utt = f"{dialog}_{speaker}{number:03d}"
                words = list(random.choice(list(LEXICON), 4))
                pitch = PITCH[emotion] * (1.1 if speaker == "F" else 0.9) * random.uniform(0.95, 1.05)
                samples = speak(words, pitch, random)
                soundfile.write(root / f"sentences/wav/{dialog}/{utt}.wav", samples, RATE)
                end = clock + len(samples) / RATE
                summary.append(f"[{clock:.4f} - {end:.4f}]\t{utt}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n")
                transcript.append(f"{utt} [{clock:08.4f}-{end:08.4f}]: {' '.join(words).capitalize()}.\n")
                clock = end
        (root / f"dialog/EmoEvaluation/{dialog}.txt").write_text("\n".join(summary))
        (root / f"dialog/transcriptions/{dialog}.txt").write_text("".join(transcript))
    return path
