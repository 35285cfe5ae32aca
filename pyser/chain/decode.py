"""Decode data directories with an acoustic model and HLG, and score the result."""

from __future__ import annotations

from pathlib import Path

import torch

from pyser.chain.data import text_of
from pyser.chain.outputs import AcousticModel
from pyser.chain.rescore import Nbest, write_nbest, write_results
from pyser.chain.search import DecodeConfig, Hypothesis, load_search


def decode(
    exp_dir: str | Path,
    lang_dir: str | Path,
    data_dir: str | Path,
    ivector_dir: str | Path | None,
    out_dir: str | Path,
    config: DecodeConfig | None = None,
    engine: str | None = None,
) -> str:
    """Decode `data_dir` with exp_dir/final.safetensors and lang_dir/HLG.safetensors; returns Kaldi's WER line.

    Writes hyp.txt and ref.txt (utterance and words, sorted), wer.txt (compute-wer's report) and icefall's recogs-NAME.txt
    and errs-NAME.txt, NAME that of data_dir, to `out_dir`, and nbest/ if paths are asked for.
    An utterance whose search fails gets an empty hypothesis and is named; without transcripts there is no wer.txt.
    engine : see load_search
    """
    config = config or DecodeConfig()
    torch.set_num_threads(config.num_threads)
    model = AcousticModel(Path(exp_dir), Path(lang_dir), config.frames_per_chunk)
    search = load_search(lang_dir, config, engine)
    hyps: dict[str, str] = {}
    refs: dict[str, str] = {}
    lists: Nbest = {}
    failed: list[str] = []
    for cut, output in model.outputs(data_dir, ivector_dir):
        found = search(output) or [Hypothesis([])]
        if not found[0].words:
            failed.append(cut.id)
        hyps[cut.id], lists[cut.id] = " ".join(found[0].words), found
        refs[cut.id] = text_of(cut)
    if config.nbest:
        write_nbest(out_dir, lists)
    line = write_results(out_dir, Path(data_dir).name, refs, hyps)
    if failed:
        print(f"{len(failed)} utterances without a word (e.g. {failed[0]}); if that is wrong raise --search-beam", flush=True)
    return line or f"{len(hyps)} utterances decoded, {data_dir} has no transcripts to score them with"
