"""What a snapshot may look like, and what is refused by name instead of being loaded wrong."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.schema import check_types, label_counts, open_snapshot
from bgdeploy.snapshots.source import DataFile, Table, tell_positions
from bgdeploy.targets.ladybug.reading import refuses
from tests.snapshots.folders import KNOWS, PEOPLE, opened, write


def node(**columns: Any) -> dict[str, Any]:
    return {"nodes/Person/a.parquet": {"id": ["p1"], **columns}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"relationships/KNOWS/a.parquet": KNOWS["relationships/KNOWS/a.parquet"]}, "has no folder nodes/"),
        ({"nodes/a.parquet": {"id": [1]}}, "lies directly in nodes/"),
        ({**PEOPLE, "relationships/a.parquet": {"source": [1], "target": [1]}}, "directly in relationships/"),
        ({**PEOPLE, "nodes/Person/more/a.parquet": {"id": [1]}}, "a table has no folders inside but those of columns"),
        ({**PEOPLE, "a.parquet": {"id": [1]}}, "own folder holds Parquet files"),
        ({**PEOPLE, "nodes/City/a.csv": b"id\n1\n"}, "nodes/City/a.csv is no Parquet file"),
        ({**PEOPLE, "nodes/City/a.parquet.gz": b"x"}, "packed or half copied"),
        ({**PEOPLE, "nodes/Person:/b.parquet": {"id": ["x"]}}, "empty label"),
        ({**PEOPLE, "relationships/KNOWS/from=Person/a.parquet": {"source": ["p1"], "target": ["p2"]}}, "both ends"),
        ({**PEOPLE, "relationships/KNOWS/from=/to=Person/a.parquet": {"source": ["p1"], "target": ["p2"]}}, "declares no label"),
        ({**PEOPLE, "relationships/KNOWS/from=City/to=Person/a.parquet": {"source": ["p1"], "target": ["p2"]}}, "'City'; nodes/ has no such folder"),
        ({**PEOPLE, "relationships/Person/a.parquet": {"source": ["p1"], "target": ["p2"]}}, "both named 'Person'"),
        ({**PEOPLE, "nodes/person/a.parquet": {"id": ["x"]}}, "differ only in case"),
        ({**PEOPLE, "relationships/KNOWS/a.parquet": {"source": [1], "target": [2]}}, "nodes it could join have string ids"),
        ({"nodes/Person/a.parquet": {"id": pa.array([], pa.string())}}, "Empty snapshot"),
        (node(Name=["a"], name=["b"]), "differ only in case"),
        (node(_id=["a"]), "is reserved by the database"),
        (node(Labels=["a"]), "meets the property 'labels'"),
        (node(labels=[3]), "is the labels but holds int64"),
        ({"nodes/Person/a.parquet": {"id": [1.5]}}, "Ids are strings or integers"),
        ({"nodes/Person/a.parquet": pa.table([["p1"], ["x"], ["y"]], ["id", "a", "a"])}, "two columns 'a'"),
        ({"nodes/Person/a.parquet": pa.table([["p1"], ["x"]], ["id", " "])}, "is empty or holds characters"),
        ({**PEOPLE, "relationships/KNOWS/a.parquet": {"source": ["p1"]}}, "no column for the target id"),
    ],
)  # fmt: skip
def test_what_can_never_be_loaded_is_refused_by_name(
    tmp_path: Path, files: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, files)
    assert said in str(caught.value)
    assert caught.value.kept


@pytest.mark.parametrize(
    ("values", "instead"),
    [
        (pa.array([Decimal("1")], pa.decimal256(39, 0)), "decimals of at most 38 digits"),
        (pa.array([[Decimal("1.5")]]), "a list of: decimals"),
        (pa.array([{"a": 1}]), "one column for each field"),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "one column for each field"),
        (pa.array([[{"a": 1}]]), "a list of: one column for each field"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_a_type_that_the_embedded_engine_cannot_hold_is_refused_with_its_column(
    tmp_path: Path, values: pa.Array, instead: str
) -> None:
    folder = write(tmp_path, node(price=values))
    with pytest.raises(BadInput) as caught:
        open_snapshot("acme", 1700000001, folder, {}, "print", refuses)
    assert "nodes/Person/a.parquet: column 'price' holds" in str(caught.value)
    assert instead in str(caught.value)


PERSON = {"id": ["p1"], "name": ["Ada"], "city": ["Paris"], "age": pa.array([30], pa.int16())}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"id": ["p9"], "name": [1]}, "column 'name' holds string in the first and int64 in the second"),
        ({"id": [9], "name": ["y"]}, "column 'id' holds string in the first and int64 in the second"),
        ({"id": ["p9"], "age": pa.array([1], pa.uint64())}, "column 'age' holds int16 in the first and uint64"),
        ({"id": ["p9"], "age": [True]}, "holds int16 in the first and bool in the second"),
        ({"nodeId": ["p9"], "id": ["x"]}, "column 'id' is the id in the first and a property in the second"),
        ({"id": ["p9"], "labels": ["Person"], "Name": ["x"]}, "'name' and 'Name' differ only in case"),
    ],
)  # fmt: skip
def test_files_of_one_table_that_no_type_can_hold_are_refused_and_both_are_named(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    files = {"nodes/Person/a.parquet": PERSON, "nodes/Person/b.parquet": other}
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, files)
    assert said in str(caught.value)
    assert "nodes/Person/a.parquet" in str(caught.value)


def test_files_of_one_table_may_differ_in_order_width_and_columns(tmp_path: Path) -> None:
    files = {
        "nodes/Person/a.parquet": PERSON,
        "nodes/Person/b.parquet": {"age": [70_000], "born": ["x"], "nodeId": ["p2"], "name": pa.nulls(1)},
        "nodes/Person/c.parquet": {"id": pa.array([], pa.int64()), "name": pa.array([], pa.bool_())},
    }
    (table,) = opened(tmp_path, files).tables
    assert [(column.name, column.type, column.role) for column in table.columns] == [
        ("id", "string", "id"),
        ("name", "string", "property"),
        ("city", "string", "property"),
        ("age", "int64", "property"),
        ("born", "string", "property"),
    ]
    found = [batch.to_pylist() for file in table.files for batch in read(tmp_path, file, table)]
    assert found == [
        [{"id": "p1", "name": "Ada", "city": "Paris", "age": 30, "born": None}],
        [{"id": "p2", "name": None, "city": None, "age": 70_000, "born": "x"}],
    ]


def read(folder: Path, file: DataFile, table: Table) -> Any:
    return [] if file.rows == 0 else read_rows(folder / file.path, file, table.columns)


def test_texts_stored_in_different_ways_are_one_type(tmp_path: Path) -> None:
    plain, coded = pa.array(["x"]), pa.array(["x"]).dictionary_encode()
    snapshot = opened(
        tmp_path,
        {
            "nodes/Person/a.parquet": {"id": ["p1"], "name": plain},
            "nodes/Person/b.parquet": {"id": ["p2"], "name": coded},
            "nodes/Person/c.parquet": {"id": ["p3"], "name": plain.cast(pa.large_string())},
        },
    )
    assert snapshot.rows == 3


@pytest.mark.parametrize(
    ("columns", "roles"),
    [
        (["nodeId", "x"], ["id", "property"]),
        ([":ID", ":LABEL", "x"], ["id", "labels", "property"]),
        (["x", "labels", "id"], ["property", "labels", "id"]),
        (["key", "labels", "x"], ["id", "labels", "property"]),
        (["KEY", "LABELS", "x"], ["id", "labels", "property"]),
        (["key", ":label"], ["id", "labels"]),
    ],
)
def test_columns_of_nodes_are_found_by_name_and_else_by_place_where_labels_follow(
    tmp_path: Path, columns: list[str], roles: list[str]
) -> None:
    table = pa.table([["Ada" if name == "x" else "Person"] for name in columns], columns)
    snapshot = opened(tmp_path, {"nodes/Person/a.parquet": table})
    assert [column.role for column in snapshot.tables[0].columns] == roles


@pytest.mark.parametrize(
    "columns",
    [
        {"full_name": ["Ada"], "dept": ["a"], "person_id": [1]},
        {"key": ["p1"], "kind": ["Person"]},
        {"key": ["p1"], "name": ["Ada"], "labels": ["Person"]},
        {"full_name": ["Ada"]},
    ],
)
def test_the_first_column_is_the_id_for_its_place_alone_only_where_that_is_allowed(
    tmp_path: Path, columns: dict[str, Any]
) -> None:
    files = {"nodes/Person/a.parquet": columns}
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, files)
    assert f"no column for the id by its name (it has {', '.join(columns)})" in caught.value.what
    assert 'dataset: {columns: {id: [nodeId, id, ":ID", <its column>]}}' in caught.value.cure
    assert "dataset.columns.by_position to true" in caught.value.cure
    (table,) = open_snapshot("acme", 1, tmp_path, {"by_position": True}, "").tables
    assert table.columns[0].role == "id"
    assert table.by_position["id"] == [next(iter(columns))]
    kind = {column.name: column.role for column in table.columns}.get("kind", "labels")
    assert kind == "labels"  # what merely stands there is one where its values name the folder


def test_what_was_taken_by_its_position_is_known(tmp_path: Path) -> None:
    files = {
        "nodes/Entity/e.parquet": {"ENTITY_KEY": ["E1"], "LABELS": ["Entity,Company"]},
        "nodes/Address/a.parquet": {"id": ["A1"]},
        "relationships/HAS/r.parquet": {"E": ["E1"], "A": ["A1"], "REL": ["HAS"], "SINCE": [1999]},
    }
    snapshot = opened(tmp_path, files)
    assert snapshot.by_position == [
        {"table": "nodes/Entity", "columns": {"id": ["ENTITY_KEY"], "labels": ["LABELS"]}},
        {"table": "relationships/HAS", "columns": {"source": ["E"], "target": ["A"], "type": ["REL"]}},
    ]
    assert tell_positions(snapshot.by_position) == (
        "nodes/Entity: id is 'ENTITY_KEY', labels is 'LABELS'; "
        "relationships/HAS: source is 'E', target is 'A', type is 'REL'"
    )


@pytest.mark.parametrize("ends", [{"a": [1.5], "b": [2.5]}, {"a": [1], "b": [2]}])
def test_ends_by_position_of_another_type_show_the_columns_and_what_declares_them(
    tmp_path: Path, ends: dict[str, Any]
) -> None:
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, {**PEOPLE, "relationships/KNOWS/a.parquet": {**ends, "c": ["p1"], "d": ["p2"]}})
    assert "a, b, c, d" in caught.value.what
    assert "dataset: {columns: {source: [sourceNodeId, source, src, from" in caught.value.cure


@pytest.mark.parametrize(
    ("columns", "roles"),
    [
        (["source", "target", "x"], ["source", "target", "property"]),
        (["x", ":END_ID", ":START_ID"], ["property", "target", "source"]),
        (["from", "to", "type"], ["source", "target", "type"]),
        (["a", "b", "c"], ["source", "target", "type"]),
    ],
)
def test_columns_of_relationships_likewise(tmp_path: Path, columns: list[str], roles: list[str]) -> None:
    table = pa.table([["Ada" if name == "x" else "KNOWS"] for name in columns], columns)
    snapshot = opened(tmp_path, {**PEOPLE, "relationships/KNOWS/a.parquet": table})
    assert [column.role for column in snapshot.relationships[0].columns] == roles


@pytest.mark.parametrize(
    ("folder", "labels", "counted"),
    [
        ("Person", None, {"Person": 2}),
        ("Person:Employee", None, {"Person": 2, "Employee": 2}),
        ("Person", ["Person", "Person,Employee"], {"Person": 2, "Employee": 1}),
        ("Person", [["Person", "Boss"], ["Boss", "Boss", None]], {"Person": 2, "Boss": 2}),
        ("Person", [None, "Employee , Boss"], {"Person": 2, "Employee": 1, "Boss": 1}),
        ("Person", [["Boss", " Boss", " "], [" Person ", "Boss"]], {"Person": 2, "Boss": 2}),
    ],
)
def test_a_node_counts_once_for_each_of_its_labels(
    tmp_path: Path, folder: str, labels: Any, counted: dict[str, int]
) -> None:
    columns = {"id": ["p1", "p2"]} | ({} if labels is None else {"labels": labels})
    assert label_counts(opened(tmp_path, {f"nodes/{folder}/a.parquet": columns})) == counted


def test_labels_and_types_are_what_the_rows_say_and_not_the_footer(tmp_path: Path) -> None:
    """The bounds of a column of one value are changed, so that the footer seems to prove another one."""
    files = {
        "nodes/Person/a.parquet": {"id": ["p1", "p2"], "labels": ["Bosses", "Bosses"]},
        "relationships/KNOWS/a.parquet": {"source": ["p1"], "target": ["p2"], "type": ["LIKES"]},
    }
    snapshot = opened(tmp_path, files)
    for path, true, false in zip(files, (b"Bosses", b"LIKES"), (b"Worker", b"KNOWS"), strict=True):
        content = (snapshot.path / path).read_bytes()
        start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        (snapshot.path / path).write_bytes(content[:start] + content[start:].replace(true, false))
        assert true in content[start:]
    assert label_counts(snapshot) == {"Person": 2, "Bosses": 2}
    with pytest.raises(BadInput, match="row 1: 'type' is 'LIKES', but the folder says 'KNOWS'"):
        check_types(snapshot)


@pytest.mark.parametrize("columns", [["id", "labels"], ["id", "kind"]])
def test_damage_behind_a_footer_that_opens_is_never_a_surprise(tmp_path: Path, columns: list[str]) -> None:
    table = pa.table([[f"p{number}" for number in range(9000)], ["Person"] * 9000], columns)
    folder = write(tmp_path, {"nodes/Person/a.parquet": table})
    file = folder / "nodes/Person/a.parquet"
    content = bytearray(file.read_bytes())
    data = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    content[4:data] = bytes(data - 4)
    file.write_bytes(content)
    if columns == ["id", "labels"]:
        assert open_snapshot("acme", 1700000001, folder, {}, "").rows == 9000
        return
    with pytest.raises(NotReadable, match=r"nodes/Person/a\.parquet does not open"):
        open_snapshot("acme", 1700000001, folder, {}, "")


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" * 100, b"\0" * 4096], ids=["empty", "magic", "magics", "zeros"]
)
def test_a_file_that_does_not_open_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NotReadable, match=r"nodes/Person/z\.parquet does not open"):
        opened(tmp_path, {**PEOPLE, "nodes/Person/z.parquet": content})
