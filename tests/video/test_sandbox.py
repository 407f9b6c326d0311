import os
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from microaction.errors import DecoderCrashedError, DecoderTimeoutError
from microaction.video import DecodeError, decode_chunk, probe
from microaction.video.sandbox import Limits, Sandbox
from microaction.video.windows import Span
from tests.video import planted

S = 1_000_000


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(Limits(time_s=3, memory_bytes=512 << 20))
    yield sandbox
    sandbox.close()


def test_results_are_the_same_as_here(sandbox: Sandbox, counted_video: Path) -> None:
    assert sandbox.call("v", probe, str(counted_video)) == probe(counted_video)
    windows = [Span(0, 2 * S), Span(S, 3 * S)]
    here = decode_chunk(str(counted_video), Span(0, 2 * S), windows)
    there = sandbox.call("v", decode_chunk, str(counted_video), Span(0, 2 * S), windows)
    np.testing.assert_array_equal(here.frames_NHWC, there.frames_NHWC)
    np.testing.assert_array_equal(here.window_frames_WT, there.window_frames_WT)


def test_one_process_serves_many_calls(sandbox: Sandbox) -> None:
    first = sandbox.call("v", planted.pid)
    assert first != os.getpid()
    assert sandbox.call("v", planted.pid) == first


def test_what_libraries_print_is_no_reply(sandbox: Sandbox) -> None:
    np.testing.assert_array_equal(sandbox.call("v", planted.print_and_answer), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("act", "error", "reason"),
    [
        (planted.loop_with_the_gil, DecoderTimeoutError, "did not end within 3 s and was stopped"),
        (planted.crash, DecoderCrashedError, r"killed its process \(SIGSEGV\)"),
        (planted.be_killed, DecoderCrashedError, r"killed its process \(SIGKILL\)"),
        (planted.leave, DecoderCrashedError, r"ended its process \(exit code 7\)"),
        (planted.eat_memory, DecoderCrashedError, r"more than the 0\.5 GiB of memory"),
    ],
)
def test_nothing_that_a_decoder_does_gets_out(
    sandbox: Sandbox, act: Callable[[], None], error: type[DecodeError], reason: str, counted_video: Path
) -> None:
    started = time.monotonic()
    with pytest.raises(error, match=f"s3://b/v.mp4: .*{reason}"):
        sandbox.call("s3://b/v.mp4", act)
    assert time.monotonic() - started < 8
    assert sandbox.call("v", probe, str(counted_video)).num_frames == 120, "the next call finds a new process"


def test_errors_of_files_and_of_callers_stay_what_they_are(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(DecodeError, match=r"empty\.mp4: the file is empty"):
        sandbox.call("x", probe, str(tmp_path / "empty.mp4"))
    with pytest.raises(ValueError, match="windows must not be empty"):
        sandbox.call("x", decode_chunk, "v", Span(0, 1), [])
    with pytest.raises(RuntimeError, match="AttributeError: "):
        sandbox.call("x", probe, 5)  # type: ignore[arg-type]


def test_a_reply_may_not_bring_code(sandbox: Sandbox) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system is no part of a result"):
        sandbox.call("x", planted.answer_with_code)


def test_a_process_that_ended_between_calls_is_replaced(sandbox: Sandbox) -> None:
    pid = sandbox.call("v", planted.pid)
    os.kill(pid, 9)
    time.sleep(0.2)
    assert sandbox.call("v", planted.pid) != pid
