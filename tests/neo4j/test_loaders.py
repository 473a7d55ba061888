"""Which loader and why, and what the import tool says, from recorded facts: pure functions."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from neo4j.exceptions import Neo4jError

from bgdeploy.errors import BadInput, ConfigError, TargetError, TargetFull
from bgdeploy.targets.neo4j import access
from bgdeploy.targets.neo4j.databases import Layout
from bgdeploy.targets.neo4j.offline.sources import Spaces, check_fit, look_at
from bgdeploy.targets.neo4j.offline.store import judge_place
from bgdeploy.targets.neo4j.offline.tool import (
    Failed,
    Tool,
    as_misfit,
    explain_failure,
    judge_version,
    parse,
    read_report,
)
from bgdeploy.targets.neo4j.target import FEW, MANY, Facts, choose
from tests.neo4j.loading import _open, loading_of

ID = uuid.UUID("8921c4c6-1133-4781-b230-7d33dfd26cb6")
SPACES = Spaces(("Person", "City"))


@pytest.mark.parametrize(
    ("facts", "loader", "why"),
    [
        (Facts(MANY, "community", "x", "x"), "bolt", "Community Edition takes data over Bolt only"),
        (Facts(FEW - 1, "enterprise", "", ""), "bolt", "are few"),
        (Facts(FEW, "enterprise", "", ""), "arrow", "the server takes Arrow"),
        (Facts(FEW, "enterprise", "", "no tool"), "arrow", "import: no tool"),
        (Facts(FEW, "enterprise", "no GDS", ""), "import", "Arrow is closed (no GDS)"),
        (Facts(MANY, "enterprise", "", ""), "import", "needs least of the server"),
        (Facts(MANY, "enterprise", "", "no tool"), "arrow", "import: no tool"),
        (Facts(MANY, "enterprise", "no GDS", "no tool"), "bolt", "arrow: no GDS; import: no tool"),
    ],
)
def test_the_loader_is_chosen_by_what_is_open_and_says_why(facts: Facts, loader: str, why: str) -> None:
    found = choose(facts)
    assert found.loader == loader
    assert why in found.why


@pytest.mark.parametrize(
    ("said", "kind", "name", "text"),
    [
        ("Id '2' is defined more than once in group 'g0'", "node", "Person", "the id '2' is there twice"),
        ("Id defined multiple times\n'a' b' is defined more than once in group 'g1'", "node", "City", "\"a' b\""),
        ("1 (g0)-[LIVES]->q (g1) referring to missing node q", "relationship", "LIVES", "no node 'q'"),
        (
            "Invalid relationship in import data\n(99:g0)-[T]->(x:g1) referring to missing node 99",
            "relationship", "T", "(Person '99')-[T]->(City 'x')",
        ),
    ],
)  # fmt: skip
def test_what_the_tool_reports_is_said_in_the_words_of_the_snapshot(
    said: str, kind: str, name: str, text: str
) -> None:
    found = parse(said, SPACES)
    assert found is not None
    assert (found.kind, found.name) == (kind, name)
    assert text in found.text


def test_a_report_is_read_in_both_forms_it_has(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("Id '2' is defined more than once in group 'g0'\n" * 5)
    message = "Id defined multiple times\\n'3' is defined more than once in group 'g0'"
    new.write_text(f'{{"problem":"DuplicateNode","message":"{message}","line":0}}\n')
    assert [one.name for one in read_report(old, SPACES)] == ["Person"] * 5
    assert "'3'" in read_report(new, SPACES)[0].text
    assert read_report(tmp_path / "none", SPACES) == []
    assert "(and 2 more in its report)" in as_misfit(read_report(old, SPACES)).said


TRACE = """Import starting
IMPORT FAILED in 3s 862ms.
org.neo4j.cli.CommandFailedException: Error importing csv file.
\tat org.neo4j.importer.ImportCommand$Base.doExecute(ImportCommand.java:560)
Caused by: org.neo4j.importer.FileImporter$CsvImportException: java.io.IOException: {cause}
\t... 13 more
Caused by: java.io.IOException: {cause}
\tat org.neo4j.io.Something(Something.java:1)
"""


@pytest.mark.parametrize(
    ("said", "code", "kind", "text"),
    [
        (TRACE.format(cause="No space left on device"), 70, TargetFull, "ran out of disk"),
        (TRACE.format(cause="Java heap space"), 70, TargetError, "ran out of memory"),
        ("(1/4) Node import\n", 137, TargetError, "was killed by signal 9"),
        (TRACE.format(cause="something\nelse"), 70, Failed, "IOException: something else"),
        ("Unknown option: '--input-type'\n", 64, Failed, "Unknown option: '--input-type'"),
        ("", 3, Failed, "it ended with code 3"),
    ],
)
def test_a_failure_of_the_tool_is_told_by_its_innermost_cause(
    said: str, code: int, kind: type[Exception], text: str
) -> None:
    found = explain_failure(said.splitlines(keepends=True), code)
    assert type(found) is kind
    assert text in str(found)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("5.26.26\n", None),
        ("neo4j 5.26.3\n", None),
        ("5.25.1\n", "is of version 5.25.1, and the server of 5.26.26"),
        ("neo4j 2026.03.1\n", "is of version 2026.03.1, and the server of 5.26.26"),
        ("what?\n", "does not tell its version, but 'what?'"),
    ],
)
def test_the_tool_must_be_of_the_servers_release(said: str, fault: str | None) -> None:
    tool = Tool("/opt/neo4j-admin", None)
    if fault is None:
        judge_version(tool, said, "5.26.26")
        return
    with pytest.raises(ConfigError, match=r"neo4j\.import_tool") as caught:
        judge_version(tool, said, "5.26.26")
    assert fault in caught.value.what


def place(data: Path, owner: uuid.UUID = ID) -> dict[str, Any]:
    (data / "databases").mkdir(parents=True)
    (data / "server_id").write_bytes(b"\1" + owner.bytes)
    return {"server.directories.data": str(data), "db.format": "block"}


def test_a_data_folder_is_the_servers_when_its_id_says_so(tmp_path: Path) -> None:
    told, uid = place(tmp_path / "data"), tmp_path.stat().st_uid
    members = [{"id": str(uuid.uuid4()), "address": "two:7687"}, {"id": str(ID), "address": "one:7687"}]
    found = judge_place(told, members, uid=uid)
    assert (found.server_id, len(found.members)) == (str(ID), 2)
    assert found.folders("acme") == (tmp_path / "data/databases/acme", tmp_path / "data/transactions/acme")
    with pytest.raises(ConfigError, match=f"holds server {ID} here, and neo4j.uri leads to two:7687"):
        judge_place(told, members[:1], uid=uid)
    with pytest.raises(ConfigError, match="is no data folder of a server here"):
        judge_place({"server.directories.data": str(tmp_path / "no")}, members, uid=uid)
    with pytest.raises(ConfigError, match=f"belongs to user {uid} and bgdeploy runs as user {uid + 1}"):
        judge_place(told, members, uid=uid + 1)
    with pytest.raises(ConfigError, match="does not tell where its data lies"):
        judge_place({}, members, uid=uid)


@pytest.mark.parametrize(
    ("layout", "text", "given"),
    [
        (Layout(), "", {}),
        (Layout(1), " TOPOLOGY 1 PRIMARIES", {}),
        (Layout(3, 0), " TOPOLOGY 3 PRIMARIES", {}),
        (
            Layout(3, 2, "an id"), " TOPOLOGY 3 PRIMARIES 2 SECONDARIES OPTIONS $options",
            {"options": {"existingDataSeedServer": "an id"}},
        ),
        (
            Layout(seed="file:///seeds/a.dump"), " OPTIONS $options",
            {"options": {"seedURI": "file:///seeds/a.dump"}},
        ),
    ],
)  # fmt: skip
def test_a_database_is_made_on_as_many_servers_as_wanted(layout: Layout, text: str, given: Any) -> None:
    assert (layout.text, layout.given) == (text, given)


@pytest.mark.parametrize(
    ("folder", "column"), [("A=B", "x"), ("A,B", "x"), ("A", "x:int"), ("A", "x[]"), ("A", 'x"'), ("A", " x")]
)
def test_names_that_the_tool_reads_as_marks_are_refused(tmp_path: Path, folder: str, column: str) -> None:
    files = {f"nodes/{folder}/a.parquet": pa.table({"id": [1], column: [1]})}
    with pytest.raises(BadInput, match="reads some of its characters as its own marks"):
        check_fit(loading_of(tmp_path, "bolt://none", files).snapshot)


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.list_(pa.bool_()), pa.list_(pa.date32()), pa.list_(pa.timestamp("us"))]
)
def test_types_that_the_tool_cannot_be_given_are_refused_by_name(tmp_path: Path, kind: pa.DataType) -> None:
    files = {"nodes/A/a.parquet": pa.table({"id": [1], "odd": pa.array([None], kind)})}
    with pytest.raises(BadInput, match=r"A: column 'odd' holds .*, which the import tool cannot take"):
        check_fit(loading_of(tmp_path, "bolt://none", files).snapshot)


def refusing(times: int, code: str) -> Callable[[], str]:
    """An answer that comes after so many refusals."""
    left = iter(range(times))

    def act() -> str:
        if next(left, None) is None:
            return "done"
        raise Neo4jError._hydrate_neo4j(code=code, message="no")

    return act


def test_what_a_member_refuses_that_leads_no_longer_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_PAUSE", 0.001)
    for code in ("Neo.ClientError.Cluster.NotALeader", "Neo.TransientError.General.DatabaseUnavailable"):
        assert access.repeat(refusing(3, code)) == "done"
    with pytest.raises(Neo4jError):
        access.repeat(refusing(1, "Neo.ClientError.Statement.SyntaxError"))
    monkeypatch.setattr(access, "_RETRY", 0.01)
    with pytest.raises(Neo4jError):
        access.repeat(refusing(10_000, "Neo.ClientError.Cluster.NotALeader"))


def test_moments_as_spark_writes_them_are_written_anew_for_the_tool(tmp_path: Path) -> None:
    table = pa.table({"id": [1], "plain": [5], "spark": pa.array([5000], pa.timestamp("ns"))})
    snapshot = loading_of(tmp_path, "bolt://none", {"nodes/A/a.parquet": table}).snapshot
    path = snapshot.path / "nodes/A/a.parquet"
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    snapshot = _open(snapshot.path)
    looks = look_at(path, snapshot.nodes[0], snapshot.nodes[0].files[0])
    assert {look.own.name: look.copied for look in looks} == {"id": False, "plain": False, "spark": True}
