"""Reader: a client's read-only look at what is live, which outlives a switch and even a drop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from bgdeploy.errors import NeedsReload, NotFound, TargetError
from bgdeploy.targets.base import Rows
from bgdeploy.targets.ladybug.engine import Engine, QueryFailed, open_engine
from bgdeploy.targets.ladybug.facts import tell_outdated
from bgdeploy.targets.ladybug.links import read_link
from bgdeploy.targets.ladybug.paths import GRAPH, Paths
from bgdeploy.targets.ladybug.reads import in_one_line, refuse_others

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
        raise NotFound(f"Nothing is live under the alias {alias!r}.", cure="See what is: bgdeploy customers")
    return database


def _unreadable(alias: str, folder: Path, error: Exception) -> TargetError:
    if (outdated := tell_outdated(folder)) is not None:
        return NeedsReload(f"{outdated} and cannot open it.", kept="Nothing was changed.")
    return NeedsReload(
        f"{folder.name}, which the alias {alias} points at, cannot be opened: {error}",
        kept="Nothing was changed.",
        alias=alias,
    )
