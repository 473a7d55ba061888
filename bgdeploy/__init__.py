"""bgdeploy: blue/green deployment of whole graphs. ``connect`` reads what is live, ``open`` shows and steers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from bgdeploy.service.api import Deployments
    from bgdeploy.targets.ladybug import Reader

__all__ = ["connect", "open"]


def open(config: str | Path | None = None, **overrides: Any) -> Deployments:  # noqa: A001 - bgdeploy.open reads well
    """Return an installation to look at and to steer: its jobs, customers and databases, and every verb of the commands.

    The configuration is found as the commands find it, read at the first use, and kept; ``overrides`` are settings with
    ``__`` for the dot, such as ``orchestrator__keep_databases=3``. Nothing needs to be closed.
    """
    from bgdeploy.service.api import Deployments

    return Deployments(config, {name.replace("__", "."): value for name, value in overrides.items()})


def connect(customer: str, *, config: str | Path | None = None) -> Reader:
    """Return a reader of the customer's live database; close it, or use it in a ``with`` block.

    ``reader.query(cypher, params)`` runs one statement that reads and returns a list of dictionaries, ``reader.database`` names what it
    reads, and ``reader.stale()`` says whether the alias has moved on since. The configuration is
    found as the commands find it. Raises NotFound where nothing is live yet,
    and Refused for a Neo4j server, whose own driver reads it by the alias.
    """
    # Imported when called: the commands must not pay for it.
    import os
    from pathlib import Path

    from bgdeploy.config import find_file, load_settings
    from bgdeploy.errors import NotFound, Refused
    from bgdeploy.naming import alias_name, known_alias
    from bgdeploy.targets import describe_target

    settings = load_settings(Path(config) if config is not None else None)
    open_reader = describe_target(settings.target).open_reader
    if open_reader is None:
        raise Refused(
            f"bgdeploy.connect opens the embedded target; this configuration uses {settings.target}.",
            cure=f"Use Neo4j's own driver with database={alias_name(customer, settings.target)!r}.",
        )
    aliases = settings.state_dir / "aliases"
    there = os.listdir(aliases) if aliases.is_dir() else []
    alias = known_alias(customer, settings.target, there)
    if alias not in there and find_file(Path(config) if config is not None else None, os.environ) is None:
        raise NotFound(
            f"Nothing is live under the alias {alias!r} in {aliases}, and there is no configuration in {Path.cwd()}.",
            cure=f"Name yours: bgdeploy.connect({customer!r}, config='/path/to/config.yaml'), or by BGDEPLOY_CONFIG.",
        )
    reader: Reader = open_reader(settings.target_settings(), alias)
    return reader
