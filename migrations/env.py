"""How Alembic reaches the job table: its own plain connection, one transaction for all steps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine.interfaces import DBAPIConnection

from bgdeploy.errors import StoreError
from bgdeploy.jobs import store
from bgdeploy.jobs.models import metadata


def _explicit(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]
    # Rebuilding a table drops the old one, which enforcement would take for a loss of rows.
    connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[attr-defined]
    connection.execute("PRAGMA journal_mode=WAL").fetchall()  # type: ignore[attr-defined]
    connection.execute("PRAGMA synchronous=FULL")  # type: ignore[attr-defined]


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def run() -> None:
    """Run the steps between the file's revision and the newest in one transaction."""
    url = sa.URL.create("sqlite", database=str(context.config.attributes["path"]))
    engine = sa.create_engine(url, connect_args={"timeout": store.LOCK_DEADLINE}, poolclass=sa.NullPool)
    sa.event.listen(engine, "connect", _explicit)
    sa.event.listen(engine, "begin", _begin)
    with engine.begin() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            transactional_ddl=True,
            render_as_batch=True,
        )
        context.run_migrations()
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if broken:
            raise StoreError(
                f"The migration would leave {len(broken)} broken references.", kept="Nothing was changed."
            )


run()
