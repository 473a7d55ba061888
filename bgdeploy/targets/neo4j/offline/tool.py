"""Tool: ``neo4j-admin`` run to its end, its progress told, its failure in a sentence."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.errors import ConfigError, TargetError, TargetFull
from bgdeploy.snapshots.ends import Misfit
from bgdeploy.targets.neo4j.offline import keeper
from bgdeploy.targets.neo4j.offline.sources import Spaces
from bgdeploy.targets.neo4j.offline.store import MARK, end_marked

# Report: the bad rows that the tool lists, as text up to 5.26 and as JSON lines later; pure functions.

TOLERATED = 20  # bad rows after which the tool ends; so many are in its report
_SHOWN = 3
_DOUBLE = re.compile(r"'(.*)' is defined more than once in group '(g\d+)'", re.DOTALL)
_LOST_OLD = re.compile(r"(.*) \((g\d+)\)-\[(.*)\]->(.*) \((g\d+)\) referring to missing node (.*)", re.DOTALL)
_LOST = re.compile(r"\((.*):(g\d+)\)-\[(.*)\]->\((.*):(g\d+)\) referring to missing node (.*)", re.DOTALL)


@dataclass(frozen=True)
class Bad:
    """One row that does not fit: an id that is there twice, or an end that no node has."""

    kind: str
    name: str
    text: str


def read_report(path: Path, spaces: Spaces) -> list[Bad]:
    """Every bad row the tool listed, in its order; none where there is no report."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return list(filter(None, (parse(line, spaces) for line in _messages(text))))


def _messages(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith('{"'):
            yield str(json.loads(line).get("message", line))
        elif line.strip():
            yield line


def parse(said: str, spaces: Spaces) -> Bad | None:
    """What one message of the tool is about, in the words of the snapshot; None for one that is no bad row."""
    if double := _DOUBLE.search(said):
        label = spaces.label(double[2])
        return Bad("node", label, f"the id {double[1]!r} is there twice in nodes/{label}")
    if lost := _LOST.search(said) or _LOST_OLD.search(said):
        start, one, kind, end, two, missing = lost.groups()
        start = start.removeprefix("Invalid relationship in import data\n").removeprefix("(")
        labels = f"({spaces.label(one)} {start!r})-[{kind}]->({spaces.label(two)} {end!r})"
        return Bad("relationship", kind, f"{labels} in relationships/{kind}: there is no node {missing!r}")
    return None


def as_misfit(found: Sequence[Bad]) -> Misfit:
    """The first of them as what our own search in the files starts from."""
    shown = "; ".join(one.text for one in found[:_SHOWN])
    more = f" (and {len(found) - _SHOWN} more in its report)" if len(found) > _SHOWN else ""
    first = found[0]
    kind = "node" if first.kind == "node" else "relationship"
    return Misfit(kind, first.name, f"The import tool reports bad rows: {shown}{more}.")  # type: ignore[arg-type]


# Tool: ``neo4j-admin`` run to its end, its progress told, its failure in a sentence.

_PHASE = re.compile(r"([A-Z][a-z ]+), started 2\d\d\d-|\(\d/\d\) ([A-Z][a-z ]+) 2\d\d\d-")
_CAUSE = re.compile(r"^(?:Caused by: )?([\w.$]+(?:Exception|Error)\w*)(?:: (.*))?$")
# Newer ones keep a log of each run below the server's data.
_KEEPS = re.compile(r"saved in the directory: (/.*/neo4j-admin-import-[\d.-]+)$")
_WITHIN = 60.0  # seconds the tool gets to tell its version
_LINES = 400  # of the last that it said are kept
_KEPT = "What is live stays live."


@dataclass(frozen=True)
class Tool:
    """Where the tool is and what it may use; ``memory_mb`` outside of Java's heap, None for as much as is free."""

    path: str
    memory_mb: int | None


def check_version(tool: Tool, server_version: str) -> None:
    """Raise ConfigError where the tool is missing, does not run, or is of another release than the server."""
    command = [tool.path, "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = error.strerror if isinstance(error, OSError) else f"no answer within {_WITHIN:.0f} s"
        raise _unusable(tool, f"cannot be run: {why}") from error
    if done.returncode:
        raise _unusable(
            tool, f"ended with code {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}"
        )
    judge_version(tool, done.stdout, server_version)


def judge_version(tool: Tool, said: str, server_version: str) -> None:
    """Do the same from what the tool said of itself; patches of one release fit together."""
    found = re.search(r"\b(\d+\.\d+)\.\d+\S*", said)
    if found is None:
        raise _unusable(tool, f"does not tell its version, but {said.strip()[:80]!r}")
    if found[1] != ".".join(server_version.split(".")[:2]):
        raise _unusable(tool, f"is of version {found[0]}, and the server of {server_version}")


def _unusable(tool: Tool, why: str) -> ConfigError:
    return ConfigError(
        f"The import tool {tool.path} {why}.",
        kept="Nothing was imported.",
        cure="Set neo4j.import_tool to the neo4j-admin of the server's own installation.",
    )


def run(tool: Tool, words: Sequence[str], folder: Path, mark: str, tell: Callable[[str], None]) -> None:
    """Run the tool in ``folder``; raises TargetFull or TargetError, or Failed.

    It ends with this process, however that goes; every process of it carries ``mark``.
    """
    command = [sys.executable, "-I", "-S", str(keeper.__file__), tool.path, *words]
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, MARK: mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        threading.Thread(target=_end_with, args=(process, mark), daemon=True).start()
        try:
            said = _follow(process, tell)
            code = process.wait()
        finally:
            end_marked(mark)
    if code:
        raise explain_failure(said, code)


def _end_with(keeper: subprocess.Popen[str], mark: str) -> None:
    """Where the keeper is gone, end what is left of the family, whose open pipe would be waited for."""
    keeper.wait()
    end_marked(mark)


def _follow(process: subprocess.Popen[str], tell: Callable[[str], None]) -> list[str]:
    said: deque[str] = deque(maxlen=_LINES)
    assert process.stdout is not None
    kept = None
    for line in process.stdout:
        said.append(line)
        kept = kept or _KEEPS.search(line)
        if phase := _PHASE.search(line):
            tell((phase[1] or phase[2]).strip().lower())
    if kept is not None:  # what it says it wrote there was said here too
        shutil.rmtree(kept[1], ignore_errors=True)
    return list(said)


class Failed(Exception):
    """The tool gave up for a reason that may lie in the data."""


def explain_failure(said: Sequence[str], code: int) -> Exception:
    """What the tool's last words mean."""
    cause = find_cause(said)
    if code < 0 or code > 128:
        what = f"The import tool was killed by signal {-code if code < 0 else code - 128}; probably memory."
        return TargetError(what, kept=_KEPT, cure="Lower neo4j.import_memory_mb, or HEAP_SIZE of the tool.")
    if "no space left" in cause.lower() or "disk quota" in cause.lower():
        what = f"The import tool ran out of disk: {cause}"
        return TargetFull(what, kept=f"What it wrote is removed. {_KEPT}", cure="Make room there.")
    if "outofmemory" in cause.lower() or "heap space" in cause.lower():
        what = f"The import tool ran out of memory: {cause}"
        return TargetError(
            what, kept=_KEPT, cure="Give it more heap: HEAP_SIZE=8g in bgdeploy's environment."
        )
    return Failed(cause or f"it ended with code {code}")


def find_cause(said: Sequence[str]) -> str:
    """The innermost cause in a Java trace, with the lines that belong to it, or the last line there is."""
    lines = "".join(said).splitlines()
    starts = [number for number, line in enumerate(lines) if _CAUSE.match(line)]
    if not starts:
        return next((line for line in reversed(lines) if _is_text(line)), "")
    first = _CAUSE.match(lines[starts[-1]])
    assert first is not None
    more = itertools.takewhile(_is_text, lines[starts[-1] + 1 :])
    return " ".join([f"{first[1].rpartition('.')[2]}: {first[2] or ''}", *more])


def _is_text(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("\t", " ", "-"))
