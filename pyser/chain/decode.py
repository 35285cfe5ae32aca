"""Decode data directories with an acoustic model and HLG, and score the result."""

from __future__ import annotations

from pathlib import Path

import torch

from pyser.chain.data import text_of
from pyser.chain.outputs import AcousticModel
from pyser.chain.search import DecodeConfig, load_search
from pyser.files import write_text
from pyser.kaldi.datadir import write_table
from pyser.scoring.recogs import errs, recogs
from pyser.scoring.wer import format_wer, score


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
    and errs-NAME.txt, NAME that of data_dir, to `out_dir`.
    An utterance whose search fails gets an empty hypothesis and is named; without transcripts there is no wer.txt.
    engine : see load_search
    """
    config = config or DecodeConfig()
    torch.set_num_threads(config.num_threads)
    model = AcousticModel(Path(exp_dir), Path(lang_dir), config.frames_per_chunk)
    search = load_search(lang_dir, config, engine)
    hyps: dict[str, str] = {}
    refs: dict[str, str] = {}
    failed: list[str] = []
    for cut, output in model.outputs(data_dir, ivector_dir):
        found = search(output)
        if found is None:
            failed.append(cut.id)
        hyps[cut.id] = " ".join(found or [])
        refs[cut.id] = text_of(cut)
    out_dir = Path(out_dir)
    write_table(out_dir / "hyp.txt", hyps)
    if failed:
        print(f"{len(failed)} utterances without a path (e.g. {failed[0]}); raise --search-beam", flush=True)
    if not any(refs.values()):
        return f"{len(hyps)} utterances decoded, {data_dir} has no transcripts to score them with"
    write_table(out_dir / "ref.txt", refs)
    errors, report = score(refs, hyps)
    write_text(out_dir / "wer.txt", report)
    name = Path(data_dir).name
    write_text(out_dir / f"recogs-{name}.txt", recogs(refs, hyps))
    write_text(out_dir / f"errs-{name}.txt", errs(refs, hyps))
    return format_wer(errors)
