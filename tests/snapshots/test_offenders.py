"""Every offender is found, whatever the files look like: against a naive search over random snapshots."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgdeploy.snapshots.ends import find_parts
from bgdeploy.snapshots.findings import refuse, tell
from bgdeploy.snapshots.index import Index, Place, opened_index
from bgdeploy.snapshots.offenders import FIRST, Finding, find_all
from bgdeploy.snapshots.source import Snapshot
from bgdeploy.snapshots.spill import IDS, NoRoom, Spill, by_hash, by_place
from tests.snapshots.folders import opened
from tests.tmpfs import small_disk

Lines = list[tuple[Any, str, int]]
Seen = dict[tuple[str, str], Lines]  # (folder, problem) -> (id, file, row) of every line


@contextmanager
def index(snapshot: Snapshot, part_rows: int = 3) -> Iterator[Index]:
    with tempfile.TemporaryDirectory() as folder:
        with opened_index(snapshot, snapshot.tables, Path(folder, "offenders"), part_rows) as one:
            yield one
        assert not Path(folder, "offenders").exists()


def key_of(finding: Finding) -> tuple[str, str]:
    kind = "double int" if finding.about.numeric else "double str"
    return finding.about.folder, kind if finding.problem == "double id" else finding.problem


def search(snapshot: Snapshot, *, across: bool = False, part_rows: int = 3) -> tuple[Seen, list[Finding]]:
    """What is found: every line, and the findings for their sums."""
    seen: Seen = {}
    findings = []
    with index(snapshot, part_rows) as one:
        for finding in find_all(one, across=across, tell=lambda folder, rows: None):
            lines = [(id_, place.file, place.row) for id_, place in finding.lines()]
            seen[key_of(finding)] = lines
            findings.append(finding)
    return seen, findings


# Types that files of one table may have beside each other.
KINDS = {
    "string": [[pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]],
    "integer": [[pa.int64(), pa.int32(), pa.uint8()], [pa.uint64()]],
}
VALUES = {"string": ["a", "b", "c", "d", "é", "", "1"], "integer": [0, 1, 2, 3, 7, 12]}
LABELS = [None, "Z", "A", "Z,A", "C, A"]


@st.composite
def ids(draw: st.DrawFn, family: str, kinds: list[pa.DataType], most: int = 6) -> pa.Array:
    kind = draw(st.sampled_from(kinds))
    values = draw(st.lists(st.sampled_from([None, *VALUES[family]]), max_size=most))
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode()
    return pa.array(values, kind)


@st.composite
def shuffled(draw: st.DrawFn, columns: dict[str, pa.Array]) -> pa.Table:
    """The columns in any order, each file in its own."""
    rows = min(map(len, columns.values()))
    return pa.table({name: columns[name][:rows] for name in draw(st.permutations(sorted(columns)))})


@st.composite
def node_files(draw: st.DrawFn, folders: list[str], family: str) -> dict[str, pa.Table]:
    kinds, how = draw(st.sampled_from(KINDS[family])), draw(st.sampled_from([None, "text", "list"]))
    files = {}
    for folder in folders:
        for name in draw(st.sets(st.sampled_from("xyz"), max_size=3)):
            columns = {"id": draw(ids(family, kinds)), "more": pa.array(range(6))}
            if how is not None and draw(st.booleans()):
                texts = [draw(st.sampled_from(LABELS)) for _ in columns["id"]]
                columns["labels"] = _labels(texts, how)
            files[f"nodes/{folder}/{name}.parquet"] = draw(shuffled(columns))
    return files


def _labels(texts: list[str | None], how: str) -> pa.Array:
    if how == "text":
        return pa.array(texts, pa.string())
    lists = [text and [one.strip() for one in text.split(",")] for text in texts]
    return pa.array(lists, pa.list_(pa.string()))


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, pa.Table]:
    """Files of a label in two folders, of other labels with ids of both kinds, and of relationships."""
    families = {label: draw(st.sampled_from(["string", "integer"])) for label in "ABC"}
    files = {"nodes/A/first.parquet": pa.table({"id": pa.array(["a"] if families["A"] == "string" else [1])})}
    files = draw(node_files(["A", "A:X"], families["A"])) or files
    for label in "BC":
        files |= draw(node_files([label], families[label]))
    for folder, one, other in (("R", "ABC", "ABC"), ("S/from=X/to=A", "A", "A")):
        left, right = families[draw(st.sampled_from(one))], families[draw(st.sampled_from(other))]
        kinds = draw(st.sampled_from(KINDS[left])), draw(st.sampled_from(KINDS[right]))
        for name in draw(st.sets(st.sampled_from("xy"), max_size=2)):
            pair = {"source": draw(ids(left, kinds[0])), "target": draw(ids(right, kinds[1]))}
            files[f"relationships/{folder}/{name}.parquet"] = draw(shuffled(pair))
    return files


def rows_of(files: dict[str, pa.Table], prefix: str, column: str) -> Lines:
    return [
        (id_, path, row)
        for path in sorted(files)
        if path.startswith(prefix)
        for row, id_ in enumerate(files[path][column].to_pylist(), 1)
    ]


def carrying(files: dict[str, pa.Table], label: str) -> Lines:
    """Rows of all nodes that carry a label, in the order of the label's folder."""
    found = []
    for id_, path, row in rows_of(files, "nodes/", "id"):
        labels = files[path]["labels"].to_pylist()[row - 1] if "labels" in files[path].column_names else None
        more = [one.strip() for one in labels.split(",")] if isinstance(labels, str) else labels or []
        if label in [*path.split("/")[1].split(":"), *more]:
            found.append((id_, path, row))
    return found


def expected(files: dict[str, pa.Table], across: bool) -> Seen:
    """The naive search: everything in memory, one id at a time."""
    names = sorted({path.split("/")[1].split(":")[0] for path in files if path.startswith("nodes/")})
    by_name = {
        name: [line for line in rows_of(files, "nodes/", "id") if line[1].split("/")[1].split(":")[0] == name]
        for name in names
    }
    seen: Seen = {}
    for name in names:
        seen[f"nodes/{name}", "null id"] = [line for line in by_name[name] if line[0] is None]
        among = [line for line in (carrying(files, name) if across else by_name[name]) if line[0] is not None]
        counts = Counter((type(line[0]), line[0]) for line in among)
        doubles = [line for line in among if counts[type(line[0]), line[0]] > 1]
        for kind in (str, int):  # 1 and '1' are two ids, told apart
            some = [line for line in doubles if isinstance(line[0], kind)]
            seen[f"nodes/{name}", f"double {kind.__name__}"] = some
    for folder in {path.rpartition("/")[0] for path in files if path.startswith("relationships/")}:
        declared = "from=" in folder
        for role in ("source", "target"):
            looked_in = ["A"] if declared else names
            known = [{line[0] for line in by_name[name]} - {None} for name in looked_in]
            lines = rows_of(files, f"{folder}/", role)
            holders = {line: sum(line[0] in ids_ for ids_ in known) for line in lines if line[0] is not None}
            seen[folder, f"null {role}"] = [line for line in lines if line[0] is None]
            seen[folder, f"dangling {role}"] = [line for line, count in holders.items() if count == 0]
            seen[folder, f"shared {role}"] = [line for line, count in holders.items() if count > 1]
    return {key: lines for key, lines in seen.items() if lines}


def opens(folder: Path, files: dict[str, pa.Table]) -> Snapshot | None:
    from bgdeploy.errors import BadInput

    try:
        return opened(folder, files)
    except BadInput:
        return None  # nothing is looked for in what is refused at once: an empty snapshot, an end of another kind


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(files=graphs(), across=st.booleans(), part_rows=st.integers(1, 8))
def test_everything_a_naive_search_finds_is_found_in_the_order_of_the_files(
    files: dict[str, pa.Table], across: bool, part_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = opens(Path(folder), files)
        if snapshot is None:
            return
        seen, findings = search(snapshot, across=across, part_rows=part_rows)
    assert seen == expected(files, across)
    for finding in findings:
        lines = seen[key_of(finding)]
        distinct = list(dict.fromkeys(line[0] for line in lines))
        assert finding.ids == len(distinct)
        surplus = finding.problem == "double id"
        assert finding.rows == len(lines) - (len(distinct) if surplus else 0)
        assert [one.id for one in finding.first] == distinct[:FIRST]
        for one in finding.first:
            places = [Place(file, row) for id_, file, row in lines if id_ == one.id]
            assert list(one.places) == places[: len(one.places)]
            assert one.places
            assert one.more == len(places) - len(one.places)


def test_one_id_in_far_more_rows_than_memory_is_reckoned_for(tmp_path: Path) -> None:
    files = {
        f"nodes/A/{part}.parquet": {"id": ["x"] * 700 + [f"{part}-{n}" for n in range(99)]}
        for part in range(3)
    }
    ends = {"source": ["x"] * 900 + ["y"] * 900, "target": ["0-1"] * 1800}
    snapshot = opened(tmp_path, {**files, "relationships/R/a.parquet": ends})
    _, (doubles, lost) = search(snapshot, part_rows=10)
    first = Place("nodes/A/0.parquet", 1)
    assert (doubles.rows, doubles.ids, doubles.first[0].places[0], doubles.first[0].more) == (
        2099,
        1,
        first,
        2097,
    )
    assert (lost.rows, lost.ids) == (900, 1)
    assert tell(lost) == (
        "relationships/R: 900 rows have a source id that no node has (looked in A): "
        "'y' in relationships/R/a.parquet rows 901, 902 and 903 and 897 more rows."
    )


def test_integers_beyond_63_bits_are_ids_like_others(tmp_path: Path) -> None:
    files = {
        "nodes/A/a.parquet": {"id": pa.array([2**64 - 1, 7, 2**64 - 1], pa.uint64())},
        "relationships/R/a.parquet": {"source": pa.array([-1, 7], pa.int64()), "target": pa.array([2**64 - 1, 2**63], pa.uint64())},
    }  # fmt: skip
    seen, _ = search(opened(tmp_path, files))
    assert seen == {
        ("nodes/A", "double int"): [(2**64 - 1, "nodes/A/a.parquet", 1), (2**64 - 1, "nodes/A/a.parquet", 3)],
        ("relationships/R", "dangling source"): [(-1, "relationships/R/a.parquet", 1)],
        ("relationships/R", "dangling target"): [(2**63, "relationships/R/a.parquet", 2)],
    }


def test_ends_find_their_labels_among_signed_and_unsigned_ids(tmp_path: Path) -> None:
    files = {
        "nodes/A/a.parquet": {"id": pa.array([2**64 - 1, 7], pa.uint64())},
        "nodes/B/a.parquet": {"id": pa.array([-1, 8], pa.int64())},
        "relationships/R/a.parquet": {"source": pa.array([-1, 7, 8], pa.int64()), "target": pa.array([7, 2**64 - 1, 8], pa.uint64())},
    }  # fmt: skip
    snapshot = opened(tmp_path / "data", files)
    parts = find_parts(snapshot, snapshot.relationships[0], tmp_path)
    assert [(part.source, part.target, part.rows) for part in parts] == [
        ("A", "A", 1),
        ("B", "A", 1),
        ("B", "B", 1),
    ]
    assert search(snapshot) == ({}, [])


def test_only_the_first_ten_are_named_and_the_others_counted(tmp_path: Path) -> None:
    files = {"nodes/A/a.parquet": {"id": [*range(12, 0, -1), None, *range(1, 13), *[None] * 11]}}
    _, (nulls, doubles) = search(opened(tmp_path, files))
    rows = "13, 26, 27, 28, 29, 30, 31, 32, 33 and 34"
    assert tell(nulls) == f"nodes/A: 12 rows have no id: nodes/A/a.parquet rows {rows} and 2 more rows."
    named = "; ".join(f"{13 - n} in nodes/A/a.parquet rows {n} and {26 - n}" for n in range(1, 11))
    assert tell(doubles) == f"nodes/A: 12 rows repeat an id: {named}; and 2 more ids."


def test_an_error_stays_short_whatever_the_names_are(tmp_path: Path) -> None:
    label, file = "L" * 200, "f" * 200
    long = [f"{number:03}{'i' * 5000}" for number in range(20)]
    files: dict[str, Any] = {
        f"nodes/{label}/{file}.parquet": {"id": [*long, "a", "a", None]},
        f"nodes/B{label}/{file}.parquet": {"id": [*long, "a", "a", None]},
        f"relationships/{'R' * 200}/{file}.parquet": {"source": [*long, *map(str, range(20)), None], "target": [*long, "b", *map(str, range(20))]},
    }  # fmt: skip
    _, findings = search(opened(tmp_path, files), part_rows=100)
    assert len(findings) == 9
    assert len(str(refuse(findings[4:], "What is live stays live."))) < 2000
    for finding in findings:
        assert len(str(refuse([finding], "What is live stays live."))) < 2000


def test_the_columns_are_found_in_files_that_keep_their_ids_elsewhere(tmp_path: Path) -> None:
    files = {
        "nodes/A/a.parquet": {"name": ["n"] * 2, "nodeId": ["a", "a"]},
        "nodes/B/a.parquet": {"x.id": ["p"], "id": ["b"]},
        "relationships/R/a.parquet": {"target": ["a"], "source": ["zzz"]},
    }
    seen, _ = search(opened(tmp_path, files))
    assert list(seen) == [("nodes/A", "double str"), ("relationships/R", "dangling source")]


READ = """
import sys, pyarrow as pa
from pathlib import Path
from bgdeploy.snapshots.ids import read_ids
from bgdeploy.snapshots.schema import open_snapshot
snapshot = open_snapshot("acme", 1, Path(sys.argv[1]), {}, "")
rows = sum(len(ids) for ids in read_ids(snapshot, snapshot.nodes[0], snapshot.nodes[0].files[0], "id"))
print(rows, pa.default_memory_pool().max_memory())
"""


def test_a_column_in_one_piece_is_never_in_memory_whole(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array(range(1_000_000, 3_000_000), pa.int64()).cast(pa.string())})
    place = tmp_path / "nodes/A/a.parquet"
    place.parent.mkdir(parents=True)
    pq.write_table(table, place, row_group_size=len(table), compression="none", use_dictionary=False)
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    rows, highest = map(int, done.stdout.split())
    assert rows == 2_000_000
    assert highest < place.stat().st_size / 3


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    snapshot = opened(tmp_path, {"nodes/A/a.parquet": {"id": [f"{n:040}" for n in range(20_000)]}})
    with small_disk(1) as disk:
        opening = opened_index(snapshot, snapshot.tables, disk / "offenders")
        with pytest.raises(NoRoom, match=r"takes up to 2 MiB in .*, which has 1 MiB free"), opening:
            raise AssertionError("never opened")
        assert list(disk.iterdir()) == []


def test_a_disk_that_fills_in_the_middle_is_no_room_too() -> None:
    rows = pa.table(
        [pa.array([f"{n:0200}" for n in range(5000)]).cast(pa.large_string()), range(5000)], schema=IDS
    )
    with small_disk(1) as disk:
        spill = Spill(disk / "spill", by_place(1), 100)
        with pytest.raises(NoRoom, match="became full"):
            spill.add(rows)


@given(st.lists(st.tuples(st.text(max_size=3), st.integers(0, 999)), max_size=50), st.integers(1, 20))
def test_a_spill_gives_back_every_row_once_with_equal_ids_together(
    rows: list[tuple[str, int]], most: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spill = Spill(Path(folder, "spill"), by_hash(8), most)
        for id_, place in rows:
            spill.add(pa.table([pa.array([id_], pa.large_string()), [place]], schema=IDS))
        spill.close()
        parts = {
            n: [r for table in spill.windows(n) for r in zip(*table.to_pydict().values(), strict=True)]
            for n in spill.parts()
        }
    assert sorted(row for part in parts.values() for row in part) == sorted(rows)
    for number, part in parts.items():
        assert part == [row for row in rows if hash(row[0]) % 8 == number]
