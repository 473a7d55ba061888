"""The configuration file: YAML along the schema, each value with its line, all faults in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bgdeploy.config_entries import (
    FILE,
    Entry,
    Fault,
    Found,
    Schema,
    Value,
    fill_all,
    join,
    nearest,
    printable,
)

if TYPE_CHECKING:
    import yaml

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
