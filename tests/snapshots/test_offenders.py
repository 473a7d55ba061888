"""Every offender is found, whatever the files look like: against a naive search over random snapshots."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgdeploy.snapshots import keys as keys_module
from bgdeploy.snapshots.ends import find_parts
from bgdeploy.snapshots.keys import NoRoom, Place, TooLarge, TooLong, opened_keys
from bgdeploy.snapshots.offenders import FIRST, Finding, find_in_ends, find_in_labels, refuse, tell
from bgdeploy.snapshots.source import Snapshot
from tests.snapshots.folders import opened
from tests.tmpfs import small_disk

Lines = list[tuple[Any, str, int]]
Seen = dict[tuple[str, str], Lines]  # (folder, problem) -> (id, file, row) of every line


def key_of(finding: Finding) -> tuple[str, str]:
    kind = f"double {type(finding.first[0].id).__name__}"
    return finding.folder, kind if finding.problem == "double id" else finding.problem


def search(snapshot: Snapshot, *, across: bool = False) -> tuple[Seen, list[Finding]]:
    """What is found: every line, and the findings for their sums."""
    seen: Seen = {}
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        with opened_keys(snapshot, Path(folder, "offenders")) as keys:
            for find in (find_in_labels(keys, across=across), find_in_ends(keys, snapshot.relationships)):
                for finding in find:
                    seen[key_of(finding)] = [(id_, place.file, place.row) for id_, place in finding.lines()]
                    findings.append(finding)
        assert not Path(folder, "offenders").exists()
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
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(files=graphs(), across=st.booleans(), rows=st.sampled_from([3, 1_000]))
def test_everything_a_naive_search_finds_is_found_in_the_order_of_the_files(
    files: dict[str, pa.Table], across: bool, rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = opens(Path(folder), files)
        if snapshot is None:
            return
        with mock.patch.object(keys_module, "ROWS", rows):  # several passes, or one
            seen, findings = search(snapshot, across=across)
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
    _, (doubles, lost) = search(snapshot)
    first = Place("nodes/A/0.parquet", 1)
    assert (doubles.rows, doubles.ids, doubles.first[0].places[0], doubles.first[0].more) == (
        2099,
        1,
        first,
        2097,
    )
    assert (lost.rows, lost.ids) == (900, 1)
    assert tell(lost) == (
        "900 rows of relationships/R have a source id that no node has, of A "
        "('y' in relationships/R/a.parquet rows 901, 902 and 903 and 897 more rows)"
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
    (parts,) = find_parts(snapshot, tmp_path)
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
    assert tell(nulls) == f"12 rows of nodes/A have no id (nodes/A/a.parquet rows {rows} and 2 more rows)"
    named = "; ".join(f"{13 - n} in nodes/A/a.parquet rows {n} and {26 - n}" for n in range(1, 11))
    assert tell(doubles) == f"12 rows of nodes/A repeat an id ({named}; and 2 more ids)"


def test_an_error_stays_short_whatever_the_names_are(tmp_path: Path) -> None:
    label, file = "L" * 200, "f" * 200
    long = [f"{number:03}{'i' * 5000}" for number in range(20)]
    files: dict[str, Any] = {
        f"nodes/{label}/{file}.parquet": {"id": [*long, "a", "a", None]},
        f"nodes/B{label}/{file}.parquet": {"id": [*long, "a", "a", None]},
        f"relationships/{'R' * 200}/{file}.parquet": {"source": [*long, *map(str, range(20)), None], "target": [*long, "b", *map(str, range(20))]},
    }  # fmt: skip
    _, findings = search(opened(tmp_path, files))
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


def test_a_column_that_bears_a_name_of_duckdbs_own_or_differs_only_in_case_hides_no_key(
    tmp_path: Path,
) -> None:
    files = {
        "nodes/A/a.parquet": {"file_row_number": [7, 7, 7], "id": ["a", "b", "a"], "File_Index": [5, 5, 5]},
        "nodes/A/b.parquet": {"id": ["c", "c"]},
        "relationships/R/a.parquet": {"Source": ["zzz"], "target": ["b"], "source": ["a"], "TARGET": ["zzz"]},
        "relationships/R/b.parquet": {"file_index": [1], "source": ["q"], "target": ["c"]},
    }
    seen, _ = search(opened(tmp_path, files))
    a, b = "nodes/A/a.parquet", "nodes/A/b.parquet"
    assert seen == {
        ("nodes/A", "double str"): [("a", a, 1), ("a", a, 3), ("c", b, 1), ("c", b, 2)],
        ("relationships/R", "dangling source"): [("q", "relationships/R/b.parquet", 1)],
    }


def test_paths_that_are_patterns_are_files_like_others(tmp_path: Path) -> None:
    files = {
        f"nodes/A/{name}.parquet": {"id": [name, "same"]}
        for name in ("a[b]", "ab", "*", "to=B", "it's {x,y}")
    }
    seen, _ = search(opened(tmp_path, files))
    assert seen == {("nodes/A", "double str"): [("same", f"{path}", 2) for path in sorted(files)]}


def test_false_bounds_in_a_footer_hide_no_id(tmp_path: Path) -> None:
    files = {
        "nodes/A/a.parquet": {"id": ["k1", "k2", "k2"]},
        "relationships/R/a.parquet": {"source": ["k1", "x1"], "target": ["k2", "k2"]},
    }
    snapshot = opened(tmp_path, files)
    for path in files:
        place = snapshot.path / path
        content = place.read_bytes()
        start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        pages, footer = content[:start], content[start:]
        place.write_bytes(pages + footer.replace(b"k2", b"k0").replace(b"x1", b"k0"))
        assert place.read_bytes() != content
    seen, _ = search(snapshot)
    assert seen == {
        ("nodes/A", "double str"): [("k2", "nodes/A/a.parquet", 2), ("k2", "nodes/A/a.parquet", 3)],
        ("relationships/R", "dangling source"): [("x1", "relationships/R/a.parquet", 2)],
    }


def test_what_memory_cannot_hold_goes_to_disk_and_a_full_one_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "MEMORY_MB", 60)
    ids = [f"{number:0200}" for number in range(200_000)]
    files = {"nodes/A/a.parquet": {"id": [*ids, ids[7]]}, "relationships/R/a.parquet": {"source": [*ids, "x"], "target": [*ids, "0"]}}  # fmt: skip
    snapshot = opened(tmp_path, files)
    with small_disk(1) as disk:
        refused = pytest.raises(NoRoom, match="There is no room to look all ids up")
        with refused, opened_keys(snapshot, disk / "offenders") as keys:
            list(find_in_labels(keys, across=False))
        assert list(disk.iterdir()) == []
    monkeypatch.setattr(keys_module, "MEMORY_MB", 8)
    with pytest.raises(TooLarge, match="needs more memory than it may take"):
        search(snapshot)
    monkeypatch.setattr(keys_module, "MEMORY_MB", 60)
    seen, _ = search(snapshot)
    node, relationship = "nodes/A/a.parquet", "relationships/R/a.parquet"
    assert seen == {
        ("nodes/A", "double str"): [(ids[7], node, 8), (ids[7], node, 200_001)],
        ("relationships/R", "dangling source"): [("x", relationship, 200_001)],
        ("relationships/R", "dangling target"): [("0", relationship, 200_001)],
    }


def test_a_search_ends_when_its_time_is_over(tmp_path: Path) -> None:
    snapshot = opened(tmp_path, {"nodes/A/a.parquet": {"id": [1]}})
    with opened_keys(snapshot, tmp_path / "offenders") as keys:
        with pytest.raises(TooLong), keys.within(0.05):
            keys.run("SELECT count(*) FROM range(10_000_000_000) WHERE range % 7 = 3")
        assert keys.run("SELECT 1") == [(1,)]
