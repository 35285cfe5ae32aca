"""Lhotse manifests <-> Kaldi data directories, with nothing lost: text, speaker, gender, emotion, segments.

(Lhotse's own export writes utt2gender and its import reads spk2gender; neither knows about emotions.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyser.errors import PyserError
from pyser.kaldi.datadir import Table, read_dir, write_dir
from pyser.kaldi.tables import read_scp
from pyser.kaldi.wav import parse_entry

FRAME_SHIFT = 0.01
CUSTOM = {"utt2emo": "emotion", "utt2avd": "avd", "utt2lang": "lang", "utt2uniq": "uniq"}
GENDERS = {"male": "m", "female": "f", "m": "m", "f": "f", "M": "m", "F": "f", "Male": "m", "Female": "f"}


def recording(path: str | Path, recording_id: str) -> Any:
    """A Lhotse Recording of an audio file, by libsndfile; PyserError when it is missing, empty or not audio."""
    import soundfile
    from lhotse import Recording
    from lhotse.audio import AudioSource

    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, OSError):
        what = "not readable as audio" if Path(path).exists() else "no such audio file"
        raise PyserError(f"{path}: {what}; replace it") from None
    if not info.frames:
        raise PyserError(f"{path}: no samples in it; replace it")
    source = AudioSource(type="file", channels=list(range(info.channels)), source=str(path))
    return Recording(recording_id, [source], info.samplerate, info.frames, info.frames / info.samplerate)


def write_data_dir(recordings: Any, supervisions: Any, directory: str | Path) -> None:
    """A data directory of a Lhotse RecordingSet and SupervisionSet. There is a segments file unless every utterance is
    a whole recording (then recordings are keyed by utterance, as Kaldi wants them)."""
    lists: dict[str, Table] = {"wav.scp": {}, "utt2spk": {}, "utt2dur": {}}
    entries, durations = {}, {}
    for one in recordings:
        entries[one.id] = one.sources[0].source
        durations[one.id] = one.duration
    whole = all(s.start == 0 and abs(s.duration - durations[s.recording_id]) < 0.01 for s in supervisions)
    for one in supervisions:
        speaker = one.speaker or one.id
        values: dict[str, str | None] = {"utt2spk": speaker, "utt2dur": f"{one.duration:.7g}", "text": one.text}
        values |= {name: (one.custom or {}).get(key) for name, key in CUSTOM.items()}
        if whole:
            lists["wav.scp"][one.id] = entries[one.recording_id]
        else:
            lists["wav.scp"][one.recording_id] = entries[one.recording_id]
            values["segments"] = f"{one.recording_id} {one.start:.7g} {one.start + one.duration:.7g}"
        for name, value in values.items():
            if value:
                lists.setdefault(name, {})[one.id] = value
        if one.gender in GENDERS:
            lists.setdefault("spk2gender", {})[speaker] = GENDERS[one.gender]
    if not lists["utt2spk"]:
        raise PyserError(f"{directory}: no utterances to write")
    write_dir(directory, lists)


def read_data_dir(directory: str | Path) -> tuple[Any, Any]:
    """(RecordingSet, SupervisionSet) of a data directory whose wav.scp holds files."""
    from lhotse import RecordingSet, SupervisionSet

    lists = read_dir(directory)
    recordings = {}
    for key, entry in lists["wav.scp"].items():
        source = parse_entry(entry)
        if source is None or (source.speed, source.volume) != (1.0, 1.0):
            raise PyserError(f"{directory}/wav.scp: {key} is a command; manifests hold files")
        recordings[key] = recording(source.path, key)
    supervisions = []
    for utt in lists["utt2spk"]:
        if "segments" in lists:
            name, start, end = lists["segments"][utt].split()
            duration = recordings[name].duration
            first, last = float(start), duration if end == "-1" else min(float(end), duration)
        else:
            name, first, last = utt, 0.0, recordings[utt].duration
        supervisions.append(_supervision(lists, utt, name, first, last - first))
    return RecordingSet.from_recordings(recordings.values()), SupervisionSet.from_segments(supervisions)


def _supervision(lists: dict[str, Table], utt: str, recording_id: str, start: float, duration: float) -> Any:
    from lhotse import SupervisionSegment

    speaker = lists["utt2spk"][utt]
    custom = {key: lists[name][utt] for name, key in CUSTOM.items() if utt in lists.get(name, {})}
    return SupervisionSegment(
        utt, recording_id, start, duration, text=lists.get("text", {}).get(utt), speaker=speaker,
        gender=lists.get("spk2gender", {}).get(speaker), custom=custom or None,
    )


def read_cuts(directory: str | Path, ivector_dir: str | Path | None = None) -> Any:
    """CutSet of a data directory with features: a cut's features are its matrix in feats.scp, its supervision carries
    text, speaker and custom["emotion"], and custom["ivector"] is the rxfilename of its online i-vectors."""
    from lhotse import CutSet, Features, MonoCut

    lists = read_dir(directory)
    for name in ("feats.scp", "utt2num_frames"):
        if name not in lists:
            raise PyserError(f"{Path(directory) / name}: missing; run the features stage")
    ivectors = read_scp(Path(ivector_dir) / "ivector_online.scp") if ivector_dir else {}
    cuts = []
    for utt, rxfilename in lists["feats.scp"].items():
        frames = int(lists["utt2num_frames"][utt])
        duration = round(frames * FRAME_SHIFT, 4)
        if ivector_dir and utt not in ivectors:
            raise PyserError(f"{ivector_dir}/ivector_online.scp: {utt} is missing; extract the i-vectors of {directory}")
        features = Features(
            type="kaldi", num_frames=frames, num_features=0, frame_shift=FRAME_SHIFT, sampling_rate=16000, start=0,
            duration=duration, storage_type="kaldiio", storage_path=rxfilename, storage_key=utt, recording_id=utt,
            channels=0,
        )
        supervision = _supervision(lists, utt, utt, 0.0, duration)
        custom = {"ivector": ivectors[utt]} if ivectors else None
        cuts.append(MonoCut(utt, 0.0, duration, 0, features=features, supervisions=[supervision], custom=custom))
    return CutSet.from_cuts(cuts)
