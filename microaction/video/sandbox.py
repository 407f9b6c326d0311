"""Runs a decoder in a process of its own, so that whatever a file does to it is that file's failure and nobody else's.

Native decoders may crash, loop for ever without letting Python in, or eat all memory. The process here is ended from outside
when its time is up, cannot take more memory than it is given, and is replaced after either. It stays for further calls
otherwise: starting one takes about a second.
"""

import io
import math
import os
import pickle
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, ParamSpec, TypeVar

from microaction.errors import DecodeError, DecoderCrashedError, DecoderTimeoutError, InvalidRegionError
from microaction.storage import StorageError

# What a result may be made of: the process may have been taken over by the file that it decoded.
RESULT_TYPES = {
    ("builtins", "bytearray"),
    ("fractions", "Fraction"),
    ("microaction.errors", "DecodeError"),
    ("microaction.video.probing", "VideoInfo"),
    ("microaction.video.decode", "ChunkFrames"),
    ("microaction.video.proxy", "Proxy"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
}
MAX_RESULT_BYTES = 4 << 30
GRACE_S = 5  # after its time the process ends itself, should whoever started it be gone
WORD_BYTES = 8

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """What one call may take; memory is beyond what the idle process has."""

    time_s: float = 600.0
    memory_bytes: int = 4 << 30


class Sandbox:
    """A process for calls, started with the first one. Between calls `limits` may give the next one another time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, uri: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """`function(*args, **kwargs)` there; the function must be importable, `uri` names the video in messages.

        Raises `DecodeError`, `ValueError` and `StorageError` as the function does, `DecoderTimeoutError`,
        `DecoderCrashedError`, and `RuntimeError` for any other error of the function.
        """
        request = pickle.dumps((self.limits.time_s, function, args, kwargs))
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(len(request).to_bytes(WORD_BYTES, "big") + request)
            process.stdin.flush()
            kind, result = _Reply(process, time.monotonic() + self.limits.time_s).read()
        except TimeoutError:
            self.close()
            reason = f"decoding it did not end within {self.limits.time_s:g} s and was stopped"
            raise DecoderTimeoutError(uri, reason) from None
        except (EOFError, OSError):
            raise DecoderCrashedError(uri, self._cause_of_death()) from None
        except BaseException:  # the process is busy with a call that nobody waits for
            self.close()
            raise
        if kind == "result":
            return result  # type: ignore[no-any-return]  # the function's own
        if kind == "memory":
            self.close()
            raise DecoderCrashedError(
                uri, f"decoding it takes more than the {self.limits.memory_bytes / 2**30:g} GiB of memory that it may"
            )
        if isinstance(result, DecodeError):
            raise result
        raise {"value": ValueError, "region": InvalidRegionError, "storage": StorageError}.get(kind, RuntimeError)(
            result
        )

    def close(self) -> None:
        """Ends the process; the next call starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(  # noqa: S603 - this very module
                [sys.executable, "-m", __name__, str(self.limits.memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # The same modules as here, and one thread: a decoder has a core.
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for whoever waits
            )
        return self._process

    def _cause_of_death(self) -> str:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        code = self._process.poll()
        self.close()
        if code is not None and code < 0:
            return f"decoding it killed its process ({signal.Signals(-code).name})"
        return f"decoding it ended its process (exit code {code})"


_sandboxes: dict[int, Sandbox] = {}  # by the memory that they have


def sandboxed(uri: str, limits: Limits, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`Sandbox.call` in a sandbox that this process keeps."""
    sandbox = _sandboxes.setdefault(limits.memory_bytes, Sandbox(limits))
    sandbox.limits = limits
    return sandbox.call(uri, function, *args, **kwargs)


class _Reply:
    """Reads one reply: the pickle's length, the number of its arrays, their lengths, the pickle, the arrays."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        assert process.stdout is not None
        self._file = process.stdout.fileno()
        self._deadline = deadline
        os.set_blocking(self._file, False)

    def read(self) -> tuple[str, Any]:
        with selectors.DefaultSelector() as selector:
            selector.register(self._file, selectors.EVENT_READ)
            self._selector = selector
            length, num_buffers = self._word(), self._word()
            lengths = [self._word() for _ in range(num_buffers)]
            if length + sum(lengths) > MAX_RESULT_BYTES:
                raise OSError("a reply that long is none")
            content = self._bytes(length)
            buffers = [self._bytes(size) for size in lengths]
        reply: tuple[str, Any] = _ResultUnpickler(io.BytesIO(content), buffers=buffers).load()
        return reply

    def _word(self) -> int:
        return int.from_bytes(self._bytes(WORD_BYTES), "big")

    def _bytes(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0 or not self._selector.select(left_s):
                raise TimeoutError
            got = os.readv(self._file, [view])
            if not got:
                raise EOFError
            view = view[got:]
        return data


class _ResultUnpickler(pickle.Unpickler):
    """Takes numbers, texts, arrays and our own results; refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in RESULT_TYPES:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a result")
        return super().find_class(module, name)


def _serve(memory_bytes: int) -> NoReturn:
    """The process itself: answers calls until its input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no reply
    _limit_memory(memory_bytes)
    while header := sys.stdin.buffer.read(WORD_BYTES):
        request = sys.stdin.buffer.read(int.from_bytes(header, "big"))
        try:
            time_s, function, args, kwargs = pickle.loads(request)  # noqa: S301 - from our parent
            signal.alarm(math.ceil(time_s) + GRACE_S)  # the system's own doing, whatever Python is kept from
            reply: tuple[str, Any] = ("result", function(*args, **kwargs))
        except DecodeError as error:
            reply = ("error", DecodeError(error.uri, error.reason))
        except MemoryError:
            reply = ("memory", None)
        except InvalidRegionError as error:
            reply = ("region", str(error))
        except ValueError as error:
            reply = ("value", str(error))
        except StorageError as error:
            reply = ("storage", str(error))
        except Exception as error:
            reply = ("unexpected", f"{type(error).__name__}: {error}")
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(reply, protocol=5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        for word in (len(content), len(views), *(len(view) for view in views)):
            replies.write(word.to_bytes(WORD_BYTES, "big"))
        replies.write(content)
        for view in views:
            replies.write(view)
        replies.flush()
        signal.alarm(0)
    sys.exit(0)


def _limit_memory(memory_bytes: int) -> None:
    """Bounds the address space, and offers this process first should the machine run out of memory all the same."""
    with suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory_bytes,) * 2)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
