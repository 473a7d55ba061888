"""What every command needs: the options given before it, a site opened late, its examples."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from bgdeploy.config import Settings
    from bgdeploy.service.api import Deployments
    from bgdeploy.site import Site


@dataclass(frozen=True)
class Given:
    """Options that stand before the command; what it imports is imported when it is needed."""

    config: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, **more: Any) -> Settings:
        """Read the configuration; options that were not given (None) change nothing."""
        from bgdeploy.config import load_settings

        named = {key.replace("__", "."): value for key, value in more.items() if value is not None}
        return load_settings(self.config, {**self.overrides, **named})

    def api(self) -> Deployments:
        """What every command asks and acts through; it opens job table and target when a verb needs them."""
        from bgdeploy.memory import take_up
        from bgdeploy.service.api import Deployments

        take_up()
        return Deployments(self.config, self.overrides)

    def site(self, **more: Any) -> Site:
        """Open job table and target for a command that works itself: it makes the job table where there is none."""
        from bgdeploy.memory import take_up
        from bgdeploy.site import open_site

        take_up()
        return open_site(self.settings(**more))


def read_pairs(texts: Sequence[str]) -> dict[str, Any]:
    """Return what stands behind each ``--set``: KEY=VALUE, the value read as in the configuration file."""
    return dict(_pair(text) for text in texts)


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    import yaml

    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        cure = "is no YAML; quote it: --set 'KEY=\"...\"'"
        raise typer.BadParameter(f"the value of {key}, {value!r}, {cure}", param_hint="--set") from None


def whoami() -> str:
    """Return the name an operator's act is recorded under."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


EXAMPLES = {
    "bgdeploy": _examples("bgdeploy demo", "bgdeploy serve --workers 3", "bgdeploy customers"),
    "serve": _examples("bgdeploy serve --workers 3 --scan-interval 60", "bgdeploy serve --log-format json"),
    "scan": _examples("bgdeploy scan --once", "bgdeploy scan --once --json"),
    "work": _examples("bgdeploy work --workers 2"),
    "run": _examples(
        "bgdeploy run",
        "bgdeploy run --timeout 600 --workers 2",
        "bgdeploy run --customer acme --timestamp 1767741427",
        "bgdeploy run --customer acme --no-switch",
    ),
    "wait": _examples(
        "bgdeploy wait acme 1767741427 --timeout 600", "bgdeploy wait acme 1767741427 --timeout 0 --json"
    ),
    "jobs": _examples("bgdeploy jobs list", "bgdeploy jobs show 7"),
    "db": _examples("bgdeploy db current", "bgdeploy db upgrade"),
    "list": _examples(
        "bgdeploy jobs list --state failed --since 2d",
        "bgdeploy jobs list --customer acme --sort -rows --limit 10 --json",
        "bgdeploy jobs list --state loading --watch",
    ),
    "show": _examples("bgdeploy jobs show 7", "bgdeploy jobs show 7 --json"),
    "log": _examples("bgdeploy jobs log 7", "bgdeploy jobs log --customer acme --since 12h --watch"),
    "cancel": _examples("bgdeploy jobs cancel 7", "bgdeploy jobs cancel 7 8 --no-wait"),
    "offenders": _examples("bgdeploy jobs offenders 7", "bgdeploy jobs offenders 7 --output offenders.csv"),
    "retry": _examples("bgdeploy retry 7", "bgdeploy retry --all-failed", "bgdeploy retry 7 --reload"),
    "customers": _examples(
        "bgdeploy customers",
        "bgdeploy customers --state trouble --state none --json",
        "bgdeploy customers --sort -rows --limit 20 --watch 5",
    ),
    "remove": _examples(
        "bgdeploy customers remove acme", 'bgdeploy customers remove acme --yes --reason "contract ended"'
    ),
    "switches": _examples("bgdeploy switches", "bgdeploy switches acme --since 7d --json"),
    "switch": _examples("bgdeploy switch acme", "bgdeploy switch acme --to acme-1767741427"),
    "rollback": _examples(
        'bgdeploy rollback acme --reason "wrong prices"',
        'bgdeploy rollback acme --to acme-1767741427 --pause --reason "wrong prices"',
    ),
    "pin": _examples("bgdeploy pin acme", "bgdeploy pin acme --database acme-1767741427"),
    "unpin": _examples("bgdeploy unpin acme", "bgdeploy unpin acme --database acme-1767741427"),
    "pause": _examples('bgdeploy pause acme --reason "freeze until Monday"'),
    "resume": _examples("bgdeploy resume acme"),
    "query": _examples(
        'bgdeploy query customer1 "MATCH (n:Entity) RETURN count(*) AS entities"',
        'bgdeploy query customer1 "MATCH (a)-[r:HAS_ADDRESS]->(b) RETURN label(b) AS at, count(*) AS n" --json',
    ),
    "simulate": _examples(
        "bgdeploy simulate --customer acme", "bgdeploy simulate --customer acme --rows 200000"
    ),
    "demo": _examples("bgdeploy demo", "bgdeploy demo --rows 60000 --keep"),
    "processes": _examples("bgdeploy processes", "bgdeploy processes --json"),
    "doctor": _examples("bgdeploy doctor", "bgdeploy doctor --json", "bgdeploy doctor --try-rights"),
    "init": _examples("bgdeploy init", "bgdeploy init --rebind"),
    "config": _examples("bgdeploy config", "bgdeploy --set orchestrator.num_workers=3 config --json"),
    "upgrade": _examples("bgdeploy db upgrade"),
    "current": _examples("bgdeploy db current"),
}
