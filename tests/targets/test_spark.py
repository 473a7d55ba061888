"""What Spark itself wrote (tests/fixtures/spark) goes live value by value."""

from __future__ import annotations

import shutil
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.fixtures.spark.make import HERE, friends, people
from tests.house import House

PERSON = (
    "MATCH (p:Person) RETURN p.id AS id, p.name AS name, p.seen AS seen, p.born AS born, p.price AS price, "
    "p.huge AS huge, p.score AS score, p.large AS large, p.small AS small, p.adult AS adult, p.tags AS tags, "
    "p.country AS country ORDER BY id"
)
KNOWS = "MATCH (a)-[k:KNOWS]->(b) RETURN a.id AS source, b.id AS target, k.since AS since ORDER BY source"


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as ``query --json`` shows it, decimals by value."""

    def show(value: Any) -> Any:
        if isinstance(value, datetime):
            return value.isoformat()
        return value if isinstance(value, Decimal | list | int | float | None) else str(value)

    return {name: show(value) for name, value in row.items()}


@pytest.mark.parametrize("writer", ["plain", "v2"])
def test_every_value_that_spark_wrote_goes_live(house: House, writer: str) -> None:
    shutil.copytree(HERE / writer, house.folder / "data/acme/1700000001")
    house.run("run", "--timeout", "60")
    found = house.json("query", "acme", PERSON)
    for row in found:
        row["price"] = None if row["price"] is None else Decimal(row["price"])
        row["huge"] = Decimal(row["huge"])
    assert found == [shown(row) for row in people()]
    assert house.json("query", "acme", KNOWS) == [shown(row) for row in friends()]
