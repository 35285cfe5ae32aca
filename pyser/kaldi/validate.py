"""The checks of utils/validate_data_dir.sh, each with one line that says which file, which line and what to do.

Stricter than Kaldi where it only helps: utt2emo and utt2avd must hold every utterance, scp entries may not be empty. More
lenient in one place: a segment may end at -1, the end of its recording, and may name its channel, which extract-segments
understands though Kaldi's script refuses it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from pyser.errors import PyserError
from pyser.kaldi.lists import LABELS, Table, list_names, words
from pyser.kaldi.scripts import keyed, read_text
from pyser.kaldi.segments import BadSegment, Segment

_ILLEGAL = re.compile(r"(?<!\w)(<s>|</s>|#0)(?!\w)", re.ASCII)  # as grep -w finds them
_ODD_BLANK = re.compile(r"[^\S\t\n ]")


def _number(value: str) -> float:
    """The number, nan if it is none (which no comparison holds for)."""
    try:
        return float(value) if math.isfinite(float(value)) else math.nan
    except ValueError:
        return math.nan


UTTERANCE_LISTS = (
    "text", "segments", "feats.scp", "utt2warp", "vad.scp", "utt2lang", "utt2uniq", "utt2dur", "utt2num_frames", *LABELS,
)
RECORDING_LISTS = ("wav.scp", "reco2file_and_channel", "reco2dur")
SPEAKER_LISTS = ("cmvn.scp", "spk2gender", "spk2warp")
LEFT_ALONE = ("vad.scp", "utt2uniq", "utt2warp", "reco2file_and_channel", "reco2dur")  # fix does not drop what they lack
CHECKED = ("utt2spk", *UTTERANCE_LISTS, *RECORDING_LISTS, *SPEAKER_LISTS)
_FILE = (bool, "a file name or a command after the key")
_SECONDS = (lambda value: _number(value) > 0, "a duration in seconds above 0")
_WARP = (lambda value: 0.5 < _number(value) < 1.5, "a warp factor between 0.5 and 1.5")
VALUES: dict[str, tuple[Callable[[str], bool], str]] = {  # list -> what its values must be
    "wav.scp": (lambda value: bool(value) and value[0] != "~", "a file name or a command, with the whole path in place of ~"),
    "feats.scp": _FILE, "vad.scp": _FILE, "cmvn.scp": _FILE, "utt2dur": _SECONDS, "reco2dur": _SECONDS,
    "utt2num_frames": (lambda value: _number(value) > 0 and _number(value) % 1 == 0, "a whole number of frames above 0"),
    "spk2gender": (lambda value: value in ("m", "f"), "m or f"), "spk2warp": _WARP, "utt2warp": _WARP,
    "reco2file_and_channel": (lambda value: re.fullmatch(r"\S+[ \t]+[AB1]", value) is not None, "'file A' or 'file B'"),
}


def validate(
    directory: str | Path, need_text: bool = False, need_feats: bool = False, need_wav: bool = True, spk_sort: bool = True,
    printable: bool = True,
) -> str:
    """Check `directory`; return a line that says what is there (and warnings, if any), or raise PyserError.

    need_text, need_feats and need_wav ask for text, feats.scp and wav.scp; what is not needed is checked where it is there,
    but for text, which is not looked at (as in Kaldi's script). spk_sort asks for utt2spk in the order of the speakers too,
    printable for a text without control characters.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise PyserError(f"{directory}: no such data directory; run the prepare stage first")
    for name, needed in (("spk2utt", True), ("utt2spk", True), ("wav.scp", need_wav or (directory / "segments").exists()),
                         ("text", need_text), ("feats.scp", need_feats)):
        path = directory / name
        if needed and not (path.is_file() and path.stat().st_size):
            option = "" if "2" in name else f" (or give --no-{name.split('.')[0]})"
            raise PyserError(f"{path}: missing or empty; run the stage that writes it{option}")
    checked = [name for name in CHECKED if need_text or name != "text"]
    lists = {name: _read(directory / name) for name in checked if (directory / name).exists()}
    utt2spk = lists["utt2spk"]
    _each(directory / "utt2spk", utt2spk, lambda value: len(words(value)) == 1, "one speaker")
    if spk_sort:
        _check_speaker_order(directory, utt2spk)
    spk2utt = _check_spk2utt(directory, utt2spk)
    warnings = ["WARNING: there is only one speaker; is every utterance really theirs?"] if len(spk2utt) == 1 else []
    if "text" in lists:
        warnings += _check_text(directory / "text", printable)
    if "segments" in lists:
        recordings, reference = _check_segments(directory, lists), "segments"
    else:
        recordings, reference = set(utt2spk), "utt2spk"
    mend = f"mend it with: pyser data fix {directory}"
    for names, expected, what, where, advice in (
        (UTTERANCE_LISTS, set(utt2spk), "utterances", "utt2spk", mend),
        (RECORDING_LISTS, recordings, "utterances" if recordings == set(utt2spk) else "recordings", reference, mend),
        (SPEAKER_LISTS, set(spk2utt), "speakers", "spk2utt", "every speaker must have one line in it"),
    ):
        for name in names:
            odd = lists[name].keys() ^ expected if name in lists else set()
            if odd:
                place = "not in" if min(odd) in expected else "only in"
                if name in LEFT_ALONE and place == "not in":
                    advice = "add the line, or take the file away"
                raise PyserError(f"{directory / name}: {len(odd)} {what} differ from {where}, e.g. {min(odd)} is {place} "
                                 f"{name}; {advice}")
    for name, (holds, value) in VALUES.items():
        _each(directory / name, lists.get(name, {}), holds, value)
    ones = [key for key, value in lists.get("reco2file_and_channel", {}).items() if words(value)[1:] == ["1"]]
    if ones:
        warnings.append(f"WARNING: {directory}/reco2file_and_channel: {ones[0]}: the channel should be A or B, not 1")
    there = " ".join(list_names(directory))
    return "\n".join([f"{directory}: {len(utt2spk)} utterances, {len(spk2utt)} speakers, lists: {there}", *warnings])


def _read(path: Path) -> Table:
    """Key -> rest of its line, with the checks that every list must pass."""
    text = read_text(path, paths=path.suffix == ".scp")
    if text and not text.endswith("\n"):
        raise PyserError(f"{path}: the last line does not end in a newline; add one")
    if "\r" in text:
        number = text[: text.index("\r")].count("\n") + 1
        raise PyserError(f"{path}:{number}: a carriage return (DOS line end?); convert the file with dos2unix")
    table: Table = {}
    last = ""
    for number, (key, value) in enumerate(keyed(text), start=1):
        if not key:
            raise PyserError(f"{path}:{number}: empty line; take it out")
        if key in table:
            raise PyserError(f"{path}:{number}: {key} occurs twice; make the keys unique")
        if key < last:
            raise PyserError(f"{path}: not sorted: {key} in line {number} comes after {last}; sort it with LC_ALL=C sort "
                             "(or: pyser data fix)")
        table[key] = value
        last = key
    return table


def _each(path: Path, table: Table, holds: Callable[[str], bool], expected: str) -> None:
    for key, value in table.items():
        if not holds(value):
            raise PyserError(f"{path}: {key}: expected {expected}, found '{value[:60]}'; mend that line")


def _check_speaker_order(directory: Path, utt2spk: Table) -> None:
    pairs = [(spk, utt) for utt, spk in utt2spk.items()]
    for before, after in zip(pairs, pairs[1:], strict=False):
        if after < before:
            stray = [(spk, utt) for spk, utt in pairs if not utt.startswith(spk)]
            spk, utt = stray[0] if stray else after
            why = "does not begin with its speaker" if stray else "comes after another speaker than its"
            raise PyserError(f"{directory}/utt2spk: {utt} {why} {spk}: sorting by utterance and by speaker would differ; put "
                             "the speaker in front of the utterance id (or give --no-spk-sort)")


def _check_spk2utt(directory: Path, utt2spk: Table) -> dict[str, list[str]]:
    found = {spk: words(utts) for spk, utts in _read(directory / "spk2utt").items()}
    expected: dict[str, list[str]] = {}
    for utt, spk in utt2spk.items():
        expected.setdefault(spk, []).append(utt)
    for spk in sorted(found.keys() | expected.keys()):
        if found.get(spk) != expected.get(spk):
            raise PyserError(f"{directory}/spk2utt: {spk}: its utterances differ from those of utt2spk; write spk2utt again "
                             f"with: pyser data fix {directory}")
    return found


def _check_text(path: Path, printable: bool) -> list[str]:
    """No odd characters and none of the symbols that Kaldi reserves; return warnings."""
    text = read_text(path)
    empty = []
    for number, line in enumerate(text.split("\n"), start=1):
        if printable and not line.isprintable():
            bad = [character for character in line if _unprintable(character)]
            if bad:
                raise PyserError(f"{path}:{number}: non-printable character U+{ord(bad[0]):04X}; take it out "
                                 "(or give --non-print)")
        blank = _ODD_BLANK.search(line)
        if blank:
            raise PyserError(f"{path}:{number}: white space U+{ord(blank[0]):04X}, which Kaldi does not know; put a blank")
        symbol = _ILLEGAL.search(line)
        if symbol:
            raise PyserError(f"{path}:{number}: the symbol {symbol[0]} is reserved in Kaldi; take it out")
        if len(words(line.strip())) == 1:
            empty.append(line.strip())
    return [f"WARNING: {path}: {len(empty)} utterances have no words, e.g. {empty[0]}"] if empty else []


def _unprintable(character: str) -> bool:
    """Neither [:print:] nor [:space:] of a C.UTF-8 locale."""
    return unicodedata.category(character) in ("Cc", "Cn", "Cs") and character not in "\t\n\v\f\r"


def _check_segments(directory: Path, lists: dict[str, Table]) -> set[str]:
    """Check the lines of segments; return their recordings."""
    used = set()
    for utt, value in lists["segments"].items():
        try:
            segment = Segment.parse(value)
        except BadSegment as error:
            raise PyserError(f"{directory}/segments: {utt}: {error}; mend that line") from None
        if segment.recording not in lists["wav.scp"]:
            raise PyserError(f"{directory}/segments: {utt}: expected 'recording start end' with a recording of wav.scp, "
                             f"found '{value[:60]}'; mend it with: pyser data fix {directory}")
        used.add(segment.recording)
    return used
