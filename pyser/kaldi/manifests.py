"""Lhotse manifests <-> Kaldi data directories, with nothing lost: text, speaker, gender, emotion, segments; sox's speed and
volume in wav.scp are Lhotse's transforms.

(Lhotse's own export writes utt2gender and its import reads spk2gender; neither knows about emotions.)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyser.errors import Dropped, PyserError
from pyser.files import atomic
from pyser.kaldi.datadir import Table, read_dir, write_dir
from pyser.kaldi.segments import BadSegment, Segment
from pyser.kaldi.tables import read_scp
from pyser.kaldi.wav import Source, parse_entry

FRAME_SHIFT = 0.01  # seconds
CUSTOM = {"utt2emo": "emotion", "utt2avd": "avd", "utt2uniq": "uniq"}  # list -> key of supervision.custom
GENDERS = {"male": "m", "female": "f", "m": "m", "f": "f"}


def recording(path: str | Path, recording_id: str) -> Any:
    """A Lhotse Recording of an audio file, by libsndfile; PyserError when it is missing, empty or not audio."""
    import soundfile
    from lhotse import Recording
    from lhotse.audio import AudioSource

    try:
        info = soundfile.info(str(path))
    except UnicodeEncodeError:
        raise PyserError(f"{path}: its name is not UTF-8, and a manifest holds only such; rename the file") from None
    except (soundfile.SoundFileError, OSError):
        what = "not readable as audio" if Path(path).exists() else "no such audio file"
        raise PyserError(f"{path}: {what}; replace it") from None
    if not info.frames:
        raise PyserError(f"{path}: no samples in it; replace it")
    source = AudioSource(type="file", channels=list(range(info.channels)), source=str(path))
    return Recording(recording_id, [source], info.samplerate, info.frames, info.frames / info.samplerate)


def write_manifests(recordings: Any, supervisions: Any, folder: str | Path, name: str) -> None:
    """folder/<name>_recordings.jsonl.gz and folder/<name>_supervisions.jsonl.gz."""
    for kind, manifest in (("recordings", recordings), ("supervisions", supervisions)):
        with atomic(Path(folder) / f"{name}_{kind}.jsonl.gz") as temporary:
            manifest.to_file(str(temporary))


def write_data_dir(recordings: Any, supervisions: Any, directory: str | Path) -> None:
    """A data directory of a Lhotse RecordingSet and SupervisionSet.

    There is a segments file unless every utterance is a whole recording (then recordings are keyed by utterance, as
    Kaldi wants them). Utterances that do not begin with their speaker get it in front, for Kaldi's sorting.
    """
    lists: dict[str, Table] = {"wav.scp": {}, "utt2spk": {}, "utt2dur": {}}
    known = {one.id: one for one in recordings}
    segments = list(supervisions)
    for one in segments:
        if one.recording_id not in known:
            raise PyserError(f"{directory}: utterance {one.id}: no recording {one.recording_id} in the manifest")
    whole = all(one.start == 0 and abs(one.duration - known[one.recording_id].duration) < 0.01 and one.channel in (0, [0])
                for one in segments)
    for one in segments:
        entry = _entry(known[one.recording_id])
        speaker = "_".join((one.speaker or one.id).split())
        utt = one.id if one.id.startswith(speaker) else f"{speaker}-{one.id}"
        if utt in lists["utt2spk"]:
            raise PyserError(f"{directory}: two utterances are called {utt}; rename one of them")
        values: dict[str, str | None] = {"utt2spk": speaker, "utt2dur": f"{one.duration:.7g}", "utt2lang": one.language}
        values["text"] = " ".join((one.text or "").split())
        values |= {name: (one.custom or {}).get(key) for name, key in CUSTOM.items()}
        if not whole:
            several = known[one.recording_id].num_channels > 1 and isinstance(one.channel, int)
            values["segments"] = (f"{one.recording_id} {one.start:.7g} {one.start + one.duration:.7g}"
                                  + (f" {one.channel}" if several else ""))
        lists["wav.scp"][utt if whole else one.recording_id] = entry
        for name, value in values.items():
            if value:
                lists.setdefault(name, {})[utt] = str(value)
        if str(one.gender).lower() in GENDERS:
            lists.setdefault("spk2gender", {})[speaker] = GENDERS[str(one.gender).lower()]
    if not segments:
        raise PyserError(f"{directory}: no utterances to write")
    if set(lists.get("spk2gender", {})) != set(lists["utt2spk"].values()):
        lists.pop("spk2gender", None)  # (Kaldi wants all speakers in it, or no such file)
    write_dir(directory, lists)


def _entry(recording: Any) -> str:
    """The wav.scp entry of a Lhotse Recording: one file, perhaps at another speed and volume."""
    source, factors = recording.sources[0], {"Speed": 1.0, "Volume": 1.0}
    known = len(recording.sources) == 1 and source.type == "file"
    for one in recording.transforms or []:
        name, values = (one["name"], one["kwargs"]) if isinstance(one, dict) else (type(one).__name__, vars(one))
        known = known and name in factors
        if known:
            factors[name] *= values["factor"]
    if not known:
        raise PyserError(f"recording {recording.id}: wav.scp holds files, at their own speed and volume or others, not "
                         f"{source.type} sources, several files or Lhotse's other transforms; save its audio first (lhotse: "
                         "save_audios)")
    return Source(str(source.source), round(factors["Speed"], 6), round(factors["Volume"], 6)).entry()


def read_data_dir(directory: str | Path) -> tuple[Any, Any]:
    """(RecordingSet, SupervisionSet) of a data directory whose wav.scp holds files, or sox's forms for their speed and
    volume; only the files' headers are read."""
    lists = read_dir(directory)
    recordings = {}
    for key, entry in lists["wav.scp"].items():
        source = parse_entry(entry)
        if source is None:
            raise PyserError(f"{directory}/wav.scp: {key} is a command, and manifests hold files; write its audio to one, "
                             "and the path of that instead")
        one = recording(source.path, key)
        one = one if source.speed == 1.0 else one.perturb_speed(source.speed, affix_id=False)
        recordings[key] = one if source.volume == 1.0 else one.perturb_volume(source.volume, affix_id=False)
    return manifests(lists, recordings, directory)


def manifests(lists: Mapping[str, Table], recordings: Mapping[str, Any], directory: str | Path) -> tuple[Any, Any]:
    """(RecordingSet, SupervisionSet) of the lists of a data directory and the recordings of its wav.scp. Utterances whose
    segments Kaldi would leave out are left out, each with a warning."""
    from lhotse import RecordingSet, SupervisionSet

    supervisions = []
    dropped = Dropped(f"manifests of {directory}", max_dropped=1.0)
    for utt in lists["utt2spk"]:
        try:
            part = segment(lists, utt, directory)
            if part.recording not in recordings:
                if "segments" not in lists:
                    raise PyserError(f"{directory}/wav.scp: no recording for utterance {utt}")
                raise BadSegment(f"no recording {part.recording} in wav.scp")
            one = recordings[part.recording]
            start, end = part.within(one.num_samples, one.sampling_rate) if "segments" in lists else (0.0, one.duration)
            if part.channel >= one.num_channels:
                raise BadSegment(f"no channel {part.channel} in the {one.num_channels} of {part.recording}")
            supervisions.append(_supervision(lists, utt, part.recording, start, round(end - start, 8), max(part.channel, 0)))
        except BadSegment as error:
            print(f"WARNING: {directory}/segments: {utt}: {error}; left out", file=sys.stderr)
            dropped.add(utt, "with a bad segment")
    dropped.finish(len(lists["utt2spk"]))
    return RecordingSet.from_recordings(recordings.values()), SupervisionSet.from_segments(supervisions)


def segment(lists: Mapping[str, Table], utt: str, directory: str | Path) -> Segment:
    """Where an utterance lies, BadSegment if its line is none; PyserError if there is no line for it."""
    if "segments" not in lists:
        return Segment(utt)
    if utt not in lists["segments"]:
        raise PyserError(f"{directory}/segments: {utt} of utt2spk is missing; mend it with: pyser data fix")
    return Segment.parse(lists["segments"][utt])


def _supervision(
    lists: Mapping[str, Table], utt: str, recording_id: str, start: float, duration: float, channel: int = 0
) -> Any:
    from lhotse import SupervisionSegment

    speaker = lists["utt2spk"][utt]
    custom = {key: lists[name][utt] for name, key in CUSTOM.items() if utt in lists.get(name, {})}
    return SupervisionSegment(
        utt, recording_id, start, duration, channel, text=lists.get("text", {}).get(utt), speaker=speaker,
        gender=lists.get("spk2gender", {}).get(speaker), language=lists.get("utt2lang", {}).get(utt), custom=custom or None,
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
