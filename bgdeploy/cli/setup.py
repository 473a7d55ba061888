"""Commands around the work: doctor, init, config, db, simulate, demo."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bgdeploy.actions import page
from bgdeploy.cli import render
from bgdeploy.cli.context import AsJson, app, examples
from bgdeploy.cli.render import Table
from bgdeploy.errors import ExitCode

if TYPE_CHECKING:
    from bgdeploy.finding import Finding

VERDICTS = ("error", "unknown", "warning", "ok")  # the worst first
_COLOURS = {"ok": typer.colors.GREEN, "warning": typer.colors.YELLOW, "error": typer.colors.RED}


@app.command(epilog=examples("bgdeploy doctor", "bgdeploy doctor --json", "bgdeploy doctor --try-rights"))
def doctor(
    context: typer.Context,
    try_rights: Annotated[
        bool,
        typer.Option(
            "--try-rights", help="On Neo4j, try rights on a scratch database that is dropped again."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for each thing that is well, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look at everything bgdeploy rests on, and say what helps.

    What is wrong comes first, then a line for each area. It changes nothing, and works when little else does.
    Exit 1 when something is an error; a warning or something that cannot be told (unknown) leaves it at 0.
    """
    found: list[Finding] = []
    shows = sys.stderr.isatty() and not (as_json or verbose)
    for one in context.obj.api().doctor(try_rights=try_rights):
        if shows:  # what was looked at last, since something may hang
            print(f"{render.CLEAR}looked at: {one.subject}", end="", file=sys.stderr, flush=True)
        if verbose and not as_json:  # each as soon as it is there
            if not found or one.subject != found[-1].subject:
                typer.secho(one.subject, bold=True)
            _print_finding(one, one.what)
        found.append(one)
    if shows:
        print(render.CLEAR, end="", file=sys.stderr, flush=True)
    count: Counter[str] = Counter(one.verdict for one in found)
    in_all = ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS)
    if as_json:
        render.print_json(found)
    elif verbose:
        typer.echo(in_all)
    else:
        _print_briefly(found)
        typer.echo(f"{in_all}; all of it: bgdeploy doctor --verbose")
    raise typer.Exit(ExitCode.FAILED if count["error"] else ExitCode.OK)


def _print_briefly(found: list[Finding]) -> None:
    """What is wrong in the order of its urgency, then each area with what is well in it."""
    # What only rests on another finding comes last.
    wrong = [one for one in found if one.verdict != "ok"]
    for one in sorted(wrong, key=lambda one: (one.is_consequence, VERDICTS.index(one.verdict))):
        _print_finding(one, f"{one.subject}: {one.what}")
    areas: dict[str, Counter[str]] = {}
    for one in found:
        areas.setdefault(one.subject, Counter())[one.verdict] += 1
    for subject, count in areas.items():
        troubles = [f"{count[verdict]} {verdict}" for verdict in VERDICTS[:-1] if count[verdict]]
        above = f"; see above: {', '.join(troubles)}" if troubles else ""
        typer.echo(f"  {_styled('-' if troubles else 'ok')} {subject}: {count['ok']} ok{above}")


def _print_finding(one: Finding, what: str) -> None:
    first, *more = what.splitlines() or [""]
    typer.echo("\n           ".join([f"  {_styled(one.verdict)} {first}", *more]))
    for line in one.cure.splitlines():
        typer.echo(f"           > {line}")


def _styled(verdict: str) -> str:
    return typer.style(f"{verdict:<8}", fg=_COLOURS.get(verdict, typer.colors.MAGENTA))


@app.command(epilog=examples("bgdeploy init", "bgdeploy init --rebind"))
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
    path = context.obj.config or Path("config.yaml")
    if not path.exists():
        # The commented one: in the wheel it lies in the package, in a checkout at the top.
        package = Path(__file__).resolve().parent.parent
        inside = package / "config.yaml"
        template = inside if inside.exists() else package.parent / "config.yaml"
        path.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
        print(f"wrote {path}")
    api = context.obj.api()
    api.init(rebind=rebind)
    settings = api.settings
    print(f"snapshots are expected in {settings.dataset.base_path}, state is kept in {settings.state_dir}")
    print("next: bgdeploy simulate --customer acme, then bgdeploy run")


@app.command(epilog=examples("bgdeploy config", "bgdeploy --set orchestrator.num_workers=3 config --json"))
def config(context: typer.Context, as_json: AsJson = False) -> None:
    """Show each setting in force and where it comes from, no secrets."""
    settings = context.obj.settings()
    rows, became = settings.shown(), settings.became()
    if as_json:
        render.print_json(
            [
                {"key": key, "value": value, "origin": origin, "became": became.get(key)}
                for key, value, origin in rows
            ]
        )
        return
    hint = "change one for a call with: bgdeploy --set KEY=VALUE ...; for good in config.yaml"
    render.print_table(Table(("key", "value", "from"), rows, foot=hint))
    if became:
        print()
        foot = f"whatever is not listed here is new: {page('configuration.md')}, {page('migrating.md')}"
        render.print_table(Table(("key of the service before", "here"), list(became.items()), foot=foot))


db_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The job table: upgrade, current.",
    epilog=examples("bgdeploy db current", "bgdeploy db upgrade"),
)
app.add_typer(db_app, name="db")


@db_app.command(epilog=examples("bgdeploy db upgrade"))
def upgrade(context: typer.Context) -> None:
    """Bring the job table to this version's revision, keeping a backup of the old file."""
    from bgdeploy import log

    log.configure("text")
    now = context.obj.api().upgrade()
    print(f"{now.path} is at revision {now.found}; go on with: bgdeploy serve")


@db_app.command(epilog=examples("bgdeploy db current"))
def current(context: typer.Context) -> None:
    """Show the revision of the job table and the newest one this version knows."""
    now = context.obj.api().revision()
    print(f"{now.path}: {now.found or 'does not exist yet'} (newest: {now.newest})")
    if now.found != now.newest:
        print("bring it there with: bgdeploy db upgrade")


@app.command(
    epilog=examples("bgdeploy simulate --customer acme", "bgdeploy simulate --customer acme --rows 200000")
)
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
    from bgdeploy.clock import wall
    from bgdeploy.snapshots.generate import write_snapshot

    base = context.obj.settings().dataset.base_path
    path = write_snapshot(base, customer, timestamp or int(wall()), rows=rows, seed=seed)
    print(f"wrote {path}")
    print(
        f"next: bgdeploy run, or with bgdeploy serve running: bgdeploy wait {shlex.quote(customer)} {path.name}"
    )


@app.command(epilog=examples("bgdeploy demo", "bgdeploy demo --rows 60000 --keep"))
def demo(
    rows: Annotated[int, typer.Option(min=3000, help="Rows in all snapshots together, about.")] = 300_000,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the demo's folder to look around in it.")
    ] = False,
) -> None:
    """See the main job at work, with a broken snapshot and a kill -9.

    Three customers, some 300,000 rows, readers that never stop; it needs a minute and leaves nothing behind.
    """
    from bgdeploy.cli.demo import run_demo

    raise typer.Exit(run_demo(rows=rows, keep=keep))
