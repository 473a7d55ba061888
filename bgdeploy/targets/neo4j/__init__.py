"""Databases of a Neo4j Enterprise server: one for each snapshot, an alias for each customer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgdeploy.targets.base import Description
from bgdeploy.targets.neo4j.target import Neo4j, open_target

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["TARGET", "Neo4j", "open_target"]


def _settings_model() -> type[BaseModel]:
    from bgdeploy import config  # late: it imports pydantic, which a loading child does without

    return config.Neo4j


TARGET = Description(
    kind="neo4j",
    open=open_target,
    settings_model=_settings_model,
    refuses=Neo4j({}, None).refuses,  # type: ignore[arg-type]  # a type is judged without a server
    open_reader=None,
    embedded=False,
    folds_case=True,
    less_memory="neo4j.batch_rows",
    max_databases=50,
)
