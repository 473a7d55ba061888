"""Where databases live: one folder per target, one door to open them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bgdeploy.errors import Refused
from bgdeploy.targets.base import Target

if TYPE_CHECKING:
    from bgdeploy.config import Settings


def open_target(settings: Settings) -> Target:
    """Open the target the configuration names."""
    return open_target_by_kind(settings.target, settings.target_settings())


def open_target_by_kind(kind: str, settings: Mapping[str, Any]) -> Target:
    """Open a target from the settings stored with a job."""
    from bgdeploy.targets import ladybug

    if kind != "ladybug":
        raise Refused(f"There is no target {kind!r} in this version.", cure="Use: target: ladybug")
    return ladybug.open_target(settings)
