"""Runs decoders in a process of their own, so that a file that breaks one fails alone.

Native decoders may crash, loop forever without releasing the GIL, or exhaust memory. The process is killed from outside
when a call exceeds its time limit, cannot allocate more than its memory limit, and is replaced after either. Otherwise
it is reused for further calls: starting one takes about a second.
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
from microaction.storage import StorageError, StoreUnavailableError

# The only types that a result may contain: the file may have taken over the process that decoded it.
RESULT_TYPES = {
    ("builtins", "bytearray"),
    ("fractions", "Fraction"),
    ("microaction.errors", "DecodeError"),
    ("microaction.video.probing", "VideoInfo"),
    ("microaction.video.decode", "ChunkFrames"),
    ("microaction.video.decoding.timeline", "SeekPoint"),
    ("microaction.video.proxy", "Proxy"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
}
# Errors of a function that keep their type; subclasses come first.
FORWARDED_ERRORS = (InvalidRegionError, ValueError, StoreUnavailableError, StorageError)
MAX_RESULT_BYTES = 4 << 30
GRACE_S = 5  # after its time limit the process ends by itself, in case its parent is gone
WORD_BYTES = 8

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """Limits of one call. The memory is in addition to what the idle process uses."""

    time_s: float = 600.0
    memory_bytes: int = 4 << 30


class Sandbox:
    """A process for calls, started by the first one. Assign `limits` to change the time limit of later calls."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, uri: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(*args, **kwargs)`, computed in the process.

        The function must be importable; `uri` names the video in messages. Raises `DecodeError` and `FORWARDED_ERRORS` as
        the function does, `DecoderTimeoutError`, `DecoderCrashedError`, and `RuntimeError` for any other error of the
        function.
        """
        request = pickle.dumps((self.limits.time_s, function, args, kwargs))
        process = self._ensure_process()
        assert process.stdin is not None
        try:
            process.stdin.write(len(request).to_bytes(WORD_BYTES, "big") + request)
            process.stdin.flush()
            kind, result = _ReplyReader(process, time.monotonic() + self.limits.time_s).read()
        except TimeoutError:
            self.close()
            reason = f"decoding did not finish within {self.limits.time_s:g} s and was stopped"
            raise DecoderTimeoutError(uri, reason) from None
        except (EOFError, OSError):
            raise DecoderCrashedError(uri, self._exit_reason()) from None
        except BaseException:  # the process is busy with a call whose result is no longer needed
            self.close()
            raise
        if kind == "result":
            return result  # type: ignore[no-any-return]  # the function's own type
        if kind == "memory":
            self.close()
            limit_gib = self.limits.memory_bytes / 2**30
            raise DecoderCrashedError(uri, f"decoding exceeded its memory limit of {limit_gib:g} GiB")
        if isinstance(result, DecodeError):
            raise result
        raise next((error for error in FORWARDED_ERRORS if error.__name__ == kind), RuntimeError)(result)

    def close(self) -> None:
        """Kill the process; the next call starts a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _ensure_process(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(  # noqa: S603 - this very module
                [sys.executable, "-m", __name__, str(self.limits.memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # The same modules as here, and one thread: each decoder has one core.
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                | {"OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"},
                start_new_session=True,  # Ctrl-C goes to the parent alone
            )
        return self._process

    def _exit_reason(self) -> str:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        code = self._process.poll()
        self.close()
        if code is None:
            return "the decoder's process sent an invalid reply"
        if code < 0:
            return f"the decoder's process was killed by {signal.Signals(-code).name}"
        return f"the decoder's process exited with code {code}"


_sandboxes: dict[int, Sandbox] = {}  # by memory limit


def sandboxed(uri: str, limits: Limits, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return the result of `Sandbox.call` in a sandbox that this process keeps for further calls."""
    sandbox = _sandboxes.setdefault(limits.memory_bytes, Sandbox(limits))
    sandbox.limits = limits
    return sandbox.call(uri, function, *args, **kwargs)


class _ReplyReader:
    """Reads one reply: the length of the pickle, the number of its arrays, their lengths, the pickle, the arrays."""

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
                raise OSError(f"the reply is longer than {MAX_RESULT_BYTES} bytes")
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
            remaining_s = self._deadline - time.monotonic()
            if remaining_s <= 0 or not self._selector.select(remaining_s):
                raise TimeoutError
            num_read = os.readv(self._file, [view])
            if not num_read:
                raise EOFError
            view = view[num_read:]
        return data


class _ResultUnpickler(pickle.Unpickler):
    """Unpickles numbers, strings, arrays and this package's own results; refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in RESULT_TYPES:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a result")
        return super().find_class(module, name)


def _serve(memory_bytes: int) -> NoReturn:
    """Run the process: reply to calls until its input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print to standard error, not into the replies
    _limit_memory(memory_bytes)
    import cv2  # slow, and not needed by those who call

    cv2.setNumThreads(1)  # a task has one core, and a node as many tasks as cores
    while header := sys.stdin.buffer.read(WORD_BYTES):
        request = sys.stdin.buffer.read(int.from_bytes(header, "big"))
        try:
            time_s, function, args, kwargs = pickle.loads(request)  # noqa: S301 - from our parent
            signal.alarm(math.ceil(time_s) + GRACE_S)  # the system ends the process, even while a C loop holds the GIL
            reply: tuple[str, Any] = ("result", function(*args, **kwargs))
        except DecodeError as error:
            reply = ("error", DecodeError(error.uri, error.reason))
        except MemoryError:
            reply = ("memory", None)
        except FORWARDED_ERRORS as error:
            kind = next(kind for kind in FORWARDED_ERRORS if isinstance(error, kind))
            reply = (kind.__name__, str(error))
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
    """Limit the address space, and make this process the first that Linux kills if the node runs out of memory."""
    with suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory_bytes,) * 2)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
