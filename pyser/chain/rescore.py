"""N-best lists: their files, other language models for them, the scales that suit a development set best, and the lists of
several systems taken together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyser.chain.mbr import edit_distances, expected_errors, posteriors
from pyser.chain.search import Hypothesis
from pyser.errors import PyserError
from pyser.files import read_json, write_json, write_text
from pyser.kaldi.datadir import write_table
from pyser.kaldi.tables import read_table
from pyser.lang.arpa import log_probs
from pyser.scoring.recogs import errs, recogs
from pyser.scoring.wer import Errors, format_wer, score, word_errors

Nbest = dict[str, list[Hypothesis]]  # utterance -> its hypotheses, at least one
LM_SCALES = tuple(n / 10 for n in range(2, 21))  # Kaldi's LMWT of 7 to 17 for chain models, and what CTC models need
PENALTIES = -0.5, 0.0, 0.5, 1.0  # Kaldi's word_ins_penalty
POSTERIOR_SCALES = 0.0, 0.25, 0.5, 0.75, 1.0


@dataclass(frozen=True)
class Scales:
    """lm_scale: of the graph's log-probability, the acoustic one's being 1 (a tenth of Kaldi's LMWT for chain models).
    insertion_penalty: taken off the graph's log-probability for each word.
    posterior_scale: of the scores where the hypothesis of minimum Bayes risk is wanted; 0: the one of the best score."""

    lm_scale: float = 1.0
    insertion_penalty: float = 0.0
    posterior_scale: float = 0.0

    def of(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """(H,) scores of hypotheses by their `numbers`."""
        acoustic, graph, words = numbers
        return np.asarray(acoustic + self.lm_scale * (graph - self.insertion_penalty * words))


def numbers(hypotheses: Sequence[Hypothesis]) -> NDArray[np.float64]:
    """(3, H): acoustic and graph scores, and how many words there are."""
    return np.array([(one.acoustic, one.graph, len(one.words)) for one in hypotheses], dtype=np.float64).T


def write_nbest(decode_dir: str | Path, lists: Nbest) -> None:
    """nbest/words, ac_cost and lm_cost, text tables of `utterance-n`, as Kaldi's nbest-to-linear writes them."""
    rows = {f"{utt}-{n}": one for utt, hypotheses in lists.items() for n, one in enumerate(hypotheses, 1)}
    folder = Path(decode_dir) / "nbest"
    write_table(folder / "words", {key: " ".join(one.words) for key, one in rows.items()})
    write_table(folder / "ac_cost", {key: f"{-one.acoustic:.4f}" for key, one in rows.items()})
    write_table(folder / "lm_cost", {key: f"{-one.graph:.4f}" for key, one in rows.items()})


def read_nbest(decode_dir: str | Path) -> Nbest:
    """What write_nbest wrote."""
    folder = Path(decode_dir) / "nbest"
    if not (folder / "words").exists():
        raise PyserError(f"{folder}: no n-best lists; decode with --nbest 100")
    words, acoustic, graph = (read_table(folder / name) for name in ("words", "ac_cost", "lm_cost"))
    lists: defaultdict[str, list[Hypothesis]] = defaultdict(list)
    try:
        for key, said in words.items():
            lists[key.rpartition("-")[0]].append(Hypothesis(said.split(), -float(acoustic[key]), -float(graph[key])))
    except (KeyError, ValueError) as error:
        raise PyserError(f"{folder}: words, ac_cost and lm_cost do not go together ({error}); decode again") from None
    return dict(lists)


def exchange_lm(lists: Nbest, old: str | Path, new: str | Path) -> Nbest:
    """The lists with the language model `new` in place of `old`, the one of their decoding graph (ARPA files)."""
    sentences = sorted({tuple(one.words) for hypotheses in lists.values() for one in hypotheses})
    before, after = (dict(zip(sentences, log_probs(arpa, sentences), strict=True)) for arpa in (old, new))
    return {
        utt: [Hypothesis(one.words, one.acoustic, one.graph - before[tuple(one.words)] + after[tuple(one.words)])
              for one in hypotheses]
        for utt, hypotheses in lists.items()
    }


class Candidates:
    """What an utterance may be: the hypotheses of each system that heard it. sentences: their words, each sentence once."""

    def __init__(self, systems: Sequence[Sequence[Hypothesis]]):
        self.numbers = [numbers(hypotheses) for hypotheses in systems]
        row = {words: number for number, words in enumerate(dict.fromkeys(tuple(one.words) for one in chain(*systems)))}
        self.sentences = list(row)
        self.rows = [np.array([row[tuple(one.words)] for one in hypotheses]) for hypotheses in systems]

    @cached_property
    def distances(self) -> NDArray[np.float64]:
        return edit_distances(self.sentences)

    def choose(self, scales: Scales) -> int:
        """The sentence of one system's best score, or of minimum Bayes risk by the mean of the systems' posteriors."""
        scores = [scales.of(one) for one in self.numbers]
        if not scales.posterior_scale:
            return int(self.rows[0][scores[0].argmax()])
        total = np.zeros(len(self.sentences))
        for row, one in zip(self.rows, scores, strict=True):
            np.add.at(total, row, posteriors(one, scales.posterior_scale))
        return int(expected_errors(self.distances, total).argmin())


def together(systems: Sequence[Nbest]) -> dict[str, Candidates]:
    """The candidates of every utterance that a system has heard."""
    utts = dict.fromkeys(utt for lists in systems for utt in lists)
    return {utt: Candidates([lists[utt] for lists in systems if utt in lists]) for utt in utts}


def tune(candidates: Mapping[str, Candidates], refs: Mapping[str, str]) -> tuple[Scales, Errors]:
    """The scales with fewest word errors; of equal ones those nearest to no change."""
    nothing_said = sum((word_errors(ref.split(), []) for utt, ref in refs.items() if utt not in candidates), Errors())
    known = {utt: candidates[utt] for utt in refs if utt in candidates}
    errors = {utt: [word_errors(refs[utt].split(), words) for words in one.sentences] for utt, one in known.items()}
    several = any(len(one.numbers) > 1 for one in known.values())  # their scores cannot be compared, their posteriors can
    found = []
    for values in product(LM_SCALES, PENALTIES, POSTERIOR_SCALES[1:] if several else POSTERIOR_SCALES):
        scales = Scales(*values)
        found.append((sum((errors[utt][one.choose(scales)] for utt, one in known.items()), nothing_said), scales))
    fewest, chosen = min(found, key=lambda pair: (
        pair[0].total, abs(pair[1].lm_scale - 1) + abs(pair[1].insertion_penalty) + pair[1].posterior_scale))
    return chosen, fewest


def rescore(
    decode_dirs: Sequence[str | Path], out_dir: str | Path, scales: Scales | None = None,
    old_lm: str | Path | None = None, new_lm: str | Path | None = None, scales_of: str | Path | None = None,
) -> str:
    """Choose again from the n-best lists of `decode_dirs`, of several systems for one data set; returns Kaldi's WER line.

    scales : None tunes them on the data set's own transcripts. scales_of : an out_dir of a development set, whose scales
    (scales.json) are taken. new_lm : an ARPA file, in place of `old_lm`, that of the decoding graph.
    Writes hyp.txt, ref.txt, wer.txt, scales.json, recogs-NAME.txt and errs-NAME.txt to `out_dir`, as `decode` does.
    """
    decode_dir, out_dir = Path(decode_dirs[0]), Path(out_dir)
    systems = [read_nbest(directory) for directory in decode_dirs]
    for directory, lists in zip(decode_dirs, systems, strict=True):
        if lists.keys() != systems[0].keys():
            odd = min(lists.keys() ^ systems[0].keys())
            raise PyserError(f"{decode_dir} and {directory} are not of the same utterances ({odd} is in one of them); decode "
                             "one data set")
    refs = read_table(decode_dir / "ref.txt") if (decode_dir / "ref.txt").exists() else {}
    if new_lm is not None:
        if old_lm is None:
            raise PyserError("another LM needs to know the one of the decoding graph")
        systems = [exchange_lm(lists, old_lm, new_lm) for lists in systems]
    candidates = together(systems)
    if scales_of is not None:
        path = Path(scales_of) / "scales.json"
        values = read_json(path, "lm_scale", "insertion_penalty")
        scales = Scales(values["lm_scale"], values["insertion_penalty"], values.get("posterior_scale", 0.0))
    if scales is None:
        if not any(refs.values()):
            raise PyserError(f"{decode_dir}: no transcripts to choose scales by; give --scales-of or --lm-scale")
        scales, _ = tune(candidates, refs)
    if len(systems) > 1 and not scales.posterior_scale:
        raise PyserError("several systems are combined by minimum Bayes risk: their scales need a posterior scale above 0")
    hyps = {utt: " ".join(one.sentences[one.choose(scales)]) for utt, one in candidates.items()}
    write_json(out_dir / "scales.json", asdict(scales))
    said = f"LM scale {scales.lm_scale:g}, insertion penalty {scales.insertion_penalty:g}"
    if scales.posterior_scale:
        said += f", minimum Bayes risk at {scales.posterior_scale:g}"
    if len(systems) > 1:
        said = f"{len(systems)} systems, {said}"
    line = write_results(out_dir, decode_dir.name.removeprefix("decode_"), refs, hyps)
    return f"{line or f'{len(hyps)} utterances'} ({said})"


def write_results(out_dir: str | Path, name: str, refs: Mapping[str, str], hyps: Mapping[str, str]) -> str:
    """hyp.txt and, with transcripts, ref.txt, wer.txt (compute-wer's report) and icefall's recogs-NAME.txt and
    errs-NAME.txt; returns Kaldi's WER line, or nothing without transcripts."""
    out_dir = Path(out_dir)
    write_table(out_dir / "hyp.txt", dict(hyps))
    if not any(refs.values()):
        return ""
    write_table(out_dir / "ref.txt", dict(refs))
    errors, report = score(refs, hyps)
    write_text(out_dir / "wer.txt", report)
    write_text(out_dir / f"recogs-{name}.txt", recogs(refs, hyps))
    write_text(out_dir / f"errs-{name}.txt", errs(refs, hyps))
    return format_wer(errors)
