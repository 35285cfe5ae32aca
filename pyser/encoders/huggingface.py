"""Hugging Face's models by their name on the hub or from a directory. Nothing in them is run: no code of theirs, and no
pickles but where torch reads those safely."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pyser.errors import PyserError

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
# Before torch 2.6 a pickle may run code even with weights_only (CVE-2025-32434).
SAFE_PICKLES = tuple(int(number) for number in torch.__version__.split(".")[:2]) >= (2, 6)


def from_pretrained(kind: Any, name: str | Path, **options: Any) -> Any:
    """kind.from_pretrained(name, **options), without its chatter; PyserError says in one line what is wrong."""
    from safetensors import SafetensorError

    local = Path(name).is_dir()
    if not local and (not HUB_NAME.fullmatch(str(name)) or Path(name).parent.name and Path(name).parent.is_dir()):
        raise PyserError(f"{name}: no such directory")
    if local and not (Path(name) / "config.json").exists():  # (transformers would guess by the name)
        raise PyserError(f"{name}: not a model of Hugging Face's, it has no config.json")
    try:
        with quiet(bars=not local):
            return kind.from_pretrained(str(name), trust_remote_code=False, **options)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError,
            pickle.UnpicklingError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:150]
    if not local:
        raise PyserError(f"{name}: no such directory, and not to be had from huggingface.co ({reason})")
    if not SAFE_PICKLES and not list(Path(name).glob("*.safetensors")) and list(Path(name).glob("*.bin")):
        raise PyserError(f"{name}: has no model.safetensors, and torch {torch.__version__} could run what is in a pickle; "
                         "with torch 2.6 or later load and save it once: from_pretrained(…).save_pretrained(…)")
    raise PyserError(f"{name}: not a model that transformers can load ({reason})")


def load_weights(kind: Any, name: str | Path, **options: Any) -> tuple[Any, list[str]]:
    """A model in float32, and the names of its tensors that the checkpoint lacks."""
    model, info = from_pretrained(kind, name, output_loading_info=True, use_safetensors=None if SAFE_PICKLES else True,
                                  torch_dtype=torch.float32, **options)
    return model, sorted(info["missing_keys"])


def absolute(name: str) -> str:
    """A directory's or file's path from everywhere; names on the hub as they are."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name


def files_of(name: str | Path) -> list[str]:
    """What a model in a directory is made of; none of a name on the hub."""
    return sorted(str(path) for kind in ("*.json", "*.txt", "*.safetensors", "*.bin") for path in Path(name).glob(kind))


def find(name: str | Path, filename: str) -> Path | None:
    """A file of the model, None if it has no such."""
    from transformers.utils import cached_file

    with quiet():
        found = cached_file(str(name), filename, _raise_exceptions_for_missing_entries=False,
                            _raise_exceptions_for_connection_errors=False)
    return Path(found) if found else None


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Loggers say nothing inside the block, and without `bars` there are no progress bars."""
    from transformers.utils import logging as theirs

    loggers = logging.getLogger("transformers"), logging.getLogger("huggingface_hub")
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    hidden = not bars and theirs.is_progress_bar_enabled()
    if hidden:
        theirs.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
        if hidden:
            theirs.enable_progress_bar()
