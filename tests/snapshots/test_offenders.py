"""Every offender is found, whatever the files look like: against a naive search over random snapshots."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bgdeploy.snapshots.index import Index, Place, opened_index
from bgdeploy.snapshots.offenders import FIRST, Finding, find_all
from bgdeploy.snapshots.source import Snapshot
from tests.snapshots.folders import opened

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


KINDS = {
    "string": [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())],
    "integer": [pa.int64(), pa.int32(), pa.uint64()],
}
VALUES = {"string": ["a", "b", "c", "d", "é", "", "1"], "integer": [0, 1, 2, 3, 7, 12]}
LABELS = [None, "Z", "A", "Z,A", "C, A"]


@st.composite
def ids(draw: st.DrawFn, family: str, kind: pa.DataType) -> pa.Array:
    values = draw(st.lists(st.sampled_from([None, *VALUES[family]]), max_size=6))
    return (
        pa.array(values, kind.value_type).dictionary_encode()
        if pa.types.is_dictionary(kind)
        else pa.array(values, kind)
    )


@st.composite
def node_files(draw: st.DrawFn, folders: list[str], family: str) -> dict[str, pa.Table]:
    kind, labelled = draw(st.sampled_from(KINDS[family])), draw(st.sampled_from([None, "text", "list"]))
    files = {}
    for folder in folders:
        for name in draw(st.sets(st.sampled_from("xyz"), max_size=3)):
            table = pa.table({"id": draw(ids(family, kind))})
            if labelled is not None:
                texts = [draw(st.sampled_from(LABELS)) for _ in range(table.num_rows)]
                table = table.append_column("labels", _labels(texts, labelled))
            files[f"nodes/{folder}/{name}.parquet"] = table
    return files


def _labels(texts: list[str | None], how: str) -> pa.Array:
    if how == "text":
        return pa.array(texts, pa.string())
    return pa.array(
        [text and [one.strip() for one in text.split(",")] for text in texts], pa.list_(pa.string())
    )


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
            pair = draw(ids(left, kinds[0])), draw(ids(right, kinds[1]))
            rows = min(map(len, pair))
            files[f"relationships/{folder}/{name}.parquet"] = pa.table(
                {"source": pair[0][:rows], "target": pair[1][:rows]}
            )
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
