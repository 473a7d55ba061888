"""Generate: write a snapshot as an ETL job would, with made-up companies and their addresses, for samples, demos and tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bgdeploy.clock import wall
from bgdeploy.durable import sync
from bgdeploy.errors import Refused
from bgdeploy.snapshots.folders import MARKER, why_skipped

BROKEN = ("duplicate-id", "dangling", "truncated-file", "mixed-schema")
_GROUP = 20_000  # rows written at a time
_FILE = 200_000  # rows in one file; more rows give more files


@dataclass(frozen=True)
class _Plan:
    seed: int
    entities: int
    addresses: int
    relationships: int
    broken: str | None


Invent = Callable[[_Plan, int, int], Iterator[tuple[Any, ...]]]  # the rows from one number up to another


def write_snapshot(
    base: Path,
    customer: str,
    timestamp: int,
    *,
    rows: int,
    seed: int,
    broken: str | None = None,
    marker: bool = True,
) -> Path:
    """Write ``rows`` nodes and relationships as ``<base>/<customer>/<timestamp>`` and return its path.

    The same seed gives the same rows. All is written into a hidden folder beside it, synced, and
    renamed, so the folder is complete when it appears. ``broken`` is one of ``BROKEN``: a fault
    put in on purpose. Raises Refused when the snapshot exists or what is asked for makes no sense.
    """
    home = base / customer
    final, draft = home / str(timestamp), home / f".{timestamp}.writing"
    _check(final, customer, rows, broken)
    if (reason := why_skipped(timestamp, now=wall())) is not None:
        cure = "Take seconds since 1970, not later than tomorrow."
        raise Refused(f"A snapshot named {timestamp} would be skipped: {reason}.", cure=cure)
    entities, addresses = rows * 2 // 5, rows // 5
    plan = _Plan(seed, entities, addresses, rows - entities - addresses, broken)
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    try:
        _write_tables(draft, plan)
        if marker:
            (draft / MARKER).touch()
        _sync(draft)
        draft.rename(final)
    except BaseException:  # Ctrl+C too: nobody else would ever remove it
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync(home)
    return final


def _check(final: Path, customer: str, rows: int, broken: str | None) -> None:
    if "/" in customer or (customer or ".")[0] in "._" or not customer.isprintable():
        cure = "Take a plain name that does not begin with '.' or '_'."
        raise Refused(f"{customer!r} cannot be a customer's folder.", cure=cure)
    if rows < 5:
        raise Refused(f"A snapshot of {rows} rows has no room for both ends.", cure="Ask for 5 rows or more.")
    if broken is not None and broken not in BROKEN:
        raise Refused(
            f"There is no way of breaking called {broken!r}.", cure=f"Take one of {', '.join(BROKEN)}."
        )
    if final.exists():
        cure = "Take another timestamp."
        raise Refused(f"The snapshot {final} exists.", kept="It was left as it is.", cure=cure)


def _write_tables(draft: Path, plan: _Plan) -> None:
    _write_table(draft / "nodes/Entity", _ENTITY, plan.entities, plan, _entities)
    _write_table(draft / "nodes/Address", _ADDRESS, plan.addresses, plan, _addresses)
    ends = draft / "relationships/HAS_ADDRESS"
    _write_table(ends, _HAS_ADDRESS, plan.relationships, plan, _relationships)
    if plan.broken == "mixed-schema":
        odd = pa.table({"nodeId": ["E-odd"], "labels": ["Entity"], "name": [1.5]})
        pq.write_table(odd, draft / "nodes/Entity/part-odd.parquet")
    if plan.broken == "truncated-file":
        file = ends / "part-0.parquet"
        os.truncate(file, file.stat().st_size // 2)


def _write_table(folder: Path, schema: pa.Schema, rows: int, plan: _Plan, invent: Invent) -> None:
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, _FILE)):
        stop = min(start + _FILE, rows)
        with pq.ParquetWriter(folder / f"part-{number}.parquet", schema, compression="zstd") as writer:
            for first in range(start, stop, _GROUP):
                columns = list(zip(*invent(plan, first, min(first + _GROUP, stop)), strict=True))
                arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
                writer.write_table(pa.table(arrays, schema=schema))


def _sync(folder: Path) -> None:
    # Files first, then the folders that name them, the deepest first.
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(path, name))
        sync(Path(path))


# Fiction: rows about companies that do not exist; the same seed and numbers give the same rows.

_ENTITY = pa.schema(
    {
        "nodeId": pa.string(),
        "labels": pa.string(),
        "name": pa.string(),
        "country": pa.string(),
        "founded": pa.date32(),
        "employees": pa.int32(),
        "revenue": pa.float64(),
        "active": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "updatedAt": pa.timestamp("us", tz="UTC"),
    }
)
_ADDRESS = pa.schema(
    {
        "nodeId": pa.string(),
        "labels": pa.string(),
        "street": pa.string(),
        "city": pa.string(),
        "postcode": pa.string(),
        "latitude": pa.float64(),
        "longitude": pa.float64(),
        "floors": pa.int64(),
    }
)
_HAS_ADDRESS = pa.schema(
    {
        "sourceNodeId": pa.string(),
        "targetNodeId": pa.string(),
        "relationshipType": pa.string(),
        "since": pa.date32(),
        "confidence": pa.float32(),
    }
)
_FIRST = [
    "Alder", "Birch", "Cobalt", "Dover", "Ember", "Fjord", "Garnet", "Harbour", "Indigo", "Juniper",
    "Kestrel", "Larch", "Meridian",
]  # fmt: skip
_SECOND = [
    "Bridge", "Clay", "Field", "Forge", "Gate", "Hill", "Light", "Mill", "North", "Point", "River",
    "Stone", "Water", "Works",
]  # fmt: skip
_TRADE = [
    "Foods", "Freight", "Glass", "Instruments", "Logistics", "Marine", "Metals", "Paper", "Textiles",
    "Tools",
]  # fmt: skip
_FORM = ["Ltd", "GmbH", "SA", "BV", "Oy", "Inc", "AB"]
_STREET = [
    "Ash Lane", "Canal Street", "Dock Road", "Elm Avenue", "Market Square", "Quarry Road",
    "Station Way",
]  # fmt: skip
_CITY = [
    "Aldmouth", "Brenholm", "Castrava", "Dunwick", "Estermere", "Fallow Bay", "Grünfeld", "Hällavik",
    "Ostrów Nowy",
]  # fmt: skip
_COUNTRY = ["DE", "FI", "FR", "GB", "NL", "PL", "SE", "US"]
_TAGS = ["export", "family-owned", "listed", "audited", "regional", "start-up"]
_DAY_ONE = date(1950, 1, 1)
_MOMENT_ONE = datetime(2020, 1, 1, tzinfo=UTC)


def _entities(plan: _Plan, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
    """One in ten has no revenue, one in eight no tags."""
    random = Random(f"{plan.seed}:entity:{start}")
    for number in range(start, stop):
        repeated = plan.broken == "duplicate-id" and number == plan.entities - 1
        name = " ".join(random.choice(words) for words in (_FIRST, _SECOND, _TRADE, _FORM))
        tags = random.sample(_TAGS, random.randrange(4)) if random.random() > 0.125 else None
        yield (
            f"E{0 if repeated else number}",
            "Entity",
            name,
            random.choice(_COUNTRY),
            _DAY_ONE + timedelta(days=random.randrange(27_000)),
            random.randrange(1, 5_000),
            round(random.uniform(1e4, 9e7), 2) if random.random() > 0.1 else None,
            random.random() < 0.9,
            tags,
            _MOMENT_ONE + timedelta(microseconds=random.randrange(190_000_000_000_000)),
        )


def _addresses(plan: _Plan, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
    """One in five has no number of floors."""
    random = Random(f"{plan.seed}:address:{start}")
    for number in range(start, stop):
        yield (
            f"A{number}",
            "Address",
            f"{random.randrange(1, 250)} {random.choice(_STREET)}",
            random.choice(_CITY),
            f"{random.randrange(100_000):05}",
            round(random.uniform(-60, 70), 5),
            round(random.uniform(-180, 180), 5),
            random.randrange(1, 40) if random.random() > 0.2 else None,
        )


def _relationships(plan: _Plan, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
    """One in six does not say since when."""
    random = Random(f"{plan.seed}:relationship:{start}")
    for number in range(start, stop):
        lost = plan.broken == "dangling" and number == plan.relationships - 1
        address = plan.addresses + 1_000_000 if lost else random.randrange(plan.addresses)
        yield (
            f"E{number % plan.entities}",
            f"A{address}",
            "HAS_ADDRESS",
            _DAY_ONE + timedelta(days=random.randrange(27_000)) if random.random() > 0.16 else None,
            random.randrange(1, 101) / 100,
        )
