"""Why a job stands where it stands is a code with fields, and an event keeps what its sentence was made of.

The sentences that were read by logic become codes; whatever else a row said is judged again, since it has no code.
"""

from __future__ import annotations

import json
import re

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_LOST = re.compile(r"(?:^|; )(.+?) ([\d,]+) -> ([\d,]+) \(-\d+ %, at most (\S+) %\)")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("reason_code", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("reason_fields", sa.JSON(), nullable=True))
    op.add_column("job_events", sa.Column("fields", sa.JSON(), nullable=True))
    connection = op.get_bind()
    gone = "UPDATE jobs SET reason_code = 'folder-gone', reason_fields = '{}' WHERE reason = 'folder gone'"
    connection.exec_driver_sql(gone)
    decided = "SELECT id, customer, database, reason FROM jobs WHERE blocked AND instr(reason, '--to ')"
    for job, customer, database, reason in connection.exec_driver_sql(decided).all():
        code, fields = _read(job, customer, database, reason)
        if code is not None:
            write = "UPDATE jobs SET reason_code = ?, reason_fields = ? WHERE id = ?"
            connection.exec_driver_sql(write, (code, json.dumps(fields), job))


def _read(job: int, customer: str, database: str, reason: str) -> tuple[str | None, dict[str, object]]:
    goal: dict[str, object] = {"customer": customer, "database": database}
    if reason.startswith("not newer than what was live already"):
        return "not-newer", goal
    if reason.startswith("fewer rows than live: "):
        found = _LOST.findall(reason.removeprefix("fewer rows than live: ").partition(". If right: ")[0])
        lost = [
            {"name": name, "before": int(before.replace(",", "")), "after": int(after.replace(",", ""))}
            for name, before, after, _ in found
        ]
        if lost:
            return "shrunk", {**goal, "job": job, "lost": lost, "max_percent": float(found[0][3])}
    return None, {}


def downgrade() -> None:
    op.drop_column("job_events", "fields")
    op.drop_column("jobs", "reason_fields")
    op.drop_column("jobs", "reason_code")
