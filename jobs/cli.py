"""What every job's command line has in common: settings from flags and a YAML file, Ray, progress, exit codes."""

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import ray
import yaml
from pydantic import ValidationError
from pydantic_settings import SettingsError
from ray.exceptions import RayTaskError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from microaction import storage
from microaction.config import JobSettings
from microaction.errors import InterruptedRunError, UsageError

EXIT_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_TOO_MANY_FAILED = 3
SECONDS_BETWEEN_LOG_LINES = 60

# They tell every step of every pipeline; the same is in Ray's log files, and what fails is told by the job.
QUIET_LOGGERS = ("ray.data", "ray.train")

console = Console(stderr=True)
Settings = TypeVar("Settings", bound=JobSettings)


def parse_settings(settings_class: type[Settings], argv: list[str] | None = None) -> Settings:
    """The job's settings from its command line and, below it, from the YAML file that `--config` names.

    Prints what is wrong and exits with 2 where settings do not fit.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        from_file = _read_yaml(_config_path(arguments))
        # The command line's parser insists on positional settings: those of the file stand in for them there.
        positionals = [str(from_file.pop(name)) for name in positional_names(settings_class) if name in from_file]
        return settings_class(
            _cli_parse_args=[*arguments, *positionals],
            _cli_prog_name=f"python -m {job_name(settings_class)}",
            **from_file,
        )
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]).replace("_", "-")
            given = "" if problem["type"] == "missing" else f" (given: {problem['input']!r})"
            message = problem["msg"].removeprefix("Value error, ")
            console.print(f"{where or 'settings'}: {message}{given}", markup=False, style="red")
        exit_wrong_use(settings_class)
    except SettingsError as error:
        console.print(str(error), markup=False, style="red")
        exit_wrong_use(settings_class)


def job_name(settings_class: type[JobSettings]) -> str:
    return f"jobs.{settings_class.__name__.removesuffix('Settings').lower()}"


def positional_names(settings_class: type[JobSettings]) -> list[str]:
    return [
        name
        for name, field in settings_class.model_fields.items()
        if any(getattr(item, "__name__", "") == "_CliPositionalArg" for item in field.metadata)
    ]


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turns errors that tell the user what to change into one line and exit code 2, interruptions into one and 1,
    Ctrl-C into 130."""
    try:
        yield
    except UsageError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error  # without the worker's traceback
        console.print(str(cause), markup=False, style="red", soft_wrap=True)
        sys.exit(EXIT_WRONG_USE)
    except InterruptedRunError as error:
        console.print(str(error), markup=False, style="red", soft_wrap=True)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to go on", style="yellow")
        sys.exit(130)


@contextmanager
def running_ray() -> Iterator[None]:
    """Connects to the cluster that `RAY_ADDRESS` names or `ray start` began here, or starts Ray on this machine."""
    ray.init(
        logging_level=logging.WARNING,
        log_to_driver=False,  # workers' errors reach us as exceptions; their chatter stays in Ray's log files
        include_dashboard=False,
    )
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def shown_progress(what: str) -> Iterator[Callable[[float, float, str], None]]:
    """Yields `show(done, total, note)`: a live bar in a terminal, else a line now and then."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task: TaskID = bar.add_task(what, total=None, note="")

            def show(done: float, total: float, note: str) -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield show
        return
    started, present, ended = time.monotonic(), "waiting to begin", threading.Event()

    def note_down(done: float, total: float, note: str) -> None:
        nonlocal present
        present = note

    def log() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOG_LINES):
            console.print(f"{what}: {present} after {time.monotonic() - started:.0f} s", markup=False, soft_wrap=True)

    # A thread of its own: that nothing goes on is worth a line too.
    logger = threading.Thread(target=log, daemon=True)
    logger.start()
    try:
        yield note_down
    finally:
        ended.set()
        logger.join()


def _config_path(arguments: list[str]) -> str | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    path: str | None = parser.parse_known_args(arguments)[0].config
    return path


def _read_yaml(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(storage.read_bytes(path))
    except (FileNotFoundError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {path}: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path}: must hold lines 'setting: value'")
    return {str(name).replace("-", "_"): value for name, value in content.items()}


def exit_wrong_use(settings_class: type[JobSettings]) -> NoReturn:
    console.print(f"python -m {job_name(settings_class)} --help lists the settings", markup=False)
    sys.exit(EXIT_WRONG_USE)
