"""Reader: a client's read-only look at what is live, which outlives a switch and even a drop.

Opened read-only the engine still runs CHECKPOINT, which leaves files beside a published database that
nobody can open after that, and it writes and reads any other file: COPY TO, EXPORT DATABASE, LOAD FROM.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from bgdeploy.actions import Hint, do
from bgdeploy.errors import NeedsReload, NotFound, TargetError
from bgdeploy.targets.base import Rows
from bgdeploy.targets.ladybug.disk import GRAPH, Paths, read_link, tell_outdated
from bgdeploy.targets.ladybug.engine import Engine, QueryFailed, open_engine

# Reads: what a client may ask of a live database, judged before the engine sees it.

_ASIDE = re.compile(
    r"""(?P<text>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`(?P<name>[^`]*)`|//[^\r\n]*|/\*.*?\*/|\u180e""",
    re.DOTALL,
)  # the last one is a space to the engine, and none to Python
_READS = re.compile(
    r"\s*(?:(?:EXPLAIN(?:\s+LOGICAL)?|PROFILE)\s+)?(?:(?:MATCH|OPTIONAL|RETURN|WITH|UNWIND|CALL)\b|$)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\s*(?:(?:EXPLAIN|PROFILE)\s+)?(\w+|\S)", re.IGNORECASE)
_OF_FILES = re.compile(r"\bLOAD\W+FROM\b|\bLOAD\W+WITH\W+HEADERS\b|\bCALL\W+READ_\w+\s*\(", re.IGNORECASE)
_SETTING = re.compile(r"\bCALL\W+\w+\s*=", re.IGNORECASE)


_TYPES = re.compile(
    r"(?P<kind>\w+ exception): (?:Function (?P<name>\S+) did not receive correct arguments:\s*Actual:\s*(?P<given>\(.*?\))\s*Expected:"
    r"|Cannot match a built-in function for given function (?P<other>[^(\s]+)(?P<these>\(.*?\))\. Supported inputs are)",
    re.DOTALL,
)
_UNREAD = re.compile(
    r'(?P<kind>Parser exception): .*?\(line: (?P<line>\d+), offset: (?P<offset>\d+)\)\s*"(?P<statement>.*)"\s*(?P<mark>\^*)\s*$',
    re.DOTALL,
)


def refuse_others(cypher: str) -> None:
    """Let one statement that reads what is live pass; raise QueryFailed, with what to do instead, for all else."""
    plain = _ASIDE.sub(_reduce, cypher)
    if ";" in plain.rstrip().removesuffix(";"):
        raise _refused("Several statements in one are not run", "Ask them one by one.")
    if not _READS.match(plain):
        raise _refused(
            f"A statement that begins with {_first_word(plain)} is not run: what is live is only read",
            "Begin with MATCH, OPTIONAL MATCH, UNWIND, WITH, CALL or RETURN; EXPLAIN or PROFILE may stand before "
            "it. Data changes by a new snapshot.",
        )
    if _OF_FILES.search(plain):
        raise _refused(
            "A query reads what is live, and no files (LOAD FROM, CALL READ_...)",
            "Leave that part out. What is in files becomes live by a new snapshot.",
        )
    if _SETTING.search(plain):
        raise _refused(
            "A query changes no setting of the engine (CALL name = value)",
            "Memory and threads are in the configuration: ladybug.buffer_pool_mb, ladybug.threads.",
        )


def in_one_line(said: str) -> str:
    """Return what the engine says of a statement without its lists and drawings.

    It prints every combination of types that a function takes, and draws a mark below the statement.
    """
    if found := _TYPES.match(said):
        return f"{found['kind']}: {found['name'] or found['other']} does not take {found['given'] or found['these']}"
    if found := _UNREAD.match(said):
        line, offset = int(found["line"]), int(found["offset"])
        rows = found["statement"].split("\n")
        row = rows[min(line, len(rows)) - 1]  # of a statement of many lines it may show the one alone
        at = row[offset : offset + max(1, len(found["mark"]))].strip()
        return f"{found['kind']}: cannot be read on {f'at {at!r}' if at else 'at its end'} (line {line}, character {offset + 1})"
    return " ".join(said.split())


def _reduce(found: re.Match[str]) -> str:
    """Leave nothing of a text or a comment that could be taken for a word of the language; a name stays a word."""
    if found["name"] is not None:
        return re.sub(r"\W", "_", found["name"])
    return "''" if found["text"] is not None else " "


def _first_word(plain: str) -> str:
    found = _WORD.match(plain)
    return found[1].upper() if found else plain.strip()


def _refused(what: str, cure: str) -> QueryFailed:
    return QueryFailed(f"{what}.", kept="Nothing was changed.", cure=cure)


# Reader: a client's read-only look at what is live, which outlives a switch and even a drop.

_TRIES = 10  # a database may be switched away and dropped between looking and opening


class Reader:
    """One open database; ``stale()`` says when the alias has moved on. Close it, or use ``with``."""

    def __init__(self, paths: Paths, alias: str, pool_mb: int, threads: int) -> None:
        self._paths, self._alias = paths, alias
        self._stack = ExitStack()
        self.database, self._engine = self._open(pool_mb, threads)

    def _open(self, pool_mb: int, threads: int) -> tuple[str, Engine]:
        for _ in range(_TRIES):
            database = _live(self._paths, self._alias)
            graph = self._paths.databases / database / GRAPH
            try:
                room = 2 * graph.stat().st_size
                opened = open_engine(graph, pool_mb=pool_mb, threads=threads, read_only=True, room=room)
                return database, self._stack.enter_context(opened)
            except (FileNotFoundError, QueryFailed) as error:
                if read_link(self._paths, self._alias) == database:
                    raise _unreadable(self._alias, graph.parent, error) from error
        raise TargetError(f"The alias {self._alias} moved at every one of {_TRIES} tries to open it.")

    def query(self, cypher: str, params: Mapping[str, Any] | None = None) -> Rows:
        """Return the rows of one statement that reads, keyed by column name; raises QueryFailed."""
        refuse_others(cypher)
        try:
            return self._engine.rows(cypher, params)
        except QueryFailed as error:
            raise QueryFailed(in_one_line(error.what)) from error

    def stale(self) -> bool:
        """True when the alias points at another database by now."""
        return read_link(self._paths, self._alias) != self.database

    def close(self) -> None:
        """Close the database; safe to call twice."""
        self._stack.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_reader(settings: Mapping[str, Any], alias: str) -> Reader:
    """Open what an alias points at now; raises NotFound when nothing is live under it."""
    pool_mb = int(settings["buffer_pool_mb"])  # an upper bound: a small question takes little of it
    return Reader(Paths(Path(settings["state_dir"])), alias, pool_mb, int(settings["threads"]))


def _live(paths: Paths, alias: str) -> str:
    database = read_link(paths, alias)
    if database is None:
        raise NotFound(
            f"Nothing is live under the alias {alias!r}.", cure=Hint("See what is: ", do("customers"))
        )
    return database


def _unreadable(alias: str, folder: Path, error: Exception) -> TargetError:
    if (outdated := tell_outdated(folder)) is not None:
        return NeedsReload(f"{outdated} and cannot open it.", kept="Nothing was changed.")
    return NeedsReload(
        f"{folder.name}, which the alias {alias} points at, cannot be opened: {error}",
        kept="Nothing was changed.",
        alias=alias,
    )
