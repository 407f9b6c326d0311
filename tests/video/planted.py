"""Decoders that go wrong in every way there is; sandboxes import them by name."""

import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from microaction.video import ChunkFrames, VideoInfo, decode_chunk, probe
from microaction.video.windows import Span


def loop_with_the_gil() -> None:
    """A loop inside C that lets no other thread run and looks at no signal."""
    deque(count(), maxlen=0)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(7)


def eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(np.ones(32 << 20, np.uint8))


def answer_with_code() -> Any:
    """What a decoder that was taken over could send back."""
    return _Shell()


class _Shell:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch /tmp/never",)


def misbehave(name: str) -> None:
    """Does what the name of a video asks for."""
    for word, act in {
        "hang": loop_with_the_gil,
        "crash": crash,
        "killed": be_killed,
        "leave": leave,
        "hungry": eat_memory,
    }.items():
        if Path(name).name.startswith(word):
            act()


def decode_chunk_or_misbehave(source: str, span: Span, windows: Sequence[Span], **how: Any) -> ChunkFrames:
    misbehave(source)
    return decode_chunk(source, span, windows, **how)


def probe_or_misbehave(source: str) -> VideoInfo:
    misbehave(source)
    return probe(source)


def pid() -> int:
    return os.getpid()


def print_and_answer() -> np.ndarray:
    print("chatter of a library")
    sys.stdout.flush()
    os.write(1, b"more of it, from below Python")
    return np.arange(12, dtype=np.int32).reshape(3, 4)
