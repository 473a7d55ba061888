"""Files that somebody writes to while they are loaded, with the size and the time they had."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.house import House, make_house, make_removable
from tests.snapshots.folders import KNOWS, PEOPLE, write

FIRST = 1700000001


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    yield make_house(tmp_path)
    make_removable(tmp_path)


def write_in_place(file: Path) -> None:
    was, content = file.stat(), file.read_bytes()
    with open(file, "r+b") as there:
        there.write(content)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def back_up(file: Path) -> None:
    os.link(file, file.parents[4] / "backup")
    file.chmod(0o640)


@pytest.mark.parametrize(("act", "failures"), [(write_in_place, 1), (back_up, 0)])
def test_a_file_that_was_written_to_under_its_load_counts_as_changed_and_one_that_was_touched_does_not(
    house: House, act: Callable[[Path], None], failures: int
) -> None:
    folder = write(house.folder / "data/acme" / str(FIRST), {**PEOPLE, **KNOWS})
    service = house.start("serve", failpoint="load.group.confirmed:1:stop")

    def held() -> list[psutil.Process]:
        return [
            one for one in psutil.Process(service.pid).children() if one.status() == psutil.STATUS_STOPPED
        ]

    house.await_("it is half loaded", lambda: bool(held()))
    act(folder / "nodes/Person/a.parquet")
    held()[0].resume()
    house.await_(
        # A failure of this kind is taken up again at once, so its state may be over before anybody looks.
        "its end",
        lambda: bool({"switched", "failed"} & {one["target"] for one in house.json("jobs", "log", "1")}),
    )
    service.kill()
    service.wait()
    log = (house.folder / "log").read_text()
    what = f"nodes/Person/a.parquet of the snapshot acme/{FIRST} was written to while it was loaded"
    assert log.count(f"failed: {what}") == failures
    house.run("run", "--timeout", "60")
    assert str(house.live("acme")).startswith(f"acme-{FIRST}")
