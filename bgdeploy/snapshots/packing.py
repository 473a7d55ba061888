"""Packing: a snapshot's description as text, for the job table and the tickets of loading processes.

It works on whatever fields the classes of ``source.py`` have: a field that is added there travels along.
What stands several times, as the columns of two thousand like files, is written once and is one object again.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from bgdeploy.snapshots import source
from bgdeploy.snapshots.source import Snapshot

_PLAIN = (str, int, float, bool, type(None))


def pack(snapshot: Snapshot) -> str:
    """Return a snapshot as text of letters and digits only."""
    packer = _Packer()
    root = packer.put(snapshot)
    packed = json.dumps([packer.entries, root], separators=(",", ":"))
    return base64.b64encode(zlib.compress(packed.encode("utf-8"), 1)).decode("ascii")


def unpack(packed: str, *, types: bool) -> Snapshot:
    """Return the snapshot of a text that this very version has packed.

    With ``types`` each column's ``kind`` is the Arrow type it was; without, for a process that imports no
    Arrow, it is the type's text.
    """
    entries, root = json.loads(zlib.decompress(base64.b64decode(packed)))
    made: list[Any] = []
    for tag, *parts in entries:
        made.append(_make(tag, parts, made, types=types))
    snapshot = made[root[0]]
    assert isinstance(snapshot, Snapshot)
    return snapshot


def mark(fingerprint: str, columns: Mapping[str, Any], target: str) -> str:
    """Tells for which files, as they looked once, and by which rules a description was made, and in which form."""
    return sha256(json.dumps([_form(), fingerprint, columns, target], sort_keys=True).encode()).hexdigest()


def recall(inspection: Mapping[str, Any] | None, wanted: str, *, types: bool) -> Snapshot | None:
    """Return the snapshot that a job's ``inspection`` describes; None where it was made for another ``mark``."""
    if inspection is None or inspection.get("mark") != wanted:
        return None
    return unpack(inspection["packed"], types=types)


@cache
def _form() -> str:
    """What the classes hold, and which Arrow wrote their types."""
    from importlib.metadata import version

    held = {name: [field.name for field in fields(kind)] for name, kind in _classes().items()}
    return sha256(json.dumps([held, version("pyarrow"), version("bgdeploy")]).encode()).hexdigest()[:16]


@cache
def _classes() -> dict[str, Any]:
    return {
        name: kind for name, kind in vars(source).items() if isinstance(kind, type) and is_dataclass(kind)
    }


class _Packer:
    """Every composite value is an entry, written once, whose parts stand before it: [its number] refers to it."""

    def __init__(self) -> None:
        self.entries: list[list[Any]] = []
        self._known: dict[Any, list[int]] = {}
        self._seen: dict[int, list[int]] = {}
        self._types: dict[Any, list[int]] = {}

    def put(self, value: Any) -> Any:
        if isinstance(value, _PLAIN):
            return value
        number = self._seen.get(id(value))
        if number is None:
            number = self._add(value)
            if isinstance(value, tuple):  # those that are shared are many; all others are cheap to look up
                self._seen[id(value)] = number
        return number

    def _add(self, value: Any) -> list[int]:
        if is_dataclass(value):
            kind: Any = type(value)
            return self._enter(kind.__name__, *(self.put(getattr(value, name)) for name in _names(kind)))
        if isinstance(value, tuple):
            return self._enter("tuple", *map(self.put, value))
        if isinstance(value, Path):
            return self._enter("path", str(value))
        if isinstance(value, date):
            return self._enter("date", value.isoformat())
        return self._add_type(value)

    def _add_type(self, kind: Any) -> list[int]:
        """An Arrow type, as Arrow itself writes it: its text does not tell everything."""
        known = self._types.get(kind)
        if known is None:
            import pyarrow as pa

            schema = pa.schema([pa.field("", kind)]).serialize().to_pybytes()
            known = self._types[kind] = self._enter(
                "type", str(kind), base64.b64encode(schema).decode("ascii")
            )
        return known

    def _enter(self, tag: str, *parts: Any) -> list[int]:
        key = (tag, *(part[0] if isinstance(part, list) else (type(part), part) for part in parts))
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = [len(self.entries)]
            self.entries.append([tag, *parts])
        return number


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _make(tag: str, parts: list[Any], made: list[Any], *, types: bool) -> Any:
    match tag:
        case "tuple":
            return tuple(made[part[0]] if isinstance(part, list) else part for part in parts)
        case "path":
            return Path(parts[0])
        case "date":
            return date.fromisoformat(parts[0])
        case "type" if types:
            import pyarrow as pa

            return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(parts[1]))).field(0).type
        case "type":
            return parts[0]
        case _:
            return _classes()[tag](*(made[part[0]] if isinstance(part, list) else part for part in parts))
