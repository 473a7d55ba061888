"""The inspector: parses what a snapshot's files say, and may die of it; the service asks it and parses nothing.

Each line on standard input is a list of requests, each answered by one line, in their order: ``{"ok":
{...}}`` or ``{"error": {...}}``. ``{"alive": file}`` between them says that it goes on.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from bgdeploy.errors import BadInput, BgdeployError, NotReadable
from bgdeploy.failpoints import reach
from bgdeploy.memory import put_off
from bgdeploy.worker.loader import Line, open_line, told

MOST_MEMORY = 4 << 30  # bytes of address space: 0.2 GiB at the start; no footer that is right needs the rest
_ROWS = 65_536  # rows decoded at a time
_PIECE = 1 << 20  # bytes of a file in memory at a time
_SIGN = 0.5  # seconds between two signs of life
_KEPT = "Nothing of the snapshot was loaded."
_CURE = "Write it anew; the snapshot is looked at again by itself when it has changed."


def main() -> None:
    """Answer until the parent is gone."""
    _limit_memory()
    put_off()
    line = open_line()
    import pyarrow as pa
    import pyarrow.parquet  # before the first request, which then need not wait for it

    pa.set_cpu_count(1)  # there is an inspector for each core, and every thread takes address space
    pa.set_io_thread_count(1)
    line.tell({"alive": ""})
    while True:
        for request in json.loads(line.replies.get()):
            line.tell(_answer(request, line))


def _limit_memory() -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = MOST_MEMORY if hard == resource.RLIM_INFINITY else min(MOST_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _answer(request: dict[str, Any], line: Line) -> dict[str, Any]:
    """The answer to one request; an error names the file it is about."""
    now = [""]
    told_at = [monotonic()]

    def looking(file: str) -> None:
        now[0] = file
        if request.get("step") or monotonic() - told_at[0] > _SIGN:
            line.tell({"alive": file})
            told_at[0] = monotonic()
        reach(f"inspector.{request['customer']}")

    try:
        done = _TASKS[request["op"]](request, looking)
        looking("")
        return {"ok": done}
    except BgdeployError as error:
        return {"error": told(error)}
    except UnicodeDecodeError as error:
        what = f"{now[0]}: the name of a column is no text (UTF-8): {error.object[:60]!r}."
        return {"error": told(BadInput(what, kept=_KEPT, cure="Write it as UTF-8."))}
    except OSError as error:
        if error.errno is None:
            return _unforeseen(now[0], error)
        what = f"{error.filename or now[0]}: {error.strerror or error}"
        return {"error": {"code": "folder-away", "what": what}}
    except MemoryError:
        what = f"{now[0]} takes over {MOST_MEMORY >> 30} GiB of memory to be read."
        return {"error": told(NotReadable(what, kept=_KEPT, cure=_CURE))}
    except Exception as error:  # the edge of a request: what nobody foresaw in a file is that file's
        return _unforeseen(now[0], error)


def _unforeseen(file: str, error: Exception) -> dict[str, Any]:
    said = str(error).splitlines()[0] if str(error) else "no reason given"
    what = f"{file or 'The snapshot'} cannot be read ({type(error).__name__}: {said})."
    return {"error": told(NotReadable(what, kept=_KEPT, cure=_CURE))}


def _open(request: dict[str, Any], looking: Callable[[str], None]) -> dict[str, Any]:
    """Layout and footers of a snapshot; what changed meanwhile is not described."""
    from bgdeploy.snapshots.schema import open_snapshot
    from bgdeploy.snapshots.source import pack
    from bgdeploy.targets import refusals_of

    path = Path(request["path"])
    named = request["customer"], request["timestamp"], path, request["columns"], request["fingerprint"]
    try:
        snapshot = open_snapshot(*named, refusals_of(request["target"]), looking)
    except Exception:
        if _has_changed(request):
            return {"changed": True}
        raise
    if _has_changed(request):
        return {"changed": True}
    figures = {"tables": len(snapshot.tables), "rows": snapshot.rows, "bytes": snapshot.size}
    return {**figures, "by_position": snapshot.by_position, "packed": pack(snapshot)}


def _has_changed(request: dict[str, Any]) -> bool:
    from bgdeploy.snapshots.readiness import fingerprint

    try:
        return fingerprint(Path(request["path"])).text != str(request["fingerprint"])
    except FileNotFoundError:
        return True


def _read(request: dict[str, Any], looking: Callable[[str], None]) -> dict[str, Any]:
    """Every page of every file, to find the one over which a loading process failed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bgdeploy.snapshots.checksums import check_checksums
    from bgdeploy.snapshots.layout import read_layout

    path = Path(request["path"])
    for file in (file for folder in read_layout(path) for file in folder.files):
        looking(file)
        try:
            check_checksums(path / file, file)
            with pq.ParquetFile(path / file, buffer_size=_PIECE) as parquet:
                _read_statistics(parquet)
                for _ in parquet.iter_batches(_ROWS, use_threads=False):
                    looking(file)
        except MemoryError:
            continue  # an honest file may need more than an inspector may have
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            said = str(error).splitlines()[0] if str(error) else "no reason given"
            raise BadInput(
                f"{file} is damaged: {said}", kept="What is live stays live.", cure="Write it again."
            ) from error
    return {}


def _read_statistics(parquet: Any) -> None:
    """Those of every column: some that do not fit their column end the process."""
    for number in range(parquet.metadata.num_row_groups):
        group = parquet.metadata.row_group(number)
        for column in range(group.num_columns):
            statistics = group.column(column).statistics
            with suppress(ValueError, OverflowError):  # bounds that Python does not know, or that are no text
                _ = statistics is not None and statistics.has_min_max and (statistics.min, statistics.max)


def _compare(request: dict[str, Any], looking: Callable[[str], None]) -> dict[str, Any]:
    """What a manifest says otherwise than the files."""
    from bgdeploy.snapshots.readiness import compare_manifest, look_at_manifest

    path = request["path"]
    try:
        fault, again = compare_manifest(path, looking), False
    except OSError as error:  # a disk that did not answer is asked again
        file = os.path.relpath(error.filename, path) if error.filename else "a file"
        fault, again = f"{file} cannot be compared with manifest.json: {error.strerror or error}", True
    found = look_at_manifest(path)
    return {"fault": fault, "again": again or found is None or found.digest != request["digest"]}


_TASKS: dict[str, Callable[[dict[str, Any], Callable[[str], None]], dict[str, Any]]] = {
    "open": _open,
    "manifest": _compare,
    "read": _read,
}


if __name__ == "__main__":
    main()
