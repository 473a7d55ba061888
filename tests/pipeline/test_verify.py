"""Verification compares a real database with files that say something else, and must notice each difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bgdeploy.errors import VerifyFailed
from bgdeploy.pipeline.switch import shrunk
from bgdeploy.pipeline.verify import verify
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets.groups import plan_groups
from bgdeploy.targets.ladybug import open_target
from tests.house import House, make_house, make_removable

FIRST = 1700000001
ENTITY, ENDS = "nodes/Entity/part-0.parquet", "relationships/HAS_ADDRESS/part-0.parquet"
Change = Callable[[pa.Table], pa.Table]


def swap(one: str, other: str) -> Change:
    def change(table: pa.Table) -> pa.Table:
        a, b = table.schema.get_field_index(one), table.schema.get_field_index(other)
        kept_a, kept_b = table.column(a), table.column(b)
        return table.set_column(a, one, kept_b).set_column(b, other, kept_a)

    return change


def put(column: str, act: Callable[[Any], Any]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(column)
        return table.set_column(place, table.schema.field(place), act(table.column(place)))

    return change


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    house = make_house(tmp_path_factory.mktemp("template"))
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    yield house.folder
    make_removable(house.folder)


@pytest.fixture
def loaded(copied: House) -> tuple[House, Path]:
    return copied, copied.folder / f"data/acme/{FIRST}"


def check(house: House, folder: Path) -> Any:
    snapshot = open_snapshot("acme", FIRST, folder, {}, "")
    target = open_target({"state_dir": str(house.folder / "state"), "buffer_pool_mb": 64, "threads": 1})
    groups = plan_groups(snapshot, lambda *_: 8_000_000, house.folder)
    return verify(target, f"acme-{FIRST}", snapshot, groups)


def test_what_was_loaded_right_passes_and_gives_its_counts(loaded: tuple[House, Path]) -> None:
    counts = check(*loaded)
    assert counts == {"labels": {"Entity": 200, "Address": 100}, "types": {"HAS_ADDRESS": 200}}


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (ENTITY, lambda table: table.slice(0, 199), "Entity"),
        (ENTITY, swap("name", "country"), "Entity.name|Entity E|values"),
        (ENTITY, put("founded", lambda c: pc.if_else(pc.less(pc.rank(c), 9), None, c)), "Entity.founded"),
        (ENTITY, put("employees", lambda c: pc.add(c, 1).cast(pa.int32())), "values"),
        (ENTITY, put("nodeId", lambda c: pc.binary_join_element_wise(c, "x", "")), "no such row"),
        (ENTITY, put("labels", lambda c: pa.array(["Boss"] * len(c))), "Boss"),
        (ENDS, lambda table: pa.concat_tables([table, table.slice(0, 1)]), "HAS_ADDRESS"),
        (ENDS, put("targetNodeId", lambda c: pa.array(["A0"] * len(c))), "HAS_ADDRESS E"),
        (ENDS, put("confidence", lambda c: pc.multiply(c, 2).cast(pa.float32())), "values"),
    ],
    ids=["a row", "columns", "nulls", "values", "keys", "labels", "a relationship", "ends", "properties"],
)
def test_each_difference_fails_the_load_with_a_table_of_them(
    loaded: tuple[House, Path], file: str, change: Change, said: str
) -> None:
    house, folder = loaded
    table = change(pq.read_table(folder / file))
    pq.write_table(table, folder / file)
    with pytest.raises(VerifyFailed) as caught:
        check(house, folder)
    assert any(word in str(caught.value) for word in said.split("|")), caught.value
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)


@pytest.mark.parametrize(
    ("new", "old", "lost"),
    [
        ({"A": 50}, {"A": 100}, []),
        ({"A": 49}, {"A": 100}, ["A 100 -> 49 (-51 %, at most 50 %)"]),
        ({}, {"A": 3}, ["A 3 -> 0 (-100 %, at most 50 %)"]),
        ({"A": 9, "B": 1}, {"A": 3}, []),
        ({"A": 0}, {"A": 0}, []),
    ],
)
def test_shrinking_is_measured_per_label_and_type(
    new: dict[str, int], old: dict[str, int], lost: list[str]
) -> None:
    assert shrunk({"labels": new, "types": {}}, {"labels": old, "types": {}}, 50) == lost
    assert shrunk({"labels": {}, "types": new}, {"labels": {}, "types": old}, 50) == lost
    assert shrunk({"labels": new, "types": {}}, None, 50) == []
