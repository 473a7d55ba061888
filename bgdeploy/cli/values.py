"""Values as people read them: what a query returns, whatever is nested in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

_OWN = (
    "_ID",
    "_LABEL",
    "_SRC",
    "_DST",
)  # what the embedded engine tells of a node or relationship beside its properties


def show(value: Any) -> str:
    """Return a value of a row; text stands as it is."""
    return value if isinstance(value, str) else _show(value)


def _show(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return repr(value)
        case bytes():
            return f"0x{value.hex()}"
        case datetime():
            return value.isoformat(sep=" ").removesuffix("+00:00") + (
                "Z" if value.utcoffset() == timedelta() else ""
            )
        case Mapping():
            return _show_mapping(value)
        case list() | tuple() | set():
            return f"[{', '.join(map(_show, value))}]"
        case _:
            return str(value)


def _show_mapping(value: Mapping[Any, Any]) -> str:
    if "_NODES" in value and "_RELS" in value:
        return _show_path(value["_NODES"], value["_RELS"])
    if "_LABEL" not in value:
        return _braces(value)
    own = {name: one for name, one in value.items() if name not in _OWN and one is not None}
    inside = f":{value['_LABEL']}{' ' + _braces(own) if own else ''}"
    return f"[{inside}]" if "_SRC" in value else f"({inside})"


def _show_path(nodes: list[Any], relationships: list[Any]) -> str:
    """Node, relationship, node and so on, each relationship the way it leads."""
    shown = [_show(node) for node in nodes[:1]]
    for before, one, after in zip(nodes, relationships, nodes[1:], strict=False):
        forth = one.get("_SRC") == before.get("_ID")
        shown += ["-" if forth else "<-", _show(one), "->" if forth else "-", _show(after)]
    return "".join(shown)


def _braces(value: Mapping[Any, Any]) -> str:
    return "{" + ", ".join(f"{name}: {_show(one)}" for name, one in value.items()) + "}"
