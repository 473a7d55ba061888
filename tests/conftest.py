"""Fixtures for whole installations, and the servers that some tests need."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar
from zlib import crc32

import neo4j
import pytest
from hypothesis import settings

from bgdeploy.jobs import migrate
from tests.house import House, copy_house, end_started, make_house, make_removable
from tests.neo4j.servers import LTS, NEWEST, PASSWORD, Community, NoServer, community, do_without, empty
from tests.neo4j.standin import StandIn, standin

Server = TypeVar("Server")
settings.register_profile("bgdeploy", deadline=None)  # a slow machine is no fault of the code
settings.load_profile("bgdeploy")
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # in the background of a shell; services of tests would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
HOW = (
    "give them one: Java 17 or newer with Maven on the PATH, or BGDEPLOY_TEST_NEO4J=neo4j://host:7687 with "
    "BGDEPLOY_TEST_NEO4J_PASSWORD for an Enterprise server of your own, BGDEPLOY_TEST_COMMUNITY likewise (docs/neo4j.md)"
)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job table that was migrated once; copied, because migrating takes longer than most tests."""
    template = tmp_path_factory.mktemp("template") / "jobs.db"
    migrate.ensure(template)
    return template


@pytest.fixture(autouse=True)
def _no_service_is_left() -> Iterator[None]:
    yield
    end_started()


@pytest.fixture(autouse=True)
def _log_is_as_before() -> Iterator[None]:
    """A command that ran inside the test's process has sent the log to a stream of its own."""
    logger = logging.getLogger("bgdeploy")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    yield make_house(tmp_path)
    make_removable(tmp_path)


@pytest.fixture
def copied(template: Path, tmp_path: Path) -> Iterator[House]:
    """A copy of what the module's fixture ``template`` made, a folder."""
    yield copy_house(template, tmp_path)
    make_removable(tmp_path)


def _held(server: AbstractContextManager[Server]) -> Iterator[Server]:
    try:
        one = server.__enter__()
    except NoServer as error:
        do_without(error)
    try:
        yield one
    finally:
        server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def lts_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    yield from _held(community(tmp_path_factory.mktemp("lts") / "home", LTS))


@pytest.fixture(scope="session")
def newest_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Community]:
    yield from _held(community(tmp_path_factory.mktemp("newest") / "home", NEWEST))


@pytest.fixture(params=[LTS, NEWEST])
def real(request: pytest.FixtureRequest, record_property: Any) -> Community:
    """A real Community server of each version, empty."""
    server: Community = request.getfixturevalue("lts_server" if request.param == LTS else "newest_server")
    record_property("server", f"Neo4j Community {server.version}")
    server.empty()
    return server


@pytest.fixture(scope="session")
def standin_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    yield from _held(standin(tmp_path_factory.mktemp("standin") / "gateway"))


@pytest.fixture
def enterprise(standin_process: StandIn, record_property: Any) -> StandIn:
    """The stand-in for Enterprise, without databases."""
    record_property("server", "the Enterprise stand-in")
    standin_process.reset()
    return standin_process


def _kinds() -> list[str]:
    return ["ladybug", "neo4j", *(["own server"] if os.environ.get("BGDEPLOY_TEST_NEO4J") else [])]


@pytest.fixture(params=_kinds())
def any_house(request: pytest.FixtureRequest, tmp_path: Path, record_property: Any) -> Iterator[House]:
    """An installation on each target there is."""
    yield from _make_house(request, tmp_path, record_property)


@pytest.fixture(params=[*_kinds(), "community"])
def any_loader(request: pytest.FixtureRequest, tmp_path: Path, record_property: Any) -> Iterator[House]:
    """The same, and one on a server without aliases, where a snapshot is loaded and verified only."""
    yield from _make_house(request, tmp_path, record_property)


def _emptied(request: pytest.FixtureRequest, record_property: Any) -> dict[str, str]:
    """Where a Community server without data is: the one that a variable names, or ours."""
    if uri := os.environ.get("BGDEPLOY_TEST_COMMUNITY"):
        record_property("server", "the server of BGDEPLOY_TEST_COMMUNITY")
        password = os.environ.get("BGDEPLOY_TEST_COMMUNITY_PASSWORD", "")
        with neo4j.GraphDatabase.driver(uri, auth=("neo4j", password)) as driver:
            empty(driver)
        return {"uri": uri, "password": password}
    server: Community = request.getfixturevalue("lts_server")
    record_property("server", f"Neo4j Community {server.version}")
    server.empty()
    return {"uri": server.uri, "password": PASSWORD}


def _make_house(request: pytest.FixtureRequest, tmp_path: Path, record_property: Any) -> Iterator[House]:
    if request.param == "ladybug":
        yield make_house(tmp_path)
        make_removable(tmp_path)
    elif request.param == "neo4j":
        yield make_house(tmp_path, neo4j=request.getfixturevalue("enterprise").settings)
    elif request.param == "community":
        yield make_house(tmp_path, neo4j={**_emptied(request, record_property), "concurrency": 2})
    else:
        record_property("server", "the server of BGDEPLOY_TEST_NEO4J")
        password = os.environ.get("BGDEPLOY_TEST_NEO4J_PASSWORD", "")
        mine = {"uri": os.environ["BGDEPLOY_TEST_NEO4J"], "password": password}
        house = make_house(
            tmp_path, neo4j={**mine, "user": os.environ.get("BGDEPLOY_TEST_NEO4J_USER", "neo4j")}
        )
        yield house
        _clear(house)


def _clear(house: House) -> None:
    """Remove from a server that is not ours what the job table of this test owns, and nothing else."""
    from neo4j import GraphDatabase

    from bgdeploy.config import load_settings
    from bgdeploy.targets.neo4j import databases

    access = load_settings(house.folder / "config.yaml").target_access()
    customers, jobs = house.json("customers"), house.json("jobs", "list")
    login = (access["user"], access["password"])
    with (
        GraphDatabase.driver(access["uri"], auth=login) as driver,
        driver.session(database="system") as session,
    ):
        for customer in customers:
            session.run("DROP ALIAS $alias IF EXISTS FOR DATABASE", alias=customer["alias"]).consume()
        for job in jobs:
            if job["database"]:
                session.run(databases.DROP, name=job["database"]).consume()


_PAIRS = {"real": (LTS, NEWEST)}
if not os.environ.get("BGDEPLOY_TEST_COMMUNITY"):
    _PAIRS["any_loader"] = ("neo4j", "community")
_SERVERS = {"real", "lts_server", "newest_server", "small_server", "tool_version"}
# Files on the stand-in, which takes one of them after the other; the longest first, so that both workers end together.
_LONGEST = (
    "test_enterprise.py",
    "test_import.py",
    "test_read_only.py",
    "test_arrow.py",
    "test_kills.py",
    "test_shapes.py",
)
_STANDIN = {"standin_process"}
_ON_A_STANDIN, _ON_A_SERVER = ("[neo4j", "-neo4j"), ("[community", "[own server")


# First, since xdist reads the marks in a hook of the same name.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The real servers belong to one worker, so that each is started once; else files stay together.
    What needs one is marked, so that it can be left to ``make test-neo4j``. The worker with the real servers is done
    first and then takes files on a stand-in of its own: three processes to start, and no idle core for minutes.
    """
    spared = {item for item in items if _is_spared(item)}
    items[:] = [item for item in items if item not in spared]
    config.hook.pytest_deselected(items=list(spared))
    groups = {item: _group_of(item) for item in items}
    items.sort(key=lambda item: _turn(groups[item]))
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
        if group.startswith(("stand-in", "servers")):
            item.add_marker(pytest.mark.neo4j)


def _is_spared(item: pytest.Item) -> bool:
    """Of two that a test is tried on one does, in turn, where it is about bgdeploy's own doing; BGDEPLOY_KILLS tries both.

    These are the versions of a server, and what a load runs into: behind the stand-in stands a Community server too.
    """
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if item.get_closest_marker("each_version") or "BGDEPLOY_KILLS" in os.environ:
        return False
    for fixture, pair in _PAIRS.items():
        if (one := params.get(fixture)) in pair:
            name, _, ids = item.nodeid.partition("[")
            return pair[crc32((name + ids.replace(str(one), "")).encode()) % 2] != one
    return False


def _group_of(item: pytest.Item) -> str:
    needed = set(getattr(item, "fixturenames", ()))
    if item.get_closest_marker("neo4j"):
        return "servers"
    if _STANDIN & needed or any(mark in item.name for mark in _ON_A_STANDIN):
        return f"stand-in {item.path.name}"
    if _SERVERS & needed or any(mark in item.name for mark in _ON_A_SERVER):
        return "servers"
    return str(item.path)


def _turn(group: str) -> int:
    """The real servers' tests come first, then files on a stand-in, then the rest in its order."""
    if group == "servers":
        return 0
    kind, _, file = group.partition(" ")
    if kind != "stand-in":
        return len(_LONGEST) + 2
    return 1 + (_LONGEST.index(file) if file in _LONGEST else len(_LONGEST))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say which tests ran on what server, and which had none."""
    ran: dict[str, int] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "server" and report.when == "call":
                ran[value] = ran.get(value, 0) + 1
    for server, count in sorted(ran.items()):
        terminalreporter.write_line(f"{count} tests ran on {server}")
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    without = [reason for reason in skipped if "no server" in reason]
    if without:
        reason = without[0].rpartition("no server: ")[2].rstrip("')")
        terminalreporter.write_line(f"{len(without)} tests had no server ({reason}); {HOW}")
