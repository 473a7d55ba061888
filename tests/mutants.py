"""Snapshots with one file that has a few wrong bytes: seeded, so that each is made again by its number."""

from __future__ import annotations

import datetime as dt
import io
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 200
ENDS = {"source": ["p1"], "target": ["p2"]}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"compression": "none", "use_dictionary": False},
    "usual": {},
    "zstd, small pages": {"compression": "zstd", "data_page_size": 256, "data_page_version": "2.0"},
    "delta": {"use_dictionary": False, "column_encoding": {"n": "DELTA_BINARY_PACKED", "id": "DELTA_BYTE_ARRAY"}},
    "checksums, row groups": {"write_page_checksum": True, "row_group_size": 64},
}  # fmt: skip


def people() -> pa.Table:
    """Nodes with a column of each common type."""
    return pa.table(
        {
            "id": [f"p{number}" for number in range(ROWS)],
            "labels": ["Person"] * ROWS,
            "n": pa.array(range(ROWS), pa.int64()),
            "x": [number / 7 for number in range(ROWS)],
            "at": [dt.datetime(2024, 1, 1) + dt.timedelta(hours=number) for number in range(ROWS)],
            "day": [dt.date(2024, 1, 1)] * ROWS,
            "tags": [["a", None, "b"], [], None, ["c"]] * (ROWS // 4),
            "ok": [True, False, None, True] * (ROWS // 4),
        }
    )


@cache
def _file(way: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(people(), sink, **WAYS[way])
    return sink.getvalue()


@cache
def _ends() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(ENDS), sink)
    return sink.getvalue()


def mutate(number: int, *, pages: bool) -> bytes:
    """A file with some wrong bytes, in its footer or in its pages."""
    dice = random.Random(f"{number} {pages}")
    content = bytearray(_file(dice.choice([*WAYS])))
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    low, high = (4, footer) if pages else (footer, len(content))
    match dice.randrange(10):
        case 0:  # a stretch of it is gone, or stands twice
            at = dice.randrange(low, high)
            piece = content[at : at + dice.randrange(1, 40)]
            content[at : at + len(piece)] = dice.choice([b"", bytes(piece) * 2])
        case 1:
            at = dice.randrange(low, high)
            content[at : at + dice.randrange(1, 40)] = dice.randbytes(dice.randrange(1, 40))
        case _:
            for _ in range(dice.choice([1, 1, 1, 2, 4, 8])):
                content[dice.randrange(low, high)] ^= 1 << dice.randrange(8)
    return bytes(content)


def write_mutant(folder: Path, number: int, *, pages: bool, marker: bool) -> None:
    """A snapshot with a mutated file of nodes, and a good one of relationships."""
    for path, content in (
        ("nodes/Person/a.parquet", mutate(number, pages=pages)),
        ("relationships/KNOWS/a.parquet", _ends()),
    ):
        place = folder / path
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
    if marker:
        (folder / "_SUCCESS").touch()
