"""Commands around the work: init, config, db, simulate, demo."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from bgdeploy.cli import output
from bgdeploy.cli.context import EXAMPLES
from bgdeploy.cli.options import AsJson

db_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The job table: upgrade, current.",
    epilog=EXAMPLES["db"],
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog=EXAMPLES["init"])(init)
    app.command("config", epilog=EXAMPLES["config"])(show_config)
    app.add_typer(db_app, name="db")
    app.command(epilog=EXAMPLES["simulate"])(simulate)
    app.command(epilog=EXAMPLES["demo"])(demo)


def init(
    context: typer.Context,
    rebind: Annotated[
        bool,
        typer.Option(
            "--rebind", help="Let an existing job table speak of this base folder and target from now on."
        ),
    ] = False,
) -> None:
    """Write config.yaml, make the folders and the job table.

    A config.yaml that is there is left as it is.
    """
    output.guarded(lambda: _init(context, rebind))


def _init(context: typer.Context, rebind: bool) -> None:
    path = context.obj.config or Path("config.yaml")
    if not path.exists():
        path.write_text(_template(), encoding="utf-8")
        print(f"wrote {path}")
    api = context.obj.api()
    api.init(rebind=rebind)
    settings = api.settings
    print(f"snapshots are expected in {settings.dataset.base_path}, state is kept in {settings.state_dir}")
    print("next: bgdeploy simulate --customer acme, then bgdeploy run")


def _template() -> str:
    """The commented configuration: in the wheel it lies in the package, in a checkout at the top."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "config.yaml"
    return (inside if inside.exists() else package.parent / "config.yaml").read_text(encoding="utf-8")


def show_config(context: typer.Context, as_json: AsJson = False) -> None:
    """Show each setting in force and where it comes from, no secrets."""
    output.guarded(lambda: _show_config(context, as_json))


def _show_config(context: typer.Context, as_json: bool) -> None:
    settings = context.obj.settings()
    rows, became = settings.shown(), settings.became()
    if as_json:
        named = ({"key": key, "value": value, "origin": origin} for key, value, origin in rows)
        output.print_json([{**one, "became": became.get(one["key"])} for one in named])
        return
    hint = "change one for a call with: bgdeploy --set KEY=VALUE ...; for good in config.yaml"
    output.print_table(("key", "value", "from"), rows, empty="", foot=hint)
    if became:
        print()
        foot = "whatever is not listed here is new: docs/configuration.md, docs/migrating.md"
        output.print_table(("key of the service before", "here"), list(became.items()), empty="", foot=foot)


@db_app.command(epilog=EXAMPLES["upgrade"])
def upgrade(context: typer.Context) -> None:
    """Bring the job table to this version's revision, keeping a backup of the old file."""
    output.guarded(lambda: _upgrade(context))


def _upgrade(context: typer.Context) -> None:
    from bgdeploy import log

    log.configure("text")
    now = context.obj.api().upgrade()
    print(f"{now.path} is at revision {now.found}; go on with: bgdeploy serve")


@db_app.command(epilog=EXAMPLES["current"])
def current(context: typer.Context) -> None:
    """Show the revision of the job table and the newest one this version knows."""
    output.guarded(lambda: _current(context))


def _current(context: typer.Context) -> None:
    now = context.obj.api().revision()
    print(f"{now.path}: {now.found or 'does not exist yet'} (newest: {now.newest})")
    if now.found != now.newest:
        print("bring it there with: bgdeploy db upgrade")


def simulate(
    context: typer.Context,
    customer: Annotated[str, typer.Option(help="Whose snapshot.")],
    rows: Annotated[int, typer.Option(min=3, help="Nodes and relationships together.")] = 3000,
    seed: Annotated[int, typer.Option(help="The same seed writes the same data.")] = 1,
    timestamp: Annotated[int | None, typer.Option(help="The snapshot's timestamp [default: now]")] = None,
) -> None:
    """Drop a made-up snapshot, as an ETL job would.

    It is written into a hidden folder and then renamed, so that it is complete when it appears.
    """
    output.guarded(lambda: _simulate(context, customer, rows, seed, timestamp))


def _simulate(context: typer.Context, customer: str, rows: int, seed: int, timestamp: int | None) -> None:
    from bgdeploy.clock import wall
    from bgdeploy.snapshots.generate import write_snapshot

    base = context.obj.settings().dataset.base_path
    path = write_snapshot(base, customer, timestamp or int(wall()), rows=rows, seed=seed)
    print(f"wrote {path}")
    print(
        f"next: bgdeploy run, or with bgdeploy serve running: bgdeploy wait {shlex.quote(customer)} {path.name}"
    )


def demo(
    rows: Annotated[int, typer.Option(min=3000, help="Rows in all snapshots together, about.")] = 300_000,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the demo's folder to look around in it.")
    ] = False,
) -> None:
    """See the main job at work, with a broken snapshot and a kill -9.

    Three customers, some 300,000 rows, readers that never stop; it needs a minute and leaves nothing behind.
    """

    def act() -> None:
        from bgdeploy.cli.demo import run_demo

        raise typer.Exit(run_demo(rows=rows, keep=keep))

    output.guarded(act)
