"""Where settings come from, which source is the strongest, and what is shown of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bgdeploy.config import SCHEMA, Settings, is_unused, load_settings
from bgdeploy.config_file import leaves

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_each_source_is_stronger_than_the_one_before(file: Path) -> None:
    file.write_text("")
    assert load_settings(file, None, {}).orchestrator.num_workers == 1
    file.write_text("orchestrator: {num_workers: 2}")
    assert load_settings(file, None, {}).orchestrator.num_workers == 2
    environ = {"BGDEPLOY__ORCHESTRATOR__NUM_WORKERS": "3"}
    assert load_settings(file, None, environ).orchestrator.num_workers == 3
    options = {"orchestrator.num_workers": 4, "orchestrator.scan_interval": None}
    settings = load_settings(file, options, environ)
    assert settings.orchestrator.num_workers == 4
    assert settings.orchestrator.scan_interval == 30


def test_a_stronger_source_does_not_hide_that_a_weaker_one_has_other_keys(file: Path) -> None:
    file.write_text("orchestrator: {keep_databases: 5}")
    settings = load_settings(file, None, {"BGDEPLOY__ORCHESTRATOR__NUM_WORKERS": "3"})
    assert settings.orchestrator.keep_databases == 5


def test_the_file_is_found_by_option_then_variable_then_folder_then_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, None, {}).orchestrator.keep_databases == 2
    for number, name in enumerate(("config.yaml", "named.yaml", "option.yaml"), 3):
        (tmp_path / name).write_text(f"orchestrator: {{keep_databases: {number}}}")
    named = {"BGDEPLOY_CONFIG": str(tmp_path / "named.yaml")}
    assert load_settings(None, None, {}).orchestrator.keep_databases == 3
    assert load_settings(None, None, named).orchestrator.keep_databases == 4
    assert load_settings(tmp_path / "option.yaml", None, named).orchestrator.keep_databases == 5


@pytest.mark.parametrize(
    ("written", "environ", "expected"),
    [
        ("${WHERE}", {"WHERE": "here"}, "here"),
        ("${WHERE:there}", {"WHERE": "here"}, "here"),
        ("${WHERE:there}", {}, "there"),
        ("${WHERE:there}", {"WHERE": ""}, "there"),
        ("a/${ONE}/${TWO:2}", {"ONE": "1"}, "a/1/2"),
        ("a/$${ONE}", {"ONE": "1"}, "a/${ONE}"),
    ],
)
def test_variables_in_values(file: Path, written: str, environ: dict[str, str], expected: str) -> None:
    file.write_text(f"state_dir: {written}")
    assert load_settings(file, None, environ).state_dir == file.parent / expected


def test_variables_may_hold_the_job_table_and_braces(file: Path) -> None:
    file.write_text("database_url: '${DB:sqlite:///{state_dir}/j.db}'")
    assert load_settings(file, None, {}).database_path == file.parent / ".bgdeploy/j.db"


def test_paths_count_from_the_file_whoever_gave_them(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    file.write_text("dataset: {base_path: drops}")
    settings = load_settings(file, {"state_dir": "s"}, {})
    assert settings.dataset.base_path == file.parent / "drops"
    assert settings.state_dir == file.parent / "s"
    assert settings.database_path == file.parent / "s/jobs.db"


def test_what_existing_files_say_is_accepted(file: Path) -> None:
    file.write_text(
        "neo4j: {host: h, arrow_port: 8491, bolt_port: 7687, user: neo4j, password: x, tls: false, concurrency: 10}\n"
        "orchestrator: {num_workers: 3, scan_interval: 60, max_databases: 50, heap_threshold_percent: 85,\n"
        "               pagecache_threshold_percent: 90, health_check_retry_delay: 60}\n"
        "web: {host: 127.0.0.1, port: 8484, token: '${BGDEPLOY_TOKEN:}'}\n"
    )
    assert load_settings(file, None, {}).orchestrator.max_databases == 50


def test_an_unset_secret_of_an_unused_section_stops_nothing(file: Path) -> None:
    file.write_text("neo4j: {password: '${NEO4J_PASSWORD}'}")
    load_settings(file, None, {})


@pytest.mark.parametrize("word", ["true", "yes", "on", "1", "True"])
def test_the_words_for_true(file: Path, word: str) -> None:
    file.write_text(f"orchestrator: {{auto_switch: {word}}}")
    assert load_settings(file, None, {}).orchestrator.auto_switch is True


@pytest.mark.parametrize("word", ["null", "none", "~", ""])
def test_the_words_for_no_limit(file: Path, word: str) -> None:
    file.write_text(f"orchestrator: {{max_databases: '{word}'}}")
    assert load_settings(file, None, {}).orchestrator.max_databases is None


def test_a_name_for_a_column_may_hold_commas_in_a_json_list(file: Path) -> None:
    file.write_text("")
    environ = {"BGDEPLOY__DATASET__COLUMNS__ID": '["a,b", "c"]'}
    assert load_settings(file, None, environ).dataset.columns.id == ("a,b", "c")
    environ = {"BGDEPLOY__DATASET__COLUMNS__ID": "a, b"}
    assert load_settings(file, None, environ).dataset.columns.id == ("a", "b")


def test_shown_says_where_each_value_comes_from_and_hides_secrets(file: Path) -> None:
    file.write_text("dataset:\n  base_path: drops\nneo4j:\n  password: hunter2\n  uri: neo4j://h:7687\n")
    environ = {"BGDEPLOY__CHECKS__MAX_SHRINK_PERCENT": "10", "BGDEPLOY__WEB__TOKEN": "hunter2"}
    rows = {
        key: (value, origin)
        for key, value, origin in load_settings(file, {"target": "ladybug"}, environ).shown()
    }
    assert rows["dataset.base_path"] == (str(file.parent / "drops"), f"{file}:2")
    assert rows["checks.max_shrink_percent"] == ("10", "environment BGDEPLOY__CHECKS__MAX_SHRINK_PERCENT")
    assert rows["target"] == ("ladybug", "option")
    assert rows["orchestrator.num_workers"] == ("1", "default")
    assert "hunter2" not in str(rows)
    assert "hunter2" not in repr(load_settings(file, None, environ))


def test_the_file_in_the_repository_holds_the_defaults_and_every_key() -> None:
    from_file = load_settings(ROOT / "config.yaml", None, {})
    defaults = Settings.model_validate({}, context={"folder": str(ROOT)})
    assert from_file.model_dump() == defaults.model_dump()
    named = {key for key, _, origin in from_file.shown() if origin != "default"}
    assert named == {".".join(path) for path in leaves(SCHEMA) if not is_unused(".".join(path))}


def test_every_key_is_explained_in_the_documentation() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    explained = dict(re.findall(r"^\| `([a-z_.0-9]+)` \| `(.*?)` \| \S", text, re.MULTILINE))
    shown: dict[str, str] = {}
    for target in ("neo4j", "ladybug"):
        settings = Settings.model_validate({"target": target}, context={"folder": "/"})
        shown |= {key: value.replace("/.bgdeploy", ".bgdeploy") for key, value, _ in settings.shown()}
    shown |= {"dataset.base_path": "data", "database_url": "sqlite:///{state_dir}/jobs.db"}
    assert explained == shown
