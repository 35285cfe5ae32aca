"""Kaldi data directories: checked, copied, split and perturbed, with every per-utterance list carried along.

A list is a file whose lines begin with an utterance (or, for wav.scp and spk2*, a recording or speaker) and a space.
All are sorted by bytes, as `LC_ALL=C sort` does.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pyser.errors import Dropped, PyserError
from pyser.files import read_lines, write_text
from pyser.kaldi.tables import load_matrix, read_scp, read_table
from pyser.kaldi.wav import Source, parse_entry

UTTERANCE_LISTS = (  # keyed by utterance; utt2emo and its kin are pyser's own, Kaldi leaves them alone
    "text", "utt2spk", "segments", "utt2dur", "utt2emo", "utt2avd", "utt2uniq", "utt2lang", "feats.scp", "utt2num_frames",
)
FEATURE_LISTS = ("feats.scp", "utt2num_frames", "cmvn.scp")

Table = dict[str, str]


def write_table(path: str | Path, table: Table) -> None:
    """Write `key value` lines sorted by bytes, whole or not at all."""
    lines = [f"{key} {table[key]}".rstrip() + "\n" for key in sorted(table, key=str.encode)]
    write_text(path, "".join(lines))


def read_dir(directory: str | Path) -> dict[str, Table]:
    """File name -> table, of all the lists that are there; PyserError without wav.scp and utt2spk."""
    directory = Path(directory)
    if not directory.is_dir():
        raise PyserError(f"{directory}: no such data directory; run the prepare stage first")
    names = ("wav.scp", *UTTERANCE_LISTS, "spk2gender", "cmvn.scp", "reco2dur")
    lists = {name: read_table(directory / name) for name in names if (directory / name).exists()}
    for name in ("wav.scp", "utt2spk"):
        if not lists.get(name):
            raise PyserError(f"{directory / name}: missing or empty; run the prepare stage again")
    return lists


def write_dir(directory: str | Path, lists: dict[str, Table]) -> None:
    """Write the lists and spk2utt; lists that are not in `lists` are removed from `directory`."""
    directory = Path(directory)
    for name in (*UTTERANCE_LISTS, "spk2gender", "cmvn.scp", "reco2dur"):
        if not lists.get(name):
            (directory / name).unlink(missing_ok=True)
    for name, table in lists.items():
        if table and name != "wav.scp":
            write_table(directory / name, table)
    spk2utt: dict[str, list[str]] = {}
    for utt in sorted(lists["utt2spk"], key=str.encode):
        spk2utt.setdefault(lists["utt2spk"][utt], []).append(utt)
    write_table(directory / "spk2utt", {spk: " ".join(utts) for spk, utts in spk2utt.items()})
    write_table(directory / "wav.scp", lists["wav.scp"])  # last: a directory with wav.scp is a whole one


def keep(lists: dict[str, Table], utts: Iterable[str]) -> dict[str, Table]:
    """Only `utts`, and only the recordings and speakers that they need."""
    wanted = set(utts)
    segments = lists.get("segments")
    recordings = {segments[u].split()[0] for u in wanted if u in segments} if segments else wanted
    speakers = {lists["utt2spk"][u] for u in wanted if u in lists["utt2spk"]}
    wanted_keys = {"wav.scp": recordings, "reco2dur": recordings, "spk2gender": speakers, "cmvn.scp": speakers}
    return {
        name: {key: value for key, value in table.items() if key in wanted_keys.get(name, wanted)}
        for name, table in lists.items()
    }


def validate(directory: str | Path, need_text: bool = False, need_feats: bool = False) -> str:
    """Check `directory` as utils/validate_data_dir.sh does; return a line that says what is there, or raise PyserError."""
    directory = Path(directory)
    lists = read_dir(directory)
    utts = set(lists["utt2spk"])
    needed = ["text"] * need_text + ["feats.scp"] * need_feats
    for name in needed:
        if name not in lists:
            raise PyserError(f"{directory / name}: missing; run the stage that writes it")
    for name in ("wav.scp", *lists):
        keys = [line.split(" ", 1)[0] for line in read_lines(directory / name)]
        if keys != sorted(keys, key=str.encode):
            raise PyserError(f"{directory / name}: not sorted; sort it with LC_ALL=C sort (or: pyser data fix)")
    for name in UTTERANCE_LISTS if "segments" in lists else (*UTTERANCE_LISTS, "wav.scp"):
        odd = set(lists[name]) ^ utts if name in lists else None
        if odd:
            utt = min(odd)
            place = "not in" if utt in utts else "only in"
            raise PyserError(f"{directory / name}: {len(odd)} utterances differ from utt2spk, e.g. {utt} is {place} "
                             f"{name}; mend it with: pyser data fix {directory}")
    for utt, value in lists.get("segments", {}).items():
        words = value.split()
        if len(words) != 3 or words[0] not in lists["wav.scp"]:
            raise PyserError(f"{directory}/segments: {utt}: expected 'recording start end' with a recording of wav.scp")
        try:
            fits = float(words[1]) >= 0 and (float(words[2]) > float(words[1]) or words[2] == "-1")
        except ValueError:
            fits = False
        if not fits:
            raise PyserError(f"{directory}/segments: {utt}: from {words[1]} to {words[2]} is no segment")
    for utt, words_of in lists.get("text", {}).items():
        if not words_of:
            raise PyserError(f"{directory}/text: {utt} has no words; mend it with: pyser data fix {directory}")
    for utt, spk in lists["utt2spk"].items():
        if not spk or " " in spk:
            raise PyserError(f"{directory}/utt2spk: {utt}: expected one speaker, found '{spk}'")
        if not utt.startswith(spk):
            raise PyserError(f"{directory}/utt2spk: {utt} does not begin with its speaker {spk}: sorting by utterance and "
                             "by speaker would differ; put the speaker in front of the utterance id")
    speakers = len(set(lists["utt2spk"].values()))
    return f"{directory}: {len(utts)} utterances, {speakers} speakers, lists: {' '.join(sorted(lists))}"


def fix(directory: str | Path) -> str:
    """Keep the utterances that every list has (an empty transcript counts as missing); sort everything."""
    lists = read_dir(directory)
    utts = set(lists["utt2spk"])
    for name in UTTERANCE_LISTS:
        if name in lists:
            utts &= {utt for utt, value in lists[name].items() if value}
    if "segments" in lists:
        utts = {utt for utt in utts if lists["segments"][utt].split()[0] in lists["wav.scp"]}
    else:
        utts &= set(lists["wav.scp"])
    if not utts:
        raise PyserError(f"{directory}: no utterance is in every list; check that their ids agree")
    before = len(lists["utt2spk"])
    write_dir(directory, keep(lists, utts))
    return f"{directory}: kept {len(utts)} of {before} utterances"


def copy(source: str | Path, target: str | Path) -> None:
    """All lists but those about features."""
    lists = read_dir(source)
    write_dir(target, {name: table for name, table in lists.items() if name not in FEATURE_LISTS})


def subset(source: str | Path, target: str | Path, utts: Iterable[str]) -> None:
    """Only the utterances `utts`."""
    lists, utts = read_dir(source), list(utts)
    unknown = [utt for utt in utts if utt not in lists["utt2spk"]]
    if unknown:
        raise PyserError(f"{source}: {len(unknown)} of the wanted utterances are not in it, e.g. {unknown[0]}")
    if not utts:
        raise PyserError(f"{source}: no utterances were asked for")
    write_dir(target, keep(lists, utts))


def first(source: str | Path, num: int) -> list[str]:
    """`num` utterances spread evenly over the sorted list."""
    utts = sorted(read_dir(source)["utt2spk"], key=str.encode)
    num = min(num, len(utts))
    return [utts[i * len(utts) // num] for i in range(num)]


def split(source: str | Path, target: str | Path, num: int) -> None:
    """target/1 … target/num, a speaker whole in one of them, about equally many utterances in each."""
    lists = read_dir(source)
    spk2utt: dict[str, list[str]] = {}
    for utt in sorted(lists["utt2spk"], key=str.encode):
        spk2utt.setdefault(lists["utt2spk"][utt], []).append(utt)
    if num > len(spk2utt):
        raise PyserError(f"{source}: cannot split {len(spk2utt)} speakers into {num}; use --nj {len(spk2utt)}")
    parts: list[list[str]] = [[] for _ in range(num)]
    for _, utts in sorted(spk2utt.items(), key=lambda item: (-len(item[1]), item[0])):
        min(parts, key=len).extend(utts)  # the largest speaker first, each into the emptiest part
    for job, utts in enumerate(parts, start=1):
        write_dir(Path(target) / str(job), keep(lists, utts))


def combine(target: str | Path, sources: Iterable[str | Path]) -> None:
    """The union; a list that some source lacks is left out."""
    every = [read_dir(source) for source in sources]
    common = set.intersection(*(set(lists) for lists in every))
    if "segments" not in common and any("segments" in lists for lists in every):
        raise PyserError(f"{target}: some sources have segments and some do not; give every source a segments file")
    union: dict[str, Table] = {name: {} for name in common}
    for lists in every:
        for name in common:
            for key, value in lists[name].items():
                if union[name].setdefault(key, value) != value:
                    raise PyserError(f"{target}: {key} differs between the {name} of the sources; rename one of them")
    write_dir(target, union)


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
            recording, start, end = value.split()
            return f"{prefix}{recording} {seconds(start)} {seconds(end)}"

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


def collect_feats(directory: str | Path, scps: Iterable[str | Path], max_dropped: float = 0.05) -> str:
    """Join the jobs' scp files into feats.scp and utt2num_frames, drop the utterances without features from all lists,
    and return the line that counts them."""
    lists = read_dir(directory)
    feats: Table = {}
    for scp in scps:
        feats |= read_scp(scp)
    total = len(lists["utt2spk"])
    dropped = Dropped(f"features of {directory}", max_dropped)
    for utt in sorted(set(lists["utt2spk"]) - set(feats)):
        dropped.add(utt, "without features, see the log of the job that computed them")
    line = dropped.finish(total)
    lists["feats.scp"] = {utt: value for utt, value in feats.items() if utt in lists["utt2spk"]}
    lists["utt2num_frames"] = {utt: str(num_rows(value)) for utt, value in lists["feats.scp"].items()}
    write_dir(directory, keep(lists, lists["feats.scp"]))
    return line


_HEADER = re.compile(rb"\x00B(?:CM[23]? .{8}(?P<compressed>.{4})|[FD]M \x04(?P<plain>.{4}))", re.DOTALL)


def num_rows(rxfilename: str) -> int:
    """Rows of the matrix behind an scp entry, from its header where it is binary."""
    path, _, offset = rxfilename.rpartition(":")
    if path and offset.isdigit():
        with open(path, "rb") as file:
            file.seek(int(offset))
            found = _HEADER.match(file.read(24))
        if found:
            return int.from_bytes(found["compressed"] or found["plain"], "little")
    return len(load_matrix(rxfilename))
