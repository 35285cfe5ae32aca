"""LibriSpeech and Mini LibriSpeech: a Kaldi data directory for each of their parts that is there, with Kaldi's ids:
lbi-reader-chapter-number, a chapter being a speaker, as in egs/librispeech/s5/local/data_prep.sh. The same recordings and
words as Lhotse's recipe reads, which passes over missing audio and names no line that it cannot read."""

from __future__ import annotations

from pathlib import Path

from pyser.corpora.corpus import Utterance, existing, manifests, present, save
from pyser.errors import Dropped, PyserError
from pyser.files import read_lines

SIZES = {"dev-clean": 2703, "dev-other": 2864, "test-clean": 2620, "test-other": 2939, "train-clean-100": 28539,
         "train-clean-360": 104014, "train-other-500": 148688}
PARTS = (*SIZES, "dev-clean-2", "train-clean-5")  # (of Mini LibriSpeech's we know no count for certain)
ABOUT = ("LibriSpeech: CC BY 4.0. Cite: V. Panayotov, G. Chen, D. Povey and S. Khudanpur, Librispeech: an ASR corpus based "
         "on public domain audio books, ICASSP 2015.")


def prepare_librispeech(corpus_dir: str | Path, data_dir: str | Path, max_dropped: float = 0.05) -> str:
    """Write data_dir/{train_clean_100,dev_clean,…} and data_dir/manifests; return the closing lines."""
    root = existing(corpus_dir, "LibriSpeech, with SPEAKERS.TXT, dev-clean …")
    root = root / "LibriSpeech" if (root / "LibriSpeech").is_dir() else root
    parts = [part for part in PARTS if (root / part).is_dir()]
    if not parts:
        raise PyserError(f"{root}: none of {', '.join(PARTS)} is in it; give the folder LibriSpeech")
    genders = _genders(root / "SPEAKERS.TXT")
    closing = [ABOUT]
    for part in parts:
        utterances = _utterances(root / part, genders)
        dropped = Dropped(f"corpus librispeech {part}", max_dropped)
        recordings, supervisions = manifests(f"librispeech {part}", utterances, dropped)
        if len(utterances) != SIZES.get(part, len(utterances)):
            closing.append(f"librispeech: NOT the full corpus: {len(utterances)} of {SIZES[part]} utterances of {part}")
        closing.append(dropped.finish(len(utterances)))
        name = part.replace("-", "_")
        save(name, recordings, supervisions, data_dir)
        chapters = len({one.speaker for one in supervisions})
        closing.append(f"{Path(data_dir) / name}: {len(supervisions)} utterances, {chapters} chapters")
    return "\n".join(closing)


def _genders(path: Path) -> dict[str, str]:
    """Reader -> m or f, of the lines `14 | F | train-clean-360 | 25.03 | name`."""
    lines = [[word.strip() for word in line.split("|")] for line in read_lines(path) if not line.startswith(";")]
    return {line[0]: line[1].lower() for line in lines if len(line) > 1 and line[1] in ("F", "M")}


def _utterances(folder: Path, genders: dict[str, str]) -> list[Utterance]:
    """The utterances that the chapters' *.trans.txt name, `103-1240-0000 CHAPTER ONE …`."""
    utterances = []
    for path in sorted(folder.glob("*/*/*.trans.txt")):
        if path.name.startswith("._"):
            continue
        reader, chapter = path.parts[-3:-1]
        if reader not in genders:
            raise PyserError(f"{path}: reader {reader} is not in SPEAKERS.TXT; copy the corpus whole")
        for number, line in enumerate(read_lines(path), start=1):
            utt, _, text = line.partition(" ")
            if not utt.startswith(f"{reader}-{chapter}-") or not text.strip():
                raise PyserError(f"{path}:{number}: expected '{reader}-{chapter}-0000 WORDS'; mend the line")
            audio = present(path.with_name(f"{utt}.flac"))
            utterances.append(Utterance(f"lbi-{utt}", audio, f"lbi-{reader}-{chapter}", genders[reader], text.strip()))
    if not utterances:
        raise PyserError(f"{folder}: no <reader>/<chapter>/*.trans.txt in it; copy the corpus whole")
    return utterances
