"""The characters that CTC models write, and how transcripts are put into them; for all systems alike."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyser.errors import PyserError
from pyser.files import read_json

TAG = re.compile(r"\[[^\]]*\]|<[^>]*>|\{[^}]*\}|(?<!\S)!\S+")  # [LAUGHTER] <UNK> {SMACK} !SIL
SPECIAL = re.compile(r"<.+>|\[.+\]")  # <pad> <s> [UNK]: tokens that no transcript has
APOSTROPHES = str.maketrans("’‘ʼ´`", "'''''")
SPOKEN = dict(zip("0123456789&%", "ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE AND PERCENT".split(), strict=True))


@dataclass(frozen=True)
class Vocabulary:
    """tokens : by their index in the logits, one character each or special; blank : the index of CTC's."""

    tokens: tuple[str, ...]
    blank: int = 0
    delimiter: str = field(init=False)
    characters: dict[str, int] = field(init=False, repr=False, compare=False)  # without the delimiter

    def __post_init__(self) -> None:
        words = [token for token in self.tokens if len(token) > 1 and not SPECIAL.fullmatch(token)]
        if words:
            raise PyserError(f"'{words[0]}' in the vocabulary is neither a character nor like <pad>; take a character model")
        delimiters = [token for token in ("|", " ") if token in self.tokens]
        if not delimiters or not 0 <= self.blank < len(self.tokens):
            raise PyserError(f"the vocabulary has no delimiter of words, | or a space, or no blank, which is {self.blank} of "
                             f"{len(self.tokens)}")
        delimiter = delimiters[0]
        letters = {token: index for index, token in enumerate(self.tokens)
                   if len(token) == 1 and token != delimiter and index != self.blank}
        object.__setattr__(self, "delimiter", delimiter)
        object.__setattr__(self, "characters", letters)

    @classmethod
    def read(cls, path: str | Path, size: int, blank: int) -> Vocabulary:
        """Of the vocab.json (token -> index) of a model with `size` outputs; those without a token are never written."""
        found = read_json(path)
        tokens = [f"<{index}>" for index in range(size)]
        for token, index in found.items():
            if not isinstance(index, int) or not 0 <= index < size:
                raise PyserError(f"{path}: '{token}' has no number below {size}, as many outputs as the model has; is the "
                                 "model one of several languages?")
            tokens[index] = token
        try:
            return cls(tuple(tokens), blank)
        except PyserError as error:
            raise PyserError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return len(self.tokens)

    def json(self) -> str:
        """The text of vocab.json."""
        return json.dumps({token: index for index, token in enumerate(self.tokens)}, ensure_ascii=False) + "\n"

    def normalise(self, text: str) -> str:
        """A transcript in these characters, words with single spaces.

        Case is the vocabulary's. Tags such as [LAUGHTER] and <UNK> vanish; digits, & and % are read one by one, in English;
        letters lose accents that the vocabulary lacks; every other character that it lacks, hyphens too, parts words.

        >>> ENGLISH.normalise("Twenty-one cafés, <UNK> don’t open at 7. [LAUGHTER]")
        "TWENTY ONE CAFES DON'T OPEN AT SEVEN"
        """
        known = self.characters
        cased = "".join(known)
        if cased.upper() == cased:
            text = text.upper()
        elif cased.lower() == cased:
            text = text.lower()
        text = TAG.sub(" ", unicodedata.normalize("NFC", text).translate(APOSTROPHES))
        words = "".join(char if char in known else self._spelled(char) for char in text).split()
        return " ".join(word for word in words if word.strip("'"))

    def _spelled(self, char: str) -> str:
        """A character that the vocabulary lacks."""
        if char in SPOKEN:
            return f" {self.normalise(SPOKEN[char])} "
        return "".join(base for base in unicodedata.normalize("NFKD", char) if base in self.characters) or " "

    def encode(self, text: str) -> list[int]:
        """The labels of a transcript, normalised."""
        delimiter = self.tokens.index(self.delimiter)
        return [delimiter if char == " " else self.characters[char] for char in self.normalise(text)]

    def decode(self, labels: Sequence[int]) -> str:
        """The words of a label for each frame, such as the best: of repeated ones one is left, blanks and special ones
        vanish."""
        kept = [label for label, before in zip(labels, [-1, *labels], strict=False) if label != before]
        tokens = [self.tokens[label] for label in kept if label != self.blank and len(self.tokens[label]) == 1]
        return " ".join("".join(tokens).replace(self.delimiter, " ").split())


# The order of facebook/wav2vec2-base-960h and its kin.
ENGLISH = Vocabulary(("<pad>", "<s>", "</s>", "<unk>", *"|ETAONIHSRDLUMWCFGYPBVK'XJQZ"))
