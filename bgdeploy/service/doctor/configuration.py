"""What the configuration says: its faults, where it comes from, and what in it does nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bgdeploy.config import Settings, find_file, is_unused, load_settings
from bgdeploy.errors import ConfigError
from bgdeploy.finding import Check, Finding, error, ok, warning

SUBJECT = "configuration"


def read(given: Path | None, overrides: Mapping[str, Any], kept: list[Settings]) -> Iterator[Finding]:
    """Judge the configuration, and put it into ``kept`` where it can be used."""
    try:
        settings = load_settings(given, overrides)
    except ConfigError as faulty:
        yield from (error(fault, faulty.cure) for fault in faulty.what.splitlines())
        return
    kept.append(settings)
    yield _source(find_file(given, os.environ), settings)


def _source(file: Path | None, settings: Settings) -> Finding:
    rows = settings.shown()
    stronger = [
        f"{key} by {origin}" for key, _, origin in rows if origin.startswith(("environment", "option"))
    ]
    more = f"; set otherwise: {', '.join(stronger)}" if stronger else ""
    if file is None:
        cure = "Name yours: bgdeploy --config FILE doctor. To write one: bgdeploy init"
        return warning(f"there is no file config.yaml in {Path.cwd()}: defaults are in force{more}", cure)
    return ok(f"read from {file.absolute()}{more}")


def checks(settings: Settings) -> list[Check]:
    """What is looked at once the configuration can be used."""
    found = [Check(SUBJECT, "settings", lambda: _find_useless(settings))]
    if settings.target == "neo4j":
        found.append(Check(SUBJECT, "password", lambda: _find_password(settings)))
    return found


def _find_useless(settings: Settings) -> Iterator[Finding]:
    for key, origin in settings.useless():
        cure = "Remove it." if is_unused(key) else f"Remove it, or change target, which is {settings.target}."
        yield warning(f"{key} is set ({origin}), and nothing reads it", cure)
    if settings.orchestrator.keep_databases == 1:
        cure = "Set orchestrator.keep_databases to 2 or more."
        yield warning("keep_databases is 1, so there is never a standby to go back to", cure)
    if not settings.useless():
        yield ok("whatever was set to another value than its default is read by something")


def _find_password(settings: Settings) -> Iterator[Finding]:
    """Where the password comes from, and who else may read it there."""
    origins = {key: origin for key, _, origin in settings.shown()}
    file = settings.neo4j.password_file
    if file is not None:
        yield _of_file("the password is read from", file)
    elif settings.neo4j.password is not None:
        yield _of_origin(origins["neo4j.password"])
    elif os.environ.get("NEO4J_PASSWORD"):
        yield ok("the password comes from the variable NEO4J_PASSWORD")
    else:
        cure = "Set neo4j.password_file, neo4j.password or the variable NEO4J_PASSWORD."
        yield error("no password is given anywhere", cure)


def _of_origin(origin: str) -> Finding:
    file, _, line = origin.rpartition(":")
    if line.isdigit():
        return _of_file("the password, or the name of its variable, stands in", Path(file))
    return ok(f"the password comes from {origin}")


def _of_file(said: str, file: Path) -> Finding:
    try:
        mode = file.stat().st_mode
    except OSError as failure:
        return error(f"{said} {file}, and that: {failure.strerror}", "Give bgdeploy the right to read it.")
    if mode & stat.S_IROTH:
        return warning(f"{said} {file}, which every user of this machine may read", f"chmod o-r {file}")
    return ok(f"{said} {file}")
