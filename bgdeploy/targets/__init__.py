"""Where databases live: one folder per target, one door to open them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bgdeploy.targets.base import Target

if TYPE_CHECKING:
    from bgdeploy.config import Settings


def open_target(settings: Settings) -> Target:
    """Open the target the configuration names."""
    return open_target_by_kind(settings.target, settings.target_settings(), settings.target_access())


def open_target_by_kind(kind: str, settings: Mapping[str, Any], access: Mapping[str, Any]) -> Target:
    """Open a target from the settings stored with a job and the way to reach it, which is stored nowhere."""
    if kind == "neo4j":
        from bgdeploy.targets import neo4j

        return neo4j.open_target(settings, access)
    from bgdeploy.targets import ladybug

    return ladybug.open_target(settings)
