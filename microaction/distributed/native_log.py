"""Keeps a harmless line of Ray's native code out of users' terminals."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import UnsupportedOperation

STDERR = 2
# Ray Data passes its own context to actor pools through the object store, and Ray (2.60) warns users about that, at error
# level: https://github.com/ray-project/ray/issues/53727
# Every attempt to connect; the command reports what came of it.
HARMLESS = (
    b"has constructor arguments in the object store and max_restarts > 0",
    b"Failed to connect to GCS at address",
    b"Failed to get cluster ID from GCS server",
)
DRAIN_S = 1.0


@contextmanager
def filtered_native_log() -> Iterator[None]:
    """Drop harmless lines that native code writes to the standard error of this process; Python's own go around the filter."""
    terminal = os.dup(STDERR)
    read_end, write_end = os.pipe()
    python_stderr = sys.stderr
    with suppress(UnsupportedOperation, AttributeError, ValueError):
        if sys.stderr.fileno() == STDERR:
            sys.stderr.flush()
            sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1, errors=sys.stderr.errors)
    os.dup2(write_end, STDERR)
    os.close(write_end)
    forwarder = threading.Thread(target=_forward, args=(read_end, terminal), daemon=True)
    forwarder.start()
    try:
        yield
    finally:
        if sys.stderr is not python_stderr:
            sys.stderr.close()
            sys.stderr = python_stderr
        os.dup2(terminal, STDERR)  # closes the last writing end, unless a child process holds one
        forwarder.join(DRAIN_S)
        if not forwarder.is_alive():
            os.close(terminal)


def _forward(read_end: int, terminal: int) -> None:
    with os.fdopen(read_end, "rb") as lines:
        for line in lines:
            if not any(text in line for text in HARMLESS):
                with suppress(OSError):
                    os.write(terminal, line)
