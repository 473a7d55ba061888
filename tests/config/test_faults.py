"""Whatever is wrong with a configuration is said with its place, all of it at once, and never as a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bgdeploy.config import load_settings
from bgdeploy.errors import ConfigError

IN_THE_FILE = [
    # what stands in the file, the line that is at fault, what is said of it
    ("dataset: {base_path: ''}", 1, "dataset.base_path: must be a path"),
    ("dataset: {base_path: 's3://bucket/data'}", 1, "s3:// is not supported by this version"),
    (
        "dataset: {base_path: 'dbfs:/mnt/data'}",
        1,
        "dataset.base_path: must be a folder or file on this machine",
    ),
    ("state_dir: 'gs://bucket'", 1, "gs:// is not supported by this version"),
    ("dataset:\n  columns:\n    by_position: perhaps", 3, "'perhaps' is neither true nor false"),
    ("state_dir: x\ndataset: {base_path: x}", 2, "x) are one folder; give each a place of its own"),
    (
        "state_dir: x\ndataset: {base_path: x/data}",
        2,
        "x/data) lie in each other; give each a place of its own",
    ),
    ("state_dir: data/./state", 1, "data) lie in each other; give each a place of its own"),
    ("dataset: {base_path: .}", 1, "lie in each other; give each a place of its own"),
    ("dataset:\n  settle_seconds: soon", 2, "'soon' is not a number"),
    ("dataset:\n  settle_seconds: -1", 2, "'-1' is too small, it must be at least 0"),
    ("dataset:\n  settle_seconds: .inf", 2, "'.inf' is not a number"),
    ("dataset:\n  settle_seconds: 1e999", 2, "'1e999' is not a finite number"),
    ("dataset:\n  settle_seconds: 99999999999", 2, "is too large"),
    ("dataset:\n  settle_second: 3", 2, "did you mean settle_seconds?"),
    ("dataset:\n  num_workers: 3", 2, "did you mean orchestrator.num_workers?"),
    ("dataset:\n  columns:\n    id: [a, a]", 3, "none twice"),
    ("dataset:\n  columns:\n    id: [a, '']", 3, "none empty"),
    ("dataset:\n  columns:\n    id: [[a]]", 3, "must be a single value or a list of them"),
    ("dataset:\n  columns:\n    source: [x]\n    target: [x]", 4, "'x' is already a name for source"),
    ("dataset: 7", 1, "must be a section with keys of its own"),
    ("datasets: {}", 1, "did you mean dataset?"),
    ("neo4j: {loader: csv}", 1, "'csv' is not one of 'auto', 'bolt', 'arrow' or 'import'"),
    ("neo4j: {uri: https://host}", 1, "must be neo4j://host:port or bolt://host:port"),
    ("neo4j: {uri: bolt://me:pw@host}", 1, "must be neo4j://host:port or bolt://host:port"),
    ("neo4j: {seed_uri: s3://bucket/seeds}", 1, "must be file:///<folder>, one that bgdeploy writes to"),
    ("neo4j: {seed_uri: file:///}", 1, "must be file:///<folder>"),
    ("neo4j: {seed_uri: file://host/seeds}", 1, "must be file:///<folder>"),
    ("target: ladybird", 1, "did you mean ladybug?"),
    ("log_format: jsn", 1, "did you mean json?"),
    ("database_url: postgresql://u:hunter2@h/db", 1, "postgresql is not supported by this version"),
    ("database_url: 'sqlite://'", 1, "must be sqlite:///path/to/a/file"),
    ("database_url: 'sqlite:///:memory:'", 1, "must be sqlite:///path/to/a/file"),
    ("database_url: 'sqlite:///a?mode=ro'", 1, "'?' cannot stand in it"),
    ("database_url: 'sqlite:///{home}/a'", 1, "{state_dir} can"),
    ("orchestrator:\n  num_workers: 0", 2, "'0' is too small, it must be at least 1"),
    ("orchestrator:\n  num_workers: 2.5", 2, "'2.5' is not a whole number"),
    ("orchestrator:\n  num_workers: [1, 2]", 2, "a list is not a whole number"),
    ("orchestrator:\n  num_workers: {a: 1}", 2, "must be a single value or a list of them"),
    ("orchestrator:\n  num_workers:", 2, "has no value; give one or remove the line"),
    ("orchestrator:\n  num_worker: 3", 2, "did you mean num_workers?"),
    ("orchestrator:\n  auto_switch: maybe", 2, "'maybe' is neither true nor false"),
    ("orchestrator:\n  backlog: newest", 2, "'newest' is not one of 'all' or 'latest'"),
    ("orchestrator:\n  scan_interval: 0", 2, "must be more than 0"),
    ("orchestrator:\n  keep_databases: 0", 2, "must be at least 1"),
    ("orchestrator:\n  keep_databases: 2\n  keep_databases: 3", 3, "is set twice, first in line 2"),
    ("orchestrator:\n  lease_seconds: 0.5", 2, "must be at least 1"),
    ("orchestrator:\n  max_retries: 101", 2, "must be at most 100"),
    ("ladybug:\n  buffer_pool_mb: 8", 2, "must be at least 16"),
    ("ladybug:\n  buffer_pool_mb: 1 GB", 2, "'1 GB' is not a whole number"),
    ("checks:\n  max_shrink_percent: 120", 2, "must be at most 100"),
    ("neo4j:\n  arrow_port: 70000", 2, "must be at most 65535"),
    ("web:\n  port: http", 2, "'http' is not a whole number"),
    ("state_dir: ${NOT_SET_ANYWHERE}", 1, "the environment variable NOT_SET_ANYWHERE is not set"),
    ("state_dir: ${A-B}", 1, "write ${NAME} or ${NAME:default}"),
    ("state_dir: ${HOME:-x}", 1, "is how a shell writes it"),
    ("state_dir: ${TORN", 1, "write ${NAME} or ${NAME:default}"),
    ("- a\n- b", 1, "must hold `key: value` lines"),
    ("just words", 1, "must hold `key: value` lines"),
    ("a: b: c", 1, "YAML syntax"),
    ("target: *nothing", 1, "a value that begins with * must be in quotes"),
    ("\ttarget: x", 1, "YAML syntax"),
    ("target: ladybug\n? [a]\n: 3", 2, "unknown key"),
    ("target: lady\x00bug", 1, "YAML syntax"),
    ("[" * 5000, 1, "nested too deeply"),
]


def say(file: Path, environ: dict[str, str] | None = None, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, options, environ or {})
    return str(caught.value)


@pytest.mark.parametrize(("text", "line", "said"), IN_THE_FILE, ids=lambda value: str(value)[:40])
def test_a_fault_in_the_file_is_said_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    found = say(file)
    assert f"{file}:{line}: " in found
    assert said in found


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BGDEPLOY__ORCHESTRATOR__NUM_WORKERS", "many", "'many' is not a whole number"),
        ("BGDEPLOY__ORCHESTRATOR__NUM_WORKER", "3", "did you mean BGDEPLOY__ORCHESTRATOR__NUM_WORKERS?"),
        ("BGDEPLOY__NUM_WORKERS", "3", "did you mean BGDEPLOY__ORCHESTRATOR__NUM_WORKERS?"),
        ("BGDEPLOY__ORCHESTRATOR", "3", "is a section; set one of its keys"),
        ("BGDEPLOY__DATASET__COLUMNS__ID", '["a"', "must be a list of names"),
        ("BGDEPLOY__STATE_DIR__DEEPER", "3", "unknown key"),
    ],
)
def test_a_fault_in_the_environment_is_said_with_its_variable(
    tmp_path: Path, name: str, value: str, said: str
) -> None:
    found = say(_empty(tmp_path), {name: value})
    assert f"environment {name}: " in found
    assert said in found


def test_a_fault_in_an_option_is_said_with_its_name(tmp_path: Path) -> None:
    found = say(_empty(tmp_path), None, **{"orchestrator.scan_interval": -3})
    assert "option orchestrator.scan_interval: '-3' is too small" in found


def test_all_faults_are_said_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("target: x\norchestrator:\n  num_workers: 0\n  nonsense: 1\nchecks: 3\n")
    lines = say(file, {"BGDEPLOY__WEB__PORT": "0"}).splitlines()
    places = [line.split(" ", 1)[0] for line in lines]
    assert places[:4] == [f"{file}:{number}:" for number in (1, 3, 4, 5)]
    assert "environment BGDEPLOY__WEB__PORT" in lines[4]


@pytest.mark.parametrize("secret", ["hunter2", "p@ss/w:rd"])
def test_a_fault_never_repeats_a_secret(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("neo4j:\n  password: [${PW}, b]\n  uri: ${PW}\nladybug:\n  threads: ${PW}\n")
    assert secret not in say(file, {"PW": secret})
    file.write_text(f"database_url: postgresql://me:{secret}@host/db\n")
    assert secret not in say(file)


@pytest.mark.parametrize("kind", ["missing", "a folder", "a pipe", "not text", "a gigabyte"])
def test_a_file_that_is_none_is_said_by_name(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "config.yaml"
    if kind == "a folder":
        file.mkdir()
    elif kind == "a pipe":
        os.mkfifo(file)
    elif kind == "not text":
        file.write_bytes(b"target: \xff\xfe\n")
    elif kind == "a gigabyte":
        with open(file, "wb") as handle:
            handle.truncate(1 << 30)
    assert str(file) in say(file)


def _empty(folder: Path) -> Path:
    file = folder / "config.yaml"
    file.write_text("")
    return file
