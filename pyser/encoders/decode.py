"""Words of a CTC model's outputs: beam search over a lexicon with an n-gram language model (flashlight-text), or greedy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pyser.chain.rescore import write_results
from pyser.encoders.speech import load_speech
from pyser.encoders.vocabulary import Vocabulary
from pyser.errors import PyserError
from pyser.files import read_lines, silent_stderr, text_lines
from pyser.kaldi.tables import read_mats, read_table
from pyser.lang.lang import EPSILON

Search = Callable[[np.ndarray], str]  # log-probabilities (T, V) to words
END = -1e4  # log-probability of all that is impossible in the frame behind the last one


@dataclass(frozen=True)
class BeamConfig:
    """lm_scale: of the LM's log-probability, the network's being 1 (in the units of flashlight and fairseq, a weight of 2 is
    0.87). insertion_penalty: taken off the LM's log-probability for each word. beam_size: hypotheses kept at a frame, and
    beam: nats between the best of them and the last."""

    lm_scale: float = 1.0
    insertion_penalty: float = 0.0
    beam_size: int = 500
    beam: float = 50.0


def greedy(vocabulary: Vocabulary) -> Search:
    """The words of each frame's best label."""
    return lambda log_probs: vocabulary.decode(log_probs.argmax(axis=1).tolist())


def read_words(path: str | Path) -> list[str]:
    """The first words of the lines of a list, a lexicon or a lang directory's words.txt, whose symbols are passed over."""
    words = (line.split()[0] for line in read_lines(path) if line.strip())
    return [word for word in words if word != EPSILON and not word.startswith("#")]


def lm_words(arpa: str | Path) -> list[str]:
    """The words of a language model in ARPA format, which may be .gz."""
    words: list[str] = []
    inside = False
    for line in text_lines(arpa):
        if line.startswith("\\"):
            if inside:
                return words
            inside = line.startswith("\\1-grams:")
        elif inside and line.strip():
            words += line.split()[1:2]
    raise PyserError(f"{arpa}: not a language model in ARPA format")


def beam_search(
    vocabulary: Vocabulary, arpa: str | Path, words: Iterable[str] | None = None, config: BeamConfig = BeamConfig(),  # noqa: B008
) -> tuple[Search, str]:
    """A search for the words w that maximise

        log p(w | outputs) + lm_scale * (log p(w, </s>) - insertion_penalty * |w|)

    and a line about its lexicon. The first term is CTC's: the sum over all labels of the frames that spell w, with any
    number of delimiters before, between (at least one) and behind the words.

    words : those that can be found, all of the language model if None. Those that it lacks, and those of which nothing is
    left in the vocabulary's characters, cannot. They are found as they are spelled. ImportError without flashlight-text.
    """
    from flashlight.lib.text.decoder import CriterionType, LexiconDecoder, LexiconDecoderOptions, SmearingMode, Trie
    from flashlight.lib.text.dictionary import Dictionary

    known = dict.fromkeys(lm_words(arpa))
    wanted = known if words is None else dict.fromkeys(words)
    spelled = {word: spelling for word in wanted if (spelling := vocabulary.normalise(word))}
    entries = [word for word in spelled if word in known]
    if not entries:
        raise PyserError(f"{arpa}: none of its words is in the lexicon and can be spelled by the model; do they go together?")
    lm = _load_lm(arpa, Dictionary(entries))
    unigrams = [lm.score(lm.start(False), number)[1] for number in range(len(entries))]
    delimiter = vocabulary.tokens.index(vocabulary.delimiter)
    trie = Trie(len(vocabulary), delimiter)
    with silent_stderr():  # (of words spelled alike it takes six, and complains)
        for number in sorted(range(len(entries)), key=lambda number: -unigrams[number]):
            trie.insert([*vocabulary.encode(entries[number]), delimiter], number, unigrams[number])
    trie.smear(SmearingMode.MAX)  # (so the beam knows within a word what it will cost at least)
    options = LexiconDecoderOptions(
        beam_size=config.beam_size, beam_size_token=len(vocabulary), beam_threshold=config.beam,
        lm_weight=config.lm_scale * math.log(10), word_score=-config.lm_scale * config.insertion_penalty,
        unk_score=-math.inf, sil_score=0.0, log_add=True, criterion_type=CriterionType.CTC,
    )
    decoder = LexiconDecoder(options, trie, lm, delimiter, vocabulary.blank, 0, [], False)
    # In the trie every word ends with a delimiter, which a model need not write behind the last one: one more frame has it.
    end = np.full((1, len(vocabulary)), END, np.float32)
    end[0, delimiter] = 0.0

    def search(log_probs: np.ndarray) -> str:
        frames = np.ascontiguousarray(np.concatenate([log_probs, end]), np.float32)
        best = decoder.decode(frames.ctypes.data, *frames.shape)[0]
        return " ".join(spelled[entries[number]] for number in best.words if number >= 0)

    lacking = len(spelled) - len(entries)
    return search, f"{len(entries)} words" + (f", without {lacking} that {Path(arpa).name} lacks" if lacking else "")


def load_search(
    vocabulary: Vocabulary, arpa: str | Path | None, words: str | Path | None, config: BeamConfig, spare: bool = True
) -> tuple[Search, str]:
    """beam_search with the words of a file, and a line about it. Greedy where there is no language model, and, if `spare`,
    where there is no flashlight."""
    if arpa is None:
        return greedy(vocabulary), "greedy, without language model"
    try:
        search, line = beam_search(vocabulary, arpa, read_words(words) if words else None, config)
    except ImportError as error:
        if not spare:
            raise PyserError(f"{arpa}: searching with a language model needs flashlight-text, which cannot be loaded "
                             f"({error}); run local/install.sh") from None
        return greedy(vocabulary), f"greedy, flashlight-text cannot be loaded ({error}): run local/install.sh"
    return search, f"{line}, LM scale {config.lm_scale:g}, insertion penalty {config.insertion_penalty:g}"


def decode(
    model: str | Path, logits_scp: str | Path, out_dir: str | Path, data_dir: str | Path | None = None,
    arpa: str | Path | None = None, words: str | Path | None = None, config: BeamConfig = BeamConfig(),  # noqa: B008
) -> str:
    """Words of log-probabilities that `dump` wrote with this model, to out_dir/hyp.txt; returns Kaldi's WER line.

    With data_dir/text also ref.txt, wer.txt and icefall's recogs-NAME.txt and errs-NAME.txt. Both sides are in the model's
    characters (Vocabulary.normalise). arpa, words, config : of `load_search`.
    """
    vocabulary = load_speech(model).vocabulary
    if vocabulary is None:
        raise PyserError(f"{model}: has no CTC head, which would hear words; train one with: pyser encoder train-ctc")
    search, line = load_search(vocabulary, arpa, words, config)
    hyps: dict[str, str] = {}
    for utt, log_probs in read_mats(f"scp:{logits_scp}"):
        if log_probs.shape[1] != len(vocabulary):
            raise PyserError(f"{logits_scp}: {utt} has {log_probs.shape[1]} columns, {model} has {len(vocabulary)} outputs; "
                             "is it the model of this dump?")
        hyps[utt] = search(log_probs)
    text = Path(data_dir or "") / "text"
    refs = {utt: vocabulary.normalise(said) for utt, said in read_table(text).items()} if data_dir and text.exists() else {}
    wer = write_results(out_dir, Path(data_dir or out_dir).name, refs, hyps)
    return f"{wer or f'{len(hyps)} utterances'} ({line})"


def _load_lm(arpa: str | Path, dictionary: Any) -> Any:
    from flashlight.lib.text.decoder.kenlm import KenLM

    try:
        with silent_stderr():
            return KenLM(str(arpa), dictionary)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise PyserError(f"{arpa}: KenLM cannot read it ({reason[:120]}); make it again, of order 2 to 6") from None
