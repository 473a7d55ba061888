"""Write what the docs take from the code; ``--check`` only says whether they are up to date."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import typer

import bgdeploy
from bgdeploy import errors
from bgdeploy.cli.app import app
from bgdeploy.errors import BgdeployError, ExitCode
from bgdeploy.jobs.states import TRANSITIONS, draw
from bgdeploy.service import results
from bgdeploy.service.api import Deployments, Page

HERE = Path(__file__).parent
ORDER = (
    "cli",
    "service",
    "worker",
    "pipeline",
    "site",
    "jobs",
    "snapshots",
    "targets",
    "targets.ladybug",
    "targets.neo4j",
    "ground",
)
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def render_states(page: str) -> str:
    """Return the page with its generated part made anew."""
    return _between_marks(page, f"```mermaid\n{draw()}```\n\n{_moves()}")


def render_commands(page: str) -> str:
    """Return the page with every command, its options and examples, and the exit codes."""
    command = typer.main.get_command(app)
    root = typer.Context(command, info_name="bgdeploy")
    return _between_marks(page, "\n".join([_exit_codes(), *_commands(root)]))


def render_api(page: str) -> str:
    """Return the page with every verb of the API, every result and every error."""
    shown = [Page, *vars(results).values()]
    kinds = [one for one in shown if is_dataclass(one) and not one.__name__.startswith("_")]
    raised = [
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, BgdeployError)
    ]
    head = [f"## `bgdeploy.open`\n\n{_text(bgdeploy.open)}\n", f"## Verbs\n\n{_text(Deployments)}\n"]
    results_ = [
        "## Results\n",
        *(f"- **{one.__name__}**: {_text(one)} {_fields(one)}".replace("\n\n", " ") for one in kinds),
    ]
    errors_ = [
        "\n## Errors\n\nEach has `code`, `what` failed, what was `kept`, and the `cure`, a text with its `actions`.\n"
    ]
    errors_ += ["| error | code | it means |", "|---|---|---|"]
    errors_ += [f"| {one.__name__} | {one.code} | {_text(one).partition(chr(10))[0]} |" for one in raised]
    return _between_marks(page, "\n".join([*head, *_verbs(), *results_, *errors_]) + "\n")


def render_house(page: str) -> str:
    """Return the page with the rooms, what each imports, and what every file of them promises."""
    root = Path(bgdeploy.__file__).parent
    rooms: dict[str, list[Path]] = {}
    for file in sorted(root.rglob("*.py")):
        if file.stem not in ("__init__", "__main__"):
            rooms.setdefault(_room(file.relative_to(root).parts), []).append(file)
    order = [name for name in ORDER if name in rooms] + sorted(set(rooms) - set(ORDER))
    arrows = {
        (one, other) for one in order for file in rooms[one] for other in _imported(file) & set(order) - {one}
    }
    drawn = [
        f"    {one} --> {other}"
        for one, other in sorted(arrows, key=lambda pair: (order.index(pair[0]), order.index(pair[1])))
        if other != "ground"
    ]
    lines = [
        "```mermaid",
        "flowchart TD",
        *drawn,
        "```",
        "",
        "Every room stands on the ground too: the files at the top of the package.",
        "",
    ]
    for name in order:
        lines += [f"### {name}", "", "| file | it promises |", "|---|---|"]
        for file in rooms[name]:
            text = file.read_text(encoding="utf-8")
            promise = (
                (ast.get_docstring(ast.parse(text)) or "")
                .partition("\n")[0]
                .replace("|", "\\|")
                .replace("``", "`")
            )
            lines.append(f"| `{file.relative_to(root)}` | {promise} |")
        lines.append("")
    return _between_marks(page, "\n".join(lines))


def _room(parts: tuple[str, ...]) -> str:
    """The room of a file or module below the package: its first folder; a target has one of its own, and so has the site."""
    first = parts[0].removesuffix(".py")
    inner = f"{first}.{parts[1]}" if len(parts) > 2 else ""
    return inner if inner in ORDER else first if first in ORDER else "ground"


def _imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bgdeploy."):
            parts = tuple((node.module or "").split(".")[1:])
            found.add(_room((*parts, "")))
            if parts == ("targets",):
                found |= {f"targets.{one.name}" for one in node.names}
    return found


def _verbs() -> Iterator[str]:
    for name, verb in vars(Deployments).items():
        if name.startswith("_") or not inspect.isfunction(verb):
            continue
        shown = str(inspect.signature(verb)).replace("(self, ", "(").replace("(self)", "()").replace("'", "")
        shown = re.sub(r"<function .*?<lambda> at 0x[0-9a-f]+>", "...", shown)
        yield f"### `{name}`\n\n```python\n{name}{shown}\n```\n\n{_text(verb)}\n"


def _text(one: Any) -> str:
    return _prose(inspect.getdoc(one)).replace("``", "`")


def _fields(kind: Any) -> str:
    named = [one.name.removesuffix("_") for one in fields(kind) if not one.metadata.get("not shown")]
    inherited = [base for base in kind.__bases__ if is_dataclass(base) and not base.__name__.startswith("_")]
    own = named[sum(len(fields(base)) for base in inherited) :]
    all_of = "".join(f"all of {base.__name__}, " for base in inherited)
    return f"Fields: {all_of}{', '.join(f'`{name}`' for name in own)}."


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
    "api.md": render_api,
    "architecture.md": render_house,
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
