"""What leaves the process steers no terminal, is of bounded length, and is always JSON."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import tempfile
import unicodedata
from contextlib import redirect_stdout
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from bgdeploy import log
from bgdeploy.cli import render
from bgdeploy.errors import BadInput
from bgdeploy.jobs.lease import find_process
from bgdeploy.jobs.states import Actor
from bgdeploy.jobs.transitions import write
from bgdeploy.plain import LONGEST, plain, tidy
from bgdeploy.worker.child import Child
from tests.house import House

BAR = "Pipelines Finished: 0/1\nCurrent Pipeline Progress: 40%\n\x1b[2A\x1b[2K\x1b[1B\x1b[2K\x1b[1A"


def is_tame(text: str) -> bool:
    return all(char == "\n" or unicodedata.category(char) not in ("Cc", "Zl", "Zp") for char in text)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain äöü 日本 🎈\nand more", "plain äöü 日本 🎈\nand more"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text\x1b]8;;x\x1b\\", "text"),
        ("one\rtwo\r\nthree\tfour", "one\ntwo\nthree four"),
        ("nul \0 bell \a del \x7f c1 \x9b", "nul � bell � del � c1 �"),
        ("\x1b", ""),
    ],
)
def test_text_that_is_shown_steers_nothing(said: str, shown: str) -> None:
    assert tidy(said) == shown
    assert is_tame(shown)
    assert str(BadInput(said or "x", cure=said)).count("\x1b") == 0


def test_no_character_at_all_gets_through_that_could() -> None:
    assert is_tame(tidy("".join(map(chr, range(0x3000)))))


def test_the_last_words_of_a_loading_process_are_words_and_no_progress_bar() -> None:
    said = f"import sys\nsys.stderr.write({'Assertion failed: x > 0' + chr(10) + BAR * 900!r})\nsys.exit(3)"
    with tempfile.TemporaryFile() as noise:
        popen = subprocess.Popen([sys.executable, "-c", said], stderr=noise, text=True)
        error = Child(popen, find_process(popen.pid), noise).died("ladybug")
    assert str(error) == (
        "The loading process ended with code 3. Committed groups stay and are not loaded again. "
        "Its last words: Assertion failed: x > 0"
    )


def test_a_reason_is_never_longer_than_its_limit(house: House) -> None:
    house.drop("acme", 1700000001, rows=30)
    house.run("scan")
    from bgdeploy.config import load_settings
    from bgdeploy.jobs.reasons import Code, because
    from bgdeploy.jobs.transitions import get_job
    from bgdeploy.site import open_site

    site = open_site(load_settings(house.folder / "config.yaml"))
    with site.transaction(Actor.SCAN) as tx:
        write(tx, get_job(tx.connection, 1), reason=because(Code.UNAVAILABLE, said="x\x1b[2K" * LONGEST))
        tx.say("scan.waits", get_job(tx.connection, 1), reason="y\a" * LONGEST)
    site.store.close()
    job = house.json("jobs", "show", "1")
    for text in (job["reason"], job["events"][-1]["message"]):
        assert len(text) < LONGEST + 100
        assert is_tame(text)
        assert "more characters)" in text


VALUES: list[tuple[Any, Any]] = [
    (float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity"), (1.5, 1.5), (2**70, 2**70),
    (b"\x00\xff", "0x00ff"), (date(2026, 1, 31), "2026-01-31"), (time(23, 59, 59, 999999), "23:59:59.999999"),
    (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00+00:00"),
    (timedelta(days=400, microseconds=500000), "PT34560000.5S"), (timedelta(seconds=-1), "-PT1S"),
    (Decimal("12345678901234567890.10"), "12345678901234567890.10"),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"), ({2: [float("nan")], None: {2}, True: ()}, {"2": ["NaN"], "null": [2], "true": []}),
]  # fmt: skip


@pytest.mark.parametrize(("value", "written"), VALUES, ids=lambda value: repr(value)[:30])
def test_whatever_an_engine_returns_is_json(value: Any, written: Any) -> None:
    assert plain(value) == written
    told = io.StringIO()
    with redirect_stdout(told):
        render.print_json([{"value": value}])

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(told.getvalue(), parse_constant=refuse) == [{"value": written}]


def test_a_query_for_nan_infinity_bytes_dates_and_maps_is_valid_json(house: House) -> None:
    house.drop("acme", 1700000001, rows=30)
    house.run("run", "--timeout", "60")
    asked = (
        "RETURN 0.0 / 0.0 AS nan, 1.0 / 0.0 AS infinity, BLOB('\\\\x00\\\\xff') AS bytes, "
        "date('2026-01-31') AS day, interval('2 days') AS span, map([1, 2], ['a', 'b']) AS some"
    )
    found = house.run("query", "acme", asked, "--json").stdout
    assert json.loads(found, parse_constant=lambda text: pytest.fail(text)) == [
        {
            "nan": "NaN",
            "infinity": "Infinity",
            "bytes": "0x00ff",
            "day": "2026-01-31",
            "span": "PT172800S",
            "some": {"1": "a", "2": "b"},
        }
    ]


@pytest.mark.parametrize("form", ["text", "json", "bare"])
def test_no_line_of_the_log_steers_anything(form: str) -> None:
    stream = io.StringIO()
    log.configure(form, stream=stream)
    log.emit("service.trouble", what="loading", error=f"{BAR}nan {float('nan')}")
    logging.getLogger("bgdeploy").warning("from elsewhere: \x1b[2K")
    log.emit("scan.late", seconds=float("nan"), interval=2.0)
    told = stream.getvalue()
    assert is_tame(told)
    if form == "json":
        lines = [
            json.loads(line, parse_constant=lambda text: pytest.fail(text)) for line in told.splitlines()
        ]
        assert lines[2]["seconds"] == "NaN"
        assert lines[2]["interval"] == 2.0


def test_nodes_relationships_and_paths_of_neo4js_driver_are_json_too() -> None:
    from neo4j.graph import Graph, Node, Path, Relationship

    graph = Graph()
    one, other = (Node(graph, f"4:x:{number}", number, ["B", "A"], {"id": number}) for number in (1, 2))
    joins = Relationship(graph, "5:x:1", 1, {"since": date(2026, 1, 31)})
    joins._start_node, joins._end_node = one, other
    joins.__class__ = type("JOINS", (Relationship,), {})
    shown = {"_LABELS": ["A", "B"], "id": 1}
    assert plain(one) == shown
    assert plain(joins) == {"_LABEL": "JOINS", "since": "2026-01-31"}
    assert plain([Path(one, joins)])[0]["_NODES"] == [shown, {**shown, "id": 2}]
