"""Where databases live: a target is found by its kind, among those built in, else by an entry point of ``bgdeploy.targets``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bgdeploy.errors import ConfigError
from bgdeploy.targets.base import Description, Target

if TYPE_CHECKING:
    from bgdeploy.config import Settings

_BUILT_IN = ("ladybug", "neo4j")


def open_target(settings: Settings) -> Target:
    """Open the target the configuration names."""
    return open_target_by_kind(settings.target, settings.target_settings(), settings.target_access())


def open_target_by_kind(kind: str, settings: Mapping[str, Any], access: Mapping[str, Any]) -> Target:
    """Open a target from the settings stored with a job and the way to reach it, which is stored nowhere."""
    return describe_target(kind).open(settings, access)


def refusals_of(kind: str) -> Callable[..., str | None]:
    """What a target of this kind refuses (``Loader.refuses``), for who has no way to reach one and needs none."""
    try:
        return describe_target(kind).refuses
    except ConfigError:  # of a kind that nobody describes, nothing is known to be refused
        return lambda column, written_by: None


@cache
def describe_target(kind: str) -> Description:
    """Return the description of a kind of target. Raises ConfigError where none of that kind is installed."""
    if kind in _BUILT_IN:
        built_in: Description = import_module(f"bgdeploy.targets.{kind}").TARGET
        return built_in
    from importlib.metadata import entry_points  # late: it takes as long as some commands

    for entry in entry_points(group="bgdeploy.targets", name=kind):
        try:
            found: Description = entry.load()
        except Exception as error:  # the edge of another package
            said = f"{type(error).__name__}: {error}"
            raise ConfigError(f"The target {kind!r} of {entry.value} cannot be used: {said}") from error
        return found
    raise ConfigError(
        f"There is no target of the kind {kind!r}.",
        cure=f"Set target to one of {', '.join(_BUILT_IN)}, or install the package that brings {kind}.",
    )
