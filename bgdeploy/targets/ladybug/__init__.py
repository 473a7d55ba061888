"""The embedded target: a database is a file of the Ladybug engine, an alias a link to its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgdeploy.targets.base import Description
from bgdeploy.targets.ladybug.reader import Reader, open_reader
from bgdeploy.targets.ladybug.target import Ladybug, open_target

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["TARGET", "Ladybug", "Reader", "open_reader", "open_target"]


def _settings_model() -> type[BaseModel]:
    from bgdeploy import config  # late: it imports pydantic, which a loading child does without

    return config.Ladybug


TARGET = Description(
    kind="ladybug",
    open=lambda settings, access: open_target(settings),
    settings_model=_settings_model,
    refuses=Ladybug({"state_dir": "."}).refuses,
    open_reader=open_reader,
    embedded=True,
    folds_case=False,
    less_memory="ladybug.buffer_pool_mb",
    max_databases=None,
)
