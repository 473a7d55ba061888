"""What the files alone show to be wrong ends a load at once, however much of it is still to come."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from tests.house import House, stop

FIRST, SECOND = 1700000001, 1700000002


def test_bad_input_that_the_verifier_finds_ends_a_load_that_has_hardly_begun(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    folder = house.folder / f"data/acme/{SECOND}"
    (folder / "nodes/Person").mkdir(parents=True)
    ids = [f"p{number}" for number in range(10_050)]  # taken for labels, and far too many of them
    pq.write_table(pa.table({"id": ids, "labels": ids}), folder / "nodes/Person/a.parquet")
    (folder / "_SUCCESS").touch()
    service = house.start("serve", failpoint="load.group.before:1:stop")  # the loading process stands still
    house.await_("it failed", lambda: house.states().get(SECOND) == "failed")
    job = house.json("jobs", "show", "2")
    assert (job["error_code"], job["attempt"], job["rows_confirmed"]) == ("bad-input", 1, 0)
    assert "column 'labels' holds over 10,000 different labels" in job["error"]
    assert "load.retry" not in [event["kind"] for event in job["events"]]
    house.await_("its build is dropped", lambda: house.leftovers() == [])
    assert house.live("acme") == f"acme-{FIRST}"
    assert stop(service) == 0
