"""pyser before torch, as for its users: see pyser.native."""

import pyser  # noqa: F401
