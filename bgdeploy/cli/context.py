"""What every command needs: the application it belongs to, the options given before it, and the options many share.

Nothing heavy is imported here or by the files of commands: ``--help`` and completion must answer at once.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bgdeploy.cli.render import guarded
from bgdeploy.jobs.states import State

if TYPE_CHECKING:
    from bgdeploy.config import Settings
    from bgdeploy.service.api import Deployments
    from bgdeploy.site import Site

LARGEST_ID = 2**63 - 1  # that the job table can compare with
LONGEST = 365 * 86_400  # seconds that a command may be told to wait; a bound keeps nan away too
ORDER = (
    "serve", "scan", "work", "run", "wait", "jobs", "retry", "customers", "switches", "query", "switch",
    "rollback", "pin", "unpin", "pause", "resume", "processes", "doctor", "init", "config", "db", "simulate", "demo",
)  # fmt: skip


class _Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands in the order of a day's work; one that has no place yet comes last."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def invoke(self, ctx: Any) -> Any:
        """Run a command; whichever it is, a failure is told with its cure and ends with its exit code."""
        return guarded(partial(super().invoke, ctx))


app = typer.Typer(
    name="bgdeploy",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    add_completion=True,
)


def examples(*lines: str) -> str:
    """Return the end of a command's help."""
    return "Examples:\n\n" + "\n\n".join(f"  {line}" for line in lines)


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
    found = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
        import yaml

        try:
            found[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            cure = "is no YAML; quote it: --set 'KEY=\"...\"'"
            raise typer.BadParameter(f"the value of {key}, {value!r}, {cure}", param_hint="--set") from None
    return found


def whoami() -> str:
    """Return the name an operator's act is recorded under."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


# Completion: names from the job table, read quickly, changing nothing, and silent whatever is wrong.

MOST_PROPOSALS = 200
_PATIENCE = 0.5  # seconds
_BEGINS = "substr({column}, 1, length(:begun)) = :begun"
_JOBS = (
    "SELECT id, customer || '/' || timestamp || ' ' || state FROM jobs "
    f"WHERE {_BEGINS.format(column='id')} {{which}} ORDER BY id DESC"
)

Proposals = list[tuple[str, str]]
Completer = Callable[[typer.Context, str], Proposals]


def _asking(query: str) -> Completer:
    def ask(context: typer.Context, begun: str) -> Proposals:
        import sqlite3

        root = context.find_root().params
        path = Given(root.get("config"), read_pairs(root.get("set_") or [])).settings().database_path
        # A line that ends in an option without its value is not parsed to its end: what stood there is left over.
        customer = context.params.get("customer") or next(iter(context.args), None)
        binds = {"begun": begun, "customer": customer}
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_PATIENCE)) as connection:
            rows = connection.execute(f"{query} LIMIT {MOST_PROPOSALS}", binds).fetchall()
        return [(str(value), what or "") for value, what in rows]

    def complete(ctx: typer.Context, incomplete: str) -> Proposals:
        try:
            return ask(ctx, incomplete)
        except Exception:  # the edge of the shell: nobody in the middle of a line is to see what is wrong
            return []

    return complete


def complete_among(words: Sequence[str]) -> Completer:
    """Return a completer of fixed words."""
    return lambda ctx, incomplete: [(word, "") for word in words if word.startswith(incomplete)]


complete_customers = _asking(
    f"SELECT name, NULL FROM customers WHERE {_BEGINS.format(column='name')} ORDER BY name"
)
complete_databases = _asking(
    "SELECT name, NULL FROM databases WHERE dropped_at IS NULL AND drop_at IS NULL AND verified_at IS NOT NULL "
    f"AND (:customer IS NULL OR customer = :customer) AND {_BEGINS.format(column='name')} ORDER BY name DESC"
)
complete_timestamps = _asking(
    "SELECT timestamp, max(state) FROM jobs WHERE (:customer IS NULL OR customer = :customer) "
    f"AND {_BEGINS.format(column='timestamp')} GROUP BY timestamp ORDER BY timestamp DESC"
)
complete_error_codes = _asking(
    f"SELECT DISTINCT error_code, NULL FROM jobs WHERE {_BEGINS.format(column='error_code')} ORDER BY 1"
)
complete_any_job = _asking(_JOBS.format(which=""))
complete_failed_job = _asking(_JOBS.format(which="AND state = 'failed'"))
complete_open_job = _asking(_JOBS.format(which="AND state IN ('discovered', 'queued', 'loading', 'loaded')"))
complete_states = complete_among(tuple(State))

# Options that many commands share; those of listings are in ``listing``.

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Name = Annotated[str, typer.Argument(help="A customer's name.", autocompletion=complete_customers)]
AJob = Annotated[int, typer.Argument(help="A job's id.", autocompletion=complete_any_job)]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history.", show_default=False)
]


def filled(text: str | None) -> str | None:
    """Return it, or raise a usage error for an empty one, which is most often a variable that was not set."""
    if text == "":
        raise typer.BadParameter("it is empty; give a name, or leave the option out")
    return text
