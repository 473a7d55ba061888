"""Hints: what a person may do next, worded once for every command that says so."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from bgdeploy.errors import BadInput
from bgdeploy.jobs.cancel import CODE
from bgdeploy.jobs.reasons import Code, Reason, because
from bgdeploy.jobs.rows import databases


def after_failure(job: Mapping[Any, Any]) -> str:
    """Return what helps after this failed job, be it a row or what is shown of one.

    A snapshot that was found to be bad is looked at again when its folder changes; nothing else comes
    back by itself.
    """
    retry = f"bgdeploy retry {job['id']}"
    if job["error_code"] == CODE:
        return f"To load it after all: {retry}"
    if job["error_code"] == BadInput.code:
        return (
            "Mend its folder, and a running bgdeploy serve or the next bgdeploy scan takes it up by itself; "
            f"or drop a newer snapshot. To try the folder as it is: {retry}"
        )
    return f"It is not tried again by itself. When the reason is gone: {retry}"


def use_anyway(connection: sa.Connection, job: Mapping[Any, Any]) -> str:
    """Return how a database that is not live is made so by hand; where a person marked it bad, that first."""
    query = sa.select(databases.c.bad_at, databases.c.bad_why).where(databases.c.name == job["database"])
    mark = connection.execute(query).one_or_none()
    command = f"bgdeploy switch {shlex.quote(job['customer'])} --to {job['database']}"
    if mark is None or mark.bad_at is None:
        return f"To use it: {command}"
    return f"It is marked bad ({mark.bad_why}): drop a newer snapshot. If that was wrong: {command}"


def pause_of(customer: Mapping[Any, Any]) -> str:
    """Return why nothing of a paused customer goes on, and the command that lets it."""
    return str(pause_reason(customer))


def pause_reason(customer: Mapping[Any, Any]) -> Reason:
    """The same as a code with its fields."""
    return because(Code.PAUSED, customer=customer["name"], why=customer["paused_why"])
