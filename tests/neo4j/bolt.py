"""As much of the Bolt protocol as a gateway needs: framing, PackStream, and a plain client connection.

Written from the published protocol description, version 5.4.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

MAGIC = b"\x60\x60\xb0\x17"
VERSION = (5, 4)
HELLO, LOGON, LOGOFF, GOODBYE, RESET = 0x01, 0x6A, 0x6B, 0x02, 0x0F
RUN, BEGIN, COMMIT, ROLLBACK, PULL, DISCARD = 0x10, 0x11, 0x12, 0x13, 0x3F, 0x2F
ROUTE, TELEMETRY = 0x66, 0x54
SUCCESS, RECORD, IGNORED, FAILURE = 0x70, 0x71, 0x7E, 0x7F


class Closed(Exception):
    """The other side is gone."""


class Wire:
    """Messages over a socket; each is a structure of PackStream, handed on as bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = connection.makefile("rb")

    def read(self, size: int) -> bytes:
        try:
            data = self._in.read(size)
        except (OSError, ValueError) as error:
            raise Closed from error
        if data is None or len(data) < size:
            raise Closed
        return data

    def receive(self) -> bytes:
        """One message without its framing."""
        parts = []
        while True:
            size = struct.unpack(">H", self.read(2))[0]
            if size:
                parts.append(self.read(size))
            elif parts:
                return b"".join(parts)

    def send(self, message: bytes) -> None:
        framed = bytearray()
        for start in range(0, len(message), 0xFFFF):
            chunk = message[start : start + 0xFFFF]
            framed += struct.pack(">H", len(chunk)) + chunk
        try:
            self.socket.sendall(framed + b"\0\0")
        except OSError as error:
            raise Closed from error

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def connect(port: int, user: str, password: str) -> Wire:
    """A logged-in connection to a server on this machine; raises Closed."""
    try:
        wire = Wire(socket.create_connection(("127.0.0.1", port), timeout=10))
    except OSError as error:
        raise Closed from error
    wire.socket.settimeout(None)
    major, minor = VERSION
    wire.socket.sendall(MAGIC + bytes([0, 0, minor, major]) + bytes(12))
    if wire.read(4) != bytes([0, 0, minor, major]):
        raise Closed
    for message in (
        pack_message(HELLO, {"user_agent": "gateway/1", "bolt_agent": {"product": "gateway/1"}}),
        pack_message(LOGON, {"scheme": "basic", "principal": user, "credentials": password}),
    ):
        wire.send(message)
        if wire.receive()[1] != SUCCESS:
            raise Closed
    return wire


def pack_message(signature: int, *fields: Any) -> bytes:
    return bytes([0xB0 + len(fields), signature]) + b"".join(pack(one) for one in fields)


def pack(value: Any) -> bytes:
    """PackStream for plain values."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _pack_int(value)
        case float():
            return b"\xc1" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return _size(len(data), 0x80, (0xD0, 0xD1, 0xD2)) + data
        case list() | tuple():
            return _size(len(value), 0x90, (0xD4, 0xD5, 0xD6)) + b"".join(map(pack, value))
        case Mapping():
            pairs = b"".join(pack(key) + pack(one) for key, one in value.items())
            return _size(len(value), 0xA0, (0xD8, 0xD9, 0xDA)) + pairs
    raise TypeError(f"cannot pack {type(value)}")


def _pack_int(value: int) -> bytes:
    if -16 <= value < 128:
        return struct.pack(">b", value)
    for mark, form, bits in ((0xC8, ">b", 8), (0xC9, ">h", 16), (0xCA, ">i", 32), (0xCB, ">q", 64)):
        if -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            return bytes([mark]) + struct.pack(form, value)
    raise ValueError(value)


def _size(length: int, tiny: int, marks: tuple[int, int, int]) -> bytes:
    if length < 16:
        return bytes([tiny + length])
    for mark, form, most in zip(marks, (">B", ">H", ">I"), (2**8, 2**16, 2**32), strict=True):
        if length < most:
            return bytes([mark]) + struct.pack(form, length)
    raise ValueError(length)


def unpack_message(message: bytes) -> tuple[int, list[Any]]:
    """Signature and fields of a message."""
    reader = _Unpacker(message, 2)
    return message[1], [reader.value() for _ in range(message[0] & 0x0F)]


class _Unpacker:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def value(self) -> Any:
        mark = self.data[self.at]
        self.at += 1
        if mark < 0x80 or mark >= 0xF0:
            return mark if mark < 0x80 else mark - 256
        if mark >= 0xC0 and mark in _PLAIN:
            return _PLAIN[mark]
        if mark in _NUMBERS:
            return self._number(_NUMBERS[mark])
        kind, length = self._head(mark)
        return kind(self, length)

    def _number(self, form: str) -> Any:
        size = struct.calcsize(form)
        self.at += size
        return struct.unpack(form, self.data[self.at - size : self.at])[0]

    def _head(self, mark: int) -> tuple[Any, int]:
        if mark < 0xC0:
            return _TINY[mark & 0xF0], mark & 0x0F
        kind, form = _LONG[mark]
        return kind, self._number(form)

    def text(self, length: int) -> str:
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def raw(self, length: int) -> bytes:
        self.at += length
        return self.data[self.at - length : self.at]

    def list(self, length: int) -> Any:
        return [self.value() for _ in range(length)]

    def map(self, length: int) -> Any:
        return {self.value(): self.value() for _ in range(length)}

    def structure(self, length: int) -> Any:
        self.at += 1
        return ("structure", [self.value() for _ in range(length)])


_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {0xC1: ">d", 0xC8: ">b", 0xC9: ">h", 0xCA: ">i", 0xCB: ">q"}
_TINY = {0x80: _Unpacker.text, 0x90: _Unpacker.list, 0xA0: _Unpacker.map, 0xB0: _Unpacker.structure}
_LONG = {
    0xD0: (_Unpacker.text, ">B"), 0xD1: (_Unpacker.text, ">H"), 0xD2: (_Unpacker.text, ">I"),
    0xD4: (_Unpacker.list, ">B"), 0xD5: (_Unpacker.list, ">H"), 0xD6: (_Unpacker.list, ">I"),
    0xD8: (_Unpacker.map, ">B"), 0xD9: (_Unpacker.map, ">H"), 0xDA: (_Unpacker.map, ">I"),
    0xCC: (_Unpacker.raw, ">B"), 0xCD: (_Unpacker.raw, ">H"), 0xCE: (_Unpacker.raw, ">I"),
}  # fmt: skip
