"""Filters, orders, pages and --watch, by the commands that people type."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bgdeploy import errors
from bgdeploy.cli.app import app
from tests.house import PATIENCE, House, make_house, make_removable

FIRST, SECOND = 1700000001, 1700000002


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """acme: live and standby; borealis: failed; cumulus: loaded and blocked. Read only."""
    house = make_house(tmp_path_factory.mktemp("house"))
    for customer, timestamp, rows in (("acme", FIRST, 500), ("acme", SECOND, 400), ("cumulus", FIRST, 500)):
        house.drop(customer, timestamp, rows=rows)
    house.drop("borealis", FIRST, broken="duplicate-id")
    house.run("run", "--timeout", "60", ok=False)
    house.drop("cumulus", SECOND, rows=20)
    house.run("run", "--timeout", "60", ok=False)
    house.run("pause", "cumulus")
    yield house
    make_removable(house.folder)


def found(house: House, *words: str) -> list[str]:
    return [f"{job['customer']}/{job['timestamp']}" for job in house.json("jobs", "list", *words)]


def test_jobs_are_filtered_by_state_customer_error_and_blocked(lived_in: House) -> None:
    assert found(lived_in, "--state", "failed", "--state", "loaded") == [
        f"cumulus/{SECOND}", f"borealis/{FIRST}"
    ]  # fmt: skip
    assert found(lived_in, "--error", "bad-input") == [f"borealis/{FIRST}"]
    assert found(lived_in, "--error", "cancelled") == []
    assert found(lived_in, "--blocked") == [f"cumulus/{SECOND}"]
    assert found(lived_in, "--blocked", "--customer", "acme") == []


def test_jobs_are_filtered_by_the_time_of_their_last_change(lived_in: House) -> None:
    updated = lived_in.json("jobs", "list", "--customer", "cumulus", "--state", "loaded")[0]["updated_at"]
    assert found(lived_in, "--since", updated) == [f"cumulus/{SECOND}"]
    assert len(found(lived_in, "--until", updated)) == 4
    assert len(found(lived_in, "--since", "1d")) == 5
    assert found(lived_in, "--until", "1d") == []


def test_jobs_are_sorted(lived_in: House) -> None:
    assert found(lived_in, "--sort", "rows")[0] == f"cumulus/{SECOND}"
    assert found(lived_in, "--sort", "-rows")[-1] == f"cumulus/{SECOND}"
    assert found(lived_in, "--sort", "rows", "--reverse")[-1] == f"cumulus/{SECOND}"
    assert found(lived_in, "--sort", "customer")[:2] == [f"acme/{FIRST}", f"acme/{SECOND}"]
    assert found(lived_in) == found(lived_in, "--sort", "created", "--reverse")


@pytest.mark.parametrize("words", [["jobs", "list", "--sort", "-rows"], ["switches"], ["jobs", "log"]])
def test_the_last_line_names_the_command_of_the_next_page(lived_in: House, words: list[str]) -> None:
    """Page after page, each by the command that the one before has printed, ends at the last line."""
    seen: list[str] = []
    command: list[str] | None = lived_in.command(*words, "--limit", "2")
    while command is not None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        *lines, last = done.stdout.splitlines()
        named = last.partition(": ")[2] if last.startswith(("more: ", "older: ")) else None
        lines = [
            line
            for line in (lines if named else [*lines, last])
            if not line.startswith(("id ", "at ", "all of it"))
        ]
        assert len(lines) <= 2
        seen += lines
        assert named is None or named.startswith("bgdeploy --config ")
        command = [sys.executable, "-m", *shlex.split(named)] if named else None
    assert len(seen) == len(set(seen)) == len(lived_in.json(*words))


def test_customers_are_filtered_and_sorted(lived_in: House) -> None:
    def names(*words: str) -> list[str]:
        return [one["customer"] for one in lived_in.json("customers", *words)]

    assert names() == ["acme", "borealis", "cumulus"]
    assert names("--state", "standby") == ["acme"]
    assert names("--state", "none", "--state", "paused") == ["borealis", "cumulus"]
    assert names("--customer", "e") == ["acme", "borealis"]
    assert names("--sort", "-rows")[0] == "cumulus"
    shown = lived_in.run("customers", "--limit", "1").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["customer", "acme", "more:"]
    assert shown[-1].endswith("customers")


def test_a_customer_for_whom_a_person_has_to_decide_says_so(lived_in: House) -> None:
    undecided = {one["customer"]: one["undecided"] for one in lived_in.json("customers")}
    (job,) = lived_in.json("jobs", "list", "--blocked")
    assert undecided == {"acme": None, "borealis": None, "cumulus": job["id"]}
    shown = lived_in.run("customers", "--customer", "cumulus").stdout
    assert f"waits for a decision: bgdeploy jobs show {job['id']}" in shown


def test_switches_are_filtered(lived_in: House) -> None:
    assert {row["customer"] for row in lived_in.json("switches", "acme")} == {"acme"}
    assert lived_in.json("switches", "--until", "1d") == []
    assert [row["took_ms"] for row in lived_in.json("switches", "--sort", "took")] == sorted(
        row["took_ms"] for row in lived_in.json("switches")
    )


def test_the_log_is_filtered_by_customer_and_time(lived_in: House) -> None:
    assert {event["customer"] for event in lived_in.json("jobs", "log", "--customer", "acme")} == {"acme"}
    assert lived_in.json("jobs", "log", "1", "--until", "1d") == []
    assert "All there are: bgdeploy jobs log" in lived_in.run("jobs", "log", "--until", "1d").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs", "list", "--sort", "size"], "no sort 'size'; there are: created, updated, customer"),
        (["jobs", "list", "--error", "nonsense"], "no error 'nonsense'; there are: bad-input, build-locked,"),
        (["jobs", "list", "--since", "yesterday"], "is no time"),
        (["switches", "--until", "tomorrow"], "is no time"),
        (["customers", "--state", "gone"], "no state 'gone'; there are: live, standby, none, paused"),
        (["customers", "--sort", "age"], "no sort 'age'"),
        (["customers", "nonsense"], "nonsense"),
        (["jobs", "list", "--watch", "0"], "--watch"),
        (["jobs", "list", "--before", "x"], "--before"),
    ],
)
def test_nonsense_in_a_filter_is_a_usage_error(lived_in: House, words: list[str], said: str) -> None:
    done = lived_in.run(*words, ok=False)
    assert (done.returncode, said in done.stderr, done.stdout) == (2, True, ""), done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "list", "--customer", "nobody"],
        ["jobs", "log", "--customer", "nobody"],
        ["switches", "nobody"],
    ],
)
def test_a_customer_that_does_not_exist_is_named_and_scripts_get_an_empty_list(
    lived_in: House, words: list[str]
) -> None:
    done = lived_in.run(*words, ok=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert (
        "There is no customer 'nobody'." in done.stderr
        and "There are: acme, borealis, cumulus." in done.stderr
    )
    assert lived_in.json(*words) == []


def test_nothing_that_fits_is_no_reason_to_scan(lived_in: House) -> None:
    shown = lived_in.run("jobs", "list", "--customer", "acme", "--state", "failed").stdout
    assert shown == "No such jobs. All there are: bgdeploy jobs list\n"


def test_every_code_that_a_job_can_end_with_can_be_filtered_by() -> None:
    package = Path(errors.__file__).parent
    text = "\n".join(path.read_text() for path in package.rglob("*.py"))
    made = re.findall(
        r'^    code(?:, exit_code)? = "([a-z-]+)"|"error_code": "([a-z-]+)"', text, re.MULTILINE
    )
    assert tuple(sorted({one or other for one, other in made})) == errors.CODES


def test_the_orders_in_the_help_are_those_there_are() -> None:
    import typer

    from bgdeploy.service.views import CUSTOMER_ORDERS, JOB_ORDERS, SWITCH_ORDERS

    root: Any = typer.main.get_command(app)
    listings = (
        (("jobs", "list"), JOB_ORDERS),
        (("switches",), SWITCH_ORDERS),
        (("customers",), CUSTOMER_ORDERS),
    )
    for path, orders in listings:
        command = root
        for name in path:
            command = command.commands[name]
        (sort,) = [one for one in command.params if one.name == "sort"]
        *first, last = orders
        assert sort.help.startswith(f"By {', '.join(first)} or {last}; ")


class Watching:
    """A command that goes on, and the lines it has written so far."""

    def __init__(self, command: list[str]) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code


def test_watching_into_a_pipe_prints_a_fresh_table_when_something_has_changed(house: House) -> None:
    house.run("scan", "--once")
    watching = Watching(house.command("jobs", "list", "--watch", "0.1"))
    house.await_("nothing is there", lambda: any(line.startswith("No such jobs") for line in watching.lines))
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    house.await_("it is told", lambda: "queued" in "".join(watching.lines))
    told = len(watching.lines)
    house.run("jobs", "cancel", "1")
    house.await_("it is told again", lambda: "failed" in "".join(watching.lines[told:]))
    assert watching.interrupt() == 130
    text = "".join(watching.lines)
    assert text.count("customer  snapshot") <= 4, "a table for each change, and no more"
    assert "Traceback" not in text


def test_customers_that_only_get_older_are_no_news(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("run", "--timeout", "60")
    watching = Watching(house.command("customers", "--watch=0.1"))
    house.await_("it is told", lambda: f"acme-{FIRST}" in "".join(watching.lines))
    house.run("pause", "acme")  # by then it has looked many times
    house.await_("a change is told", lambda: "paused" in "".join(watching.lines))
    assert watching.interrupt() == 130
    assert "".join(watching.lines).count("data age") == 2


def test_the_log_is_followed_line_by_line(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    watching = Watching(house.command("jobs", "log", "--watch", "0.1"))
    house.await_("what was is told", lambda: "queued acme" in "".join(watching.lines))
    house.run("jobs", "cancel", "1")
    house.await_("what comes is told", lambda: "is cancelled" in "".join(watching.lines))
    assert watching.interrupt() == 130
    assert len(watching.lines) == len(set(watching.lines)) == len(house.json("jobs", "log"))


def test_on_a_terminal_the_table_is_drawn_over_the_one_before(house: House) -> None:
    house.drop("acme", FIRST)
    house.run("scan", "--once")
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "40"}
    command = house.command("jobs", "list", "--watch", "0.1")
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environ)
    os.close(theirs)
    written = ""
    while written.count("Ctrl+C ends") < 3:
        written += os.read(ours, 4096).decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    os.close(ours)
    assert "queued" in written
    assert "\x1b[1A" in written, "it goes up before it draws again"
