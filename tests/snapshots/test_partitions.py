"""Folders ``key=value`` inside a table are columns, as Spark, Hive, DuckDB and pyarrow write and read them."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.ends import find_parts
from bgdeploy.snapshots.rows import present, read_rows, sample
from bgdeploy.snapshots.source import Column, DataFile, Table
from bgdeploy.targets.groups import plan_groups
from tests.snapshots.folders import PEOPLE, opened


def in_folders(*folders: str) -> dict[str, Any]:
    """One node in each folder, all files of one name."""
    return {f"nodes/P/{folder}/part-0.parquet": {"id": [n]} for n, folder in enumerate(folders)}


def values(folder: Path, table: Table, name: str) -> list[Any]:
    """The values of a column by id, as every loader but the engine's own reader gets them."""
    rows = [
        row
        for file in table.files
        for batch in read_rows(folder / file.path, file, table.columns)
        for row in batch.to_pylist()
    ]
    return [row[name] for row in sorted(rows, key=lambda row: int(row["id"]))]


NULL = "__HIVE_DEFAULT_PARTITION__"


@pytest.mark.parametrize(
    ("said", "kind", "read"),
    [
        (["DE", "FR"], pa.string(), ["DE", "FR"]),
        (["1", "-20", "9223372036854775807"], pa.int64(), [1, -20, 2**63 - 1]),
        (["1", "01"], pa.string(), ["1", "01"]),
        (["1", "9223372036854775808"], pa.string(), ["1", "9223372036854775808"]),
        (["1", "-0"], pa.string(), ["1", "-0"]),
        (["1", "1_0"], pa.string(), ["1", "1_0"]),
        (["1", "٣"], pa.string(), ["1", "٣"]),
        (["1", "1.5"], pa.string(), ["1", "1.5"]),
        (["2024-02-29", "1999-12-31"], pa.date32(), [date(2024, 2, 29), date(1999, 12, 31)]),
        (["2024-02-29", "20240229"], pa.string(), ["2024-02-29", "20240229"]),
        (["2024-02-29", "2024-02-30"], pa.string(), ["2024-02-29", "2024-02-30"]),
        (["2024-02-29", "7"], pa.string(), ["2024-02-29", "7"]),
        (["7", NULL], pa.int64(), [7, None]),
        (["2024-02-29", NULL], pa.date32(), [date(2024, 2, 29), None]),
        ([NULL], pa.string(), [None]),
        (["a%2Fb%3D%25", "M%C3%BCnchen", "Köln", "100%", "%zz", "a+b", "it's", "x=y"], pa.string(), ["a/b=%", "München", "Köln", "100%", "%zz", "a+b", "it's", "x=y"]),
    ],
)  # fmt: skip
def test_a_folder_is_a_column_of_text_or_of_what_all_its_values_are(
    tmp_path: Path, said: list[str], kind: pa.DataType, read: list[Any]
) -> None:
    (table,) = opened(tmp_path, in_folders(*(f"key={one}" for one in said))).tables
    assert table.columns[1] == Column("key", kind, "property")
    assert values(tmp_path, table, "key") == read


def test_folders_in_folders_are_several_columns_and_every_reader_finds_them(tmp_path: Path) -> None:
    files = in_folders("country=DE/year=2023", "country=DE/year=2024", f"country=FR/year={NULL}")
    (table,) = opened(tmp_path, files).tables
    assert [(one.name, one.type) for one in table.columns] == [
        ("id", "int64"),
        ("country", "string"),
        ("year", "int64"),
    ]
    assert values(tmp_path, table, "country") == ["DE", "DE", "FR"]
    assert values(tmp_path, table, "year") == [2023, 2024, None]
    snapshot = opened(tmp_path, files)
    assert present(snapshot, table) == {"country": 3, "year": 2}
    assert [row.values for row in sample(snapshot, table, 9)] == [
        {"country": "DE", "year": 2023},
        {"country": "DE", "year": 2024},
        {"country": "FR", "year": None},
    ]


def test_two_folders_of_one_label_share_the_type(tmp_path: Path) -> None:
    files = {"nodes/P/k=1/a.parquet": {"id": [0]}, "nodes/P:Q/k=x/a.parquet": {"id": [1]}}
    one, two = opened(tmp_path, files).tables
    assert one.columns == two.columns
    assert [one.columns[1].type, values(tmp_path, one, "k"), values(tmp_path, two, "k")] == [
        "string",
        ["1"],
        ["x"],
    ]


@pytest.mark.parametrize(
    ("files", "said", "cure"),
    [
        ({"nodes/P/id=1/a.parquet": {"x": [1], "id": [1]}}, "column 'id' is in the file and in the name", "Leave it out of the files"),
        ({"nodes/P/k=1/a.parquet": {"id": [1], "k": [1]}}, "column 'k' is in the file and in the name", "Leave it out of the files"),
        ({"nodes/P/K=1/a.parquet": {"id": [1], "k": [1]}}, "'k' and 'K' differ only in case", "Rename one"),
        ({"nodes/P/labels=A/a.parquet": {"id": [1]}}, "'labels' has the name of an id", "Write it as a column"),
        ({**PEOPLE, "relationships/R/type=A/a.parquet": {"source": ["p1"], "target": ["p2"]}}, "'type' has the name of an id", "Write it as a column"),
        ({**PEOPLE, "relationships/R/FROM=A/a.parquet": {"source": ["p1"], "target": ["p2"]}}, "'FROM' has the name of an id", "Write it as a column"),
        ({"nodes/P/_id=1/a.parquet": {"id": [1]}}, "'_id' is reserved", "Rename"),
        ({"nodes/P/k=/a.parquet": {"id": [1]}}, "no column or no value in 'k='", NULL),
        ({"nodes/P/=1/a.parquet": {"id": [1]}}, "no column or no value in '=1'", NULL),
        ({"nodes/P/k=%FF/a.parquet": {"id": [1]}}, "no column or no value in 'k=%FF'", NULL),
        ({"nodes/P/k=%00/a.parquet": {"id": [1]}}, "no column or no value in 'k=%00'", NULL),
        ({"nodes/P/k=1/k=2/a.parquet": {"id": [1]}}, "has the column 'k' twice", "Rename"),
        ({"nodes/P/k=1/a.parquet": {"id": [1]}, "nodes/P/a.parquet": {"id": [2]}}, "lie in folders of different columns (none and k=)", "remove what is left over"),
        ({"nodes/P/k=1/more/a.parquet": {"id": [1]}}, "no folders inside but those of columns", "under names that are not taken there"),
    ],
)  # fmt: skip
def test_a_folder_that_could_be_two_things_is_refused_with_what_helps(
    tmp_path: Path, files: dict[str, Any], said: str, cure: str
) -> None:
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, files)
    assert said in caught.value.what
    assert cure in caught.value.cure


def test_ends_keep_their_meaning_beside_columns(tmp_path: Path) -> None:
    ends = {"source": ["p1"], "target": ["p2"]}
    files = {f"relationships/R/from=Person/to=Person/day=2024-01-0{day}/a.parquet": ends for day in (1, 2)}
    snapshot = opened(tmp_path, {**PEOPLE, **files})
    (table,) = snapshot.relationships
    assert (table.source_label, table.target_label, len(table.files)) == ("Person", "Person", 2)
    assert table.properties == (Column("day", pa.date32(), "property"),)


def test_from_and_to_are_columns_of_nodes(tmp_path: Path) -> None:
    (table,) = opened(tmp_path, in_folders("from=a/to=b")).tables
    assert [one.name for one in table.properties] == ["from", "to"]


def test_files_that_are_split_keep_the_columns_of_their_folders(tmp_path: Path) -> None:
    ends = {"source": ["a1", "b1"], "target": ["a1", "a1"]}
    nodes = {f"nodes/{label}/n.parquet": {"id": [f"{label.lower()}1", f"m{label}"]} for label in "AB"}
    files = {f"relationships/R/day={day}/r.parquet": ends for day in (1, 2)}
    snapshot = opened(tmp_path / "data", {**nodes, **files})
    (table,) = snapshot.relationships
    (tmp_path / "build").mkdir()
    (parts,) = find_parts(snapshot, tmp_path / "build")
    made = [DataFile(part.path, 0, 0, 0, table.columns) for part in parts]
    found = [
        row
        for one in made
        for batch in read_rows(tmp_path / "build" / one.path, one, table.columns)
        for row in batch.to_pylist()
    ]
    assert sorted((row["source"], row["day"]) for row in found) == [
        ("a1", 1),
        ("a1", 2),
        ("b1", 1),
        ("b1", 2),
    ]


@pytest.mark.parametrize(("folders", "groups"), [(3, 3), (9, 1)])
def test_files_of_few_folders_are_read_apart_and_those_of_many_together(
    tmp_path: Path, folders: int, groups: int
) -> None:
    snapshot = opened(tmp_path, in_folders(*(f"k={number}" for number in range(folders))))
    assert len(plan_groups(snapshot, lambda *_: 1000, tmp_path)) == groups


def test_relationships_of_several_folders_are_read_together(tmp_path: Path) -> None:
    files = {f"relationships/R/k={n}/a.parquet": {"source": ["p1"], "target": ["p2"]} for n in range(3)}
    snapshot = opened(tmp_path, {**PEOPLE, **files})
    assert [group.rows for group in plan_groups(snapshot, lambda *_: 1000, tmp_path)] == [2, 3]


ROWS = pa.table({"id": [0, 1, 2, 3], "k": ["a/b", "x=y %", None, "ü'\""], "n": [1, 2, 3, 4]})


def by_pyarrow(folder: Path) -> None:
    flavor = ds.partitioning(pa.schema([("k", pa.string()), ("n", pa.int64())]), flavor="hive")
    ds.write_dataset(ROWS, folder, format="parquet", partitioning=flavor)


def by_duckdb(folder: Path) -> None:
    duckdb.from_arrow(ROWS).write_parquet(str(folder), partition_by=["k", "n"])


@pytest.mark.parametrize("writer", [by_pyarrow, by_duckdb])
def test_what_other_writers_partition_is_read_value_by_value(tmp_path: Path, writer: Any) -> None:
    (tmp_path / "nodes").mkdir()
    writer(tmp_path / "nodes/P")
    (table,) = opened(tmp_path, {}).tables
    assert values(tmp_path, table, "k") == ROWS["k"].to_pylist()
    assert values(tmp_path, table, "n") == ROWS["n"].to_pylist()
