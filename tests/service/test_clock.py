"""A clock that jumps under a running service: it goes on as if nothing had happened, and hears its stop."""

from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.house import STARTED, House

FIRST = 1700000001
HOUR, YEARS = 3600.0, 27 * 365 * 86_400.0


def run_with_a_clock_of_its_own() -> None:
    """What the service's process runs: every look at the wall clock is off by what a file says at that moment."""
    offset = Path(sys.argv.pop(1))
    tell, born = time.time, datetime.datetime

    def wall() -> float:
        return tell() + float(offset.read_text())

    class Moved(born):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return born.fromtimestamp(wall(), tz)

    time.time, datetime.datetime = wall, Moved  # type: ignore[misc]
    from bgdeploy.__main__ import main

    sys.exit(main())


def start(house: House) -> subprocess.Popen[bytes]:
    (house.folder / "offset").write_text("0")
    words = [str(house.folder / "offset"), *house.words(), "serve"]
    with open(house.folder / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    STARTED.append(process)
    return process


@pytest.mark.parametrize("jump", [YEARS, -HOUR])
def test_a_clock_that_jumps_neither_stops_the_scans_nor_keeps_a_core_busy(house: House, jump: float) -> None:
    service = start(house)
    house.drop("acme", FIRST)
    alias = house.folder / "state/aliases/acme"
    house.await_("it is live", alias.is_symlink)
    aside = house.folder / "offset.new"
    aside.write_text(str(jump))
    aside.replace(house.folder / "offset")
    seen = psutil.Process(service.pid)
    memory, used = seen.memory_info().rss, seen.cpu_times().user
    for _ in range(3):  # only a whole scan puts it back
        alias.unlink()
        house.await_("it is put back", alias.is_symlink)
    asked = time.monotonic()
    service.send_signal(signal.SIGTERM)
    house.await_("it stops", lambda: "stopped" in (house.folder / "log").read_text())
    heard = time.monotonic() - asked
    assert seen.memory_info().rss - memory < 100 << 20
    assert seen.cpu_times().user - used < 5
    assert service.wait(60) == 0
    assert heard < 10


if __name__ == "__main__":
    run_with_a_clock_of_its_own()
