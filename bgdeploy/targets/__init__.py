"""Where databases live: one folder per target, one door to open them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def refusals_of(kind: str) -> Callable[..., str | None]:
    """What a target of this kind refuses (``Target.refuses``), for who has no way to reach one and needs none."""
    if kind == "neo4j":
        from bgdeploy.targets.neo4j.target import Neo4j

        return Neo4j({}, None).refuses  # type: ignore[arg-type]  # a type is judged without a server
    if kind == "ladybug":
        from bgdeploy.targets.ladybug.target import Ladybug

        return Ladybug({"state_dir": "."}).refuses
    return lambda column, written_by: None
