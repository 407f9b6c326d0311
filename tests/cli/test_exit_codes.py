"""How commands end: the codes of `microaction.errors.EXIT_CODES`, and one line that says what to do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from microaction.cli.app import INTERRUPTED
from microaction.errors import (
    EXIT_CODES,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_RETRY,
    EXIT_TOO_MANY_FAILED,
    EXIT_USAGE,
    DecodeError,
    InternalError,
    MicroactionError,
    TransientError,
    UsageError,
)
from microaction.labeling import pipeline
from microaction.models import CheckpointError
from microaction.registry import RegistryError
from microaction.storage import StorageError, StoreUnavailableError
from microaction.storage.lease import LeaseHeldError, hold_lease
from tests.archives import BAD, GOOD
from tests.conftest import CommandResult
from tests.labeling.decoders import RefusedDecoder, gate
from tests.videos import write_video

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

ROOT = Path(__file__).parents[2]
POLL_S = 0.05


def line_of(result: CommandResult) -> str:
    """Return the one line that a command has printed."""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    return line


def test_the_table_has_all_codes() -> None:
    assert set(EXIT_CODES) == {EXIT_DONE, EXIT_RETRY, EXIT_USAGE, EXIT_TOO_MANY_FAILED, EXIT_INTERRUPTED}
    assert set(EXIT_CODES) == {0, 1, 2, 3, 130}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (UsageError, 2),
        (CheckpointError, 2),
        (RegistryError, 2),
        (DecodeError, 2),
        (StorageError, 2),
        (StoreUnavailableError, 1),
        (LeaseHeldError, 1),
        (TransientError, 1),
        (InternalError, 1),
    ],
)
def test_every_kind_of_error_has_its_code(kind: type[MicroactionError], code: int) -> None:
    assert kind.exit_code == code


def test_done_and_too_many_failures(
    archive: Path, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    command = ("label", "--people=off", str(archive), str(tmp_path / "out"), "--model", model)
    assert job(*command, "--max-failed", "4").returncode == EXIT_DONE
    refused = job(*command, "--max-failed", "3")
    assert refused.returncode == EXIT_TOO_MANY_FAILED
    expected = "4 spans could not be labeled, more than max_failed (3): see failures/; --retry-failed retries them"
    assert expected in refused.stderr


def test_failures_of_the_store_ask_for_another_run(
    archive: Path, model: str, tmp_path: Path, job: Callable[..., CommandResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "Decoder", RefusedDecoder)
    refused = job("label", "--people=off", str(archive), str(tmp_path / "out"), "--model", model, "--max-failed", "0")
    assert refused.returncode == EXIT_RETRY
    assert (
        f"{len(GOOD)} chunks or videos failed for transient reasons (see failures/): the same command" in refused.stderr
    )
    assert f"failures (see failures/) │ {len(GOOD) + len(BAD)}" in " ".join(refused.stderr.split())


def test_a_held_lease_asks_for_another_run(
    archive: Path, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    with hold_lease(str(tmp_path / "out/_lease"), lifetime_s=1.0):
        held = job("label", "--people=off", str(archive), str(tmp_path / "out"), "--model", model)
    assert held.returncode == EXIT_RETRY
    assert line_of(held).startswith(f"process {os.getpid()} on ")
    assert line_of(held).endswith("wait until it ends, or stop it, then run the same command again")


def test_missing_inputs_are_usage_errors(tmp_path: Path, model: str, job: Callable[..., CommandResult]) -> None:
    (tmp_path / "notes.txt").write_text("x")
    folder, out, absent = str(tmp_path), str(tmp_path / "out"), str(tmp_path / "absent")
    for arguments, message in (
        (("label", folder, out, "--model", folder), f"{folder} is not a checkpoint directory"),
        (("label", absent, out, "--model", model), f"no files below {absent}: check the spelling"),
        (
            ("label", folder, out, "--model", model),
            f"no videos below {folder}: it holds 1 file that is no video (.txt 1)",
        ),
        (("label", folder, out, "--model", model, "--catalog", absent), f"no file at {absent}; `microaction catalog"),
        (("catalog", absent, out), f"no files below {absent}: check the spelling"),
        (("registry", "list", absent), f"no versions in {absent}; `microaction registry add"),
    ):
        result = job(*arguments)
        assert result.returncode == EXIT_USAGE
        assert line_of(result).startswith(message)


def test_a_renamed_text_file_as_model_is_a_usage_error(
    archive: Path, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("not yet transferred\n" * 50)
    (tmp_path / "list.txt").write_text("a.mp4 1\n")
    out = str(tmp_path / "out")
    for arguments in (
        ("label", "--people=off", str(archive), out, "--model", str(path)),
        ("evaluate", "--model", str(path), f"--clips-list={tmp_path}/list.txt", f"--videos={archive}", f"--out={out}"),
        ("registry", "add", out, str(path)),
        ("import", str(path), out),
    ):
        result = job(*arguments)
        assert result.returncode == EXIT_USAGE, arguments
        assert line_of(result).startswith(f"{path}: it cannot be read as plain weights")
        assert not Path(out).exists()


def test_an_output_of_an_earlier_format_is_a_usage_error(
    archive: Path, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "_run.json").write_text(json.dumps({"identity": {"format": 5}, "model": {}, "settings": {}}))
    for command in (
        ("label", "--people=off", str(archive), str(out), "--model", model),
        (
            "label",
            "--people=off",
            str(archive),
            str(tmp_path / "new"),
            "--model",
            model,
            "--relabel=uncertain",
            f"--base-run={out}",
        ),
    ):
        result = job(*command)
        assert result.returncode == EXIT_USAGE
        assert line_of(result) == (
            f"{out} was written by another version of microaction (format 5, this version has 7): choose another folder, or "
            "use the version that wrote it"
        )


def test_a_checkpoint_of_an_earlier_format_is_a_usage_error(
    archive: Path, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    old = Path(shutil.copytree(model, tmp_path / "old"))
    config = json.loads((old / "config.json").read_text()) | {"format": 1}
    (old / "config.json").write_text(json.dumps(config))
    result = job("label", "--people=off", str(archive), str(tmp_path / "out"), "--model", str(old))
    assert result.returncode == EXIT_USAGE
    assert line_of(result).startswith(f"{old} was written by an earlier version of microaction (format 1, this version")


@pytest.mark.parametrize(
    ("number", "code", "has_own_ray"),
    [
        pytest.param(signal.SIGTERM, EXIT_RETRY, True, id="SIGTERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, EXIT_RETRY, False, id="SIGTERM on a cluster", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, EXIT_INTERRUPTED, True, id="Ctrl-C", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, EXIT_INTERRUPTED, False, id="Ctrl-C on a cluster"),
    ],
)
def test_a_signal_ends_a_run_in_one_line(
    number: signal.Signals, code: int, has_own_ray: bool, model: str, tmp_path: Path
) -> None:
    """While one video is committed, and decoding the other does not end."""
    archive, out, log = tmp_path / "archive", tmp_path / "out", tmp_path / "log"
    archive.mkdir()
    for name in ("0.mp4", "1.mp4"):
        write_video(archive / name, num_frames=60)
    gate(archive).write_text("1")
    address = "local" if has_own_ray else ray.get_runtime_context().gcs_address
    settings = ("--model", model, "--precision", "fp32", "--chunk-s", "1", "--people", "off")
    command = [sys.executable, "-m", "tests.labeling.gated_label", str(archive), str(out), *settings]
    with log.open("w") as file:
        environment = os.environ | {"RAY_ADDRESS": address}
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
    while not list(out.glob("_chunks/*.parquet")):
        assert run.poll() is None, log.read_text()
        time.sleep(POLL_S)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        run.send_signal(number)
    assert run.wait() == code, log.read_text()
    lines = log.read_text().splitlines()
    assert lines[-1] == INTERRUPTED
    for noise in ("Traceback", "SIGTERM received", "PC: @", "constructor arguments in the object store"):
        assert not any(noise in line for line in lines), "\n".join(lines)
