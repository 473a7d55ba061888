"""Logic goes by codes: no sentence of ours is compared, searched or taken apart outside a short list of edges."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bgdeploy
from bgdeploy.cli.job_page import tell_proof
from bgdeploy.errors import NeedsReload, TargetError

ROOT = Path(bgdeploy.__file__).parent
# What holds a sentence: attributes, keys of rows and views, and variables of these names.
SENTENCES = {
    "reason",
    "error",
    "what",
    "cure",
    "kept",
    "message",
    "said",
    "trouble",
    "why",
    "hint",
    "low",
}
METHODS = {"startswith", "endswith", "replace", "find", "index", "count", "partition", "rpartition", "removeprefix",
           "removesuffix", "split", "search", "match", "fullmatch", "findall"}  # fmt: skip
# Where the words of SQLite, an engine, DuckDB or a server become a code, and what an older version wrote is read.
EDGES = {
    "jobs/look.py": "SQLite",
    "jobs/migrate.py": "SQLite",
    "jobs/store.py": "SQLite",
    "service/query.py": "what an engine or a server says to a query",
    "snapshots/duck.py": "DuckDB",
    "snapshots/keys.py": "DuckDB",
    "snapshots/proof.py": "DuckDB",
    "service/timeline.py": "the step of an event without fields",
    "snapshots/rows.py": "pyarrow",
    "targets/neo4j/arrow/refusals.py": "the server's Arrow service",
    "targets/ladybug/inspection.py": "the engine",
    "targets/ladybug/refusals.py": "the engine",
    "targets/neo4j/refusals.py": "the server and its driver",
}


def _name(node: ast.AST) -> str:
    """The attribute, key or variable that a text is taken from, whatever it went through on its way."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case ast.Call(func=ast.Attribute(value=inner, attr="get"), args=[ast.Constant(value=str(name)), *_]):
            return name
        case ast.Call(func=ast.Attribute(value=inner)):  # error.what.lower()
            return _name(inner)
        case ast.Call(func=ast.Name(id="str"), args=[inner]):
            return _name(inner)
        case ast.BoolOp(values=[inner, *_]):  # (job["reason"] or "")
            return _name(inner)
    return ""


def _is_prose(node: ast.AST) -> bool:
    """A text of several words, or a list of texts one of which has: codes and names have none."""
    match node:
        case ast.Constant(value=str(text)):
            return " " in text.strip() or text.startswith(("--", "<"))
        case ast.JoinedStr(values=parts):
            return any(_is_prose(part) for part in parts)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(_is_prose(part) for part in parts)
    return False


def find_readings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and code of each place where a sentence is compared with words."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare(left=left, comparators=[right, *_]):
                sides = ((left, right), (right, left))
            case ast.Call(func=ast.Attribute(value=inner, attr=method), args=[words, *more]) if (
                method in METHODS
            ):
                # ``text.startswith(words)``, and ``re.search(words, text)``
                sides = ((inner, words), (more[0], words)) if more else ((inner, words),)
            case _:
                continue
        if any(_name(text) in SENTENCES and _is_prose(words) for text, words in sides):
            yield node.lineno, ast.unparse(node)


def test_no_logic_reads_a_sentence_of_ours() -> None:
    found = [
        f"{place}:{line}: {code}"
        for path in sorted(ROOT.rglob("*.py"))
        if (place := str(path.relative_to(ROOT))) not in EDGES
        for line, code in find_readings(path.read_text())
    ]
    assert not found, "\n".join(found)


def test_every_edge_exists() -> None:
    assert all((ROOT / place).is_file() for place in EDGES)


@pytest.mark.parametrize(
    "line",
    [
        'if "--to" in (obstacle or "") or "--to" in reason: pass',
        'if job["reason"] != "folder gone": pass',
        'job["error"].startswith("Cancelled. To")',
        'if "not well" in error.what.lower(): pass',
        'error.cure.replace("<id>", "3")',
        'if str(one.get("trouble")).startswith("unknown target"): pass',
        'if one.what.startswith(f"not looked at, since {why}"): pass',
        'if row["message"] in ("folder gone", "x"): pass',
        're.search("does not exist", error.what)',
    ],
)
def test_a_reading_is_found_however_it_is_written(line: str) -> None:
    assert list(find_readings(line))


@pytest.mark.parametrize(
    "line",
    ['if job["reason_code"] == "folder-gone": pass', 'if reason is not None: pass', 'said = f"{what} failed"',
     'if kept == "": pass', 'text.split(", ")'],
)  # fmt: skip
def test_what_reads_no_words_is_none(line: str) -> None:
    assert not list(find_readings(line))


def test_a_proof_is_complete_by_its_code_and_one_of_the_version_before_by_its_words() -> None:
    whole, part = "every value of 3 rows compared with the files", "counts and samples of 3 rows"
    assert tell_proof({"compared": "jeder Wert", "complete": True, "rows": 3}) == whole
    assert tell_proof({"compared": "every value", "complete": False, "rows": 3}).startswith(part)
    assert tell_proof({"compared": "every value", "rows": 3}) == whole
    assert tell_proof({"compared": "samples", "rows": 3}).startswith(part)


def test_an_error_names_the_job_to_load_again_once_somebody_knows_it() -> None:
    error = NeedsReload("x cannot be opened", kept="Nothing was changed.", alias="a b")
    assert isinstance(error, TargetError) and error.code == "target"
    back, again = (
        'Go back: bgdeploy rollback {} --reason "...", or ',
        "oad its snapshot again: bgdeploy retry {} --reload",
    )
    assert error.cure == back.format("'a b'") + "l" + again.format("<id>")
    known = error.of_job(7, customer="A <id> B")
    assert known.cure == back.format("'A <id> B'") + "l" + again.format(7)
    assert (known.what, known.kept) == (error.what, error.kept)
    assert NeedsReload("y").of_job(7, kept="z").cure == "L" + again.format(7)
