"""A configuration file of the service that bgdeploy replaces works as it is, and says what became of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from bgdeploy.config import load_settings
from bgdeploy.errors import ConfigError
from tests.house import House

ORIGINAL = """\
neo4j:
  host: localhost
  arrow_port: 8491
  bolt_port: {port}
  user: neo4j
  password: ${{NEO4J_PASSWORD}}
  tls: false
  concurrency: 10

dataset:
  base_path: ./data

worker:
  concurrency: 10
  arrow_table_size: 100000

orchestrator:
  num_workers: 3
  max_concurrent_loads: 3
  scan_interval: 30
  max_databases: 50
  heap_threshold_percent: 85
  pagecache_threshold_percent: 90
  health_check_retry_delay: 60
  max_retries: 3
  retry_backoff_base: 2
  shutdown_timeout: 300
"""
SECRET = {"NEO4J_PASSWORD": "secret"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(ORIGINAL.format(port=7687))
    return path


def test_every_key_is_taken_and_lands_where_it_is_used(file: Path) -> None:
    settings = load_settings(file, None, SECRET)
    assert settings.target == "neo4j"
    assert settings.useless() == []
    stored = settings.target_settings()
    assert (stored["arrow_streams"], stored["arrow_rows"], stored["concurrency"]) == (10, 100_000, 10)
    access = settings.target_access()
    assert (access["uri"], access["arrow_port"], access["password"]) == (
        "neo4j://localhost:7687", 8491, "secret",
    )  # fmt: skip
    assert settings.dataset.base_path == file.parent / "data"
    assert settings.orchestrator.num_workers == 3


def test_the_target_is_the_server_that_is_named_unless_one_is_written_down(file: Path) -> None:
    def target(text: str, **environ: str) -> tuple[str, bool]:
        file.write_text(text)
        settings = load_settings(file, None, {**SECRET, **environ})
        return settings.target, bool(settings.target_follows)

    assert target("neo4j: {host: graph}") == ("neo4j", True)
    assert target("neo4j: {uri: 'bolt://graph:7687'}") == ("neo4j", True)
    assert target("", BGDEPLOY__NEO4J__HOST="graph") == ("neo4j", True)
    assert target("target: ladybug\nneo4j: {host: graph}") == ("ladybug", False)
    assert target("neo4j: {host: graph}", BGDEPLOY__TARGET="ladybug") == ("ladybug", False)
    assert target("target: neo4j\nneo4j: {host: graph}") == ("neo4j", False)
    assert target("neo4j: {host: null, user: me}") == ("ladybug", False)
    assert target("neo4j: {uri: }") == ("ladybug", False)


def test_without_its_password_the_file_is_refused_and_not_taken_for_the_embedded_target(file: Path) -> None:
    with pytest.raises(ConfigError, match="NEO4J_PASSWORD is not set"):
        load_settings(file, None, {})


def test_a_host_whose_variable_is_not_set_is_a_fault_and_no_reason_to_take_the_embedded_target(
    file: Path,
) -> None:
    file.write_text("neo4j: {host: '${GRAPH_HOST}', password: x}")
    with pytest.raises(ConfigError, match="GRAPH_HOST is not set"):
        load_settings(file, None, {})


def test_config_says_what_each_old_key_became(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEO4J_PASSWORD", "secret")
    house = House(file.parent)
    said = house.run("config").stdout
    assert "worker.concurrency                        streams of loader arrow" in said
    assert "target" in said and f"follows neo4j.host ({file}:2)" in said
    assert "secret" not in said
    shown = {one["key"]: one["became"] for one in house.json("config")}
    written = [line.strip().partition(":")[0] for line in ORIGINAL.splitlines() if line.startswith("  ")]
    assert sorted(key.rpartition(".")[2] for key, text in shown.items() if text) == sorted(written)
    file.write_text("orchestrator: {num_workers: 2}")
    assert "key of the service before" not in house.run("config").stdout


def test_the_start_says_which_target_it_takes_and_loads_nothing_beside_the_server(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO4J_PASSWORD", "secret")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and never listened at
        file.write_text(ORIGINAL.format(port=nobody.getsockname()[1]))
        house = House(file.parent, "neo4j")
        house.drop("acme", 1700000001, rows=100)
        done = house.run("run", "--timeout", "2", "--log-format", "json", ok=False)
    said = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert [line["setting"] for line in said if line["event"] == "service.target"] == [
        f"neo4j.host ({file}:2)"
    ]
    assert not (file.parent / ".bgdeploy/databases").exists()
    assert {job["state"] for job in house.json("jobs", "list")} <= {"discovered", "queued"}


def test_an_installation_that_was_embedded_until_now_is_told_how_to_stay_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEO4J_PASSWORD", "secret")
    house.run("scan")
    config = json.loads((house.folder / "config.yaml").read_text())
    (house.folder / "config.yaml").write_text(json.dumps({**config, "neo4j": {"host": "graph"}}, indent=1))
    refused = house.run("scan", ok=False)
    assert refused.returncode == 5
    assert "write down target: ladybug" in refused.stderr
