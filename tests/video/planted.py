"""Decoders that fail in every possible way; sandboxes import this module by name."""

import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from microaction.storage import StoreUnavailableError
from microaction.video import ChunkFrames, decode_chunk
from microaction.video.windows import Span


def hang_holding_gil() -> None:
    """Loop forever inside C: no other thread runs, and no signal handler of Python."""
    deque(count(), maxlen=0)


def crash() -> None:
    """Die of a segmentation fault."""
    os.kill(os.getpid(), signal.SIGSEGV)


def be_killed() -> None:
    """Die as if the kernel's out-of-memory killer chose this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def exit_process() -> None:
    """End the process with exit code 7."""
    os._exit(7)


def exhaust_memory() -> None:
    """Allocate memory until there is none."""
    arrays = []
    while True:
        arrays.append(np.ones(32 << 20, np.uint8))


def find_the_store_unreachable() -> None:
    """Fail as reading a video does while its store does not respond."""
    raise StoreUnavailableError("s3://b/v.mp4: the store does not respond")


def return_code() -> Any:
    """Return an object that runs a shell command when it is unpickled, as a decoder that was taken over could."""
    return _Shell()


class _Shell:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/never",)


def misbehave(name: str) -> None:
    """Fail in the way that the name of a video begins with."""
    for prefix, act in {
        "hang": hang_holding_gil,
        "crash": crash,
        "killed": be_killed,
        "leave": exit_process,
        "hungry": exhaust_memory,
    }.items():
        if Path(name).name.startswith(prefix):
            act()


def decode_chunk_or_misbehave(source: str, span: Span, windows: Sequence[Span], **options: Any) -> ChunkFrames:
    """Fail as `misbehave` does, or decode the chunk."""
    misbehave(source)
    return decode_chunk(source, span, windows, **options)


def pid() -> int:
    """Return the id of the process."""
    return os.getpid()


def print_and_return() -> np.ndarray:
    """Print to standard output, from Python and from below it, and return an array."""
    print("output of a library")
    sys.stdout.flush()
    os.write(1, b"more of it, from below Python")
    return np.arange(12, dtype=np.int32).reshape(3, 4)
