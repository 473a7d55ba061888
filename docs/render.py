"""Write what the docs take from the code; ``--check`` only says whether they are up to date."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from bgdeploy.cli.app import app
from bgdeploy.errors import ExitCode
from bgdeploy.jobs.states import TRANSITIONS, draw

HERE = Path(__file__).parent
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def render_states(page: str) -> str:
    """Return the page with its generated part made anew."""
    return _between_marks(page, f"```mermaid\n{draw()}```\n\n{_moves()}")


def render_commands(page: str) -> str:
    """Return the page with every command, its options and examples, and the exit codes."""
    command = typer.main.get_command(app)
    root = typer.Context(command, info_name="bgdeploy")
    return _between_marks(page, "\n".join([_exit_codes(), *_commands(root)]))


def _between_marks(page: str, made: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def _moves() -> str:
    lines = ["| from | to | who | what makes it true |", "|---|---|---|---|"]
    for move in TRANSITIONS:
        who = ", ".join(sorted(move.actors))
        lines.append(f"| {move.source or '-'} | {move.target} | {who} | {move.truth} |")
    return "\n".join(lines) + "\n"


def _exit_codes() -> str:
    lines = ["## Exit codes", "", "| exit code | it means |", "|---|---|"]
    return "\n".join(lines + [f"| {code.value} | {code.meaning} |" for code in sorted(ExitCode)]) + "\n"


def _commands(context: Any) -> Iterator[str]:
    """A section for this command and each one below it, in the order of ``--help``."""
    command = context.command
    yield _section(context)
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _commands(typer.Context(command.get_command(context, name), context, info_name=name))


def _section(context: Any) -> str:
    command, path = context.command, context.command_path
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## `{path}`", _prose(command.help), f"```\n{usage}\n```", _options(context)]
    examples = [line.strip() for line in (command.epilog or "").splitlines()[1:] if line.strip()]
    parts.append("```sh\n" + "\n".join(examples) + "\n```" if examples else "")
    return "\n\n".join(part for part in parts if part) + "\n"


def _prose(text: str | None) -> str:
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ").replace("<", "\\<") for paragraph in paragraphs)


def _options(context: Any) -> str:
    records = [parameter.get_help_record(context) for parameter in context.command.get_params(context)]
    own = [record for record in records if record is not None and "--help" not in record[0]]
    cells = [(name.replace("|", "\\|"), text.replace("|", "\\|").replace("<", "\\<")) for name, text in own]
    lines = [f"| `{name}` | {text} |" for name, text in cells]
    return "\n".join(["| argument or option | meaning |", "|---|---|", *lines]) if lines else ""


PAGES: Mapping[str, Callable[[str], str]] = {
    "state-machine.md": render_states,
    "cli.md": render_commands,
}


def main() -> int:
    """Render the pages, or check them."""
    stale = []
    for name, render in PAGES.items():
        found = (HERE / name).read_text(encoding="utf-8")
        wanted = render(found)
        if found == wanted:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            (HERE / name).write_text(wanted, encoding="utf-8")
    if "--check" in sys.argv and stale:
        print(f"{', '.join(stale)} is stale; run: python docs/render.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
