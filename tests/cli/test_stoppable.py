"""A query that would go on for ages ends at Ctrl+C."""

from __future__ import annotations

import signal

import psutil

from tests.house import House

# One value that takes minutes and no memory: between rows and values the engine does look for signals.
ENDLESS = "RETURN levenshtein(repeat('a', 500000), repeat('b', 500000)) AS n"


def works(pid: int) -> bool:
    """True once the engine has computed for longer than all imports take."""
    one = psutil.Process(pid)
    return any(file.path.endswith("graph.lbug") for file in one.open_files()) and one.cpu_times().user > 2.0


def test_an_interrupt_ends_a_query_while_the_engine_works(house: House) -> None:
    house.drop("acme", 1700000001, rows=50)
    house.run("run", "--timeout", "60")
    process = house.start("query", "acme", ENDLESS)
    house.await_("the engine works", lambda: works(process.pid))
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert "Traceback" not in (house.folder / "log").read_text()
    assert house.json("query", "acme", "MATCH (n) RETURN count(*) AS n") == [{"n": 30}]
