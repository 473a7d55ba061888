"""The sections of the configuration: every key with its type, its default, and its bounds."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

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
