"""CMVN from tables to tables (featbin/compute-cmvn-stats.cc, apply-cmvn.cc, apply-cmvn-sliding.cc,
online2bin/apply-cmvn-online.cc). Every function returns the closing line; what is written is not compressed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from pyser.errors import Dropped, PyserError
from pyser.features import cmvn
from pyser.features.cmvn import CmvnConfig, OnlineCmvnConfig, SlidingCmvnConfig, cmvn_stats
from pyser.kaldi.maps import read_map
from pyser.kaldi.tables import MatrixTable, MatrixWriter, read_mats

TABLE = re.compile(r"(ark|scp)(,\w+)*:")


def compute_cmvn(
    rspecifier: str, target: str, spk2utt: str | None = None, binary: bool = True, max_dropped: float = 0.05,
    allow_pipes: bool = False,
) -> str:
    """Statistics of each utterance, or with spk2utt of each speaker, to the table `target`; where `target` is a file, those
    of all utterances together (in text unless `binary`)."""
    dropped, total = Dropped(f"cmvn of {rspecifier}", max_dropped), 0
    if not TABLE.match(target):
        if spk2utt:
            raise PyserError(f"--spk2utt gives a table of speakers; write it to ark:{target} or ark,scp:FILE.ark,FILE.scp")
        everything: np.ndarray | None = None
        for _, feats in read_mats(rspecifier, allow_pipes):
            total += 1
            everything = _add(everything, feats)
        line = dropped.finish(total)
        assert everything is not None  # (finish has complained about an empty table)
        cmvn.write_stats(target, everything, binary)
        return line
    if not spk2utt:
        return _convert(rspecifier, target, dropped, lambda _, feats: cmvn_stats(feats), allow_pipes, np.float64)
    with MatrixWriter(target, compress=False, dtype=np.float64, allow_pipes=allow_pipes) as writer:
        for speaker, utterances in _by_speaker(rspecifier, spk2utt, allow_pipes):
            stats: np.ndarray | None = None
            for utt, feats_or_none in utterances:
                total += 1
                if feats_or_none is None:
                    dropped.add(utt, "without features")
                else:
                    stats = _add(stats, feats_or_none)
            if stats is not None:
                writer.write(speaker, stats)
        return dropped.finish(total)


def apply_cmvn(
    stats: str, rspecifier: str, wspecifier: str, config: CmvnConfig, utt2spk: str | None = None, max_dropped: float = 0.05,
    allow_pipes: bool = False,
) -> str:
    """`stats` is a table, of speakers where there is an utt2spk, or a file with one matrix for all. Without norm_means the
    features are copied and the statistics not looked at."""
    table = TABLE.match(stats) is not None
    if utt2spk and not table:
        raise PyserError(f"--utt2spk needs a table of statistics; did you mean ark:{stats}?")
    speakers = read_map(utt2spk, allow_pipes) if utt2spk else None
    by_key = MatrixTable(stats, allow_pipes, np.float64) if table and config.norm_means else {}
    of_all = cmvn.read_stats(stats, allow_pipes) if not table and config.norm_means else None

    def normalise(utt: str, feats: np.ndarray) -> np.ndarray | str:
        if not config.norm_means:
            return feats
        key = utt if speakers is None else speakers.get(utt, "")
        if of_all is None and key not in by_key:
            return "without statistics"
        try:
            return cmvn.apply_cmvn(feats, by_key[key] if of_all is None else of_all, config)
        except PyserError as error:
            raise PyserError(f"{stats}: {utt}: {error}") from None

    return _convert(rspecifier, wspecifier, Dropped(f"cmvn of {rspecifier}", max_dropped), normalise, allow_pipes)


def apply_online_cmvn(
    global_stats: str, rspecifier: str, wspecifier: str, config: OnlineCmvnConfig, spk2utt: str | None = None,
    max_dropped: float = 0.05, allow_pipes: bool = False,
) -> str:
    """With spk2utt in its order, a speaker's earlier utterances counting; else every utterance starts afresh."""
    start = cmvn.read_stats(global_stats, allow_pipes)
    dropped, total = Dropped(f"online cmvn of {rspecifier}", max_dropped), 0
    if not spk2utt:
        return _convert(rspecifier, wspecifier, dropped, lambda _, feats: cmvn.apply_online_cmvn(feats, start, None, config),
                        allow_pipes)
    with MatrixWriter(wspecifier, compress=False, allow_pipes=allow_pipes) as writer:
        for _, utterances in _by_speaker(rspecifier, spk2utt, allow_pipes):
            earlier: np.ndarray | None = None
            for utt, feats in utterances:
                total += 1
                if feats is None:
                    dropped.add(utt, "without features")
                else:
                    writer.write(utt, cmvn.apply_online_cmvn(feats, start, earlier, config))
                    earlier = _add(earlier, feats)
        return dropped.finish(total)


def apply_sliding_cmvn(
    rspecifier: str, wspecifier: str, config: SlidingCmvnConfig, max_dropped: float = 0.05, allow_pipes: bool = False
) -> str:
    """Every utterance by itself; empty ones are dropped."""
    def normalise(_: str, feats: np.ndarray) -> np.ndarray | str:
        return cmvn.apply_sliding_cmvn(feats, config) if len(feats) else "without frames"

    return _convert(rspecifier, wspecifier, Dropped(f"sliding cmvn of {rspecifier}", max_dropped), normalise, allow_pipes)


def _convert(
    rspecifier: str, wspecifier: str, dropped: Dropped, function: Callable[[str, np.ndarray], np.ndarray | str],
    allow_pipes: bool, dtype: type[np.floating] = np.float32,
) -> str:
    """Write what `function` makes of each utterance; a string is why it makes nothing."""
    total = 0
    with MatrixWriter(wspecifier, compress=False, dtype=dtype, allow_pipes=allow_pipes) as writer:
        for utt, feats in read_mats(rspecifier, allow_pipes):
            total += 1
            result = function(utt, feats)
            if isinstance(result, str):
                dropped.add(utt, result)
            else:
                writer.write(utt, result)
        return dropped.finish(total)


def _by_speaker(
    rspecifier: str, spk2utt: str, allow_pipes: bool
) -> Iterator[tuple[str, Iterator[tuple[str, np.ndarray | None]]]]:
    """(speaker, its (utterance, features or None)) in the order of spk2utt."""
    table = MatrixTable(rspecifier, allow_pipes)
    for speaker, utts in read_map(spk2utt, allow_pipes).items():
        yield speaker, ((utt, table[utt] if utt in table else None) for utt in utts.split())


def _add(stats: np.ndarray | None, feats: np.ndarray) -> np.ndarray:
    return cmvn_stats(feats) if stats is None else stats + cmvn_stats(feats)
