"""The configuration file: YAML along the schema, each value with its line, all faults in one pass."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import SecretStr

if TYPE_CHECKING:
    import yaml


# Settings as somebody wrote them, not judged yet: entries and faults, from the environment and options.

PREFIX = "BGDEPLOY__"

Schema: TypeAlias = Mapping[str, "Schema | None"]  # a section's keys; None marks a single value
Value: TypeAlias = "str | list[str] | None"  # every source gives text, so that all are judged alike

FILE, _ENVIRONMENT, _OPTION = range(3)  # weakest first
# Defaults may hold one pair of braces, as in ${DB:sqlite:///{state_dir}/jobs.db}.
_PLACEHOLDER = re.compile(r"\$(?P<escape>\$)(?=\{)|\$\{(?P<inner>(?:[^{}]|\{[^{}]*\})*)\}|(?P<torn>\$\{)")


@dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong; faults sort by source, then by line."""

    rank: int
    line: int
    text: str


@dataclass(frozen=True)
class Entry:
    """One value as written. ``where`` begins a fault about it; ``origin`` is its short form.

    ``template`` is the text before ``${...}`` was filled in, where there was any: faults show it
    instead of the value, which may be a secret. ``problem`` says why it could not be filled in.
    """

    key: str
    value: Value
    rank: int
    line: int
    origin: str
    where: str
    template: str = ""
    problem: str = ""

    def fault(self, text: str) -> Fault:
        """Return a fault at this entry's place."""
        return Fault(self.rank, self.line, f"{self.where}: {text}")


Found: TypeAlias = "Iterator[Entry | Fault]"


def fill_all(value: Value, environ: Mapping[str, str]) -> tuple[Value, str]:
    """Fill in every ``${...}`` of a value; return it and what could not be filled in."""
    if value is None:
        return None, ""
    problems: list[str] = []
    if isinstance(value, str):
        return fill(value, environ, problems), "; ".join(problems)
    return [fill(item, environ, problems) for item in value], "; ".join(problems)


def fill(text: str, environ: Mapping[str, str], problems: list[str]) -> str:
    """Fill in ``${VAR}`` and ``${VAR:default}``; ``$${`` stands for ``${``; an empty variable is not set.

    What cannot be filled in becomes empty and a sentence in ``problems``.
    """

    def one(match: re.Match[str]) -> str:
        if match["escape"]:
            return "$"
        name, colon, default = (match["inner"] or "").partition(":")
        if match["torn"] or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problems.append("write ${NAME} or ${NAME:default}, and $${ for a plain ${")
        elif default.startswith("-"):
            problems.append(f"${{{name}:-...}} is how a shell writes it; here it is ${{{name}:default}}")
        elif not environ.get(name) and not colon:
            problems.append(f"the environment variable {name} is not set and ${{{name}}} has no default")
        return environ.get(name) or default

    return _PLACEHOLDER.sub(one, text)


def read_environment(schema: Schema, environ: Mapping[str, str]) -> Found:
    """Yield what ``BGDEPLOY__SECTION__KEY`` variables say; an empty one counts as not set."""
    for name, value in sorted(environ.items()):
        if name.startswith(PREFIX) and value:
            parts = tuple(name[len(PREFIX) :].lower().split("__"))
            origin = f"environment {name}"
            yield _pick(parts, value, schema, Entry("", None, _ENVIRONMENT, 0, origin, origin))


def read_options(overrides: Mapping[str, Any], schema: Schema) -> Found:
    """Yield what command line options say, by dotted key; None means that an option was not given."""
    for key, given in overrides.items():
        if given is not None:
            value = [str(item) for item in given] if isinstance(given, (list, tuple)) else str(given)
            place = Entry("", None, _OPTION, 0, "option", f"option {printable(key)}")
            yield _pick(tuple(key.split(".")), value, schema, place)


def _pick(parts: tuple[str, ...], value: Value, schema: Schema, place: Entry) -> Entry | Fault:
    """Return the entry for a key, or the fault that there is no such key."""
    spell = _as_variable if place.rank == _ENVIRONMENT else ".".join
    below: Schema | None = schema
    for depth, part in enumerate(parts):
        if below is None or part not in below:
            near = nearest(parts[: depth + 1], below or {}, schema)
            return place.fault("unknown key" + (f", did you mean {spell(near)}?" if near else ""))
        below = below[part]
    if below is not None:
        example = spell((*parts, next(iter(below))))
        return place.fault(f"is a section; set one of its keys, such as {example}")
    return Entry(".".join(parts), value, place.rank, 0, place.origin, place.where)


def _as_variable(parts: Iterable[str]) -> str:
    return PREFIX + "__".join(parts).upper()


def nearest(parts: tuple[str, ...], section: Schema, schema: Schema) -> tuple[str, ...] | None:
    """Return the nearest valid key: of the same section, unless one in another section is nearer by its name."""
    name = re.sub(r"[^a-z0-9]+", "_", parts[-1].lower())
    everywhere = {leaf[-1]: leaf for leaf in reversed(leaves(schema))}
    here = difflib.get_close_matches(name, section, n=1)
    there = difflib.get_close_matches(name, everywhere, n=1, cutoff=0.8)
    if here and (not there or _likeness(name, here[0]) >= _likeness(name, there[0])):
        return (*parts[:-1], here[0])
    return everywhere[there[0]] if there else None


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def leaves(schema: Schema, above: tuple[str, ...] = ()) -> Sequence[tuple[str, ...]]:
    """Return the path of every single value, in the schema's order."""
    found: list[tuple[str, ...]] = []
    for name, below in schema.items():
        path = (*above, name)
        found += [path] if below is None else leaves(below, path)
    return found


def join(value: Value) -> str:
    """Return a value on one line."""
    return ", ".join(value) if isinstance(value, list) else str(value)


def printable(text: str, longest: int = 60) -> str:
    """Return text on one line, shortened, without control characters or what stands before ``@`` in a URL."""
    masked = re.sub(r"(?s)(?<=://)[^/].*@", "***@", text)
    clean = "".join(char if char.isprintable() else "?" for char in masked)
    return clean if len(clean) <= longest else clean[: longest - 3] + "..."


def show(value: Any) -> str:
    """Return a setting as one writes it, a secret as ``(hidden)``."""
    match value:
        case None:
            return "null"
        case SecretStr():
            return "(hidden)"
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case tuple():
            return ", ".join(value)
    return printable(str(value), longest=10_000)


def explain(error: Mapping[str, Any], entry: Entry | None) -> str:
    """Return what is wrong with a value as one sentence that begins with the value, never a secret one."""
    kind, limits = str(error["type"]), error.get("ctx", {})
    if kind == "value_error":
        return str(limits["error"])
    if entry is not None and entry.value is None:
        return "has no value; give one or remove the line"
    named = _name(entry)
    if kind == "literal_error":
        return f"{named} is not one of {limits['expected']}{_nearest_word(entry, limits['expected'])}"
    return f"{named} {_KINDS.get(kind, _PLAIN.get(kind.partition('_')[0], error['msg'])).format(**limits)}"


_KINDS = {
    "greater_than_equal": "is too small, it must be at least {ge}",
    "greater_than": "is too small, it must be more than {gt}",
    "less_than_equal": "is too large, it must be at most {le}",
}
_PLAIN = {
    "int": "is not a whole number",
    "float": "is not a number",
    "finite": "is not a finite number",
    "bool": "is neither true nor false",
    "string": "must be a single text",
    "path": "must be a path",
}


def _name(entry: Entry | None) -> str:
    if entry is None or isinstance(entry.value, list):
        return "the value" if entry is None else "a list"
    return printable(entry.template) if entry.template else repr(printable(str(entry.value)))


def _nearest_word(entry: Entry | None, expected: str) -> str:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(str(entry.value if entry else "").lower(), words, n=1)
    return f", did you mean {near[0]}?" if near else ""


# The configuration file: YAML along the schema, each value with its line, all faults in one pass.

MAPPING, SEQUENCE = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
LARGEST = 1_000_000  # bytes; what is larger was never a configuration


def read_file(path: Path, schema: Schema, environ: Mapping[str, str]) -> Found:
    """Yield what a YAML file says, in its order; whatever is wrong with it is a Fault, never an exception."""
    if path.is_fifo():
        yield Fault(FILE, 0, f"{path}: is a pipe; it is read more than once, so it must be a file")
        return
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        yield Fault(FILE, 0, f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
        return
    if len(raw) > LARGEST:
        yield Fault(FILE, 0, f"{path}: is larger than {LARGEST:,} bytes, so it is no configuration")
        return
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield _fault_at(path, raw.count(b"\n", 0, error.start) + 1, "is not UTF-8 text")
        return
    yield from _read_text(text, path, schema, environ)


def _fault_at(path: Path, line: int, text: str) -> Fault:
    return Fault(FILE, line, f"{path}:{line}: {text}")


def _read_text(text: str, path: Path, schema: Schema, environ: Mapping[str, str]) -> Found:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        line, problem = _explain_syntax(error, text)
        yield _fault_at(path, line, problem)
        return
    if isinstance(root, yaml.MappingNode):
        yield from _File(path, environ, schema).walk(root, schema, ())
    elif root is not None and not _is_null(root):
        yield _fault_at(path, root.start_mark.line + 1, "must hold `key: value` lines at the top level")


def _explain_syntax(error: Exception, text: str) -> tuple[int, str]:
    """Return line and problem, without the line's own text, which may be a secret."""
    if isinstance(error, RecursionError):
        return 1, "is nested too deeply"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    position = getattr(error, "position", None)
    line = text.count("\n", 0, position) + 1 if mark is None and position else getattr(mark, "line", 0) + 1
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
    if "alias" in problem:
        problem = "a value that begins with * must be in quotes"
    lines = text.split("\n")
    hint = " (inside { } put ${...} in quotes)" if "${" in lines[min(line, len(lines)) - 1] else ""
    return line, f"YAML syntax: {problem}{hint}"


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null" and getattr(node, "style", None) is None)


@dataclass(frozen=True)
class _File:
    """A file being walked along the schema, so that no depth or cycle of the YAML matters."""

    path: Path
    environ: Mapping[str, str]
    whole: Schema  # for hints: a key may stand in the wrong section

    def walk(self, node: yaml.Node, schema: Schema, above: tuple[str, ...]) -> Found:
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key.value, str) else "?"
            parts = (*above, name)
            fault = f"{self.path}:{line}: {printable('.'.join(parts))}"
            if name in seen:
                yield Fault(FILE, line, f"{fault}: is set twice, first in line {seen[name]}")
            elif name not in schema:
                yield Fault(FILE, line, f"{fault}: unknown key{self._hint(parts, schema)}")
            else:
                yield from self._take(value, schema[name], parts, line)
            seen.setdefault(name, line)

    def _hint(self, parts: tuple[str, ...], section: Schema) -> str:
        near = nearest(parts, section, self.whole)
        if not near:
            return ""
        return f", did you mean {near[-1] if near[:-1] == parts[:-1] else '.'.join(near)}?"

    def _take(self, node: yaml.Node, below: Schema | None, parts: tuple[str, ...], line: int) -> Found:
        key = ".".join(parts)
        where = f"{self.path}:{line}: {key}"
        if below is None:
            yield from self._leaf(node, key, line, where)
        elif node.tag == MAPPING:
            yield from self.walk(node, below, parts)
        elif not _is_null(node):
            yield Fault(FILE, line, f"{where}: must be a section with keys of its own ({', '.join(below)})")

    def _leaf(self, node: yaml.Node, key: str, line: int, where: str) -> Found:
        texts = _texts(node)
        if texts is _SHAPELESS:
            yield Fault(FILE, line, f"{where}: must be a single value or a list of them")
            return
        if any("\ud800" <= letter <= "\udfff" for text in (texts or ()) for letter in text):
            yield Fault(FILE, line, f"{where}: holds half of a character, which is no text")
            return
        origin = f"{self.path}:{line}"
        value, problem = fill_all(texts, self.environ)
        template = "" if value == texts else join(texts)
        yield Entry(key, value, FILE, line, origin, where, template, problem)


_SHAPELESS: list[str] = ["a mapping, or a list of lists"]


def _texts(node: yaml.Node) -> Value:
    """Return a node's text as written: 010 stays 010, yes stays yes, and 12:30 is no number."""
    if isinstance(node.value, str):
        return None if _is_null(node) else node.value
    if node.tag == SEQUENCE and all(isinstance(item.value, str) for item in node.value):
        return [item.value for item in node.value]
    return _SHAPELESS
