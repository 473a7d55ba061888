"""Folders: which customers and which snapshots lie below the base folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path

from bgdeploy.clock import iso
from bgdeploy.errors import NotReadable
from bgdeploy.snapshots.files import LOGS, find_log

_DAY = 86_400
_UNITS = ((1_000, "milliseconds"), (1_000_000, "microseconds"), (1_000_000_000, "nanoseconds"))


@dataclass(frozen=True, slots=True)
class Found:
    """One folder: a customer, or a snapshot with its timestamp in seconds.

    ``skipped`` is the reason, for people, why it is not loaded, else None. ``name`` is fit to be
    printed: in a skipped name what is no text is escaped.
    """

    name: str
    folder: str  # what it lies in; text, since a hundred thousand paths are slow to make
    timestamp: int | None = None
    skipped: str | None = None

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.folder, self.name)


@dataclass(frozen=True)
class Listing:
    """The snapshots of one customer in the shortest form: timestamps, and the names that are skipped.

    ``there`` are those of the known names that are still there; the other two tell of new ones only.
    """

    timestamps: frozenset[int]
    skipped: tuple[Found, ...]
    there: frozenset[str] = frozenset()


def list_customers(base: Path) -> list[Found]:
    """Return the folders in ``base``, by name; files and names that begin with ``.`` or ``_`` are left out.

    Raises NotReadable when ``base`` cannot be listed.
    """
    folder = str(base)
    return sorted(
        (
            Found(_printable(item.name), folder, skipped=_fault_of_customer(item, folder))
            for item in _list(folder)
            if _is_folder(item)
        ),
        key=lambda found: found.name,
    )


def list_timestamps(customer_dir: Path, *, now: float, known: Set[str] = frozenset()) -> Listing:
    """Return a customer's snapshots and what is skipped among them, without an object for each snapshot.

    ``now`` is seconds since 1970. Names in ``known`` were judged before; they are only looked for, which is several times as fast.
    Raises NotReadable when the folder cannot be listed.
    """
    folder, latest = str(customer_dir), int(now) + _DAY
    names = list_names(customer_dir)
    if (log := _find_log(customer_dir, names)) is not None:
        return Listing(frozenset(), (log,), names & known)
    new = {name for name in names - known if name[0] not in "._"}
    timestamps: set[int] = set()
    skipped: list[Found] = []
    for item in _list(folder) if new else ():
        name = item.name
        if name not in new:
            continue
        fault = None if _is_canonical(name) and int(name) <= latest else _fault_of_name(name, latest)
        if fault is not None or not item.is_dir(follow_symlinks=False):
            fault = _fault_of_item(item, fault, folder)
        if fault is None:
            timestamps.add(int(name))
        elif fault:
            skipped.append(Found(_printable(name), folder, skipped=fault))
    shown = tuple(sorted(skipped, key=lambda found: found.name))
    return Listing(frozenset(timestamps), shown, names & known)


def _find_log(customer_dir: Path, names: Set[str]) -> Found | None:
    """A customer's folder that is a table of another format, of which no file may be read alone."""
    inside = (
        list_names(customer_dir / "metadata")
        if "metadata" in names and (customer_dir / "metadata").is_dir()
        else ()
    )
    for name in sorted([*(names & LOGS.keys()), *(f"metadata/{one}" for one in inside)]):
        if (form := find_log(name)) is not None:
            fault = f"the customer's folder is a {form} table ({name}): its files alone are not the table, so nothing in it is loaded; export snapshots as plain folders"
            return Found(name.partition("/")[0], str(customer_dir), skipped=fault)
    return None


def leads_astray(path: Path) -> str | None:
    """Say why a snapshot's folder may not be read where it is a link by now, else None."""
    if not os.path.islink(path):
        return None
    return _fault_of_link_to(str(path), os.path.dirname(os.path.dirname(os.path.abspath(path))))


def list_names(folder: Path) -> frozenset[str]:
    """Return every name in a folder, whatever it is; raises NotReadable when it cannot be listed."""
    try:
        return frozenset(os.listdir(folder))
    except OSError as error:
        raise _unlisted(str(folder), error) from error


def _list(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            for item in items:
                if item.name[0] not in "._":
                    yield item
    except OSError as error:
        raise _unlisted(folder, error) from error


def _unlisted(folder: str, error: OSError) -> NotReadable:
    return NotReadable(
        f"The folder {folder} cannot be listed: {error.strerror or error}.",
        kept="No job was changed.",
        cure="Check that it exists, that its disk is mounted and that bgdeploy may read it.",
    )


def _is_folder(item: os.DirEntry[str]) -> bool:
    return item.is_symlink() or item.is_dir(follow_symlinks=False)


def _fault_of_customer(item: os.DirEntry[str], base: str) -> str | None:
    if not item.name.isprintable():
        return "the name holds characters that cannot be printed; rename the folder"
    return _fault_of_link(item, base) if item.is_symlink() else None


def _fault_of_item(item: os.DirEntry[str], fault: str | None, folder: str) -> str | None:
    """The reason to skip, None for a snapshot, and an empty text for what is passed over silently."""
    if item.is_symlink():
        return fault or _fault_of_link(item, os.path.dirname(os.path.abspath(folder)))
    if item.is_dir(follow_symlinks=False):
        return fault
    return "" if fault else "this is a file; a snapshot is a folder"


def _fault_of_link(item: os.DirEntry[str], base: str) -> str | None:
    return _fault_of_link_to(item.path, base)


def _fault_of_link_to(link: str, base: str) -> str | None:
    real, home = os.path.realpath(link), os.path.realpath(base)
    if not real.startswith(home.rstrip("/") + "/"):
        return "this is a link that leads out of the base folder; copy the folder instead"
    return None if os.path.isdir(real) else "this is a link that does not lead to a folder"


def why_skipped(timestamp: int, *, now: float) -> str | None:
    """Return why a folder of this name would be skipped, or None."""
    name, latest = str(timestamp), int(now) + _DAY
    return None if _is_canonical(name) and timestamp <= latest else _fault_of_name(name, latest)


def _is_canonical(name: str) -> bool:
    return name.isascii() and name.isdigit() and name[0] != "0"


def _fault_of_name(name: str, latest: int) -> str:
    if not name.isprintable():
        return "the name holds characters that cannot be printed"
    if _is_canonical(name):
        return _fault_of_number(int(name), latest)
    if name.isascii() and name.isdigit():
        return "the number begins with a zero; the name must be plain seconds since 1970"
    return "the name is not a number of seconds since 1970"


def _fault_of_number(number: int, latest: int) -> str:
    # The largest unit that gives a moment of this century; smaller numbers are late, not fine-grained.
    for factor, unit in _UNITS:
        if latest // 3 < number // factor <= latest:
            return f"looks like {unit}; seconds are expected"
    moment = f" ({iso(number)})" if number < 200_000_000_000 else ""
    return f"lies in the future{moment}; a snapshot may not be later than tomorrow"


def _printable(name: str) -> str:
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode("ascii")
