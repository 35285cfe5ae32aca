"""TED-LIUM release 2, by Lhotse's own recipe: three Kaldi data directories and the corpus's dictionary."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from pathlib import Path
from typing import Any

from pyser.corpora.corpus import existing, save
from pyser.errors import Dropped, PyserError
from pyser.lang.lexicon import read_lexicon, write_lexicon

PARTS = ("train", "dev", "test")
ABOUT = ("TED-LIUM 2: CC BY-NC-ND 3.0. Cite: A. Rousseau, P. Deleglise and Y. Esteve, Enhancing the TED-LIUM corpus with "
         "selected data for language modeling and more TED talks, LREC 2014.")
_NOT_WORDS = re.compile(r"<[^>]*>|\{[^}]*\}|\[[^\]]*\]|\(\d+\)")


def prepare_tedlium2(corpus_dir: str | Path, data_dir: str | Path, max_dropped: float = 0.05) -> str:
    """Write data_dir/{train,dev,test}, data_dir/manifests and data_dir/local/dict/lexicon.txt; return the closing lines.

    Utterances get Kaldi's ids, talk-begin-end in hundredths of a second; a talk is a speaker.
    """
    root, data_dir = existing(corpus_dir, "train, dev, test and TEDLIUM.152k.dic"), Path(data_dir)
    dictionary = _dictionary(root)
    closing = [ABOUT]
    for part in PARTS:
        recordings, supervisions = _manifests(root, part)
        dropped, kept = Dropped(f"corpus tedlium2 {part}", max_dropped), {}
        for one in supervisions:
            begin, end = (round(100 * seconds) for seconds in (one.start, one.end))
            one.id = f"{one.recording_id}-{begin:07d}-{end:07d}"
            one.text = clean(one.text)
            if not one.text:
                dropped.add(one.id, "without words")
            elif one.id in kept:
                dropped.add(one.id, "twice in the stm file")
            else:
                kept[one.id] = one
        closing.append(dropped.finish(len(supervisions)))
        save(part, recordings, type(supervisions).from_segments(kept.values()), data_dir)
    write_lexicon(data_dir / "local/dict/lexicon.txt", read_lexicon(dictionary))
    return "\n".join(closing)


def clean(text: str) -> str:
    """Words alone: no <unk>, {NOISE} or pronunciation numbers; a suffix joined to its word, they 're -> they're."""
    text = _NOT_WORDS.sub(" ", text)
    text = re.sub(r"(\w+) '(\w+)", r"\1'\2", text)
    text = re.sub(r"(^|\s)' (\w+)", r"\1'\2", text)
    return " ".join(text.split())


def _dictionary(root: Path) -> Path:
    found = sorted(root.glob("TEDLIUM*.dic"))
    if not found:
        raise PyserError(f"{root}: no TEDLIUM.152k.dic; the dictionary is part of the release, copy it whole")
    return found[0]


def _manifests(root: Path, part: str) -> tuple[Any, Any]:
    """Lhotse's recordings and supervisions of one part; its assertions and failures as one line."""
    from lhotse import fix_manifests
    from lhotse.audio.backend import audio_backend
    from lhotse.recipes import prepare_tedlium2 as lhotse_recipe

    for folder, suffix in (("sph", "sph"), ("stm", "stm")):
        if not any((root / part / folder).glob(f"*.{suffix}")):
            raise PyserError(f"{root / part / folder}: no .{suffix} files; TED-LIUM 2 has them there, copy it whole")
    names = [{path.stem for path in (root / part / kind).glob(f"*.{kind}")} for kind in ("sph", "stm")]
    if names[0] != names[1]:
        odd = min(names[0] ^ names[1])
        raise PyserError(f"{root / part}: {odd} has only one of its two files, sph and stm; copy the corpus whole")
    logging.getLogger().setLevel(logging.ERROR)  # (Lhotse says on the root logger what it trims)
    try:
        # libsndfile reads NIST sphere; Lhotse's first choice would be an sph2pipe that few have.
        with audio_backend("LibsndfileBackend"), contextlib.redirect_stderr(io.StringIO()):
            manifests = lhotse_recipe(root, dataset_parts=[part])[part]
    except (AssertionError, ValueError, OSError, RuntimeError) as error:
        raise PyserError(f"{root / part}: {' '.join(str(error).split())[:200]}; mend or replace that file") from None
    return fix_manifests(manifests["recordings"], manifests["supervisions"])
