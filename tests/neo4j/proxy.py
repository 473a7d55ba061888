"""A small TCP proxy that loses answers and cuts connections at a chosen message."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.neo4j.servers import free_port

COMMIT = b"\x00\x02\xb0\x12\x00\x00"


@dataclass
class Proxy:
    """Forwards to a port of this machine; ``lose`` answers to COMMIT are dropped with their connection."""

    behind: int
    port: int = field(default_factory=free_port)
    lose: int = 0
    lost: int = 0
    cut_after: int | None = None  # bytes towards the server, over all connections
    passed: int = 0
    pairs: list[tuple[socket.socket, socket.socket]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def listen(self, door: socket.socket) -> None:
        while True:
            try:
                front, _ = door.accept()
            except OSError:
                return
            try:
                back = socket.create_connection(("127.0.0.1", self.behind))
            except OSError:
                front.close()
                continue
            self.pairs.append((front, back))
            doomed = threading.Event()
            for source, goal, to_server in ((front, back, True), (back, front, False)):
                threading.Thread(
                    target=self._pump, args=(source, goal, doomed, to_server), daemon=True
                ).start()

    def _pump(
        self, source: socket.socket, goal: socket.socket, doomed: threading.Event, to_server: bool
    ) -> None:
        while True:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            if not data or (not to_server and doomed.is_set()):
                break
            if to_server:
                self._look(data, doomed)
            try:
                goal.sendall(data)
            except OSError:
                break
            if to_server and self._is_cut():
                break
        for one in (source, goal):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _look(self, data: bytes, doomed: threading.Event) -> None:
        with self.lock:
            self.passed += len(data)
            if data.endswith(COMMIT) and self.lost < self.lose:
                self.lost += 1
                doomed.set()

    def _is_cut(self) -> bool:
        with self.lock:
            if self.cut_after is not None and self.passed > self.cut_after:
                self.cut_after = None
                return True
        return False


@contextmanager
def proxy(behind: int, port: int | None = None) -> Iterator[Proxy]:
    one = Proxy(behind, port or free_port())
    with socket.create_server(("127.0.0.1", one.port), backlog=64) as door:
        threading.Thread(target=one.listen, args=(door,), daemon=True).start()
        try:
            yield one
        finally:
            for pair in one.pairs:
                for end in pair:
                    end.close()
