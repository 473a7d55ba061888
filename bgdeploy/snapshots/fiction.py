"""Fiction: rows about companies that do not exist, for samples, demos and tests."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pyarrow as pa

ENTITY = pa.schema(
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
ADDRESS = pa.schema(
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
HAS_ADDRESS = pa.schema(
    {
        "sourceNodeId": pa.string(),
        "targetNodeId": pa.string(),
        "relationshipType": pa.string(),
        "since": pa.date32(),
        "confidence": pa.float32(),
    }
)
_FIRST = [
    "Alder",
    "Birch",
    "Cobalt",
    "Dover",
    "Ember",
    "Fjord",
    "Garnet",
    "Harbour",
    "Indigo",
    "Juniper",
    "Kestrel",
    "Larch",
    "Meridian",
]
_SECOND = [
    "Bridge",
    "Clay",
    "Field",
    "Forge",
    "Gate",
    "Hill",
    "Light",
    "Mill",
    "North",
    "Point",
    "River",
    "Stone",
    "Water",
    "Works",
]
_TRADE = [
    "Foods",
    "Freight",
    "Glass",
    "Instruments",
    "Logistics",
    "Marine",
    "Metals",
    "Paper",
    "Textiles",
    "Tools",
]
_FORM = ["Ltd", "GmbH", "SA", "BV", "Oy", "Inc", "AB"]
_STREET = [
    "Ash Lane",
    "Canal Street",
    "Dock Road",
    "Elm Avenue",
    "Market Square",
    "Quarry Road",
    "Station Way",
]
_CITY = [
    "Aldmouth",
    "Brenholm",
    "Castrava",
    "Dunwick",
    "Estermere",
    "Fallow Bay",
    "Grünfeld",
    "Hällavik",
    "Ostrów Nowy",
]
_COUNTRY = ["DE", "FI", "FR", "GB", "NL", "PL", "SE", "US"]
_TAGS = ["export", "family-owned", "listed", "audited", "regional", "start-up"]
_DAY_ONE = date(1950, 1, 1)
_MOMENT_ONE = datetime(2020, 1, 1, tzinfo=UTC)


def invent_entity(random: Random, number: int) -> tuple[Any, ...]:
    """Return a row of ENTITY; one in ten has no revenue, one in eight no tags."""
    name = f"{random.choice(_FIRST)} {random.choice(_SECOND)} {random.choice(_TRADE)} {random.choice(_FORM)}"
    tags = random.sample(_TAGS, random.randrange(4)) if random.random() > 0.125 else None
    return (
        f"E{number}",
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


def invent_address(random: Random, number: int) -> tuple[Any, ...]:
    """Return a row of ADDRESS; one in five has no number of floors."""
    return (
        f"A{number}",
        "Address",
        f"{random.randrange(1, 250)} {random.choice(_STREET)}",
        random.choice(_CITY),
        f"{random.randrange(100_000):05}",
        round(random.uniform(-60, 70), 5),
        round(random.uniform(-180, 180), 5),
        random.randrange(1, 40) if random.random() > 0.2 else None,
    )


def invent_relationship(random: Random, entity: int, address: int) -> tuple[Any, ...]:
    """Return a row of HAS_ADDRESS; one in six does not say since when."""
    return (
        f"E{entity}",
        f"A{address}",
        "HAS_ADDRESS",
        _DAY_ONE + timedelta(days=random.randrange(27_000)) if random.random() > 0.16 else None,
        random.randrange(1, 101) / 100,
    )
