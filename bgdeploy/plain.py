"""Plain: what may leave this process for terminals, logs and scripts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from typing import Any

NOT_SHOWN = {"not shown": True}  # metadata of a dataclass's field that is for people, and in no JSON
LONGEST = 2_000  # characters of a reason or an error where it is kept, logged or listed
_STEERING = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])?"
)  # of a terminal
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def tidy(text: str, longest: int | None = None) -> str:
    """Return text that may be printed and logged: nothing that steers a terminal, and no longer than that.

    An engine draws while it works, and an error may quote anything. Line ends stay; a tab is a space; any other
    control character is shown as one that is none.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 40]} ... ({len(text) - longest + 40:,} more characters)"
    if text.isprintable():
        return text
    plain = _STEERING.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", plain)


def storable(value: Any) -> Any:
    """Return a value as it is kept in a column of JSON: texts tidy and no longer than others, and what is no JSON as text."""
    match value:
        case None | bool() | int() | float():
            return plain(value)
        case Mapping():
            return {str(name): storable(one) for name, one in value.items()}
        case list() | tuple():
            return [storable(one) for one in value]
    return tidy(str(value), LONGEST)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, whatever an engine returned.

    NaN and the infinities become the texts ``NaN``, ``Infinity`` and ``-Infinity``, bytes ``0x...``, moments ISO 8601,
    spans of time ISO 8601 in seconds (``PT1.5S``); decimals, UUIDs and all else become text with every digit.
    A dataclass becomes an object of its fields; one named like a word of Python ends with ``_``, and its key does not.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if math.isfinite(value):
                return value
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case bytes() | bytearray() | memoryview():
            return f"0x{bytes(value).hex()}"
        case date() | time():
            return value.isoformat()
        case timedelta():
            return _span(value)
        case Mapping():
            return {**_nature(value), **{_key(name): plain(one) for name, one in value.items()}}
        case list() | tuple() | set() | frozenset():
            return [plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {
            one.name.removesuffix("_"): plain(getattr(value, one.name))
            for one in fields(value)
            if not one.metadata.get("not shown")
        }
    if hasattr(value, "nodes") and hasattr(value, "relationships"):  # a path of Neo4j's driver
        return {"_NODES": plain(value.nodes), "_RELS": plain(value.relationships)}
    return str(value)


def _nature(value: Mapping[Any, Any]) -> dict[str, Any]:
    """What a node or a relationship of Neo4j's driver is, beside its properties, in the embedded engine's manner."""
    if isinstance(value, dict):
        return {}
    labels, kind = getattr(value, "labels", None), getattr(value, "type", None)
    return (
        {"_LABELS": sorted(labels)}
        if labels is not None
        else {"_LABEL": kind}
        if isinstance(kind, str)
        else {}
    )


def _key(name: Any) -> str:
    """The key of a map, which JSON has only as text."""
    found = plain(name)
    return (
        found
        if isinstance(found, str)
        else "null"
        if found is None
        else str(found).lower()
        if isinstance(found, bool)
        else str(found)
    )


def _span(value: timedelta) -> str:
    sign, parts = ("-", -value) if value < timedelta() else ("", value)
    seconds = f"{parts.days * 86_400 + parts.seconds}"
    digits = f"{parts.microseconds:06}".rstrip("0")
    return f"{sign}PT{seconds}{'.' if digits else ''}{digits}S"
