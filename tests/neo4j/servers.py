"""Real Neo4j Community servers for the tests: fetched once from Maven Central, started as processes of their own.

A test fixture only: nothing of it is shipped. Without Java and Maven the tests say so and are skipped.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn

import neo4j
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from neo4j.exceptions import DriverError, Neo4jError

from bgdeploy.targets.neo4j.names import quote

LTS = "5.26.30"
NEWEST = "2026.08.1"
PASSWORD = "secret-of-the-tests"
_MAIN = {LTS: "org.neo4j.server.CommunityEntryPoint", NEWEST: "org.neo4j.server.Neo4jCommunity"}
_TOOL = "org.neo4j.cli.AdminTool"
_JAVA = {LTS: 17, NEWEST: 21}
_PARTS = ("org.neo4j.app:neo4j-server", "org.neo4j:neo4j", "org.neo4j:neo4j-slf4j-provider")
_TOOLS = ("org.neo4j:neo4j-import-tool", "org.neo4j:neo4j-command-line")
# What the import tool needs to read Parquet and neither release depends on any more.
_FOR_PARQUET = (
    "com.fasterxml.woodstox:woodstox-core:7.1.1",
    "org.apache.commons:commons-collections4:4.5.0",
    "org.apache.hadoop.thirdparty:hadoop-shaded-guava:1.5.0",
)
_OPENED = ("java.nio", "java.io", "sun.nio.ch", "java.util.concurrent")
_SETTINGS = {
    "server.http.enabled": "false",
    "server.https.enabled": "false",
    "dbms.usage_report.enabled": "false",
    "server.memory.pagecache.size": "96m",
    "db.tx_log.preallocate": "false",
}
_PATIENCE = 120.0


class NoServer(Exception):
    """There is no server to test on, and why."""


def do_without(missing: NoServer) -> NoReturn:
    """Skip the test, or fail it under CI: hundreds of tests must not vanish in silence."""
    if os.environ.get("CI"):
        pytest.fail(f"no server: {missing}")
    pytest.skip(f"no server: {missing}")


@cache
def find_java(version: str) -> str:
    """A Java that runs this version; raises NoServer."""
    homes = sorted(Path("/usr/lib/jvm").glob("*/bin/java")) if Path("/usr/lib/jvm").is_dir() else []
    if home := os.environ.get("JAVA_HOME"):
        homes.insert(0, Path(home) / "bin/java")
    for java in [shutil.which("java"), *map(str, homes)]:
        if java is not None and int(_java_version(java).partition(".")[0]) >= _JAVA[version]:
            return java
    raise NoServer(f"no Java {_JAVA[version]} for Neo4j {version}")


@cache
def _java_version(java: str) -> str:
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
        found = re.search(r'"(\d[\w.+-]*)"', said)
    except (OSError, subprocess.TimeoutExpired):
        found = None
    return found[1] if found else "0"


@cache
def fetch(version: str) -> Path:
    """The folder with the server's jars, from the cache or from Maven Central; raises NoServer."""
    find_java(version)
    with _locked() as kept:
        lib = kept / f"neo4j-{version}"
        if not (lib / "complete").exists():
            _download(version, lib)
    return lib


@contextmanager
def _locked() -> Iterator[Path]:
    """The folder that outlives a run of the tests, for this process alone: several start at once."""
    kept = Path(os.environ.get("BGDEPLOY_TEST_CACHE") or Path.home() / ".cache/bgdeploy-tests")
    kept.mkdir(parents=True, exist_ok=True)
    with open(kept / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield kept


def _download(version: str, lib: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NoServer(f"no Maven to fetch Neo4j {version} with")
    shutil.rmtree(lib, ignore_errors=True)
    lib.mkdir(parents=True)
    (lib / "pom.xml").write_text(_pom(version))
    goal = ["dependency:copy-dependencies", f"-DoutputDirectory={lib}", "-DincludeScope=runtime"]
    done = subprocess.run([maven, "-q", "-B", *goal], cwd=lib, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise NoServer(f"Maven could not fetch Neo4j {version}: {(done.stdout + done.stderr).strip()[-300:]}")
    (lib / "complete").touch()


def _pom(version: str) -> str:
    parts = [*(f"{part}:{version}" for part in (*_PARTS, *_TOOLS)), *_FOR_PARQUET]
    wanted = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId>"
        f"<version>{number}</version></dependency>"
        for group, name, number in (part.split(":") for part in parts)
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>bgdeploy</groupId><artifactId>fixture</artifactId><version>1</version>"
        f"<dependencies>{wanted}</dependencies></project>"
    )


@cache
def warm(version: str) -> Path:
    """What lets this version start in half the time, made once and kept beside its jars; raises NoServer.

    ``server.jsa`` and ``tool.jsa`` hold the classes that a server and an import load, ``auth.ini`` the password of the
    tests. Java itself leaves aside an archive that does not fit it, and starts as slowly as without one.
    """
    lib, java = fetch(version), find_java(version)
    made = lib / f"warm-{_java_version(java)}"
    with _locked():
        if not made.exists():
            _make_warm(version, made)
    return made


def _make_warm(version: str, made: Path) -> None:
    from tests.neo4j.loading import loading

    new = made.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    server = Community(new / "home", version, archives=new)
    server.furnish()
    server.administer("dbms", "set-initial-password", PASSWORD)
    shutil.copy(server.home / "data/dbms/auth.ini", new)  # for the homes of all servers
    server.start()
    try:
        server.wait()
        # What a load and its proof need is in the archive too.
        one = loading(server.home, server.uri, rows=500)
        one.load()
        one.verify()
        server.empty()
        server.stop()  # which writes the archive
    finally:
        server.kill()
    people, ends = server.home / "people.parquet", server.home / "ends.parquet"
    pq.write_table(pa.table({"id:ID": ["a", "b"], "at": pa.array([1, 2], pa.timestamp("us"))}), people)
    pq.write_table(pa.table({":START_ID": ["a"], ":END_ID": ["b"], "w": [1.5]}), ends)
    sources = ["--input-type=parquet", f"--nodes=P={people}", f"--relationships=R={ends}"]
    server.administer(
        "database", "import", "full", "neo4j", "--overwrite-destination=true", *sources, heap="256m"
    )
    shutil.rmtree(server.home)
    new.rename(made)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Community:
    """One server process with a home of its own; it may be killed and started again."""

    home: Path
    version: str = LTS
    heap: str = "512m"
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    # Small and quick to start: half of the processor's time; a benchmark takes Java's own choice.
    flags: tuple[str, ...] = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
    archives: Path | None = None  # where it writes the classes it has loaded; else it reads those of ``warm``
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"bolt://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Write the configuration and set the first password."""
        self.furnish()
        shutil.copy(warm(self.version) / "auth.ini", self.home / "data/dbms")

    def furnish(self) -> None:
        """Make its folders and write its configuration."""
        for name in ("conf", "data/dbms", "logs", "run"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        self._configure()

    def administer(self, *words: str, heap: str = "128m") -> None:
        """Run neo4j-admin on this home, while its server does not run."""
        command = self._java(_TOOL, *words, heap=heap)
        asked = {"cwd": self.home, "env": self._environ(), "capture_output": True, "text": True}
        done = subprocess.run(command, **asked, timeout=300)  # type: ignore[call-overload]
        assert done.returncode == 0, f"neo4j-admin {words[1]}:\n{(done.stdout + done.stderr)[-3000:]}"

    def _configure(self) -> None:
        settings = {**_SETTINGS, "server.bolt.listen_address": f"127.0.0.1:{self.port}", **self.settings}
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.home / "conf/neo4j.conf").write_text(text)

    def _java(self, main: str, *words: str, heap: str) -> list[str]:
        opened = [f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in _OPENED]
        kind = "tool.jsa" if main == _TOOL else "server.jsa"
        if self.archives:
            archive = f"-XX:ArchiveClassesAtExit={self.archives / kind}"
        else:
            archive = f"-XX:SharedArchiveFile={warm(self.version) / kind}"
        jars = sorted(fetch(self.version).glob("*.jar"))  # an archive fits one order of them only
        return [
            find_java(self.version),
            *opened,
            "-Dio.netty.tryReflectionSetAccessible=true",
            *self.flags,
            archive,
            "-Xlog:disable",  # it would say on standard output that an archive does not fit
            f"-Xmx{heap}",
            "-cp",
            ":".join(map(str, jars)),
            main,
            *words,
        ]

    def _environ(self) -> dict[str, str]:
        return {**os.environ, "NEO4J_HOME": str(self.home), "NEO4J_CONF": str(self.home / "conf")}

    def write_tool(self, path: Path) -> Path:
        """A ``neo4j-admin`` of this version, with a home of its own, as an installation has one."""
        home = path.with_suffix(".home")
        (home / "conf").mkdir(parents=True, exist_ok=True)
        words = " ".join(f"'{word}'" for word in self._java(_TOOL, heap="512m"))
        lines = ["#!/bin/sh", f"NEO4J_HOME='{home}' NEO4J_CONF='{home}/conf' exec {words} \"$@\"", ""]
        path.write_text("\n".join(lines))
        path.chmod(0o755)
        return path

    def start(self) -> None:
        """Start the process; it is ready when ``wait`` returns."""
        self._configure()
        main = [_MAIN[self.version], f"--home-dir={self.home}", f"--config-dir={self.home / 'conf'}"]
        with open(self.home / "logs/out", "ab") as out:
            command = self._java(*main, heap=self.heap)
            self.process = subprocess.Popen(
                command, env=self._environ(), stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def wait(self) -> None:
        """Return when it answers over Bolt."""
        deadline = time.monotonic() + _PATIENCE
        while not self.answers():
            said = (self.home / "logs/out").read_text()[-2000:]
            assert self.process is not None
            assert self.process.poll() is None, f"Neo4j {self.version} ended:\n{said}"
            assert time.monotonic() < deadline, f"Neo4j {self.version} does not answer:\n{said}"
            threading.Event().wait(0.1)

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                pass
            with self.driver() as driver:
                driver.execute_query("RETURN 1", database_="neo4j")
        except (OSError, DriverError, Neo4jError):
            return False
        return True

    def settled(self) -> tuple[str, str]:
        """Return status and message of its database once it is up, or will not be."""
        deadline = time.monotonic() + _PATIENCE
        text = "SHOW DATABASE neo4j YIELD currentStatus, statusMessage"
        while time.monotonic() < deadline:
            try:
                with self.driver() as driver:
                    status, said = driver.execute_query(text, database_="system").records[0].values()
                if status in ("online", "offline") and (status == "online" or said):
                    return status, said
            except (OSError, DriverError, Neo4jError, IndexError):
                pass
            assert self.process is None or self.process.poll() is None, f"Neo4j {self.version} ended"
            threading.Event().wait(0.1)
        raise AssertionError(f"Neo4j {self.version} does not come up")

    def stop(self) -> None:
        """End it as an administrator does: it writes a checkpoint."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def driver(self) -> neo4j.Driver:
        return neo4j.GraphDatabase.driver(
            self.uri, auth=("neo4j", PASSWORD), notifications_min_severity="OFF", max_transaction_retry_time=1
        )

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def empty(self) -> None:
        """Remove all data and schema, so that the next test finds a new database."""
        with self.driver() as driver:
            empty(driver)


def empty(driver: neo4j.Driver) -> None:
    """Remove all data and schema from the one database of a Community server."""
    for kind, plural in (("CONSTRAINT", "CONSTRAINTS"), ("INDEX", "INDEXES")):
        for row in driver.execute_query(f"SHOW {plural} YIELD name, type", database_="neo4j").records:
            if row.get("type") != "LOOKUP":
                driver.execute_query(f"DROP {kind} {quote(row['name'])} IF EXISTS", database_="neo4j")  # type: ignore[arg-type]
    with driver.session(database="neo4j") as session:
        session.run("MATCH ()-[r]->() CALL (r) { DELETE r } IN TRANSACTIONS OF 1000 ROWS").consume()
        session.run("MATCH (n) CALL (n) { DELETE n } IN TRANSACTIONS OF 1000 ROWS").consume()


@contextmanager
def community(home: Path, version: str = LTS, **settings: str) -> Iterator[Community]:
    """A running server; raises NoServer where none can be had."""
    fetch(version)
    server = Community(home, version, settings=settings)
    server.prepare()
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


if __name__ == "__main__":  # before the tests, whose time is limited
    for each in (LTS, NEWEST):
        try:
            warm(each)
        except NoServer as error:
            print(f"no server: {error}")
