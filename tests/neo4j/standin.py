"""The stand-in for Neo4j Enterprise, as a test holds it: a process of its own, with a hand on its rules."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import neo4j

from tests.neo4j.servers import PASSWORD, fetch, free_port


@dataclass
class StandIn:
    """A running gateway with the processes behind it."""

    folder: Path
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    arrow_port: int = field(default_factory=free_port)
    arrow_tls_port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def uri(self) -> str:
        return f"neo4j://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """The section of a configuration that leads here."""
        return {"uri": self.uri, "password": PASSWORD, "concurrency": 2}

    def start(self) -> None:
        self.folder.mkdir(parents=True)
        command = [
            sys.executable,
            "-m",
            "tests.neo4j.gateway",
            str(self.port),
            str(self.arrow_port),
            str(self.folder),
            *self._tls(),
        ]
        log = open(self.folder.with_suffix(".log"), "ab")  # noqa: SIM115 - the process keeps it
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", self.folder.with_suffix(".log").read_text()[
            -3000:
        ]

    @property
    def certificate(self) -> Path:
        """What its TLS port shows, signed by itself; missing where there is no openssl."""
        return self.folder / "certificate.pem"

    def _tls(self) -> list[str]:
        key = self.folder / "key.pem"
        openssl = shutil.which("openssl")
        if openssl is None:
            return []
        made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bgdeploy tests"]
        where = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run([openssl, *made, *where], check=True, capture_output=True)
        return [str(self.tls_port), str(self.arrow_tls_port), str(self.certificate), str(key)]

    def stop(self) -> None:
        """End the gateway and every server behind it."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def driver(self, **more: Any) -> neo4j.Driver:
        options = {"auth": ("neo4j", PASSWORD), "notifications_min_severity": "OFF", **more}
        return neo4j.GraphDatabase.driver(self.uri, **options)

    def control(self, **wishes: Any) -> dict[str, Any]:
        """Change what the stand-in does; return what it remembers."""
        with self.driver() as driver, driver.session(database="system") as session:
            row = session.run("STANDIN", wishes).single(strict=True)
        state: dict[str, Any] = json.loads(row["state"])
        return state

    def system(self, text: str, **params: Any) -> list[dict[str, Any]]:
        """Rows of one administration statement, as an administrator would send it."""
        with self.driver() as driver, driver.session(database="system") as session:
            return session.run(text, params).data()  # type: ignore[arg-type]

    def reset(self) -> None:
        """Forget every database and alias of the last test."""
        self.control(reset=True)

    def counts(self, database: str) -> dict[str, int]:
        """What is in a database, counted without bgdeploy."""
        rows = self.rows(
            database,
            "MATCH (n) WITH count(n) AS nodes, count(DISTINCT n.nodeId) AS ids "
            "MATCH ()-[r]->() RETURN nodes, ids, count(r) AS relationships",
        )
        return dict(rows[0])

    def rows(self, database: str, text: str, **params: Any) -> list[dict[str, Any]]:
        with self.driver() as driver, driver.session(database=database) as session:
            return session.run(text, params).data()  # type: ignore[arg-type]


@contextmanager
def standin(folder: Path) -> Iterator[StandIn]:
    """A running stand-in; raises NoServer where none can be had."""
    from tests.neo4j.servers import LTS

    fetch(LTS)
    one = StandIn(folder)
    one.start()
    try:
        yield one
    finally:
        one.stop()
