"""Addresses of clusters that do not answer, or are none: one line within seconds, before Ray is asked."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from microaction.distributed import connecting
from microaction.distributed.connecting import (
    HTTP2_PREFACE,
    HTTP2_SETTINGS_TYPE,
    LOCAL,
    ClusterAddressError,
    ClusterUnavailableError,
    cluster_address,
    short_temporary_folder,
)
from microaction.errors import EXIT_RETRY, EXIT_USAGE

SETTINGS = bytes([0, 0, 0, HTTP2_SETTINGS_TYPE, 0, 0, 0, 0, 0])


@contextmanager
def server(reply: bytes) -> Iterator[str]:
    """Answer one connection; yield the address."""
    received: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                received.append(connection.recv(1024))
                connection.sendall(reply)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()
    assert received == [HTTP2_PREFACE]


@pytest.fixture
def closed_port() -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_answers_is_used(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(SETTINGS) as address:
        monkeypatch.setenv("RAY_ADDRESS", scheme + address)
        assert cluster_address() == scheme + address


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_gone_is_one_line(scheme: str, closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", scheme + closed_port)
    with pytest.raises(
        ClusterUnavailableError, match=f"no Ray cluster answers at {scheme}{closed_port} .*unset RAY_ADD"
    ):
        cluster_address()
    assert ClusterUnavailableError.exit_code == EXIT_RETRY


def test_another_server_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for reply in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""):
        with server(reply) as address:
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(ClusterUnavailableError):
                cluster_address()


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "PROBE_TIMEOUT_S", 0.05)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(ClusterUnavailableError):
            cluster_address()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "submit this command with `ray job submit --address http://127.0.0.1:8265"),
        ("https://ray.example.org", "is the address of a cluster's jobs API"),
        ("127.0.0.1:port", "must be HOST:PORT, ray://HOST:PORT, auto or local"),
    ],
)
def test_other_addresses_are_usage_errors(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterAddressError, match=message):
        cluster_address()
    assert ClusterAddressError.exit_code == EXIT_USAGE


def test_a_session_whose_head_was_killed_is_ignored(
    closed_port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS")
    assert cluster_address() == LOCAL
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(closed_port)
    assert cluster_address() == LOCAL
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ClusterUnavailableError, match="no Ray cluster runs on this machine"):
        cluster_address()
    with server(SETTINGS) as address:
        (tmp_path / "ray/ray_current_cluster").write_text(address)
        assert cluster_address() == address


def test_a_long_temporary_folder_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert short_temporary_folder() is None
    monkeypatch.setenv("RAY_TMPDIR", "/scratch/" + 90 * "x")
    folder = short_temporary_folder()
    assert folder is not None
    assert len(folder) < 40
