"""A TCP proxy that counts traffic (HTTP/1.1 requests to the server, bytes from it) and injects faults."""

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from urllib.parse import urlsplit

REQUEST_LINE = re.compile(rb"^(?:GET|HEAD|PUT|POST|DELETE) \S+ HTTP/1\.1\r\n", re.MULTILINE)
CHUNK_BYTES = 1 << 18
ERROR_RESPONSES = {
    "throttle": (b"503 Slow Down", b"SlowDown"),
    "conflict": (b"409 Conflict", b"ConditionalRequestConflict"),
}
BYTES_BEFORE_CUT = 100


class Proxy:
    """Counts over all connections. `num_bytes` are the bytes from the server, headers included.

    `faults` are injected into connections in turn: "throttle" responds with 503, "conflict" with 409, "reset" closes the
    connection at once, "cut" within the first response, "" injects nothing.
    """

    def __init__(self, target: str, faults: Sequence[str] = ("",), *, host: str = "127.0.0.1") -> None:
        self._faults = cycle(faults)
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server((host, 0))
        self.endpoint = f"http://{host}:{self._listener.getsockname()[1]}"
        self.num_requests = self.num_bytes = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop accepting connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                fault = next(self._faults)
                if fault in ERROR_RESPONSES:
                    threading.Thread(target=_respond, args=(client, *ERROR_RESPONSES[fault]), daemon=True).start()
                    continue
                if fault == "reset":
                    _reset(client)
                    continue
                server = socket.create_connection(self._target)
                for connection in (client, server):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(client, server, self._count_requests), daemon=True).start()
                pump = self._cut if fault == "cut" else self._pump
                threading.Thread(target=pump, args=(server, client, self._count_bytes), daemon=True).start()

    def _cut(self, source: socket.socket, sink: socket.socket, count: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            data = source.recv(CHUNK_BYTES)
            count(data)
            sink.sendall(data[:BYTES_BEFORE_CUT])
        _reset(sink)
        source.close()

    def _pump(self, source: socket.socket, sink: socket.socket, count: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                count(data)
                sink.sendall(data)
        for connection in (source, sink):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _count_requests(self, data: bytes) -> None:
        with self._lock:
            self.num_requests += len(REQUEST_LINE.findall(data))

    def _count_bytes(self, data: bytes) -> None:
        with self._lock:
            self.num_bytes += len(data)


def _respond(client: socket.socket, status: bytes, code: bytes) -> None:
    body = b"<Error><Code>%s</Code></Error>" % code
    with suppress(OSError), client:
        client.recv(CHUNK_BYTES)
        client.sendall(b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


@contextmanager
def counting_proxy(target: str, faults: Sequence[str] = ("",), *, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """Run a proxy in front of a server; its `endpoint` is what clients connect to."""
    proxy = Proxy(target, faults, host=host)
    try:
        yield proxy
    finally:
        proxy.close()
