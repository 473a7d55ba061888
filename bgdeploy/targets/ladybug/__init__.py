"""The embedded target: a database is a file of the Ladybug engine, an alias a link to its folder."""

from __future__ import annotations

from bgdeploy.targets.ladybug.reader import Reader, open_reader
from bgdeploy.targets.ladybug.target import Ladybug, open_target

__all__ = ["Ladybug", "Reader", "open_reader", "open_target"]
