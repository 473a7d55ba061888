"""The engine: opened with explicit bounds, its refusals turned into errors that have a cure."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgdeploy.errors import BgdeployError

if TYPE_CHECKING:
    import pyarrow as pa

_ONE_AT_A_TIME = threading.Lock()
_ABANDONED: list[object] = []
_CHUNK = 65_536  # rows of one Arrow batch
_SMALLEST = 1 << 34  # bytes of address space kept for one database: 16 GiB


class QueryFailed(BgdeployError):
    """A query or statement was refused: by the engine, whose words ``what`` is then, or before it."""

    code = "query"


class Engine:
    """One connection to one database file."""

    def __init__(self, connection: Any, database: Any) -> None:
        self._connection, self._database = connection, database
        self.abandoned = False

    def close(self) -> None:
        """Close the connection, then the database."""
        self._connection.close()
        self._database.close()

    def abandon(self) -> None:
        """Never close this database: a COPY failed, and closing was seen to crash after that.

        For a process that ends at once; the engine's objects are kept from being collected.
        """
        self.abandoned = True
        _ABANDONED.append(self)

    @staticmethod
    def release() -> None:
        """Give memory that the engine has freed back to the system, which glibc would keep for later."""
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def rows(self, statement: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return the rows of a statement by column name; raises QueryFailed."""
        result = self._execute(statement, params)
        try:
            return list(result.rows_as_dict())
        finally:
            result.close()

    def count(self, statement: str) -> int:
        """Return the one number a statement yields."""
        return int(next(iter(self.rows(statement)[0].values())))

    def run(self, statement: str) -> None:
        """Run a statement for its effect; raises QueryFailed."""
        self._execute(statement, None).close()

    def columns(self, statement: str) -> dict[str, str]:
        """Return the engine's type of each column a statement yields."""
        result = self._execute(statement, None)
        try:
            return dict(zip(result.get_column_names(), result.get_column_data_types(), strict=True))
        finally:
            result.close()

    def arrow(self, statement: str) -> pa.Table:
        """Return the rows of a statement as an Arrow table; raises QueryFailed."""
        result = self._execute(statement, None)
        try:
            return result.get_as_arrow(_CHUNK)
        except (RuntimeError, ValueError) as error:
            raise QueryFailed(str(error).strip() or type(error).__name__) from error
        finally:
            result.close()

    def _execute(self, statement: str, params: Mapping[str, Any] | None) -> Any:
        try:
            result = self._connection.execute(statement, dict(params or {}))
        except (RuntimeError, TypeError, ValueError) as error:
            raise QueryFailed(str(error).strip() or type(error).__name__) from error
        return result[-1] if isinstance(result, list) else result


@contextmanager
def open_engine(
    graph: Path | str, *, pool_mb: int, threads: int, read_only: bool, room: int = 0
) -> Iterator[Engine]:
    """Open a database file and close it cleanly at the end; raises QueryFailed when it does not open.

    ``room`` is how large the file may become, in bytes. The engine keeps that much address space,
    so it is never left at its default of 8 TiB: some fifteen readers would use up a process.
    Checkpoints stay automatic: without them a COPY that had answered was gone after a kill.
    """
    options: dict[str, Any] = {"buffer_pool_size": pool_mb << 20, "max_num_threads": threads}
    options |= {"throw_on_wal_replay_failure": True, "enable_checksums": True}
    try:
        database, connect = _open(graph, read_only=read_only, max_db_size=_power(room), **options)
    except (RuntimeError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        # Whatever it stumbles over in a damaged or foreign file: "vector::reserve" is a ValueError.
        raise QueryFailed(f"{graph} does not open: {error}") from error
    try:
        engine = Engine(connect(database), database)
    except BaseException:
        database.close()
        raise
    try:
        yield engine
    finally:
        if not engine.abandoned:
            engine.close()


def _open(graph: Path | str, **options: Any) -> tuple[Any, Any]:
    """Open one database at a time: the engine finds its library at first use, and threads meet there."""
    with _ONE_AT_A_TIME:
        import ladybug  # late: moving an alias must not wait for the engine

        return ladybug.Database(graph, **options), ladybug.Connection


def _power(room: int) -> int:
    return max(_SMALLEST, 1 << (max(1, room) - 1).bit_length())


def version() -> dict[str, Any]:
    """The engine's version and that of its file format, kept beside every database."""
    import ladybug

    return {"engine": ladybug.__version__, "storage": ladybug.storage_version}


def quote(name: str) -> str:
    """A label, type or property as the engine reads any name."""
    return "`" + name.replace("`", "``") + "`"


def text(value: str) -> str:
    """A text as a literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
