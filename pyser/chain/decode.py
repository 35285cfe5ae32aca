"""Decode data directories with a chain model and HLG, and score the result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyser.errors import PyserError
from pyser.files import write_text
from pyser.kaldi.datadir import write_table
from pyser.scoring.wer import format_wer, score

try:
    import k2
except ImportError as error:
    raise PyserError("needs k2: run local/install.sh (default stack)") from error


@dataclass(frozen=True)
class DecodeConfig:
    """Beams in nats. `search_beam` prunes while searching, `output_beam` the lattice that is left, `max_active` bounds
    the states alive at a frame. `acoustic_scale` multiplies the log-softmaxed outputs (1 for LF-MMI)."""

    search_beam: float = 20.0
    output_beam: float = 8.0
    min_active: int = 30
    max_active: int = 10000
    acoustic_scale: float = 1.0
    frames_per_chunk: int = 150
    num_threads: int = 1


def best_words(graph: Any, log_probs: torch.Tensor, words: dict[int, str], config: DecodeConfig) -> list[str] | None:
    """Words on the best path of one utterance; None when no path reached a final state.

    graph : k2 Fsa, labels are columns of log_probs, aux_labels are words; log_probs : (T, C)
    """
    dense = k2.DenseFsaVec(log_probs[None] * config.acoustic_scale, torch.tensor([[0, 0, len(log_probs)]]).int())
    lattice = k2.intersect_dense_pruned(
        graph, dense, config.search_beam, config.output_beam, config.min_active, config.max_active
    )
    if lattice.num_arcs == 0:
        return None
    path = k2.shortest_path(lattice, use_double_scores=True)
    labels = path.aux_labels
    labels = labels.values if isinstance(labels, k2.RaggedTensor) else labels
    return [words[i] for i in labels.tolist() if i > 0]


def decode(
    exp_dir: str | Path,
    lang_dir: str | Path,
    data_dir: str | Path,
    ivector_dir: str | Path | None,
    out_dir: str | Path,
    config: DecodeConfig | None = None,
) -> str:
    """Decode `data_dir` with exp_dir/final.safetensors and lang_dir/HLG.pt; returns Kaldi's WER line.

    Writes hyp.txt and ref.txt (utterance and words, sorted) and wer.txt (compute-wer's report) to `out_dir`.
    An utterance whose search fails gets an empty hypothesis and is named; without transcripts there is no wer.txt.
    """
    from pyser.chain.data import features_of, ivectors_of, text_of
    from pyser.kaldi.manifests import read_cuts
    from pyser.lang.graphs import load_hlg, read_words
    from pyser.lang.lang import read_tokens
    from pyser.nn import model_io
    from pyser.nn.compute import ComputeConfig, compute, read_period
    from pyser.nn.model_io import load_nnet3

    config = config or DecodeConfig()
    torch.set_num_threads(config.num_threads)
    exp_dir = Path(exp_dir)
    model = load_nnet3(exp_dir / "final.safetensors")
    _, metadata = model_io.read(exp_dir / "final.safetensors")
    if json.loads(metadata.get("tokens", "[]")) != list(read_tokens(lang_dir)):
        raise PyserError(f"{lang_dir}/tokens.txt: not the phones that {exp_dir} was trained with; decode with its lang")
    period = read_period(ivector_dir) if ivector_dir else 10
    computing = ComputeConfig("output", config.frames_per_chunk, int(metadata["subsampling"]), period)
    hlg, words = load_hlg(lang_dir), read_words(lang_dir)
    hyps: dict[str, str] = {}
    refs: dict[str, str] = {}
    failed: list[str] = []
    for cut in read_cuts(data_dir, ivector_dir):
        try:
            output = compute(model, features_of(cut), ivectors_of(cut), computing)
        except PyserError as error:
            raise PyserError(f"{cut.id}: {error}") from None
        found = best_words(hlg, torch.from_numpy(output).log_softmax(-1), words, config)
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
    return format_wer(errors)
