"""Databases of a Neo4j Enterprise server: one for each snapshot, an alias for each customer."""

from __future__ import annotations

from bgdeploy.targets.neo4j.target import Neo4j, open_target

__all__ = ["Neo4j", "open_target"]
