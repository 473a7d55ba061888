"""What an engine says of a query is one line, and the hint below it is a command or an expression that works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner, Result

from bgdeploy.cli.app import app
from bgdeploy.targets.ladybug.reader import in_one_line
from tests.house import House, make_house, make_removable
from tests.snapshots.folders import write

FILES: dict[str, dict[str, Any]] = {
    "nodes/Person/a.parquet": {
        "id": [1, 2],
        "labels": ["Person,Manager", "Person"],
        "price": pa.array([Decimal("1.10"), Decimal("2.20")], pa.decimal128(10, 2)),
        "name": ["a", "b"],
    },
    "relationships/KNOWS/a.parquet": {"source": [1], "target": [2]},
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = make_house(tmp_path_factory.mktemp("house"))
    write(house.folder / "data/two words/1700000001", FILES)
    house.run("run", "--timeout", "60")
    yield house
    make_removable(house.folder)


def query(house: House, cypher: str) -> Result:
    words = ["--config", str(house.folder / "config.yaml"), "query", "two words", cypher]
    return CliRunner().invoke(app, words, prog_name="bgdeploy")


ERRORS = [
    ("MATCH (n:Person) RETURN sum(n.price) AS s", "Binder exception: SUM does not take (DECIMAL(10, 2))", "sum(CAST(n.price * 100 AS INT128))"),
    ("MATCH (n:Person) RETURN max(n.price) AS s", "Binder exception: MAX does not take (DECIMAL(10, 2))", "max(CAST(n.price AS DOUBLE))"),
    ("MATCH (n:Person) RETURN n.id + 'x' AS s", "Binder exception: + does not take (INT64,STRING)", "CAST(n.price AS INT64)"),
    ("MATCH (n:Manager) RETURN n", "Binder exception: Table Manager does not exist.", "'Manager' IN n.labels"),
    ("MATCH (n) WHERE n:Manager RETURN n", "Parser exception: cannot be read on at ':' (line 1, character 18)", "'Manager' IN n.labels"),
    ("MATCH (n:Order) RETURN n", "Parser exception: cannot be read on at 'Order' (line 1, character 10)", "`Order`"),
    ("MATCH (n)\nRETUR n", "Parser exception: cannot be read on at 'RETUR' (line 2, character 1)", "backticks"),
    ("MATCH (n", "Parser exception: cannot be read on at its end (line 1, character 9)", "backticks"),
    ("MATCH (n:Person) RETURN n.nope", "Binder exception: Cannot find property nope for n.", "MATCH (n:Person) RETURN n LIMIT 1"),
    ("MATCH (a)-[r]->(b) RETURN type(r)", "Catalog exception: function TYPE does not exist.", "label(r)"),
    ("MATCH (n) RETURN collect(n.id)[0]", "Runtime exception: List extract takes 1-based position.", "list[1]"),
    ("RETURN 1 / 0 AS x", "Runtime exception: Divide by zero.", "WHERE"),
    ("RETURN CAST('a' AS INT64) AS x", 'Conversion exception: Cast failed. Could not convert "a" to INT64.', "does not fit"),
    ("MATCH (n) WHERE id(n) = 1 RETURN n", "Binder exception: Type Mismatch: Cannot compare types INTERNAL_ID and INT64", "the id that the files have"),
]  # fmt: skip


@pytest.mark.parametrize(("cypher", "said", "hint"), ERRORS, ids=[one[0][:40] for one in ERRORS])
def test_an_error_of_the_engine_is_one_line_with_a_hint_that_works(
    asked: House, cypher: str, said: str, hint: str
) -> None:
    done = query(asked, cypher)
    assert done.exit_code == 1
    what, kept, cure = done.stderr.splitlines()
    assert (what, kept) == (f"bgdeploy: {said}", "  Nothing was changed.")
    assert hint in cure
    assert len(what) < 200 and len(cure) < 320
    for command in re.findall(r"(bgdeploy query .+)$", cure):
        words = shlex.split(command)
        assert words[:3] == ["bgdeploy", "query", "two words"]
        if "Order" not in command:  # an example of a name that this snapshot does not have
            assert query(asked, words[3]).exit_code == 0, command


@pytest.mark.parametrize(
    "cypher",
    ["RETURN sum(CAST(n.price AS DOUBLE)) AS s", "RETURN sum(CAST(n.price * 100 AS INT128)) AS s",
     "WHERE 'Manager' IN n.labels RETURN n.id", "WHERE label(n) = 'Person' RETURN n.id"],
)  # fmt: skip
def test_what_the_hints_say_is_what_the_engine_takes(asked: House, cypher: str) -> None:
    assert query(asked, f"MATCH (n) {cypher}").exit_code == 0


def test_what_is_not_known_stays_whole_on_one_line() -> None:
    assert in_one_line("Some exception: a\n  b\n c") == "Some exception: a b c"


def test_connect_says_the_same(asked: House) -> None:
    import bgdeploy
    from bgdeploy.targets.ladybug.engine import QueryFailed

    with (
        bgdeploy.connect("two words", config=Path(asked.folder / "config.yaml")) as reader,
        pytest.raises(QueryFailed, match=r"^Binder exception: SUM does not take \(STRING\)$"),
    ):
        reader.query("MATCH (n:Person) RETURN sum(n.name)")


def test_commands_that_are_printed_about_a_name_with_a_space_run_as_printed(asked: House) -> None:
    def run(words: list[str]) -> str:
        before = ["--config", str(asked.folder / "config.yaml")]
        done = CliRunner().invoke(app, [*before, *words], prog_name="bgdeploy")
        assert done.exit_code == 0, (words, done.stderr)
        return done.stdout

    printed = [
        (["pin", "two words"], "unpin"),
        (["pause", "two words"], "resume"),
        (["jobs", "show", "1"], "pin"),
        (["customers", "remove", "two words"], None),
        (["unpin", "two words"], None),
    ]
    for words, verb in printed:
        said = run(words)
        for command in re.findall(rf"bgdeploy ({verb} .+?)(?:;|$)", said, re.MULTILINE) if verb else []:
            typed = shlex.split(command)
            assert typed[1] == "two words", command
            run(typed)
    assert "customers remove 'two words' --yes" in run(["customers", "remove", "two words"])
