"""Libraries that one of the two stacks lacks."""

from __future__ import annotations

from typing import Any

from pyser.errors import PyserError


def import_k2() -> Any:
    """k2; PyserError where it is not installed, or why it cannot be loaded."""
    try:
        import k2
    except ImportError as error:
        why = "needs k2" if error.name == "k2" else f"needs k2, which cannot be loaded here ({error})"
        raise PyserError(f"{why}: run local/install.sh (default stack)") from None
    return k2
