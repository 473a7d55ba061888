"""A page that is not what its own checksum says is found, whoever wrote it; a right file and one without checksums pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.checksums import check_checksums
from tests.house import House

ROWS = 5_000
PEOPLE = pa.table(
    {
        "id": [f"p{number:06}" for number in range(ROWS)],
        "price": list(range(1_000_000, 1_000_000 + ROWS)),
        "tags": [[str(number), None] if number % 3 else [] for number in range(ROWS)],
    }
)


def write(path: Path, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        PEOPLE, path, row_group_size=2_000, **{"write_page_checksum": True, "data_page_size": 4_096, **how}
    )
    return path


def damage(path: Path, column: str) -> None:
    """Flip one bit in the middle of a column of the second row group."""
    group = pq.read_metadata(path).row_group(1)
    chunk = next(
        one for one in map(group.column, range(group.num_columns)) if one.path_in_schema.startswith(column)
    )
    data = bytearray(path.read_bytes())
    start = min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset)
    data[start + chunk.total_compressed_size // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("column", ["id", "price", "tags"])
def test_a_page_that_is_not_what_its_checksum_says_is_named(
    tmp_path: Path, codec: str, version: str, dictionary: bool, column: str
) -> None:
    path = write(
        tmp_path / "a.parquet", compression=codec, data_page_version=version, use_dictionary=dictionary
    )
    check_checksums(path, "a.parquet")
    damage(path, column)
    with pytest.raises(
        BadInput, match=rf"a\.parquet is damaged: a page of column '{column}.*' is not what its checksum says"
    ):
        check_checksums(path, "a.parquet")


def test_a_file_without_checksums_passes_since_nobody_can_know(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", write_page_checksum=False, compression="none")
    damage(path, "price")
    check_checksums(path, "a.parquet")


def test_what_spark_wrote_has_checksums_and_is_right() -> None:
    files = sorted((Path(__file__).parents[1] / "fixtures/spark").rglob("*.parquet"))
    assert files
    for file in files:
        check_checksums(file, file.name)
    damaged = [file for file in files if _has_checksums(file)]
    assert damaged, "Spark writes them unless it is told not to"


def _has_checksums(file: Path) -> bool:
    import mmap

    from bgdeploy.snapshots.checksums import _CRC, _read_header

    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _CRC in _read_header(data, 4)[0]


@pytest.mark.parametrize("junk", [b"\xf9" * 60, b"\x1c" * 60, b"\xff" * 60, b"\x08\xff" * 30])
def test_what_is_no_header_is_left_to_those_who_decode_it(tmp_path: Path, junk: bytes) -> None:
    path = write(tmp_path / "a.parquet", compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:64] = junk
    path.write_bytes(data)
    check_checksums(path, "a.parquet")


def test_a_damaged_page_never_goes_live(house: House) -> None:
    folder = house.folder / "data/acme/1700000001/nodes/Person"
    damage(write(folder / "a.parquet", compression="none", use_dictionary=False), "price")
    (folder.parents[1] / "_SUCCESS").touch()
    house.run("run", "--timeout", "60", ok=False)
    (job,) = house.json("jobs", "list")
    assert (job["state"], job["error_code"], job["attempt"]) == ("failed", "bad-input", 1)
    assert "nodes/Person/a.parquet is damaged: a page of column 'price'" in job["error"]
    assert house.live("acme") is None
