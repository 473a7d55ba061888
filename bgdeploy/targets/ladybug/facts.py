"""Facts: what was written down beside a database at its publication, and whether it can still be read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bgdeploy.targets.ladybug.engine import version
from bgdeploy.targets.ladybug.paths import FACTS, GRAPH

_MAGIC = b"LBUG"
_LEFTOVERS = tuple(f"{GRAPH}.{kind}" for kind in ("wal", "shadow"))


def read_facts(folder: Path) -> dict[str, Any]:
    """What was written down at publication; nothing where that cannot be read."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def tell_unfit(folder: Path) -> str | None:
    """Say why a published database cannot be read: it is damaged, or another engine's; None where nothing is seen.

    The database is not opened: a move of an alias must not wait for the engine.
    """
    return _tell_damage(folder) or tell_outdated(folder)


def _tell_damage(folder: Path) -> str | None:
    try:
        with open(folder / GRAPH, "rb") as file:
            begins, size = file.read(len(_MAGIC)), os.fstat(file.fileno()).st_size
    except FileNotFoundError:  # that its folder is gone is told elsewhere
        return f"{folder.name} has no {GRAPH} any more" if folder.is_dir() else None
    except OSError as error:
        return f"{folder.name} cannot be read: {error.strerror}"
    if begins != _MAGIC:
        return f"{folder.name} is damaged: {GRAPH} does not begin as a database of ladybug does"
    if (resized := tell_resized(folder, size)) is not None:
        return resized
    left = [name for name in _LEFTOVERS if os.path.exists(folder / name)]
    return f"{folder.name} was opened for writing: {' and '.join(left)} lies beside it" if left else None


def tell_resized(folder: Path, size: int) -> str | None:
    """Say that a database has not the size it was published with; a size that nobody knows is never right."""
    published = read_facts(folder).get("bytes")
    if size == published:
        return None
    if not isinstance(published, int):
        return f"{folder.name} was published with nobody knows how many bytes: its {FACTS} does not say"
    return f"{folder.name} is damaged: it was published with {published:,} bytes and has {size:,} now"


@cache
def _installed() -> str:
    return metadata.version("ladybug")  # reads a file each time


def tell_outdated(folder: Path) -> str | None:
    """Say that another engine wrote a database in another storage format, or None where ours did.

    The engine is loaded only where its version differs: one version has one format, and a move of an
    alias must not wait for it. Which of the older formats an engine reads is not promised anywhere.
    """
    facts = read_facts(folder)
    if "engine" not in facts or facts["engine"] == _installed():
        return None
    here = version()
    return None if facts.get("storage") == here["storage"] else describe(folder.name, facts, here)


def describe(name: str, facts: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Name both engines."""
    return (
        f"{name} was written by ladybug {facts['engine']} in storage format {facts.get('storage')}; "
        f"{here['engine']} with format {here['storage']} is installed"
    )
