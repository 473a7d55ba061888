"""Rows of files in any pieces, from any row on: always the same rows in the same order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.rows import iterate as iterate_rows
from bgdeploy.snapshots.source import Column, DataFile
from bgdeploy.targets.neo4j.bolt import batches
from bgdeploy.targets.neo4j.bolt.batches import RowReader


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    chance = random.Random(1)
    made = []
    for number, (rows, group) in enumerate([(700, 100), (1, 10), (999, 333)]):
        path = tmp_path / f"{number}.parquet"
        table = pa.table({"source": [chance.randrange(50) for _ in range(rows)], "place": list(range(rows))})
        pq.write_table(table, path, row_group_size=group)
        made.append(path)
    return made


def made(paths: list[Path], start: int, stop: int, at: int, sort_by: str | None = None) -> RowReader:
    columns = (Column("source", pa.int64(), "source"), Column("place", pa.int64(), "property"))
    files = [(path, DataFile(path.name, 0, 0, 0, columns)) for path in paths]
    return RowReader(files, columns, (start, stop), at, sort_by)


def drain(one: RowReader, size: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while (table := one.take(size)) is not None:
        found += zip(table["source"].to_pylist(), table["place"].to_pylist(), strict=True)
    return found


@pytest.mark.parametrize("sort_by", [None, "source"])
@pytest.mark.parametrize(("start", "stop"), [(0, 1700), (0, 850), (850, 1700), (699, 702), (5, 5)])
def test_a_row_number_means_the_same_row_at_every_try(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, sort_by: str | None, start: int, stop: int
) -> None:
    monkeypatch.setattr(batches, "WINDOW", 256)
    whole = drain(made(paths, start, stop, start, sort_by), 100)
    assert len(whole) == stop - start
    if sort_by is None:
        every = drain(made(paths, 0, 1700, 0), 1700)
        assert whole == every[start:stop]
    else:
        assert sorted(whole) == sorted(drain(made(paths, start, stop, start), 100))
        assert all(a[0] <= b[0] for a, b in pairwise(whole[:256]))
    for at in {start, min(start + 1, stop), (start + stop) // 2, stop}:
        for size in (1, 77, 5000):
            assert drain(made(paths, start, stop, at, sort_by), size) == whole[at - start :]


def test_a_row_group_is_decoded_once_however_many_windows_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, decoded = tmp_path / "one.parquet", [0]
    pq.write_table(pa.table({"source": list(range(5000)), "place": list(range(5000))}), path)

    def iterate(*given: Any) -> Iterator[pa.RecordBatch]:
        for batch in iterate_rows(*given):
            decoded[0] += batch.num_rows
            yield batch

    monkeypatch.setattr(batches, "WINDOW", 256)
    monkeypatch.setattr(batches, "_DECODED", 100)
    monkeypatch.setattr(batches, "iterate", iterate)
    assert len(drain(made([path], 0, 5000, 0, "source"), 64)) == 5000
    assert decoded == [5000]


@pytest.mark.parametrize("sort_by", [None, "source"])
@pytest.mark.parametrize("column", ["source", "place"])
def test_a_damaged_page_is_told_with_file_and_column(
    tmp_path: Path, column: str, sort_by: str | None
) -> None:
    path = tmp_path / "0.parquet"
    table = pa.table({"source": list(range(50_000)), "place": list(range(50_000))})
    pq.write_table(table, path, use_dictionary=False)
    damage(path, column)
    with pytest.raises(BadInput) as caught:
        drain(made([path], 0, 50_000, 0, sort_by), 5000)
    assert str(caught.value).startswith(f"0.parquet: column {column!r} cannot be read, it is damaged: ")


def damage(path: Path, column: str) -> None:
    """Overwrite the middle of a column's pages; the footer stays."""
    parts = pq.read_metadata(path).row_group(0)
    chunk = next(one for n in range(parts.num_columns) if (one := parts.column(n)).path_in_schema == column)
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset)
        file.write(b"\xff" * 200)


def test_a_file_that_is_gone_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        drain(made([tmp_path / "0.parquet"], 0, 10, 0), 10)


def test_what_is_put_back_comes_again(paths: list[Path]) -> None:
    one = made(paths, 0, 1700, 0)
    first = one.take(300)
    assert first is not None
    one.put_back(first)
    again = one.take(150)
    assert again is not None
    assert again.equals(first.slice(0, 150))
    assert len(drain(one, 64)) == 1550
