"""Online i-vectors of a list of features, into a Kaldi archive (online2bin/ivector-extract-online2.cc)."""

from __future__ import annotations

import time
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_lines
from pyser.ivector.online import OnlineIvectorConfig, SpeakerState, extract, load_extractor
from pyser.kaldi.tables import MatrixWriter, load_matrix, read_scp


def dump(
    extractor_dir: str | Path, feats_scp: str | Path, wspecifier: str, config: OnlineIvectorConfig,
    spk2utt: str | Path | None = None, utts_per_spk_max: int | None = None, compress: bool = True,
) -> str:
    """Write (ceil(T / period), S) matrices for the utterances of `feats_scp`; returns the closing line.

    With `spk2utt` a speaker's utterances go on from each other in that file's order, at most `utts_per_spk_max` of them
    (Kaldi's modify_speaker_info.sh: training sees many short speakers, so that it meets unsure i-vectors too).
    """
    online = load_extractor(extractor_dir)
    feats = read_scp(feats_scp)
    speakers = [[utt] for utt in feats]
    if spk2utt is not None:
        speakers = [[utt for utt in line.split()[1:] if utt in feats] for line in read_lines(spk2utt)]
        strangers = set(feats).difference(*speakers)
        if strangers:
            raise PyserError(f"{min(strangers)} of {feats_scp} has no speaker in {spk2utt}; run `pyser data fix`")
    if utts_per_spk_max is not None:
        speakers = [utts[i : i + utts_per_spk_max] for utts in speakers for i in range(0, len(utts), utts_per_spk_max)]
    dim = online.front_end.global_stats.shape[1] - 1
    frames, clock = 0, time.monotonic()
    with MatrixWriter(wspecifier, compress) as writer:
        for utts in speakers:
            state = SpeakerState.new(dim, online.extractor)
            for utt in utts:
                try:
                    matrix = load_matrix(feats[utt])
                    rows = extract(online, matrix, config, state)
                except PyserError as error:
                    raise PyserError(f"{utt}: {error}") from None
                writer.write(utt, rows)
                frames += len(matrix)
                if time.monotonic() - clock > 5:
                    clock = time.monotonic()
                    print(f"ivector extract: {writer.count} of {len(feats)} utterances", flush=True)
    return f"ivector extract: {writer.count} utterances, {frames} frames"
