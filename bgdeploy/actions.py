"""Actions: what a person may do next, as a verb with its arguments; a terminal prints a command, JSON an object, a page a button.

A hint is text with actions in it. It is a ``str``, so whoever only shows it needs to know nothing of them; ``actions`` are
beside the text, so nobody has to read commands out of a sentence.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bgdeploy.plain import tidy

# Verb: the words of its command, and which arguments stand there without a name, in this order. The others are options
# of the same name; verbs are those of ``service/api.py``, and at the end what only a shell can start.
COMMANDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "scan": ("scan --once", ()),
    "jobs": ("jobs list", ()),
    "job": ("jobs show", ("job_id",)),
    "events": ("jobs log", ("job_id",)),
    "offenders": ("jobs offenders", ("job_id",)),
    "retry": ("retry", ("job_id",)),
    "reload": ("retry --reload", ("job_id",)),
    "retry_all_failed": ("retry --all-failed", ()),
    "cancel": ("jobs cancel", ("job_id",)),
    "customers": ("customers", ()),
    "remove": ("customers remove", ("customer",)),
    "switch": ("switch", ("customer",)),
    "rollback": ("rollback", ("customer",)),
    "switches": ("switches", ("customer",)),
    "pause": ("pause", ("customer",)),
    "resume": ("resume", ("customer",)),
    "pin": ("pin", ("customer",)),
    "unpin": ("unpin", ("customer",)),
    "wait": ("wait", ("customer", "timestamp")),
    "doctor": ("doctor", ()),
    "processes": ("processes", ()),
    "upgrade": ("db upgrade", ()),
    "serve": ("serve", ()),
    "run": ("run", ()),
    "init": ("init", ()),
    "config": ("config", ()),
}
_OPTIONS = {"why": "--reason", "states": "--state"}  # where the option is not called as the argument is
_OPEN = {
    "job_id": "<id>",
    "customer": "<customer>",
    "to": "<database>",
    "database": "<database>",
    "why": '"..."',
}


@dataclass(frozen=True)
class Action:
    """One verb with its arguments; None is an argument that the person chooses. ``str`` is the command of it."""

    verb: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.command

    @cached_property
    def command(self) -> str:
        """As it is typed; made once, since text and JSON both have it, for each line of a listing."""
        words, placed = COMMANDS[self.verb]
        command, *flags = words.split(" --")
        stand = [_word(name, self.arguments[name]) for name in placed if name in self.arguments]
        said = ["bgdeploy", command]
        if not any(word.startswith("-") for word in stand):
            said, stand = said + stand, []
        said += [f"--{flag}" for flag in flags]
        for name, value in self.arguments.items():
            if name in placed or value is False:
                continue
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            for one in value if isinstance(value, list | tuple) else [value]:
                said += [option] if one is True else [option, _word(name, one)]
        # A name that looks like an option comes last.
        return " ".join([*said, "--", *stand] if stand else said)

    def shown(self) -> dict[str, Any]:
        """Return it as JSON holds it: verb, arguments, and the command."""
        return {"verb": self.verb, "arguments": dict(self.arguments), "command": self.command}


def do(verb: str, **arguments: Any) -> Action:
    """Return the action of a verb. KeyError for one that there is none of."""
    if verb not in COMMANDS:
        raise KeyError(verb)
    return Action(verb, arguments)


class Hint(str):
    """What helps: text, and the actions that are named in it.

    ``Hint("Load it again: ", do("reload", job_id=7))`` is the text ``Load it again: bgdeploy retry 7 --reload``.
    """

    actions: tuple[Action, ...]

    def __new__(cls, *parts: str | Action) -> Hint:
        """Join the parts; the actions of hints among them are kept."""
        one = str.__new__(cls, tidy("".join(map(str, parts))))
        found: list[Action] = []
        for part in parts:
            found += part.actions if isinstance(part, Hint) else [part] if isinstance(part, Action) else []
        one.actions = tuple(found)
        return one


def join(between: str, hints: Iterable[str]) -> Hint:
    """Return hints as one, with this text between them; no hint is an empty one."""
    parts = [part for hint in hints for part in (between, hint)]
    return Hint(*parts[1:])


def page(name: str) -> str:
    """Where a page of the docs can be opened here: inside the installed package, or beside it in a checkout."""
    places = (Path(__file__).parent / "docs" / name, Path(__file__).parent.parent / "docs" / name)
    return next((str(place) for place in places if place.is_file()), f"docs/{name}")


def _word(name: str, value: Any) -> str:
    return _OPEN.get(name, f"<{name}>") if value is None else shlex.quote(str(value))
