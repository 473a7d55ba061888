"""Verification compares a real database with files that say something else, and must notice each difference."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks import mutations
from bgdeploy.errors import TargetFull, VerifyFailed
from bgdeploy.pipeline.switch import shrunk
from bgdeploy.pipeline.verify import expecting, verify
from bgdeploy.snapshots.proof import opened_files
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
        return table.set_column(place, column, act(table.column(place)))

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
    with expecting(snapshot, house.folder / "scratch") as expected:
        return verify(target, f"acme-{FIRST}", expected, groups)


def test_what_was_loaded_right_passes_and_gives_its_counts_and_digests(loaded: tuple[House, Path]) -> None:
    done = check(*loaded)
    assert done.counts == {"labels": {"Entity": 200, "Address": 100}, "types": {"HAS_ADDRESS": 200}}
    assert done.proof["compared"] == "every value"
    assert done.proof["rows"] == 500
    stored = loaded[0].json("jobs", "show", "1")["proof"]
    assert stored == done.proof
    assert [table["rows"] for table in stored["tables"]] == [100, 200, 200]
    assert all(len(table["digest"]) == 32 for table in stored["tables"])


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (ENTITY, lambda table: table.slice(0, 199), "Entity +rows +199 +200"),
        (ENTITY, swap("name", "country"), r"Entity +columns that differ +none +name, country"),
        (
            ENTITY,
            put("founded", lambda c: pc.if_else(pc.less(pc.rank(c), 9), None, c)),
            r"row [0-9]+ +founded +null",
        ),
        (
            ENTITY,
            put("employees", lambda c: pc.add(c, 1).cast(pa.int32())),
            "columns that differ +none +employees",
        ),
        (
            ENTITY,
            put("nodeId", lambda c: pc.binary_join_element_wise(c, "x", "")),
            "row 1 +the row +there +not there",
        ),
        (ENTITY, put("labels", lambda c: pa.array(["Boss"] * len(c))), "Boss"),
        (ENDS, lambda table: pa.concat_tables([table, table.slice(0, 1)]), "HAS_ADDRESS.* +rows +201 +200"),
        (ENDS, put("targetNodeId", lambda c: pa.array(["A0"] * len(c))), "the ids alone|row [0-9]+ +the row"),
        (
            ENDS,
            put("confidence", lambda c: pc.multiply(c, 2).cast(pa.float32())),
            r"confidence +[0-9.]+ +[0-9.]+",
        ),
        (ENDS, put("confidence", lambda c: c.cast(pa.float64())), "confidence +type +DOUBLE +FLOAT"),
    ],
    ids=[
        "a row",
        "columns",
        "nulls",
        "values",
        "keys",
        "labels",
        "a relationship",
        "ends",
        "properties",
        "a type",
    ],
)
def test_each_difference_fails_the_load_with_a_table_of_them(
    loaded: tuple[House, Path], file: str, change: Change, said: str
) -> None:
    house, folder = loaded
    table = change(pq.read_table(folder / file))
    pq.write_table(table, folder / file)
    with pytest.raises(VerifyFailed) as caught:
        check(house, folder)
    assert re.search(said, str(caught.value)), caught.value
    assert "expected" in str(caught.value)
    assert "found" in str(caught.value)


@pytest.fixture(scope="module")
def every_type(tmp_path_factory: pytest.TempPathFactory) -> mutations.Loaded:
    return mutations.load(tmp_path_factory.mktemp("every_type"))


def test_the_proof_sees_every_one_of_some_changes_of_all_types(every_type: mutations.Loaded) -> None:
    """benchmarks/mutations.py tries a thousand."""
    assert every_type.sees() is None
    for way, column, file, data in mutations.mutations(28, seed=7):
        mutations.save(every_type.root / "data", file, data)
        said = every_type.sees()
        every_type.reset()
        assert said is not None, (way, column, file)
        if way in ("swap", "swap_last", "change_value") and column != "labels":
            assert re.search(rf"columns that differ +none +{column}\n", said), (way, column, said)
            assert len(re.findall(rf"row \d+ +{column} ", said)) == (1 if way == "change_value" else 2), said


def test_integers_are_not_equal_floats_to_the_proof(every_type: mutations.Loaded) -> None:
    assert "tiny  type  FLOAT     INT8" in str(mutations.as_floats(every_type))


def test_a_row_group_that_no_memory_holds_is_refused_by_its_file(every_type: mutations.Loaded) -> None:
    snapshot = every_type.open()
    large = replace(snapshot.nodes[0].files[0], largest_group=5 << 30)
    snapshot = replace(snapshot, tables=(replace(snapshot.nodes[0], files=(large,)),))
    with pytest.raises(TargetFull, match=r"nodes/Thing/a.parquet takes 6,400 MiB.*; 1,024 MiB are free"):
        opened_files(snapshot, every_type.root / "scratch", available=1 << 30)


@pytest.mark.parametrize(
    ("new", "old", "lost"),
    [
        ({"A": 50}, {"A": 100}, []),
        ({"A": 49}, {"A": 100}, [{"name": "A", "before": 100, "after": 49}]),
        ({}, {"A": 3}, [{"name": "A", "before": 3, "after": 0}]),
        ({"A": 9, "B": 1}, {"A": 3}, []),
        ({"A": 0}, {"A": 0}, []),
    ],
)
def test_shrinking_is_measured_per_label_and_type(
    new: dict[str, int], old: dict[str, int], lost: list[dict[str, Any]]
) -> None:
    assert shrunk({"labels": new, "types": {}}, {"labels": old, "types": {}}, 50) == lost
    assert shrunk({"labels": {}, "types": new}, {"labels": {}, "types": old}, 50) == lost
    assert shrunk({"labels": new, "types": {}}, None, 50) == []
