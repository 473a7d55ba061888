"""bgdeploy: blue/green deployment of whole graphs. ``connect`` reads what is live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bgdeploy.connect import connect

__all__ = ["connect"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the commands must not pay for it.
    if name == "connect":
        from bgdeploy.connect import connect

        return connect
    raise AttributeError(name)
