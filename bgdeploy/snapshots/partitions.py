"""Partitions: the columns that the names of folders hold, ``country=DE/``, as Spark, Hive, DuckDB and pyarrow write them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from urllib.parse import unquote

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.source import Column

NULL = "__HIVE_DEFAULT_PARTITION__"
Pair = tuple[str, str | None]  # column, value as text; None is null
_KEPT = "Nothing of the snapshot was loaded."
_LARGEST = 2**63


def parse_folder(folder: str, part: str) -> Pair | None:
    """Return column and value of a folder's name, ``%XX`` decoded; None where it is not ``column=value``.

    Raises BadInput, with ``folder``, for a column or a value that is no text, or is empty.
    """
    if "=" not in part:
        return None
    left, _, right = part.partition("=")
    try:
        key, value = unquote(left, errors="strict"), unquote(right, errors="strict")
    except UnicodeDecodeError:
        key = value = ""
    if not key.strip() or not value or any(unicodedata.category(one) in ("Cc", "Cs") for one in key + value):
        cure = f"Name it <column>=<value>, as {NULL} where the value is null."
        raise BadInput(f"The folder {folder} has no column or no value in {part!r}.", kept=_KEPT, cure=cure)
    return key, None if value == NULL else value


def type_columns(files: Mapping[str, Sequence[Pair]]) -> tuple[list[Column], dict[str, tuple[Column, ...]]]:
    """Return the columns that the folders of one table make, and each file's own, which has none where the value is null.

    Integers or dates where all values of a column are, else text; an integer is what is written again as it stands
    (``01`` is text), a date is ``2024-01-31``.
    """
    import pyarrow as pa

    values: dict[str, set[str]] = {}
    for pairs in files.values():
        for key, value in pairs:
            values.setdefault(key, set()).update([] if value is None else [value])
    kinds: dict[str, tuple[pa.DataType, type[str] | type[int] | type[date]]] = {}
    for key, found in values.items():
        if found and all(map(_is_integer, found)):
            kinds[key] = pa.int64(), int
        elif found and all(map(_is_date, found)):
            kinds[key] = pa.date32(), date
        else:
            kinds[key] = pa.string(), str

    def own(key: str, value: str) -> Column:
        kind, python = kinds[key]
        said = date.fromisoformat(value) if python is date else python(value)  # type: ignore[call-arg,arg-type]
        return Column(key, kind, "property", constant=said)

    columns = [Column(key, kind, "property") for key, (kind, _) in kinds.items()]
    return columns, {
        file: tuple(own(key, value) for key, value in pairs if value is not None)
        for file, pairs in files.items()
    }


def _is_integer(value: str) -> bool:
    if len(value) > 20 or not value.isascii():
        return False
    try:
        number = int(value)
    except ValueError:
        return False
    return str(number) == value and -_LARGEST <= number < _LARGEST


def _is_date(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def check_keys(file: str, pairs: Iterable[Pair], columns: Iterable[str], taken: Iterable[str]) -> None:
    """Raise BadInput for a folder's column that the file has too, or that is ``taken``, the name of an id, end, labels or type."""
    there, meant = set(columns), {one.casefold() for one in taken}
    for key, _ in pairs:
        if key in there:
            what = f"{file}: column {key!r} is in the file and in the name of its folder too."
            raise BadInput(
                what, kept=_KEPT, cure="Leave it out of the files, or give the folders another name."
            )
        if key.casefold() in meant:
            what = f"{file}: the folder's column {key!r} has the name of an id, an end, labels or a type, which only files can hold."
            cure = "Write it as a column of the files, or give the folders another name."
            raise BadInput(what, kept=_KEPT, cure=cure)
