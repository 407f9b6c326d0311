"""A TCP proxy on loopback that counts what goes through: the requests of HTTP/1.1 one way, bytes the other."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

REQUEST_LINE = re.compile(rb"^(?:GET|HEAD|PUT|POST|DELETE) \S+ HTTP/1\.1\r\n", re.MULTILINE)
CHUNK_BYTES = 1 << 18


class Proxy:
    """Counts over all connections; `num_bytes` are those that came from the server, headers included."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.num_requests = self.num_bytes = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(client, server, self._count_requests), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, self._count_bytes), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, count: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                count(data)
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _count_requests(self, data: bytes) -> None:
        with self._lock:
            self.num_requests += len(REQUEST_LINE.findall(data))

    def _count_bytes(self, data: bytes) -> None:
        with self._lock:
            self.num_bytes += len(data)


@contextmanager
def counting_proxy(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
