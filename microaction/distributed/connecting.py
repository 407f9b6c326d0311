"""Connecting to Ray: within seconds, or with one line that says what to do.

Ray itself waits for minutes for a cluster that is gone, and ends with a traceback where an address has another form.
"""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import ray.exceptions

from microaction.errors import TransientError, UsageError

ADDRESS = "RAY_ADDRESS"
LOCAL = "local"
PROBE_TIMEOUT_S = 5.0
# HTTP/2, which gRPC is built on (RFC 9113, 3.4): a client's preface with empty settings; a server's settings come first.
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_SETTINGS_TYPE, HTTP2_FRAME_HEADER_BYTES = 4, 9
AUTHENTICATION_ERROR = ray.exceptions.AuthenticationError.__name__  # Ray passes it on as text within other errors
CLIENT_SCHEME = "ray://"
DEFAULT_CLIENT_PORT, DEFAULT_PORT = 10001, 6379
# A path of a Unix socket has at most 107 bytes (sun_path); Ray appends up to 67 to its folder.
MAX_TEMPORARY_PATH_BYTES = 40
SHORT_TEMPORARY_FOLDER = "/tmp"  # noqa: S108 - a folder of our own is made in it


class ClusterAddressError(UsageError):
    """`RAY_ADDRESS` is not the address of a Ray cluster, or the cluster refuses this client."""


class ClusterUnavailableError(TransientError):
    """The Ray cluster does not answer."""


@contextmanager
def connected_ray(**options: Any) -> Iterator[None]:
    """Connect to the cluster of `RAY_ADDRESS`, or of `ray start` on this machine, or start Ray here; shut it down at the end.

    `options` are those of `ray.init`. Raises `ClusterAddressError` and `ClusterUnavailableError` within seconds.
    """
    address = cluster_address()
    if address == LOCAL:
        folder = short_temporary_folder()
        options |= {"_temp_dir": folder} if folder else {}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, TimeoutError, ray.exceptions.RpcError) as error:
        if AUTHENTICATION_ERROR in f"{error!r} {error.__cause__!r}":
            raise ClusterAddressError(
                f"the Ray cluster at {address} refuses this client's token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the cluster's"
            ) from error
        if address == LOCAL:
            raise
        raise ClusterUnavailableError(_no_answer(address)) from error
    try:
        yield
    finally:
        ray.shutdown()


def cluster_address() -> str:
    """Return the address of a cluster that answers, or "local". Raises as `connected_ray`."""
    given = os.environ.get(ADDRESS, "")
    if given == LOCAL:
        return LOCAL
    if given in ("", "auto"):
        found = _last_started()
        if found is not None and _speaks_grpc(found):
            return found
        if given:
            raise ClusterUnavailableError(
                f"no Ray cluster runs on this machine: start one with `ray start --head`, or unset {ADDRESS}"
            )
        return LOCAL
    if given.startswith(("http://", "https://")):
        raise ClusterAddressError(
            f"{ADDRESS} ({given}) is the address of a cluster's jobs API: submit this command with `ray job submit --address "
            f"{given} -- microaction …`, or unset {ADDRESS} to run it on this machine"
        )
    has_other_scheme = "://" in given and not given.startswith(CLIENT_SCHEME)  # of a plugin
    if not has_other_scheme and not _speaks_grpc(given):
        raise ClusterUnavailableError(_no_answer(given))
    return given


def short_temporary_folder() -> str | None:
    """Return a folder for Ray's sockets if the system's temporary folder has too long a path for them; otherwise None."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(folder)) <= MAX_TEMPORARY_PATH_BYTES:
        return None
    return str(Path(SHORT_TEMPORARY_FOLDER) / f"ray-{os.getuid()}")


def _no_answer(address: str) -> str:
    advice = f"start it, fix the address, or unset {ADDRESS} to run on this machine"
    return f"no Ray cluster answers at {address} ({ADDRESS}): {advice}"


def _last_started() -> str | None:
    """Return the address of the cluster that `ray start` started last on this machine; it may be gone."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        return (Path(folder) / "ray/ray_current_cluster").read_text().strip() or None
    except OSError:
        return None


def _speaks_grpc(address: str) -> bool:
    """Return whether a server that speaks HTTP/2 answers."""
    default_port = DEFAULT_CLIENT_PORT if address.startswith(CLIENT_SCHEME) else DEFAULT_PORT
    try:
        parts = urlsplit("//" + address.removeprefix(CLIENT_SCHEME))
        host, port = parts.hostname or "", parts.port or default_port
    except ValueError as error:
        raise ClusterAddressError(f"{ADDRESS} ({address}) must be HOST:PORT, ray://HOST:PORT, auto or local") from error
    try:
        with closing(socket.create_connection((host, port), PROBE_TIMEOUT_S)) as connection:
            connection.sendall(HTTP2_PREFACE)
            header = connection.recv(HTTP2_FRAME_HEADER_BYTES, socket.MSG_WAITALL)
            return len(header) == HTTP2_FRAME_HEADER_BYTES and header[3] == HTTP2_SETTINGS_TYPE
    except OSError:
        return False
