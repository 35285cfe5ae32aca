"""The systems in Tables 1 and 2 of Gao et al. (Interspeech 2024), each a configuration of pyser.ser.cmgi_model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyser.errors import PyserError
from pyser.ser.cmgi_model import LSTM


@dataclass(frozen=True)
class Row:
    """what: in the paper's words. speech: hubert, wav2vec2 or lstm; text: bert or lstm; "" for none. asr: whether the speech
    encoder learns to hear. transcript: what the text encoder reads in evaluation, asr, text (true words) or hyp (a table of
    words, of another recogniser). first: the row that is its first stage."""

    what: str
    speech: str = "hubert"
    text: str = "bert"
    interaction: str = "none"
    asr: bool = True
    transcript: str = "asr"
    first: str = ""


# The paper leaves open how rows 9 and 10 interact, and which first stage 9 has: here they differ from 7 in nothing but the
# words and CTC. Rows 3 to 5 are in the manner of earlier papers, with LSTMs of our size, and characters for words.
ROWS = {
    "1": Row("HuBERT", text="", asr=False),
    "2": Row("HuBERT + CTC", text=""),
    "3": Row("LSTM, LAS on the same encoder", LSTM, ""),
    "4": Row("LSTM, what its attention decoder hears", LSTM, LSTM),
    "5": Row("LSTM with attention, DNN-HMM, LSTM with attention", LSTM, LSTM, "self", False, "hyp"),
    "6": Row("wav2vec 2.0 + CTC, BERT, one stage", "wav2vec2"),
    "7": Row("ours without interaction", first="2"),
    "8": Row("BERT, true words", "", asr=False, transcript="text"),
    "9": Row("HuBERT, BERT, true words, without CTC", asr=False, transcript="text", first="1"),
    "10": Row("HuBERT + CTC, BERT, true words", transcript="text", first="2"),
    "self": Row("self-attention", interaction="self", first="2"),
    "self-gate": Row("self-attention, gated fusion", interaction="self-gate", first="2"),
    "cross": Row("cross-attention", interaction="cross", first="2"),
    "cross-gate": Row("cross-attention, gated fusion", interaction="cross-gate", first="2"),
    "cmgi": Row("CmGI", interaction="cmgi", first="2"),
    "cmgi-pooled-gate": Row("CmGI without temporal-aware gate", interaction="cmgi-pooled-gate", first="2"),
}
TABLES = {
    "table1": ("1", "2", "3", "4", "5", "6", "7", "cmgi", "8", "9", "10"),
    "table2": ("self", "self-gate", "cross", "cross-gate", "cmgi", "cmgi-pooled-gate"),
}


def rows_of(exp: str) -> list[str]:
    """The rows of a table, or the one of a name, those in front that are first stages."""
    names = TABLES.get(exp, (exp,))
    for name in names:
        if name not in ROWS:
            raise PyserError(f"--exp {exp}: there are {' '.join((*TABLES, *ROWS))}")
    return list(dict.fromkeys([*(ROWS[name].first for name in names if ROWS[name].first), *names]))


def settings(name: str, hubert: str, wav2vec2: str, bert: str, hyp: str = "", init: str = "") -> dict[str, Any]:
    """What CmgiTraining has of a row. hubert, wav2vec2, bert: encoders; hyp: the table of words of row 5; init: the
    experiment that is its first stage."""
    if name not in ROWS:
        raise PyserError(f"--row {name}: there are {' '.join(ROWS)}")
    row = ROWS[name]
    encoders = {"": "", "hubert": hubert, "wav2vec2": wav2vec2, "bert": bert, LSTM: LSTM}
    if row.transcript == "hyp" and not hyp:
        raise PyserError(f"row {name} reads what a DNN-HMM hears: give its words, --hyp exp/tdnn/decode_<set>/hyp.txt")
    if bool(row.first) != bool(init):
        raise PyserError(f"row {name} " + (f"begins with row {row.first}: give its experiment, --init DIR" if row.first else
                                           "has one stage: take --init away"))
    found: dict[str, Any] = {
        "speech": encoders[row.speech], "text": encoders[row.text], "interaction": row.interaction, "init": init,
        "transcript": hyp if row.transcript == "hyp" else row.transcript, "freeze": "features" if row.first else "none",
    }
    if not row.asr:
        found["asr_weight"] = 0.0
    if row.speech == LSTM:
        found |= {"lr_initial": 1e-4, "lr_final": 1e-4}  # (times head_factor: all of it begins at random)
    return found
