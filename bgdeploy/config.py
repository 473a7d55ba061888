"""The configuration in force, and the one function that finds, reads and judges it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from bgdeploy.actions import page
from bgdeploy.config_file import Entry, Fault, Schema, explain, leaves, read_environment, read_options, show
from bgdeploy.errors import ConfigError
from bgdeploy.targets import describe_target

# The sections of the configuration: every key with its type, its default, and its bounds.

YEAR = 365 * 86_400  # seconds; longer was a typing error so far

SQLITE = "sqlite:///"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+")  # s3://bucket, which would become a local folder


def absolute(value: Any, info: ValidationInfo) -> Any:
    """Make a path absolute, counting from the configuration's folder, ``~`` filled in, links left alone."""
    if not isinstance(value, (str, os.PathLike)):
        return value
    text = os.fspath(value)
    if scheme := _SCHEME.match(text):
        raise ValueError(
            f"must be a folder or file on this machine: {scheme[0]} is not supported by this version; mount it, or copy"
        )
    if not text or "\0" in text:
        raise ValueError("must be a path, and neither empty nor with a NUL in it")
    return _absolute(text, info)


def _absolute(text: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder") or os.getcwd()
    return os.path.abspath(os.path.join(folder, os.path.expanduser(text)))


def sqlite_url(url: str, info: ValidationInfo) -> str:
    """Return ``sqlite:////absolute/path`` with ``{state_dir}`` filled in; refuse every other database.

    No sentence repeats the URL, which may hold a password.
    """
    scheme = url.partition(":")[0].partition("+")[0].lower()
    if scheme in ("postgresql", "postgres"):
        raise ValueError("postgresql is not supported by this version; use sqlite:///path/to/jobs.db")
    path = url.removeprefix(SQLITE).replace("{state_dir}", "")
    if not url.startswith(SQLITE) or path.strip("/") in ("", ":memory:"):
        raise ValueError("must be sqlite:///path/to/a/file")
    if wrong := sorted(set(path) & set("?{}\0")):
        raise ValueError(f"must be a plain file path; {wrong[0]!r} cannot stand in it, {{state_dir}} can")
    state_dir = info.data.get("state_dir", os.sep)  # missing where it is at fault itself
    return SQLITE + _absolute(url.removeprefix(SQLITE).replace("{state_dir}", str(state_dir)), info)


def split_names(value: Any) -> Any:
    """Make a list of names from ``a, b`` or, for names with commas, from a JSON list."""
    if isinstance(value, str):
        value = _json_list(value) if value.lstrip().startswith("[") else value.split(",")
    if not isinstance(value, (list, tuple)):
        return value
    names = [name.strip() if isinstance(name, str) else name for name in value]
    if not all(names) or len(set(map(str, names))) < len(names):
        raise ValueError("must be a list of names, none empty and none twice")
    return names


def _json_list(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError('must be a list of names, such as a,b or ["a", "b"]') from None


def to_none(value: Any) -> Any:
    """Turn the words for nothing into None, where nothing is a value."""
    return None if isinstance(value, str) and value.strip().lower() in ("", "null", "none", "~") else value


def split_lines(value: Any) -> Any:
    """Make a list of statements from one text, or from a JSON list."""
    if isinstance(value, str):
        value = _json_list(value) if value.lstrip().startswith("[") else [value]
    return value


def no_keys() -> Any:
    """Return the section nobody wrote, to be validated as one."""
    return {}


Count = Annotated[int, Field(ge=1, le=1_000_000)]
Tries = Annotated[int, Field(ge=1, le=100)]
Wait = Annotated[float, Field(gt=0, le=YEAR)]
Delay = Annotated[float, Field(ge=0, le=YEAR)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Percent = Annotated[float, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=1, le=65_535)]
Place = Annotated[Path, BeforeValidator(absolute)]
Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
Lines = Annotated[tuple[str, ...], BeforeValidator(split_lines)]
Nothing = BeforeValidator(to_none)  # "null" in a variable or option


class Section(BaseModel):
    """Frozen, with no unknown key, and errors that do not repeat what was given."""

    # Sections default to {} and are validated: paths must be made absolute at load, not at import.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, validate_default=True
    )


class Columns(Section):
    """Column names that are looked for, the first match wins.

    ``by_position``: the first column of nodes is the id wherever no name matches; without it, only where labels follow.
    """

    id: Names = ("nodeId", "id", ":ID")
    labels: Names = ("labels", ":LABEL")
    source: Names = ("sourceNodeId", "source", "src", "from", ":START_ID")
    target: Names = ("targetNodeId", "target", "dst", "to", ":END_ID")
    type: Names = ("relationshipType", "type", ":TYPE")
    by_position: bool = False

    @field_validator("labels", "target", "type")
    @classmethod
    def _stand_apart(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        beside = ("id",) if info.field_name == "labels" else ("source", "target")
        for other in beside:
            if both := set(names) & set(info.data.get(other, ())):
                raise ValueError(f"{min(both)!r} is already a name for {other}")
        return names


class Dataset(Section):
    """Where snapshots are dropped and how they are read."""

    base_path: Place = Path("data")
    settle_seconds: Delay = 30
    expire_days: Annotated[Days | None, Nothing] = None
    columns: Columns = Field(default_factory=no_keys)


class Ladybug(Section):
    """The embedded target: memory, threads, and rows committed at once."""

    buffer_pool_mb: Annotated[int, Field(ge=16, le=16_777_216)] = 1024
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    group_rows: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100_000_000


class Neo4j(Section):
    """The Neo4j server: how it is reached, how it is filled, who may read, what is protected."""

    uri: Annotated[str | None, Field(repr=False), Nothing] = None
    host: Annotated[str | None, Nothing] = None
    bolt_port: Annotated[Port | None, Nothing] = None
    arrow_port: Annotated[Port | None, Nothing] = None
    tls: Annotated[bool | None, Nothing] = None
    ca_file: Annotated[Place | None, Nothing] = None
    user: str = "neo4j"
    password: Annotated[SecretStr | None, Nothing] = None
    password_file: Annotated[Place | None, Nothing] = None
    loader: Literal["auto", "bolt", "arrow", "import"] = "auto"
    import_tool: Annotated[Place | None, Nothing] = None
    import_memory_mb: Annotated[int | None, Field(ge=64, le=16_777_216), Nothing] = None
    primaries: Annotated[int | None, Field(ge=1, le=11), Nothing] = None
    secondaries: Annotated[int | None, Field(ge=0, le=20), Nothing] = None
    seed_uri: Annotated[str | None, Nothing] = None
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    batch_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 5_000
    indexes: Lines = ()
    warm_up: Lines = ()
    reader_roles: Names = ()
    read_only: Literal["none", "standby", "live"] = "standby"
    health_unknown: Annotated[Literal["wait", "proceed"] | None, Nothing] = None

    @field_validator("uri")
    @classmethod
    def _is_bolt(cls, uri: str | None) -> str | None:
        schemes = [f"{kind}{mark}" for kind in ("neo4j", "bolt") for mark in ("", "+s", "+ssc")]
        scheme, _, rest = (uri or "bolt://x").partition("://")
        if scheme not in schemes or not rest or set(rest) & set("@/?# "):
            raise ValueError(
                "must be neo4j://host:port or bolt://host:port, with +s or +ssc for TLS and nothing else"
            )
        return uri

    @field_validator("seed_uri")
    @classmethod
    def _is_folder(cls, uri: str | None) -> str | None:
        folder = "/x" if uri is None else uri.removeprefix("file://")
        if folder == uri or not folder.startswith("/") or not folder.strip("/") or set(folder) & set("?# "):
            raise ValueError(
                "must be file:///<folder>, one that bgdeploy writes to and every member of the cluster reads"
            )
        return uri and uri.rstrip("/")

    def address(self) -> str:
        """The URI, or what host, port and tls make of it."""
        if self.uri is not None:
            return self.uri
        return f"neo4j{'+s' if self.tls else ''}://{self.host or 'localhost'}:{self.bolt_port or 7687}"


class Worker(Section):
    """Streams, and rows of a batch, of ``neo4j.loader: arrow``; where nothing is said, ``neo4j.concurrency`` and 16,384."""

    concurrency: Annotated[int | None, Field(ge=1, le=64), Nothing] = None
    arrow_table_size: Annotated[int | None, Field(ge=1, le=10_000_000), Nothing] = None


class Orchestrator(Section):
    """How much at once, how often, how long, how many kept."""

    num_workers: Annotated[int, Field(ge=1, le=256)] = 1
    max_concurrent_loads: Annotated[Count | None, Nothing] = None
    scan_interval: Wait = 30
    watch_interval: Wait = 1
    max_databases: Annotated[Count | None, Nothing] = None
    keep_databases: Count = 2
    backlog: Literal["all", "latest"] = "all"
    auto_switch: bool = True
    drop_grace_seconds: Delay = 60
    heap_threshold_percent: Percent = 85
    pagecache_threshold_percent: Percent = 90
    health_check_retry_delay: Wait = 60
    max_retries: Tries = 3
    retry_backoff_base: Annotated[float, Field(ge=1, le=60)] = 2
    max_service_deaths: Tries = 20
    max_interruptions: Annotated[Tries | None, Nothing] = None
    lease_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60
    shutdown_timeout: Delay = 300


class Checks(Section):
    """What is compared with the files, and with the live database before a switch."""

    max_shrink_percent: Percent = 50
    proof_rows: Annotated[int, Field(ge=0, le=1_000_000_000_000)] = 10_000_000


class History(Section):
    """How long the job table remembers what is over; switches are kept for ever."""

    events_days: Annotated[Days | None, Nothing] = 30
    jobs_days: Annotated[Days | None, Nothing] = 180


class Web(Section):
    """What existing files say about a web page: checked, kept, and used by nothing yet."""

    host: str | None = None
    port: Annotated[Port | None, Nothing] = None
    token: SecretStr | None = None


# The configuration in force, and the one function that finds, reads and judges it.

# Accepted because files have them; read by no code of this version.
UNUSED = ("web.", "orchestrator.max_interruptions")

# What the keys of the service that bgdeploy replaces mean here; docs/migrating.md has the reasons.
BECAME = {
    "dataset.base_path": "the same: <base_path>/<customer>/<timestamp>/",
    "neo4j.host": "with bolt_port and tls the server's address: {address}",
    "neo4j.bolt_port": "part of the address",
    "neo4j.tls": "part of the address: neo4j+s, with a certificate that is checked",
    "neo4j.arrow_port": "the port of loader arrow; without it, what the server itself tells",
    "neo4j.user": "the same",
    "neo4j.password": "the same; password_file is read anew at each login",
    "neo4j.concurrency": "streams of loader bolt; over Arrow, how much the server does at once",
    "worker.concurrency": "streams of loader arrow",
    "worker.arrow_table_size": "rows of a batch of loader arrow",
    "orchestrator.num_workers": "loads at once in one process",
    "orchestrator.max_concurrent_loads": "loads at once in all processes",
    "orchestrator.scan_interval": "the same; unfinished folders are looked at every watch_interval",
    "orchestrator.max_databases": "databases in all; keep_databases says how many each customer keeps",
    "orchestrator.heap_threshold_percent": "the same: a start waits above it, and uses no attempt",
    "orchestrator.pagecache_threshold_percent": "without effect: a full page cache is normal; use and hits are shown",
    "orchestrator.health_check_retry_delay": "the same",
    "orchestrator.max_retries": "runs in a row without progress before a job fails",
    "orchestrator.retry_backoff_base": "the same: waits of about base, base^2, base^3 ... seconds",
    "orchestrator.shutdown_timeout": "the same; what is still loading then goes on at the next start",
}


class Settings(Section):
    """The configuration in force: every path absolute, every value within its bounds, nothing to change."""

    state_dir: Place = Path(".bgdeploy")
    database_url: Annotated[str, AfterValidator(sqlite_url)] = "sqlite:///{state_dir}/jobs.db"
    log_format: Literal["text", "json"] = "text"
    target: Literal["ladybug", "neo4j"] = "ladybug"
    dataset: Dataset = Field(default_factory=no_keys)
    ladybug: Ladybug = Field(default_factory=no_keys)
    orchestrator: Orchestrator = Field(default_factory=no_keys)
    checks: Checks = Field(default_factory=no_keys)
    history: History = Field(default_factory=no_keys)
    neo4j: Neo4j = Field(default_factory=no_keys)
    worker: Worker = Field(default_factory=no_keys)
    web: Web = Field(default_factory=no_keys)
    _origins: dict[str, str] = PrivateAttr(default_factory=no_keys)
    _server: str = PrivateAttr(default="")

    @property
    def database_path(self) -> Path:
        """The SQLite file of the job table."""
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def target_follows(self) -> str:
        """The setting that made ``neo4j`` the target where nobody wrote one down, and where it stands; else empty."""
        return self._server

    def target_settings(self) -> dict[str, Any]:
        """Return what is stored with a job for the target: plain values that JSON can hold."""
        columns = self.dataset.columns.model_dump(mode="json")
        state = {"target": self.target, "state_dir": str(self.state_dir), "columns": columns}
        return {
            **state,
            **(self.ladybug.model_dump() if describe_target(self.target).embedded else self._for_neo4j()),
        }

    def _for_neo4j(self) -> dict[str, Any]:
        neo4j, orchestrator = self.neo4j, self.orchestrator
        lists = {"indexes": neo4j.indexes, "warm_up": neo4j.warm_up, "reader_roles": neo4j.reader_roles}
        return {
            "loader": neo4j.loader,
            "primaries": neo4j.primaries,
            "secondaries": neo4j.secondaries,
            "concurrency": neo4j.concurrency,
            "batch_rows": neo4j.batch_rows,
            "proof_rows": self.checks.proof_rows,
            "arrow_streams": self.worker.concurrency or neo4j.concurrency,
            "arrow_rows": self.worker.arrow_table_size,
            "read_only": neo4j.read_only,
            "health_unknown": neo4j.health_unknown,
            "heap_percent": orchestrator.heap_threshold_percent,
            **{name: list(lines) for name, lines in lists.items()},
        }

    def target_access(self) -> dict[str, Any]:
        """Return how the target is reached, secrets among it: never stored, logged or shown."""
        if describe_target(self.target).embedded:
            return {}
        neo4j = self.neo4j
        given = neo4j.password.get_secret_value() if neo4j.password else os.environ.get("NEO4J_PASSWORD", "")
        names = ("password_file", "ca_file", "import_tool")
        files = {name: getattr(neo4j, name) for name in names}
        return {
            "uri": neo4j.address(),
            "user": neo4j.user,
            "password": given,
            "import_memory_mb": neo4j.import_memory_mb,
            "arrow_port": neo4j.arrow_port,
            "seed_uri": neo4j.seed_uri,
            **{name: None if path is None else str(path) for name, path in files.items()},
        }

    @property
    def max_databases(self) -> int | None:
        """The limit of databases in all: none is needed for files, 50 where a server holds them."""
        given = self.orchestrator.max_databases
        return describe_target(self.target).max_databases if given is None else given

    def shown(self) -> list[tuple[str, str, str]]:
        """Return (key, value, origin) of every setting, without secrets.

        Origins: ``default``, ``<file>:<line>``, ``environment <NAME>`` or ``option``. Settings of
        another target are listed only when somebody set them, and are marked as not used.
        """
        rows = []
        for path in leaves(SCHEMA):
            key = ".".join(path)
            origin = self._origins.get(key, "default")
            unused = is_unused(key, self.target)
            if unused and origin == "default":
                continue
            mark = f" (not used by target {self.target})" if unused else ""
            rows.append((key, show(_value_at(self, path)), origin + mark))
        return rows

    def became(self) -> dict[str, str]:
        """Return what keys of the replaced service's file mean here; nothing where the file is none of its kind."""
        if self.worker == Worker():
            return {}
        given = {key: text for key, text in BECAME.items() if key in self._origins}
        return {key: text.format(address=self.neo4j.address()) for key, text in given.items()}

    def useless(self) -> list[tuple[str, str]]:
        """Return (key, origin) of what somebody set to another value than the default, and nothing reads."""
        plain = Settings()
        changed = [path for path in leaves(SCHEMA) if _value_at(self, path) != _value_at(plain, path)]
        found = [(key, self._origins.get(key, "default")) for key in map(".".join, changed)]
        return [(key, origin) for key, origin in found if origin != "default" and is_unused(key, self.target)]


def is_unused(key: str, target: str = "") -> bool:
    """True for a setting that is accepted because files have it, and read by nothing, or not by this target."""
    others = {"ladybug": ("neo4j.", "worker."), "neo4j": ("ladybug.",)}.get(target, ())
    return key.startswith((*UNUSED, *others))


def _value_at(settings: Any, path: Iterable[str]) -> Any:
    for name in path:
        settings = getattr(settings, name)
    return settings


def _schema(model: type[BaseModel]) -> dict[str, Schema | None]:
    return {
        name: _schema(field.annotation)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        else None
        for name, field in model.model_fields.items()
    }


SCHEMA = _schema(Settings)


def load_settings(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Return the configuration in force: defaults < file < ``BGDEPLOY__SECTION__KEY`` < ``overrides``.

    The file is ``path``, else ``$BGDEPLOY_CONFIG``, else ``./config.yaml`` if there is one; relative
    paths in every source count from its folder (without a file: from the current one). Keys of
    ``overrides`` are dotted (``orchestrator.num_workers``); a value of None is an option not given.
    Raises ConfigError with all faults at once, a line each.
    """
    file = find_file(path, environ)
    found: list[Entry | Fault] = []
    if file is not None:
        found += _read(file, environ)
    found += read_environment(SCHEMA, environ)
    found += read_options(overrides or {}, SCHEMA)
    faults = [one for one in found if isinstance(one, Fault)]
    in_force = {one.key: one for one in found if isinstance(one, Entry)}
    settings = _judge(in_force, _folder_of(file), faults)
    if settings is None or faults:
        raise _refuse(faults)
    return settings


def _read(file: Path, environ: Mapping[str, str]) -> list[Entry | Fault]:
    """Read the file; YAML is imported only by those who have one."""
    from bgdeploy.config_file import read_file

    return list(read_file(file, SCHEMA, environ))


def find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file that is read, or None where defaults are in force."""
    if path is not None:
        return path
    if named := environ.get("BGDEPLOY_CONFIG"):
        return Path(named)
    return Path("config.yaml") if os.path.lexists("config.yaml") else None


def _folder_of(file: Path | None) -> str:
    try:
        return os.path.realpath(file.parent if file is not None else os.getcwd())
    except (OSError, ValueError):
        return os.sep


def _judge(entries: dict[str, Entry], folder: str, faults: list[Fault]) -> Settings | None:
    """Validate the strongest entry of each key; add what is wrong to ``faults``."""
    tree: dict[str, Any] = {}
    origins = {}
    server = _follow_server(entries)
    target = str(entries["target"].value) if "target" in entries else "ladybug"
    for key, entry in entries.items():
        if entry.problem:
            faults += [] if is_unused(key, target) else [entry.fault(entry.problem)]
            continue
        origins[key] = entry.origin
        _plant(tree, key.split("."), entry.value)
    try:
        settings = Settings.model_validate(tree, context={"folder": folder})
    except ValidationError as error:
        faults += [_fault_of(one, entries) for one in error.errors(include_url=False)]
        return None
    settings._origins.update(origins)
    settings._server = server
    faults += _find_overlap(settings, entries)
    return settings


def _follow_server(entries: dict[str, Entry]) -> str:
    """Make Neo4j the target where a server is named and no target is; return the setting that names it, or nothing."""
    for key in ("neo4j.uri", "neo4j.host"):
        entry = entries.get(key)
        if entry is None or "target" in entries:
            continue
        if not entry.problem and not isinstance(to_none(entry.value), str):
            continue
        named = f"{key} ({entry.origin})"
        entries["target"] = replace(entry, key="target", value="neo4j", origin=f"follows {named}", problem="")
        return named
    return ""


def _find_overlap(settings: Settings, entries: Mapping[str, Entry]) -> list[Fault]:
    """Snapshots that lie among databases, or the other way round, would be taken for each other."""
    state, base = (os.path.realpath(place) for place in (settings.state_dir, settings.dataset.base_path))
    if os.path.commonpath((state, base)) not in (state, base):
        return []
    key = "dataset.base_path" if "dataset.base_path" in entries else "state_dir"
    how = "are one folder" if state == base else "lie in each other"
    text = f"state_dir ({state}) and dataset.base_path ({base}) {how}; give each a place of its own"
    return [entries[key].fault(text) if key in entries else Fault(0, 0, f"{key}: {text}")]


def _plant(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _fault_of(error: Any, entries: dict[str, Entry]) -> Fault:
    key = ".".join(str(part) for part in error["loc"])
    entry = entries.get(key)
    return entry.fault(explain(error, entry)) if entry else Fault(0, 0, f"{key}: {explain(error, None)}")


def _refuse(faults: list[Fault]) -> ConfigError:
    lines = "\n".join(fault.text for fault in sorted(set(faults)))
    return ConfigError(
        lines, kept="Nothing was started.", cure=f"Every key is explained in {page('configuration.md')}."
    )
