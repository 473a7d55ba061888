"""Every file below nodes/ and relationships/ is loaded, known bookkeeping, or a reason to refuse by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bgdeploy.errors import BadInput, NotReadable
from bgdeploy.snapshots.folders import list_timestamps
from bgdeploy.snapshots.layout import read_layout
from tests.snapshots.folders import KNOWS, PEOPLE, opened, write

MORE = {"id": ["p3"], "name": ["Cy"]}


@pytest.mark.parametrize(
    "name", ["b.parq", "b.pq", "b.PARQUET", "000000_0", "000001_0_copy_1", "20240101_000000_00001_abcde_1"]
)
def test_parquet_under_every_name_that_writers_give_it_is_loaded(tmp_path: Path, name: str) -> None:
    assert opened(tmp_path, {**PEOPLE, f"nodes/Person/{name}": pa.table(MORE)}).rows == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.csv", b"id\np3\n"),
        ("b.orc", b"ORC"),
        ("000000_0", b"p3\x01Cy\n"),
        ("b.parquet.bak", MORE),  # what is Parquet, and may be a copy of what is there
        ("b.parquet~", MORE),
        ("README", b"x"),
        ("manifest", b"{}"),
        ("_b.parquet", MORE),  # left out by some readers, read by others
        ("_old/b.parquet", MORE),
        ("../b.csv", b"id\np3\n"),
        ("../_City/b.parquet", MORE),
        ("../../edges/000000_0", pa.table(MORE)),  # in a folder that is no table's
    ],
)
def test_everything_else_is_refused_by_its_name(tmp_path: Path, name: str, content: Any) -> None:
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, {**PEOPLE, f"nodes/Person/{name}": content})
    assert os.path.normpath(f"nodes/Person/{name}") in os.path.normpath(caught.value.what)
    assert caught.value.cure


@pytest.mark.parametrize(
    "name",
    ["_SUCCESS", "_metadata", "_common_metadata", "_committed_7", ".b.parquet", "._b.parquet", ".b.parquet.crc", "b.crc", ".DS_Store", "../../README", "../../_old/b.parquet"],
)  # fmt: skip
def test_bookkeeping_and_what_is_hidden_on_purpose_is_left_out(tmp_path: Path, name: str) -> None:
    assert opened(tmp_path, {**PEOPLE, f"nodes/Person/{name}": b"x"}).rows == 2


@pytest.mark.parametrize("name", ["nodes", "relationships"])
def test_a_link_in_the_place_of_all_tables_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, {**PEOPLE, **KNOWS})
    (tmp_path / name).rename(tmp_path / "aside")
    (tmp_path / name).symlink_to("aside")
    with pytest.raises(BadInput, match=f"{name} is a link to a folder"):
        read_layout(tmp_path)


def test_a_name_that_says_nothing_is_looked_into_without_waiting(tmp_path: Path) -> None:
    write(tmp_path, PEOPLE)
    os.mkfifo(tmp_path / "nodes/Person/000000_0")
    with pytest.raises(BadInput, match="nodes/Person/000000_0 is not a file"):
        read_layout(tmp_path)
    (tmp_path / "nodes/Person/000000_0").unlink()
    (tmp_path / "nodes/Person/000000_0").touch()
    with pytest.raises(NotReadable, match="nodes/Person/000000_0 is empty"):
        read_layout(tmp_path)


LOGS = {
    "Delta Lake": "_delta_log/00000000000000000000.json",
    "Hudi": ".hoodie/hoodie.properties",
    "Iceberg": "metadata/v1.metadata.json",
    "Spark streaming": "_spark_metadata/0",
}


@pytest.mark.parametrize("form", LOGS)
@pytest.mark.parametrize("home", ["relationships/KNOWS", "relationships/KNOWS/day=1", "nodes", "."])
def test_a_table_of_another_format_is_never_read_plainly(tmp_path: Path, home: str, form: str) -> None:
    with pytest.raises(BadInput) as caught:
        opened(tmp_path, {**PEOPLE, **KNOWS, f"{home}/{LOGS[form]}": b"{}"})
    place = "The snapshot's own folder" if home == "." else home
    assert caught.value.what.startswith(f"{place} is a {form} table (")
    assert caught.value.cure.startswith(
        "Export the table as a plain folder of Parquet files, for instance with"
    )


def test_a_label_may_be_called_metadata(tmp_path: Path) -> None:
    assert opened(tmp_path, {**PEOPLE, "nodes/metadata/a.parquet": {"id": ["m"]}}).rows == 3


@pytest.mark.parametrize("form", LOGS)
def test_a_customer_whose_folder_is_such_a_table_has_no_snapshots_and_it_is_said(
    tmp_path: Path, form: str
) -> None:
    write(tmp_path / "1700000000", PEOPLE)
    assert list_timestamps(tmp_path, now=1.8e9).timestamps == {1_700_000_000}
    write(tmp_path, {LOGS[form]: json.dumps({}).encode()}, marker=False)
    listing = list_timestamps(tmp_path, now=1.8e9)
    assert listing.timestamps == frozenset()
    assert any(f"the customer's folder is a {form} table" in str(one.skipped) for one in listing.skipped)
