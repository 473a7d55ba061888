"""Values and columns that once went live wrong, or never although they were right: proven, or refused by file and column."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.rows import read_rows
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.targets.ladybug.build import build
from tests.targets.embedded import loaded, work_on


def put(folder: Path, table: pa.Table, **how: Any) -> Path:
    path = folder / "nodes/T/a.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, **how)
    return folder


def refusal(folder: Path) -> str:
    """Why a snapshot is refused, be it for its footer or by the proof."""
    with pytest.raises(BadInput) as caught, loaded(folder, folder / "build"):
        pass
    assert "nodes/T/a.parquet" in str(caught.value)
    return str(caught.value)


def test_labels_may_begin_and_end_with_any_letter(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "labels": ["Person,vip", "Dev, \v B \v", "v"]})
    with loaded(put(tmp_path, table), tmp_path / "build") as engine:
        found = engine.rows("MATCH (n:T) RETURN n.labels AS labels ORDER BY n.id")
    assert [sorted(row["labels"]) for row in found] == [["Person", "T", "vip"], ["B", "Dev", "T"], ["T", "v"]]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2**31 - 1], pa.int32()).cast(pa.date32()),
        pa.array([1, -(2**31)], pa.int32()).cast(pa.date32()),
        pa.array([1, 2**63 - 1], pa.int64()).cast(pa.timestamp("us")),
        pa.array([1, -(2**60)], pa.int64()).cast(pa.timestamp("us", "UTC")),
        pa.array([1, 2**62], pa.int64()).cast(pa.timestamp("ms")),
        pa.array([[1], [5, 2**31 - 1]], pa.list_(pa.int32())).cast(pa.list_(pa.date32())),
        pa.array([[[1]], [[5], [2**60]]], pa.list_(pa.list_(pa.int64()))).cast(pa.list_(pa.list_(pa.timestamp("us")))),
    ],
    ids=["day after", "day before", "moment after", "zoned before", "milliseconds", "in a list", "in a list of lists"],
)  # fmt: skip
def test_days_and_moments_that_no_reader_knows_are_refused_though_no_footer_tells(
    tmp_path: Path, values: pa.Array
) -> None:
    folder = put(tmp_path, pa.table({"id": [1, 2], "at": values}), write_statistics=False)
    assert "years 1 to 9999" in refusal(folder)


def test_the_first_and_the_last_day_are_taken(tmp_path: Path) -> None:
    days = [date.min, date.max, None]
    table = pa.table({"id": [1, 2, 3], "day": days, "at": pa.array(days).cast(pa.timestamp("us"))})
    with loaded(put(tmp_path, table, write_statistics=False), tmp_path / "build") as engine:
        assert [row["d"] for row in engine.rows("MATCH (n:T) RETURN n.day AS d ORDER BY n.id")] == days


def test_a_footer_that_hides_rows_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path, pa.table({"id": list(range(57))}), compression="none")
    path = folder / "nodes/T/a.parquet"
    raw = path.read_bytes()
    size = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - size : -8]
    counted = b"\x16\x72"  # an i64 that is 57; the first of them is the file's own number of rows
    assert footer.index(counted) < footer.rindex(counted)
    path.write_bytes(raw[: -8 - size] + footer.replace(counted, b"\x16\x00", 1) + raw[-8:])
    assert pq.read_metadata(path).num_rows == 0
    assert "0 rows, and its row groups hold 57" in refusal(folder)


@pytest.mark.parametrize("name", ["rowid", "RowId"])
def test_a_property_that_the_engine_takes_for_its_row_number_is_refused(tmp_path: Path, name: str) -> None:
    assert "Rename the column" in refusal(put(tmp_path, pa.table({"id": ["a", "b"], name: [1, 2]})))


@pytest.mark.parametrize("kind", [pa.time64("us"), pa.duration("s")])
def test_lists_of_lists_of_spans_are_refused(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([None, [[5]]], pa.list_(pa.list_(pa.int64())))
    table = pa.table({"id": [1, 2], "spans": values.cast(pa.list_(pa.list_(kind)))})
    assert "microseconds" in refusal(put(tmp_path, table))


def test_lists_of_spans_are_taken_behind_nulls_and_empty_ones(tmp_path: Path) -> None:
    spans = [None, [], [timedelta(seconds=5), None], [], [timedelta(days=-2)]]
    table = pa.table({"id": range(5), "spans": pa.array(spans, pa.list_(pa.duration("us")))})
    with loaded(put(tmp_path, table), tmp_path / "build") as engine:
        assert [row["s"] for row in engine.rows("MATCH (n:T) RETURN n.spans AS s ORDER BY n.id")] == spans


@pytest.mark.parametrize("levels", [8, 9, 30])
def test_lists_are_taken_in_eight_levels_and_refused_in_more(tmp_path: Path, levels: int) -> None:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    folder = put(tmp_path, pa.table({"id": [1, 2], "deep": [value, None]}))
    if levels > 8:
        assert f"lists in {levels} levels" in refusal(folder)
        return
    with loaded(folder, tmp_path / "build") as engine:
        assert engine.rows("MATCH (n:T) RETURN n.deep AS deep ORDER BY n.id") == [
            {"deep": value},
            {"deep": None},
        ]


@pytest.mark.parametrize("values", [pa.array([b"abc"], pa.binary(3)), pa.array([1], pa.decimal128(20, 2))])
def test_what_the_second_reader_cannot_decode_is_refused_before_it_is_loaded(
    tmp_path: Path, values: pa.Array
) -> None:
    table = pa.table({"id": [1], "x": values})
    said = refusal(put(tmp_path, table, column_encoding={"x": "BYTE_STREAM_SPLIT"}, use_dictionary=False))
    assert "BYTE_STREAM_SPLIT" in said
    assert "'x'" in said


def test_an_array_of_a_fixed_length_that_pyarrow_cannot_read_is_told_with_its_cure(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    duckdb.execute(
        "COPY (SELECT i AS id, TIME '10:00' AS t, CASE WHEN i % 3 = 0 THEN NULL ELSE [i, i, i]::INTEGER[3] END AS x "
        f"FROM range(10) r(i)) TO '{path}' (FORMAT parquet)"
    )
    folder = put(tmp_path / "data", pa.table({"id": [1]}))
    path.replace(folder / "nodes/T/a.parquet")
    snapshot = open_snapshot("acme", 1, folder, {}, "print")
    (table,) = snapshot.tables
    with pytest.raises(BadInput, match="column::INT"):
        list(read_rows(folder / table.files[0].path, table.files[0], table.columns))


def test_what_is_refused_by_the_build_leaves_nothing(tmp_path: Path) -> None:
    work = work_on(put(tmp_path, pa.table({"id": [1], "rowid": [7]})), tmp_path / "build")
    with pytest.raises(BadInput):
        build(work)
    assert not work.graph.exists()
