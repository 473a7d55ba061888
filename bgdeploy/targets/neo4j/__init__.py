"""Databases of a Neo4j Enterprise server: one for each snapshot, an alias for each customer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bgdeploy.targets.base import Description, Target

if TYPE_CHECKING:
    import pyarrow as pa

# What each function imports is imported late: to be described takes no driver.


def _open(settings: Mapping[str, Any], access: Mapping[str, Any]) -> Target:
    from bgdeploy.targets.neo4j.target import open_target

    return open_target(settings, access)


def _refuses(kind: pa.DataType, written_by: str) -> str | None:
    from bgdeploy.targets.neo4j.bolt.values import find_fault

    return find_fault(kind)


TARGET = Description(
    kind="neo4j",
    open=_open,
    refuses=_refuses,
    open_reader=None,
    embedded=False,
    folds_case=True,
    less_memory="neo4j.batch_rows",
    max_databases=50,
)
