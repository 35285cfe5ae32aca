"""Any Kaldi data directory with transcripts: checked, its audio paths made absolute, sorted."""

from __future__ import annotations

from pathlib import Path

from pyser.errors import Dropped, PyserError
from pyser.kaldi.datadir import keep, read_dir, write_dir
from pyser.kaldi.manifests import recording
from pyser.kaldi.wav import parse_entry

LISTS = ("wav.scp", "segments", "text", "utt2spk", "spk2gender", "utt2dur", "utt2emo", "utt2lang")


def prepare_kaldi_dir(source: str | Path, target: str | Path, max_dropped: float = 0.05) -> str:
    """Copy `source` to `target`; paths of wav.scp may be relative to `source`, its parent or the working directory.

    Utterances without transcript, speaker or readable audio are dropped and counted.
    """
    source = Path(source)
    lists = {name: table for name, table in read_dir(source).items() if name in LISTS}
    dropped = Dropped(f"data {source}", max_dropped)
    wavs, good = {}, {}
    for key, entry in lists["wav.scp"].items():
        known = parse_entry(entry)
        if known is None or known.path != entry:
            raise PyserError(f"{source}/wav.scp: {key} is a command; give audio files")
        found = [p for p in (Path(entry), source / entry, source.parent / entry) if p.exists()]
        wavs[key] = str((found[0] if found else source / entry).absolute())
        try:
            recording(wavs[key], key)
            good[key] = True
        except PyserError as error:
            print(f"{key}: {error}", flush=True)
    kept = []
    utts = sorted(set(lists["utt2spk"]) | set(lists.get("text", {})) | (set() if "segments" in lists else set(wavs)))
    for utt in utts:
        name = lists["segments"][utt].split()[0] if "segments" in lists and utt in lists["segments"] else utt
        if utt not in lists["utt2spk"]:
            dropped.add(utt, "without speaker in utt2spk")
        elif not lists.get("text", {}).get(utt):
            dropped.add(utt, "without transcript in text")
        elif name not in wavs:
            dropped.add(utt, "without audio in wav.scp")
        elif name not in good:
            dropped.add(utt, "unreadable")
        else:
            kept.append(utt)
    line = dropped.finish(len(utts))
    write_dir(target, keep({**lists, "wav.scp": wavs}, kept))
    return line
