"""The API: every verb is there, answers with its type, refuses with its error, and keeps who asked and why."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import bgdeploy
from bgdeploy.errors import BadWords, ConfigError, NotFound, Refused, StoreError
from bgdeploy.service import results
from bgdeploy.service.api import Deployments, Page
from bgdeploy.service.results import Customer, Finding, Job, Story, json_schema, to_json
from tests.house import House, make_house, make_removable

FIRST, SECOND = 1700000001, 1700000002
KINDS = [
    one
    for one in vars(results).values()
    if is_dataclass(one) and not getattr(one, "__name__", "_").startswith("_")
]
LOOKING = {
    "jobs", "job", "events", "customers", "check_customer", "databases", "switches", "query", "wait", "offenders", "doctor",
    "capacity_warning", "processes", "absence", "revision",
}  # fmt: skip
ACTING = {
    "retry",
    "retry_all_failed",
    "reload",
    "cancel",
    "switch",
    "accept",
    "rollback",
    "pause",
    "resume",
    "pin",
    "unpin",
    "remove",
}
OTHERS = {"scan", "init", "upgrade", "await_end"}  # nobody's decision is in them


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """acme: live, standby and one held back for its few rows; borealis: failed."""
    house = make_house(tmp_path_factory.mktemp("house"))
    for timestamp in (FIRST, SECOND):
        house.drop("acme", timestamp)
        house.run("run", "--timeout", "60")
    house.drop("acme", SECOND + 1, rows=20)
    house.drop("borealis", FIRST, broken="duplicate-id")
    house.run("run", "--timeout", "60", ok=False)
    yield house.folder
    make_removable(house.folder)


@pytest.fixture
def api(copied: House) -> Deployments:
    return bgdeploy.open(copied.folder / "config.yaml")


def valid(kind: Any, value: Any) -> None:
    """Raise ValidationError where what is shown of a result is not what its schema says."""
    TypeAdapter(kind).validate_python(to_json(value))


def test_every_verb_is_known_and_each_that_acts_asks_who() -> None:
    verbs = {name for name, verb in vars(Deployments).items() if name[0] != "_" and inspect.isfunction(verb)}
    assert verbs == LOOKING | ACTING | OTHERS
    for name in ACTING:
        who = inspect.signature(getattr(Deployments, name)).parameters["who"]
        assert who.kind is who.KEYWORD_ONLY and who.default is who.empty, name
    for name in verbs:
        assert getattr(Deployments, name).__doc__, name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_result_has_a_schema_that_allows_nothing_else(kind: Any) -> None:
    schema = json_schema(kind)
    assert schema["type"] == "object"
    assert not [key for key in schema["properties"] if key.endswith("_")]
    assert kind is Finding or schema["additionalProperties"] is False
    assert json_schema(list[kind])["type"] == "array"


def test_what_is_answered_is_what_the_schemas_say(api: Deployments) -> None:
    valid(list[Job], api.jobs())
    for job in api.jobs():
        valid(Story, api.job(job.id))
    valid(list[Customer], api.customers())
    valid(list[results.Database], api.databases(dropped=True))
    valid(list[results.Move], api.switches())
    valid(list[results.Event], api.events())
    valid(results.ScanReport, api.scan())
    valid(results.Waited, api.wait("borealis", FIRST, timeout=0))
    valid(results.Waited, api.wait("nobody", FIRST, timeout=0))
    valid(results.Answer, api.query("acme", "MATCH (n) RETURN count(*) AS n"))
    valid(results.Revision, api.revision())
    valid(list[Finding], list(api.doctor()))
    valid(results.Offenders, api.offenders(api.jobs(customer="borealis")[0].id))
    with pytest.raises(ValidationError):
        TypeAdapter(Job).validate_python({**to_json(api.jobs()[0]), "more": 1})


def test_databases_are_told_apart(api: Deployments) -> None:
    roles = {
        one.name: [role for role in ("live", "standby", "candidate", "pinned") if getattr(one, role)]
        for one in api.databases("acme")
    }
    assert roles == {
        f"acme-{SECOND + 1}": ["candidate"],
        f"acme-{SECOND}": ["live"],
        f"acme-{FIRST}": ["standby"],
    }
    assert {one.customer for one in api.databases()} <= {"acme", "borealis"}
    assert api.databases("nobody") == []


def test_who_and_why_are_kept_of_every_act(api: Deployments) -> None:
    live = f"acme-{SECOND}"
    blocked = api.jobs(blocked=True)[0]
    assert api.pin("acme", who="ann").database == live
    assert api.unpin("acme", who="bob").pinned is False
    assert api.pause("acme", who="cleo", why="a freeze").paused
    assert not api.resume("acme", who="dora").paused
    done = api.accept(blocked.id, who="edda", why="counted by hand")
    assert (done.database, done.moved, done.way_back) == (blocked.database, True, live)
    assert not api.switch("acme", to=done.database, who="fay").moved
    back = api.rollback("acme", who="gus", why="wrong prices", pause=True)
    assert (back.database, back.left, back.paused) == (live, blocked.database, True)
    failed = api.jobs(states=["failed"])[0]
    assert api.retry(failed.id, who="hal").job == failed.id
    assert api.cancel(failed.id, who="ida").state == "failed"
    assert api.retry_all_failed(who="jo") == [], "what was cancelled is left out"
    assert str(api.reload(1, who="kim").held_back).startswith("acme is paused")
    would = api.remove("borealis", who="lee", dry_run=True)
    assert not would.done and not api.customers(text="borealis")[0].removed
    assert api.remove("borealis", who="lee", why="contract ended").done
    said = "\n".join(event.message for event in api.events())
    for name in (
        "ann",
        "bob",
        "cleo: a freeze",
        "dora",
        "gus: wrong prices",
        "hal",
        "ida",
        "kim",
        "lee: contract ended",
    ):
        assert f"by {name}" in said or f"{name} asks" in said, name
    moves = [(move.by, move.why) for move in api.switches("acme")][:2]
    assert moves == [("gus", "wrong prices"), ("edda", "counted by hand")]


def test_what_is_refused_changes_nothing(api: Deployments) -> None:
    def look() -> Any:
        """All that is shown, but for how old it is by now."""
        owners = [replace(one, snapshot_age_seconds=0) for one in api.customers()]
        return to_json([api.jobs(), owners, api.switches(), api.databases(dropped=True)])

    before = look()
    (failed,) = api.jobs(states=["failed"])
    live = next(job for job in api.jobs() if "live" in job.marks)
    for act in (
        lambda: api.accept(failed.id, who="me"),
        lambda: api.accept(live.id, who="me"),
        lambda: api.retry(live.id, who="me"),
        lambda: api.reload(failed.id, who="me"),
        lambda: api.cancel(live.id, who="me"),
        lambda: api.unpin("acme", who="me"),
        lambda: api.switch("acme", who="me"),
        lambda: api.pin("borealis", who="me"),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.kept and refused.value.cure
    for ask in (
        lambda: api.job(99),
        lambda: api.events(99),
        lambda: api.accept(99, who="me"),
        lambda: api.retry(10**30, who="me"),
        lambda: api.switch("nobody", who="me"),
        lambda: api.pause("nobody", who="me"),
        lambda: api.remove("nobody", who="me", dry_run=True),
        lambda: api.check_customer("nobody"),
        lambda: api.query("nobody", "RETURN 1"),
    ):
        with pytest.raises(NotFound):
            ask()
    for words in (
        lambda: api.jobs(states=["gone"]),
        lambda: api.jobs(page=Page(sort="-price")),
        lambda: api.switches(page=Page(sort="rows")),
        lambda: api.events(page=Page(sort="rows")),
        lambda: api.customers(states=["gone"]),
        lambda: api.customers(sort="price"),
    ):
        with pytest.raises(BadWords, match="there are: "):
            words()
    assert look() == before


def test_nothing_is_made_by_looking_and_faults_are_told_at_the_first_use(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("state_dir: state\ndataset: {base_path: data}\n")
    with pytest.raises(StoreError, match="There is no job table"):
        bgdeploy.open(config).jobs()
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    wrong = bgdeploy.open(config, orchestrator__keep_databases="many")
    with pytest.raises(ConfigError, match="keep_databases"):
        wrong.jobs()
    assert next(one.verdict for one in wrong.doctor()) == "error"
    few = bgdeploy.open(str(config), orchestrator__keep_databases=7)
    assert few.settings.orchestrator.keep_databases == 7
    few.init()
    assert few.jobs() == [] and few.customers() == []


def test_the_examples_of_the_page_run(copied: House, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    page = (Path(__file__).parents[2] / "docs/api.md").read_text().partition("<!-- generated")[0]
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 3
    monkeypatch.chdir(copied.folder)
    for example in examples:
        exec(compile(example, "docs/api.md", "exec"), {})
    said = capsys.readouterr().out
    assert "borealis" in said
    assert f"acme-{SECOND + 1} is live; the way back: acme-{SECOND}" in said
