"""The embedded target: a database is a file of the Ladybug engine, an alias a link to its folder."""

from __future__ import annotations

from bgdeploy.targets.base import Description
from bgdeploy.targets.ladybug.reader import Reader, open_reader
from bgdeploy.targets.ladybug.target import Ladybug, open_target

__all__ = ["TARGET", "Ladybug", "Reader", "open_reader", "open_target"]


TARGET = Description(
    kind="ladybug",
    open=lambda settings, access: open_target(settings),
    refuses=Ladybug({"state_dir": "."}).refuses,
    open_reader=open_reader,
    embedded=True,
    folds_case=False,
    less_memory="ladybug.buffer_pool_mb",
    max_databases=None,
)
