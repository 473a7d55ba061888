"""Ends that only their ids tell: every one gets its label, however little memory holds at once."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.snapshots import ends, keys
from bgdeploy.snapshots.ends import Misfit, find_parts
from bgdeploy.snapshots.schema import open_snapshot
from bgdeploy.snapshots.source import Snapshot

LABELS = ("A", "B", "C")
Rows = list[tuple[int, int]]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several passes over all ids; labels of rows come in other pieces than the rows themselves."""
    monkeypatch.setattr(keys, "ROWS", 500)
    monkeypatch.setattr(ends, "_ROWS", 32)


def save(path: Path, **columns: pa.Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write(folder: Path, files: list[Rows], kinds: list[pa.DataType]) -> Snapshot:
    """Ids of the labels in turn, 0 to 299, and relationship files that join them, each of its own type."""
    for number, label in enumerate(LABELS):
        save(folder / f"nodes/{label}/0.parquet", id=pa.array(range(number, 300, 3), pa.int64()))
    for number, (rows, kind) in enumerate(zip(files, kinds, strict=True)):
        columns = {
            name: pa.array([row[at] for row in rows], kind) for at, name in enumerate(("source", "target"))
        }
        save(folder / f"relationships/R/{number:02}.parquet", **columns)
    return open_snapshot("acme", 1700000001, folder, {}, "")


def joined(snapshot: Snapshot, build: Path) -> dict[tuple[str, str], Counter[tuple[int, int]]]:
    """The rows of every pair of labels, read back from the parts."""
    build.mkdir()
    found: dict[tuple[str, str], Counter[tuple[int, int]]] = {}
    for part in find_parts(snapshot, build)[0]:
        home = build if part.path.startswith("split/") else snapshot.path
        table = pq.ParquetFile(home / part.path).read()
        assert table.num_rows == part.rows
        rows = zip(table["source"].to_pylist(), table["target"].to_pylist(), strict=True)
        found.setdefault((part.source, part.target), Counter()).update(rows)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_every_row_is_joined_to_the_labels_that_have_its_ids(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    files = [
        [(chance.randrange(300), chance.randrange(300)) for _ in range(chance.choice((1, 20, 90, 700)))]
        for _ in range(7)
    ]
    kinds = [chance.choice((pa.int64(), pa.int32())) for _ in files]
    wanted: dict[tuple[str, str], Counter[tuple[int, int]]] = {}
    for row in (row for rows in files for row in rows):
        wanted.setdefault((LABELS[row[0] % 3], LABELS[row[1] % 3]), Counter())[row] += 1
    assert joined(write(tmp_path / "data", files, kinds), tmp_path / "build") == wanted


def test_files_of_one_pair_are_left_as_they_are(tmp_path: Path) -> None:
    files = [[(3 * row % 300, (3 * row + 1) % 300) for row in range(200)] for _ in range(3)]
    snapshot = write(tmp_path / "data", files, [pa.int64()] * 3)
    (parts,) = find_parts(snapshot, tmp_path)
    assert {(part.source, part.target) for part in parts} == {("A", "B")}
    assert [part.path for part in parts] == [file.path for file in snapshot.relationships[0].files]


@pytest.mark.parametrize(
    ("bad", "why"),
    [((12, 300), "1 rows with a target id that no node has"), ((-1, 2), "1 rows with a source")],
)
def test_one_row_that_fits_no_label_among_many_is_told(
    tmp_path: Path, bad: tuple[int, int], why: str
) -> None:
    rows = [(row % 300, (row * 7) % 300) for row in range(900)]
    snapshot = write(tmp_path / "data", [rows[:200], [*rows[200:], bad], rows], [pa.int64()] * 3)
    with pytest.raises(Misfit, match=f"relationships/R/01.parquet has {why}"):
        find_parts(snapshot, tmp_path)


def test_an_id_of_several_labels_is_told(tmp_path: Path) -> None:
    snapshot = write(tmp_path / "data", [[(row, row) for row in range(300)]], [pa.int64()])
    save(tmp_path / "data/nodes/C/1.parquet", id=pa.array([4], pa.int64()))
    snapshot = open_snapshot("acme", 1700000001, tmp_path / "data", {}, "")
    with pytest.raises(Misfit, match="1 rows with a source id that several labels share"):
        find_parts(snapshot, tmp_path)


def test_a_file_is_split_by_the_end_that_only_its_ids_tell_and_again_to_the_same_bytes(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    save(data / "nodes/A/0.parquet", id=pa.array(range(10), pa.int64()))
    save(data / "nodes/B/0.parquet", id=pa.array([*range(100, 200, 2)] * 2, pa.int64()))  # every one twice
    save(data / "nodes/C/0.parquet", id=pa.array(range(101, 200, 2), pa.int64()))
    targets = pa.array([100 + row * 7 % 100 for row in range(90)], pa.int32())
    notes = pa.array([None if row % 3 else f"note {row}" for row in range(90)])
    save(
        data / "relationships/R/0.parquet",
        source=pa.array([row % 10 for row in range(90)], pa.uint8()), note=notes, target=targets,
    )  # fmt: skip
    snapshot = open_snapshot("acme", 1700000001, data, {}, "")
    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (parts,) = find_parts(snapshot, tmp_path / name)
        found.append((parts, [(tmp_path / name / part.path).read_bytes() for part in parts]))
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["split"]
    assert found[0] == found[1]
    assert [(part.path, part.rows, part.source, part.target) for part in found[0][0]] == [
        ("split/0.parquet", 45, "A", "B"),
        ("split/1.parquet", 45, "A", "C"),
    ]
    tables = [pq.read_table(tmp_path / "one" / part.path) for part in found[0][0]]
    whole = pq.read_table(data / "relationships/R/0.parquet")
    for table, rest in zip(tables, (0, 1), strict=True):
        assert table == whole.filter(pa.array([target.as_py() % 2 == rest for target in targets]))


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(row % 300, (row * 7) % 300) for row in range(100)]
    found = joined(write(Path("data"), [rows], [pa.int64()]), Path("build"))
    assert sum(count for pairs in found.values() for count in pairs.values()) == 100
    assert Path.cwd() == tmp_path


def test_a_split_that_was_cut_off_leaves_nothing_that_is_taken_for_a_part(tmp_path: Path) -> None:
    rows = [(row % 300, (row * 7) % 300) for row in range(100)]
    snapshot = write(tmp_path / "data", [rows], [pa.int64()])
    (tmp_path / "ends/in").mkdir(parents=True)
    (tmp_path / "ends/in/0.parquet").symlink_to("/nowhere")
    (parts,) = find_parts(snapshot, tmp_path)
    assert sum(part.rows for part in parts) == 100
    assert not (tmp_path / "ends").exists()
