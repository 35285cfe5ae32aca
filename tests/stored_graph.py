"""Decoding graphs of the tests' languages: composed where k2 is installed, elsewhere those that it left in golden/hlg."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from pyser.lang import graphs

K2 = importlib.util.find_spec("k2") is not None
ENGINES = ("k2", "kaldi-decoder") if K2 else ("kaldi-decoder",)
STORED = Path(__file__).parent / "golden/hlg"


def take(lang_dir: Path, name: str) -> None:
    """Put the stored graph into lang_dir."""
    shutil.copy(STORED / f"{name}.safetensors", lang_dir / "HLG.safetensors")


def compare(lang_dir: Path, name: str) -> None:
    """The graph that lang_dir's stage has composed must be the stored one."""
    ours, stored = graphs.load_hlg(lang_dir), load_file(STORED / f"{name}.safetensors")
    same = all(torch.equal(ours[part], stored[part]) for part in ("row_splits", "words"))
    assert same and torch.equal(ours["arcs"][:, :3], stored["arcs"][:, :3]), f"copy {lang_dir}/HLG.safetensors to {STORED}"
    scores = (part["arcs"][:, 3].clone().view(torch.float32) for part in (ours, stored))
    torch.testing.assert_close(*scores, atol=1e-5, rtol=0)


def decoding_graph(lang_dir: Path, name: str) -> None:
    """lang_dir/HLG.safetensors, composed and compared or taken."""
    if K2:
        graphs.decoding_graph(lang_dir)
        compare(lang_dir, name)
    else:
        take(lang_dir, name)
