"""Acoustic models by lattice-free MMI."""

from pyser.chain.graph import Graph
from pyser.chain.lfmmi import LfMmi, LfMmiConfig

__all__ = ["Graph", "LfMmi", "LfMmiConfig"]
