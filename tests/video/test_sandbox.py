import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from microaction.errors import DecoderCrashedError, DecoderTimeoutError, InvalidRegionError
from microaction.storage import StoreUnavailableError
from microaction.video import DecodeError, Framing, Region, decode_chunk, probe
from microaction.video.sandbox import Limits, Sandbox
from microaction.video.windows import Span
from tests.video import planted

S = 1_000_000
LIMITS = Limits(time_s=600, memory_bytes=512 << 20)
HANG_TIME_S = 0.5


@pytest.fixture(scope="module")
def module_sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox(LIMITS)
    yield sandbox
    sandbox.close()


@pytest.fixture
def sandbox(module_sandbox: Sandbox) -> Sandbox:
    module_sandbox.limits = LIMITS
    return module_sandbox


def test_results_are_the_same_as_without_a_sandbox(sandbox: Sandbox, counted_video: Path) -> None:
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


def test_output_of_libraries_is_not_part_of_the_reply(sandbox: Sandbox) -> None:
    np.testing.assert_array_equal(sandbox.call("v", planted.print_and_return), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(
    ("time_s", "act", "error", "reason"),
    [
        (HANG_TIME_S, planted.hang_holding_gil, DecoderTimeoutError, r"did not finish within 0\.5 s and was stopped"),
        (LIMITS.time_s, planted.crash, DecoderCrashedError, "process was killed by SIGSEGV"),
        (LIMITS.time_s, planted.be_killed, DecoderCrashedError, "process was killed by SIGKILL"),
        (LIMITS.time_s, planted.exit_process, DecoderCrashedError, "process exited with code 7"),
        (LIMITS.time_s, planted.exhaust_memory, DecoderCrashedError, r"exceeded its memory limit of 0\.5 GiB"),
    ],
    ids=["hang", "crash", "killed", "exit", "memory"],
)
def test_a_failing_decoder_fails_its_own_call_alone(
    sandbox: Sandbox,
    time_s: float,
    act: Callable[[], None],
    error: type[DecodeError],
    reason: str,
    counted_video: Path,
) -> None:
    pid = sandbox.call("v", planted.pid)
    sandbox.limits = Limits(time_s, LIMITS.memory_bytes)
    with pytest.raises(error, match=f"s3://b/v.mp4: .*{reason}"):
        sandbox.call("s3://b/v.mp4", act)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    sandbox.limits = LIMITS
    assert sandbox.call("v", probe, str(counted_video)).num_frames == 120, "the next call starts a new process"


def test_errors_keep_their_type(sandbox: Sandbox, counted_video: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(DecodeError, match=r"empty\.mp4: the file is empty"):
        sandbox.call("x", probe, str(tmp_path / "empty.mp4"))
    with pytest.raises(ValueError, match="windows must not be empty"):
        sandbox.call("x", decode_chunk, "v", Span(0, 1), [])
    with pytest.raises(InvalidRegionError, match="does not lie inside the frame of 96×64"):
        sandbox.call(
            "x", decode_chunk, str(counted_video), Span(0, S), [Span(0, S)], framing=Framing(region=Region(0, 0, 97, 1))
        )
    with pytest.raises(StoreUnavailableError, match=r"^s3://b/v\.mp4: the store does not respond$"):
        sandbox.call("x", planted.find_the_store_unreachable)
    with pytest.raises(RuntimeError, match="AttributeError: "):
        sandbox.call("x", probe, 5)  # type: ignore[arg-type]


def test_a_reply_cannot_run_code(sandbox: Sandbox) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system is not allowed in a result"):
        sandbox.call("x", planted.return_code)


def test_a_process_that_ended_between_calls_is_replaced(sandbox: Sandbox) -> None:
    pid = sandbox.call("v", planted.pid)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # ended, and left for the sandbox to notice
    assert sandbox.call("v", planted.pid) != pid
