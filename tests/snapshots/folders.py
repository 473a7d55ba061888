"""Snapshot folders written by hand: a dictionary of paths and columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot

PEOPLE = {"nodes/Person/a.parquet": {"id": ["p1", "p2"], "name": ["Ada", "Bo"]}}
KNOWS = {"relationships/KNOWS/a.parquet": {"source": ["p1"], "target": ["p2"]}}


def write(folder: Path, files: Mapping[str, Any], marker: bool = True) -> Path:
    """Write each file; a value is columns by name, a table, or bytes for what is no Parquet."""
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            pq.write_table(content if isinstance(content, pa.Table) else pa.table(content), place)
    if marker:
        (folder / "_SUCCESS").touch()
    return folder


def opened(folder: Path, files: Mapping[str, Any]) -> Snapshot:
    return open_snapshot("acme", 1700000001, write(folder, files), {}, "print")
