"""Recipes as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import stored_graph

ROOT = Path(__file__).parent.parent


def recipe(script: str, *options: object, ok: bool = True) -> str:
    """Run a recipe's run.sh in this very environment; what it says."""
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                       PYSER_STACK="k2" if stored_graph.K2 else "torch2")
    done = subprocess.run([str(ROOT / "egs" / script), *map(str, options)], capture_output=True, text=True, env=environment)
    assert (done.returncode == 0) == ok, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
