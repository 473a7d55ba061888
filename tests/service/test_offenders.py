"""``jobs offenders``: every row that does not fit, written to a file, from the snapshot that the job saw."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.house import House, make_house, make_removable
from tests.snapshots.folders import write

FIRST = 1700000001
FILES: dict[str, Any] = {
    "nodes/Person/a.parquet": {"id": ["p1", "p2", None, "p1"]},
    "nodes/Person/b.parquet": {"id": ["p2", 'odd "id", with a comma'] * 2},
    "relationships/KNOWS/a.parquet": {"source": ["p1", "q"], "target": [None, "p2"]},
}
LINES = [
    ("node", "Person", "null id", None, "nodes/Person/a.parquet", 3),
    ("node", "Person", "double id", "p1", "nodes/Person/a.parquet", 1),
    ("node", "Person", "double id", "p2", "nodes/Person/a.parquet", 2),
    ("node", "Person", "double id", "p1", "nodes/Person/a.parquet", 4),
    ("node", "Person", "double id", "p2", "nodes/Person/b.parquet", 1),
    ("node", "Person", "double id", 'odd "id", with a comma', "nodes/Person/b.parquet", 2),
    ("node", "Person", "double id", "p2", "nodes/Person/b.parquet", 3),
    ("node", "Person", "double id", 'odd "id", with a comma', "nodes/Person/b.parquet", 4),
    ("relationship", "KNOWS", "dangling source", "q", "relationships/KNOWS/a.parquet", 2),
    ("relationship", "KNOWS", "null target", None, "relationships/KNOWS/a.parquet", 1),
]
COLUMNS = ["kind", "table", "problem", "id", "file", "row"]


def failed(house: House) -> Path:
    """A snapshot that fails; return its folder."""
    folder = write(house.folder / "data/acme" / str(FIRST), FILES)
    assert house.run("run", "--timeout", "60", ok=False).returncode == 1
    return folder


def test_all_of_them_are_written_by_the_ending_of_the_file(house: House) -> None:
    folder = failed(house)
    table, lines = house.folder / "all.csv", house.folder / "all.jsonl"
    table.write_text("what was there before")
    done = house.run("jobs", "offenders", "1", "--output", str(table), ok=False)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "1 row of nodes/Person has no id:",
        "  nodes/Person/a.parquet row 3",
        "4 rows of nodes/Person repeat an id:",
        "  'p1' in nodes/Person/a.parquet rows 1 and 4",
        "  'p2' in nodes/Person/a.parquet row 2 and nodes/Person/b.parquet rows 1 and 3",
        "  'odd \"id\", with a comma' in nodes/Person/b.parquet rows 2 and 4",
        "1 row of relationships/KNOWS has a source id that no node has, of Person:",
        "  'q' in relationships/KNOWS/a.parquet row 2",
        "1 row of relationships/KNOWS has no target id:",
        "  relationships/KNOWS/a.parquet row 1",
        f"Written to {table}; its files are relative to {folder}.",
    ]
    with open(table, newline="") as file:
        assert list(csv.reader(file)) == [
            COLUMNS,
            *([str(x if x is not None else "") for x in line] for line in LINES),
        ]
    shown = house.run("jobs", "show", "1").stdout
    assert shown.count("4 rows of nodes/Person repeat an id") == 1
    assert f"acme/{FIRST} failed: see error\n" in shown
    done = house.run("jobs", "offenders", "1", "--output", str(lines), "--json", ok=False)
    told = json.loads(done.stdout)
    assert [json.loads(line) for line in lines.read_text().splitlines()] == [
        dict(zip(COLUMNS, line, strict=True)) for line in LINES
    ]
    assert (told["job"], told["customer"], told["rows"], told["output"]) == (1, "acme", 7, str(lines))
    assert told["findings"][3] == {
        "kind": "relationship", "table": "KNOWS", "problem": "null target", "rows": 1, "ids": 1,
        "first": [{"id": None, "places": [{"file": "relationships/KNOWS/a.parquet", "row": 1}], "more": 0}],
    }  # fmt: skip
    assert not [name for name in os.listdir(house.folder / "state") if "offenders" in name]
    assert sorted(path.name for path in house.folder.glob("all.*")) == ["all.csv", "all.jsonl"]


def test_a_good_snapshot_has_none_whatever_its_jobs_state(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    for _ in ("queued", "switched"):
        done = house.run("jobs", "offenders", "1", "--output", str(house.folder / "none.jsonl"))
        assert done.stdout.startswith("Every id and every end fits in ")
        assert (house.folder / "none.jsonl").read_text() == ""
        house.run("run", "--timeout", "60")
    assert house.live("acme") == f"acme-{FIRST}"


def test_a_folder_that_is_not_what_the_job_saw_is_refused(house: House) -> None:
    folder = failed(house)
    output = house.folder / "all.csv"
    pq.write_table(pa.table({"id": ["p9"]}), folder / "nodes/Person/b.parquet")
    done = house.run("jobs", "offenders", "1", "--output", str(output), ok=False)
    assert done.returncode == 5
    assert f"The folder of acme/{FIRST} changed since job 1 saw it: {folder}" in done.stderr
    assert "bgdeploy scan --once" in done.stderr
    shutil.rmtree(folder)
    done = house.run("jobs", "offenders", "1", "--output", str(output), ok=False)
    assert done.returncode == 5
    assert f"The folder of acme/{FIRST} is gone: {folder}" in done.stderr
    assert not output.exists()


def test_what_cannot_be_done_is_said_and_writes_nothing(house: House) -> None:
    failed(house)
    done = house.run("jobs", "offenders", "1", "--output", str(house.folder / "all.xlsx"), ok=False)
    assert (done.returncode, "must end in .csv or .jsonl" in done.stderr) == (2, True)
    done = house.run("jobs", "offenders", "77", ok=False)
    assert (done.returncode, "There is no job 77" in done.stderr) == (4, True)
    done = house.run("jobs", "offenders", "1", "--output", str(house.folder / "no/all.csv"), ok=False)
    assert (done.returncode, "No such file or directory" in done.stderr) == (6, True)
    assert sorted(os.listdir(house.folder)) == ["config.yaml", "data", "state"]


def test_a_damaged_file_is_named(house: House) -> None:
    ids = pa.table({"id": [f"p{number:06}" for number in range(50_000)]})
    folder = write(house.folder / "data/acme" / str(FIRST), {"nodes/Person/a.parquet": ids})
    place = folder / "nodes/Person/a.parquet"
    content = bytearray(place.read_bytes())
    content[1000:20_000] = b"\xff" * 19_000
    place.write_bytes(content)
    (folder / "_SUCCESS").touch()
    house.run("scan", "--once", ok=False)
    house.run("scan", "--once", ok=False)
    done = house.run("jobs", "offenders", "1", ok=False)
    assert done.returncode == 1
    assert "nodes/Person/a.parquet is damaged: " in done.stderr


def test_a_search_that_kills_its_process_is_no_progress_and_ends(tmp_path: Path) -> None:
    house = make_house(tmp_path, max_retries=2)
    write(house.folder / "data/acme" / str(FIRST), FILES)
    house.run("run", "--timeout", "60", failpoint="load.offenders:1:kill", ok=False)
    job = house.json("jobs", "show", "1")
    assert (job["state"], job["attempt"], job["step"]) == (
        "failed",
        2,
        "looking for all offenders in nodes/Person",
    )
    assert "was killed by signal 9" in job["error"]
    assert house.leftovers() == []
    house.run("retry", "1")
    house.run("run", "--timeout", "60", ok=False)
    assert house.json("jobs", "show", "1")["error"].startswith("Leave out rows without an id, ")
    make_removable(tmp_path)


def test_while_it_searches_no_file_of_a_failed_copy_lies_in_the_build(house: House) -> None:
    service = house.start("serve", failpoint="load.offenders:1:stop")
    write(house.folder / "data/acme" / str(FIRST), FILES)
    house.await_("it searches", lambda: "looking for all offenders" in (house.folder / "log").read_text())
    build = house.folder / "state/builds" / f"acme-{FIRST}"
    assert [name for name in os.listdir(build) if "graph" in name] == []
    service.kill()
    service.wait()


def test_the_files_are_read_by_a_process_that_may_die_of_them(house: House) -> None:
    failed(house)
    output = house.folder / "all.csv"
    done = house.run(
        "jobs", "offenders", "1", "--output", str(output), failpoint="child.started:1:kill", ok=False
    )
    assert done.returncode == 1
    assert "The process that reads the snapshot was killed by signal 9" in done.stderr
    assert sorted(os.listdir(house.folder)) == ["config.yaml", "data", "state"]
    assert not [name for name in os.listdir(house.folder / "state") if "offenders" in name]
