"""Families: the Arrow types that ids, labels and types may have, however they are stored."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types as is_


def family(kind: pa.DataType) -> str | None:
    """Return ``string`` or ``integer`` for a type that ids may have, else None."""
    if is_.is_dictionary(kind):
        kind = kind.value_type
    if is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind):
        return "string"
    return "integer" if is_.is_integer(kind) else None


def is_text(kind: pa.DataType) -> bool:
    """True for strings however they are stored, and for a column that is null throughout."""
    return family(kind) == "string" or bool(is_.is_null(kind))


def is_text_list(kind: pa.DataType) -> bool:
    """True for a list of strings."""
    listed = is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind)
    return bool(listed and is_text(kind.value_type))
