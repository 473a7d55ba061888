"""Facts: what was written down beside a database at its publication, and whether its engine is still ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bgdeploy.targets.ladybug.engine import version
from bgdeploy.targets.ladybug.paths import FACTS


def read_facts(folder: Path) -> dict[str, Any]:
    """What was written down at publication; nothing where that cannot be read."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def tell_outdated(folder: Path) -> str | None:
    """Say that another engine wrote a database in another storage format, or None where ours did.

    The engine is loaded only where its version differs: one version has one format, and a move of an
    alias must not wait for it. Which of the older formats an engine reads is not promised anywhere.
    """
    facts = read_facts(folder)
    if "engine" not in facts or facts["engine"] == metadata.version("ladybug"):
        return None
    here = version()
    return None if facts.get("storage") == here["storage"] else describe(folder.name, facts, here)


def describe(name: str, facts: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Name both engines."""
    return (
        f"{name} was written by ladybug {facts['engine']} in storage format {facts.get('storage')}; "
        f"{here['engine']} with format {here['storage']} is installed"
    )
