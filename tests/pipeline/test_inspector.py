"""The inspectors: what ends, stops or starves one is that snapshot's own trouble, and nobody else's."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bgdeploy.pipeline import admit, scan
from bgdeploy.pipeline.admit import Pending
from bgdeploy.snapshots import schema
from bgdeploy.snapshots.schema import join_columns
from bgdeploy.snapshots.source import Column, DataFile, Snapshot, Table, mark, pack, recall, unpack
from bgdeploy.targets import open_target_by_kind
from bgdeploy.worker import inspector, loader, run
from bgdeploy.worker.inspector import Inspectors
from bgdeploy.worker.run import work_once
from bgdeploy.worker.shutdown import Stop
from tests.house import House, make_house, stop
from tests.mutants import write_mutant
from tests.neo4j.standin import StandIn
from tests.pipeline.place import OLD, Place, jobs
from tests.snapshots.folders import KNOWS, PEOPLE, opened, write

MakePlace = Callable[..., Place]
FILE = "nodes/Person/a.parquet"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inspectors]:
    """Inspectors of this test's own: two, as on the smallest machine."""
    mine = Inspectors(2)
    monkeypatch.setattr(inspector, "shared", lambda: mine)
    yield mine
    mine.close()


def encrypted(folder: Path) -> None:
    """A file with a plain footer and one column that is encrypted: reading its footer ends the process."""
    import base64

    import pyarrow.parquet.encryption as pe

    class Kms(pe.KmsClient):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__()

        def wrap_key(self, key: bytes, name: str) -> bytes:
            return base64.b64encode(key)

        def unwrap_key(self, wrapped: bytes, name: str) -> bytes:
            return base64.b64decode(wrapped)

    factory = pe.CryptoFactory(lambda config: Kms(config))
    config = pe.EncryptionConfiguration(footer_key="f", column_keys={"c": ["secret"]}, plaintext_footer=True)
    table = pa.table({"nodeId": ["a", "b"], "secret": ["x", "y"]})
    file = folder / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    keys = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    with pq.ParquetWriter(file, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)


def not_utf8(folder: Path) -> None:
    file = folder / FILE
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table({"id": ["a"], "XYZW": [1]}), file, store_schema=False)
    file.write_bytes(file.read_bytes().replace(b"XYZW", b"X\x9cZW"))


def said(place: Place, customer: str) -> tuple[str, str]:
    row = place.rows(jobs, jobs.c.customer == customer)[0]
    return row["state"], str(row["error"] or row["reason"])


def test_the_service_goes_on_beside_files_that_end_whoever_reads_them(house: House) -> None:
    data = house.folder / "data"
    for name, make in (("sealed", encrypted), ("odd", not_utf8)):
        make(data / f"{name}/{OLD}")
        (data / f"{name}/{OLD}/_SUCCESS").touch()
    write(data / f"odd/{OLD + 1}", PEOPLE)
    house.drop("acme", OLD)
    service = house.start("serve")
    house.await_("the good ones are live", lambda: house.live("acme") == f"acme-{OLD}")
    house.await_("also beside a bad one", lambda: house.live("odd") == f"odd-{OLD + 1}")
    house.await_("the bad ones failed", lambda: len(house.json("jobs", "list", "--state", "failed")) == 2)
    assert stop(service) == 0
    told = {(job["customer"], job["timestamp"]): job for job in house.json("jobs", "list")}
    sealed, odd = told["sealed", OLD], told["odd", OLD]
    assert sealed["error"] == (
        f"{FILE} cannot be read: the process that reads it was killed by signal 6. Nothing of the snapshot was "
        "loaded. Write it anew; the snapshot is looked at again by itself when it has changed."
    )
    assert odd["error"] == (
        f"{FILE}: the name of a column is no text (UTF-8): b'X\\x9cZW'. Nothing of the snapshot was loaded. "
        "Write it as UTF-8."
    )
    assert (sealed["attempt"], odd["attempt"]) == (0, 0), "it is a try of the inspector, not of the job"
    assert (house.folder / "log").read_text().count("the process that read the files of") == 2


def test_without_a_marker_it_waits_and_is_not_asked_again_until_it_changes(
    make_place: MakePlace, pool: Inspectors
) -> None:
    place = make_place()
    encrypted(place.path("sealed", OLD))
    scan.scan(place.site)
    assert said(place, "sealed")[0] == "discovered"
    assert (
        f"{FILE} cannot be read: the process that reads it was killed by signal 6" in said(place, "sealed")[1]
    )
    before = {one.pid for one in psutil.Process().children()}
    scan.look(place.site, scan.Watch())
    assert {one.pid for one in psutil.Process().children()} == before, "no other one died of it"
    write(place.path("sealed", OLD), PEOPLE, marker=False)
    scan.scan(place.site)
    scan.scan(place.site)
    assert said(place, "sealed")[0] == "queued"


def test_what_keeps_it_waiting_is_said_again_after_it_took_long_to_read(
    make_place: MakePlace, pool: Inspectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    encrypted(place.path("sealed", OLD))
    scan.scan(place.site)
    before = said(place, "sealed")
    monkeypatch.setattr(admit, "_LONG", -1.0)  # everything takes long, and that is told meanwhile
    pool._known.clear()
    scan.scan(place.site)
    assert said(place, "sealed") == before


IMPORTED = """
import sys
from bgdeploy.cli.app import app
try:
    app(sys.argv[1:], prog_name="bgdeploy", standalone_mode=False)
finally:
    print("imported:", [name for name in sys.modules if name.split(".")[0] in ("pyarrow", "duckdb")])
"""


def test_no_process_of_the_service_ever_imports_what_parses_files(house: House) -> None:
    house.drop("acme", OLD)
    house.drop("acme", OLD + 1)
    (house.folder / f"data/acme/{OLD}/manifest.json").write_text(json.dumps({"files": []}))
    for words in (
        ["scan", "--once"],
        ["run", "--timeout", "60"],
        ["jobs", "offenders", "2"],
        ["retry", "2", "--reload"],
        ["doctor"],
        ["customers"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", IMPORTED, *house.words(), *words],
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert "imported: []" in done.stdout, (words, done.stdout, done.stderr)
    assert house.live("acme") == f"acme-{OLD + 1}"


WITHHELD = """
import sys
class Withhold:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pyarrow", "duckdb"):
            raise ImportError(name + " is withheld")
sys.meta_path.insert(0, Withhold())
"""


def test_on_neo4j_it_is_the_driver_alone_that_imports_pyarrow(enterprise: StandIn, tmp_path: Path) -> None:
    """It does wherever it finds it, and does without where it does not; whatever of ours imported it would fail here."""
    house = make_house(tmp_path, neo4j=enterprise.settings)
    house.drop("acme", OLD, rows=100)
    for words in (["run", "--timeout", "80"], ["scan", "--once"], ["customers"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHHELD + IMPORTED, *house.words(), *words],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "imported: []" in done.stdout, (words, done.stdout, done.stderr)
        assert "withheld" not in done.stdout + done.stderr, (words, done.stdout, done.stderr)
    assert house.live("acme") == f"acme-{OLD}"


def test_a_file_that_never_ends_holds_nobody_else_up(
    make_place: MakePlace, pool: Inspectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspector, "LIMIT", 1.5)
    monkeypatch.setenv("BGDEPLOY_FAILPOINT", "inspector.endless:1:stop")
    place = make_place()
    place.drop("endless", OLD)
    (place.path("endless", OLD) / "_SUCCESS").touch()
    place.drop("beta", OLD)
    pending = Pending()
    scan.scan(place.site, pending)
    looked = scan.Watch(pending)
    began = time.monotonic()
    while said(place, "beta")[0] != "queued":
        assert time.monotonic() - began < 60
        place.now += 1
        scan.look(place.site, looked)
    assert said(place, "endless")[0] == "discovered", "the scan did not wait for it"
    while said(place, "endless")[0] != "failed":
        assert time.monotonic() - began < 60
        place.now += 1
        scan.look(place.site, looked)
    assert said(place, "endless")[1].startswith(
        f"{FILE} cannot be read: the process that reads it gave no sign of life for 1.5 s."
    )


def test_who_kills_inspectors_makes_no_snapshot_fail(
    make_place: MakePlace, pool: Inspectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGDEPLOY_FAILPOINT", "inspector.acme:1:kill")
    place = make_place()
    place.drop("acme", OLD)
    (place.path("acme", OLD) / "_SUCCESS").touch()
    place.now += 1
    for _ in range(2):
        scan.scan(place.site)
        place.now += 1
    assert said(place, "acme")[0] == "discovered"
    assert "was killed by signal 9" in said(place, "acme")[1]
    monkeypatch.delenv("BGDEPLOY_FAILPOINT")
    monkeypatch.setattr(inspector, "monotonic", lambda: time.monotonic() + 60)
    for child in psutil.Process().children():
        child.kill()
    scan.scan(place.site)
    assert said(place, "acme")[0] == "queued", "one that died idle is replaced"


LIMITED = """
from bgdeploy.worker import inspecting
inspecting._limit_memory()
try:
    bytearray(inspecting.MOST_MEMORY)
except MemoryError:
    print("limited")
"""


def test_an_inspector_has_a_limit_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "limited\n", done.stderr


def test_what_changed_while_it_was_read_is_not_queued(make_place: MakePlace, pool: Inspectors) -> None:
    place = make_place()
    place.drop("acme", OLD)
    looks = place.path("acme", OLD)
    request = {
        "op": "open", "customer": "acme", "timestamp": OLD, "path": str(looks), "fingerprint": "another",
        "columns": {}, "target": "ladybug",
    }  # fmt: skip
    assert pool.wait(pool.ask(request)) == {"changed": True}
    request["fingerprint"] = str(admit.look_into(looks).text)  # type: ignore[union-attr]
    assert pool.wait(pool.ask(request))["rows"] == 2


def test_a_snapshot_is_read_once_and_its_description_travels(
    make_place: MakePlace, pool: Inspectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place()
    place.drop("acme", OLD)
    scan.scan(place.site)
    row = place.rows()[0]
    claimed: list[int] = []
    monkeypatch.setattr(run, "run_job", lambda site, job, stop: claimed.append(job["id"]))
    monkeypatch.setattr(pool, "ask", lambda *_: pytest.fail("it was inspected already"))
    assert work_once(place.site, Stop())
    assert claimed == [1]
    monkeypatch.setattr(schema, "open_snapshot", lambda *_: pytest.fail("its footers were read again"))
    target = open_target_by_kind("ladybug", {"state_dir": str(place.folder)}, {})
    where = {"customer": "acme", "timestamp": OLD, "path": str(place.path("acme", OLD))}
    ticket = {
        "snapshot": {**where, "fingerprint": row["fingerprint"]},
        "settings": {"columns": place.site.settings.dataset.columns.model_dump()},
        "inspection": row["inspection"],
        "target": "ladybug",
    }
    snapshot = loader._open_snapshot(ticket, target)
    assert (snapshot.rows, snapshot.tables[0].columns[0].kind) == (2, pa.string())
    with pytest.raises(pytest.fail.Exception, match="read again"):
        loader._open_snapshot({**ticket, "settings": {"columns": {"id": ["name"]}}}, target)


def test_a_description_is_the_same_after_its_way_through_text(tmp_path: Path) -> None:
    kinds = [
        pa.int8(), pa.list_(pa.field("item", pa.string(), nullable=False)), pa.timestamp("ns", "Europe/Oslo"),
        pa.decimal128(20, 3), pa.dictionary(pa.int32(), pa.string()), pa.struct([("a", pa.null())]),
    ]  # fmt: skip
    one = opened(tmp_path, {**PEOPLE, **KNOWS})
    columns = tuple(Column(f"c{number}", kind, "property") for number, kind in enumerate(kinds))
    constants = tuple(Column(name, pa.string(), "property", value) for name, value in CONSTANTS.items())
    files = tuple(DataFile(f"{n}.parquet", n, 2, 3, columns + constants, "by") for n in range(3))
    table = Table("node", "T", ("T", "U"), None, None, files, columns)
    snapshot = Snapshot("acme", 1, tmp_path, (*one.tables, table), "print")
    again = unpack(pack(snapshot), types=True)
    assert again == snapshot
    assert again.tables[-1].files[0].columns is again.tables[-1].files[2].columns
    texts = unpack(pack(snapshot), types=False)
    assert [column.type for column in texts.tables[-1].columns] == [str(kind) for kind in kinds]
    kept = {"mark": mark("print", {"id": ["id"]}, "ladybug"), "packed": pack(snapshot)}
    assert recall(kept, mark("print", {"id": ["id"]}, "ladybug"), types=True) == snapshot
    for other in (
        ("other", {"id": ["id"]}, "ladybug"),
        ("print", {}, "ladybug"),
        ("print", {"id": ["id"]}, "neo4j"),
    ):
        assert recall(kept, mark(*other), types=True) is None


CONSTANTS = {"country": "DE", "year": 2024, "day": dt.date(2024, 2, 29), "none": None}


def test_columns_of_many_wide_files_are_joined_in_linear_time() -> None:
    kinds = (pa.int32(), pa.int64())
    files = [
        DataFile(f"{n}.parquet", 1, 1, 1, tuple(Column(f"c{c}", kind, "property") for c in range(16_000)))
        for n, kind in enumerate(kinds)
    ]
    began = time.process_time()
    joined = join_columns("node", "T", files)
    assert {column.kind for column in joined} == {pa.int64()}
    assert all(files[0].find(column) is not None for column in joined)
    assert time.process_time() - began < 5, "it took 41 s when each was looked for among all the others"


@pytest.mark.parametrize("pages", [False, True], ids=["500 footers", "500 pages"])
def test_a_thousand_mutated_files_end_no_service(
    make_place: MakePlace, pool: Inspectors, pages: bool
) -> None:
    place = make_place()
    for number in range(500):
        write_mutant(place.path(f"c{number % 50}", OLD + number), number, pages=pages, marker=number % 2 == 0)
    for _ in range(2):
        scan.scan(place.site)
        place.now += 1
    rows = place.rows()
    assert len(rows) == 500
    told = {row["timestamp"]: (row["state"], str(row["error"] or row["reason"])) for row in rows}
    for timestamp, (state, why) in told.items():
        assert state in ("queued", "discovered", "failed"), (timestamp, state)
        assert state == "queued" or "nodes/Person" in why or "label Person" in why, (timestamp, why)
    assert {state for state, _ in told.values()} == (
        {"queued"} if pages else {"queued", "discovered", "failed"}
    )


def test_a_file_over_which_a_loading_process_stumbles_fails_by_name(house: House) -> None:
    """The other one has a footer over whose bounds Arrow dies; nobody reads them, and its rows are right."""
    ids = [f"p{number}" for number in range(100)]
    table = pa.table({"id": ids, "labels": ["Person"] * 100, "x": [number / 7 for number in range(100)]})
    data, plain = house.folder / "data", {"compression": "none", "use_dictionary": False}
    for name, old, new in (
        ("dies", b"\x15\x0a\x19", b"\x15\x02\x19"),  # the chunk of a DOUBLE says that it holds INT32
        ("stumbles", b"\x02\x00\x00\x00p7", b"\xff\xff\xff\x0fp7"),  # a text longer than its page
    ):
        file = write(data / f"{name}/{OLD}", KNOWS, marker=False) / FILE
        file.parent.mkdir(parents=True)
        pq.write_table(table, file, **plain)
        content = file.read_bytes()
        assert content.count(old) == 1
        file.write_bytes(content.replace(old, new))
        (data / f"{name}/{OLD}/_SUCCESS").touch()
    house.run("run", "--timeout", "80", ok=False)
    told = {job["customer"]: job for job in house.json("jobs", "list")}
    assert {name: job["state"] for name, job in told.items()} == {"dies": "switched", "stumbles": "failed"}
    found = house.json("query", "dies", "MATCH (n) RETURN n.x AS x ORDER BY x")
    assert [row["x"] for row in found] == [number / 7 for number in range(100)]
    assert told["stumbles"]["error"].startswith(f"{FILE} is damaged: ")
    assert {job["attempt"] for job in told.values()} <= {0, 1}, "what cannot heal is not tried again"
