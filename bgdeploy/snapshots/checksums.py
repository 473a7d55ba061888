"""Checksums: what a Parquet file keeps of its own pages, compared with them.

A page that was damaged on a disk or on its way and still decodes is a wrong value that no reader notices: neither DuckDB nor
the engine looks at the checksum that Spark and other writers keep of each page. Computing them takes no decoding. Where a
file has none, nobody can know. For child processes: it parses what files say.

Layout and meaning: ``PageHeader`` in parquet.thrift (a CRC-32 of the page as it is stored, without its header), in
Thrift's compact protocol.
"""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

import pyarrow.parquet as pq

from bgdeploy.errors import BadInput
from bgdeploy.snapshots.source import LIVE

_KINDS = 4  # of pages
_SIZE, _CRC = 3, 4  # fields of a page's header
_PIECE = 1 << 24  # bytes looked at before they are given back: mapped pages count as this process's memory
_CURE = "Write or copy it once more; the snapshot is looked at again by itself when it has changed."


def check_checksums(path: Path, name: str) -> None:
    """Raise BadInput, with file and column, for a page that is not what its checksum says; ``name`` is what errors call the file."""
    footer = pq.read_metadata(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number in range(footer.num_row_groups):
            group = footer.row_group(number)
            for place in range(group.num_columns):
                chunk = group.column(place)
                first = chunk.dictionary_page_offset if chunk.has_dictionary_page else None
                start = min(first or chunk.data_page_offset, chunk.data_page_offset)
                if not _is_right(data, start, min(len(data), start + chunk.total_compressed_size)):
                    raise BadInput(
                        f"{name} is damaged: a page of column {chunk.path_in_schema!r} is not what its checksum says.",
                        kept=LIVE,
                        cure=_CURE,
                    )


def _is_right(data: mmap.mmap, at: int, end: int) -> bool:
    """False where a page differs from its checksum. What is no header is left to those who decode it."""
    kept = at - at % mmap.PAGESIZE
    try:
        while at < end:
            found, at = _read_header(data, at)
            size, checksum = found.get(_SIZE, -1), found.get(_CRC)
            if checksum is None or size < 0 or at + size > end or not 0 <= found.get(1, -1) < _KINDS:
                return True
            if zlib.crc32(memoryview(data)[at : at + size]) != checksum & 0xFFFFFFFF:
                return False
            at += size
            if at - kept > _PIECE or at >= end:
                ahead = at - at % mmap.PAGESIZE
                data.madvise(mmap.MADV_DONTNEED, kept, max(mmap.PAGESIZE, ahead - kept))
                kept = ahead
    except (IndexError, ValueError, RecursionError):
        return True
    return True


def _read_header(data: mmap.mmap, at: int) -> tuple[dict[int, int], int]:
    """The integers of a struct by the numbers of their fields, and where it ends."""
    found: dict[int, int] = {}
    field = 0
    while (head := data[at]) != 0:
        at += 1
        kind, step = head & 0x0F, head >> 4
        if step:
            field += step
        else:
            field, at = _integer(data, at)
        if kind in (4, 5, 6):
            found[field], at = _integer(data, at)
        else:
            at = _skip(data, at, kind)
    return found, at + 1


def _skip(data: mmap.mmap, at: int, kind: int) -> int:
    """Where the value of this kind ends."""
    if kind in (1, 2):  # a boolean is its own kind
        return at
    if kind == 3:
        return at + 1
    if kind in (4, 5, 6):
        return _varint(data, at)[1]
    if kind == 7:
        return at + 8
    if kind == 8:
        size, at = _varint(data, at)
        return at + size
    if kind in (9, 10):
        head, at = data[at], at + 1
        count, of = head >> 4, head & 0x0F
        if count == 15:
            count, at = _varint(data, at)
        for _ in range(count):
            if at >= len(data):
                raise ValueError("the list is longer than its file")
            at = at + 1 if of in (1, 2) else _skip(data, at, of)
        return at
    if kind == 12:
        return _read_header(data, at)[1]
    raise ValueError(f"no page's header has values of the kind {kind}")


def _integer(data: mmap.mmap, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at, value = at + 1, value | (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("no integer is that long")
