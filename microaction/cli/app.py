"""What all commands have in common: settings from flags, environment and a YAML file, Ray, progress, exit codes."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, NoReturn, TypeVar, cast

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from microaction import storage
from microaction.errors import EXIT_INTERRUPTED, EXIT_RETRY, EXIT_USAGE, MicroactionError
from microaction.models.settings import ModelConfig, fields_of_all_families
from microaction.settings import CommandSettings

ENV_PREFIX = "MICROACTION_"
LOG_INTERVAL_S = 60
# They report every step of every pipeline; Ray's log files have the same, and the commands report what fails.
QUIET_LOGGERS = ("ray.data", "ray.train")
# Warns that a local Ray has a token, at every start. A cluster's problems with tokens are errors, which are reported.
AUTHENTICATION_LOGGER = "ray._private.authentication"
INTERRUPTED = "stopped; run the same command again to continue"

PRESET_KEYS = {"model": "preset", "recipe": "name"}  # `--model NAME` is short for `--model.preset NAME`

console = Console(stderr=True)
Settings = TypeVar("Settings", bound=CommandSettings)
Show = Callable[[float, float, str], None]


class Terminated(KeyboardInterrupt):
    """SIGTERM: the process ends as with Ctrl-C."""


class _Sources(BaseSettings):
    """Where the settings of a command come from: flags first, then environment variables, then the YAML file."""

    model_config = SettingsConfigDict(
        extra="forbid",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
    )
    file_values: ClassVar[dict[str, Any]]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the interface
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources below the flags, which pydantic-settings puts first."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=cls.file_values)


def parse_settings(settings_class: type[Settings], argv: list[str] | None = None) -> Settings:
    """Return a command's settings from flags, `MICROACTION_…` variables and the YAML file that `--config` names.

    Prints what is wrong and exits with 2 if settings do not fit.
    """
    name = command_name(settings_class)
    try:
        command = command_class(settings_class)
        arguments = with_presets(settings_class, sys.argv[1:] if argv is None else argv)
        flags: CliSettingsSource[Any] = CliSettingsSource(
            command,
            cli_prog_name=name,
            cli_parse_args=arguments,
            add_argument_method=_add_argument,
        )
        config = flags().get("config") or os.environ.get(f"{ENV_PREFIX}CONFIG")
        command.file_values.update(_mappings(settings_class, _read_yaml(config)))
        found = command(_cli_settings_source=flags)
        return settings_class.model_validate(found.model_dump(exclude_unset=True, warnings=False))
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]).replace("_", "-")
            is_about_a_value = problem["loc"] and problem["type"] != "missing"
            given = f" (given: {problem['input']!r})" if is_about_a_value else ""
            message = problem["msg"].removeprefix("Value error, ")
            console.print(f"{where or 'settings'}: {message}{given}", markup=False, style="red", soft_wrap=True)
        exit_usage(name)
    except SettingsError as error:
        console.print(str(error), markup=False, style="red", soft_wrap=True)
        exit_usage(name)


def with_presets(settings_class: type[CommandSettings], argv: Sequence[str]) -> list[str]:
    """Return the arguments with `--model NAME` as `--model.preset NAME`, and the like, where a setting has settings itself."""
    names = {f"--{field}": key for field, key in PRESET_KEYS.items() if _has_preset(settings_class, field)}
    result: list[str] = []
    for argument in argv:
        flag, mark, value = argument.partition("=")
        is_name = flag in names and not value.startswith("{")
        result.append(f"{flag}.{names[flag]}{mark}{value}" if is_name else argument)
    return result


def _mappings(settings_class: type[CommandSettings], values: dict[str, Any]) -> dict[str, Any]:
    """Return a file's values with `model: NAME` as `model: {preset: NAME}`, and the like, so that flags can change parts."""
    return {
        name: {PRESET_KEYS[name]: value}
        if name in PRESET_KEYS and isinstance(value, str) and _has_preset(settings_class, name)
        else value
        for name, value in values.items()
    }


def _has_preset(settings_class: type[CommandSettings], name: str) -> bool:
    """Return whether a setting has settings of its own, of which one is a name."""
    field = settings_class.model_fields.get(name)
    return field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def command_name(settings_class: type[CommandSettings]) -> str:
    """Return `microaction label` for `LabelSettings`."""
    return f"microaction {settings_class.__name__.removesuffix('Settings').lower()}"


def command_class(settings_class: type[CommandSettings]) -> type[_Sources]:
    """Return the settings class with its sources, and with the configurations of all families as flags."""
    unions: dict[str, Any] = {
        name: (
            fields_of_all_families(),
            Field(default_factory=dict, description=field.description, validate_default=True),
        )
        for name, field in settings_class.model_fields.items()
        if field.annotation is ModelConfig
    }
    bases: Any = (_Sources, settings_class)
    command = cast(
        type[_Sources],
        create_model(settings_class.__name__, __base__=bases, __doc__=settings_class.__doc__, **unions),
    )
    command.file_values = {}
    return command


def exit_usage(name: str) -> NoReturn:
    """Exit with 2 after a line that names the help."""
    console.print(f"`{name} --help` lists the settings", markup=False)
    sys.exit(EXIT_USAGE)


def print_notices(what: str, notices: Iterable[str]) -> None:
    """Print what users of a checkpoint should know, in one line."""
    sentences = "; ".join(notices)
    if sentences:
        console.print(f"{what}: {sentences}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Report the project's own errors in one line and exit with their code; Ctrl-C exits with 130, SIGTERM with 1."""
    with _terminable():
        try:
            yield
        except MicroactionError as error:
            cause = getattr(error, "cause", error)  # of an error in a Ray task: without the worker's traceback
            console.print(str(cause), markup=False, style="red", highlight=False, soft_wrap=True)
            sys.exit(getattr(cause, "exit_code", error.exit_code))
        except OSError as error:
            known = None if error.filename is None else storage.local_error(error, str(error.filename))
            if known is None:
                raise
            console.print(str(known), markup=False, style="red", highlight=False, soft_wrap=True)
            sys.exit(known.exit_code)
        except KeyboardInterrupt as error:
            console.print(INTERRUPTED, style="yellow")
            sys.exit(EXIT_RETRY if isinstance(error, Terminated) else EXIT_INTERRUPTED)


@contextmanager
def running_ray() -> Iterator[None]:
    """Connect to the cluster that `RAY_ADDRESS` names or `ray start` started here, or start Ray on this machine."""
    import ray.data  # noqa: F401 - sets its logger's level, which is lowered below

    from microaction.distributed.connecting import connected_ray
    from microaction.distributed.native_log import filtered_native_log

    logging.getLogger(AUTHENTICATION_LOGGER).setLevel(logging.ERROR)
    options = {
        "logging_level": logging.WARNING,
        "log_to_driver": False,  # workers' errors arrive as exceptions; their output stays in Ray's log files
        "include_dashboard": False,
    }
    with filtered_native_log(), connected_ray(**options):
        _handle_sigterm()  # Ray has replaced the handler
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
            for handler in logging.getLogger(name).handlers:
                # The terminal: no stack traces of what is recorded or raised.
                if isinstance(handler, logging.StreamHandler):
                    handler.setLevel(logging.CRITICAL)
        yield


@contextmanager
def shown_progress(what: str) -> Iterator[Show]:
    """Yield `show(done, total, note)`: a live bar in a terminal, otherwise a line every minute."""
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
    started_s, present, ended = time.monotonic(), "waiting to start", threading.Event()

    def update(done: float, total: float, note: str) -> None:  # noqa: ARG001 - the interface
        nonlocal present
        present = note

    def log() -> None:
        while not ended.wait(LOG_INTERVAL_S):
            elapsed_s = time.monotonic() - started_s
            console.print(f"{what}: {present} after {elapsed_s:.0f} s", markup=False, soft_wrap=True)

    # A thread of its own: that nothing progresses deserves a line too.
    logger = threading.Thread(target=log, daemon=True)
    logger.start()
    try:
        yield update
    finally:
        ended.set()
        logger.join()


def _add_argument(parser: Any, *names: str, **options: Any) -> Any:
    """Add an argument to argparse; positional ones are optional there, because the YAML file or the environment may have
    them."""
    if not names or not names[0].startswith("-"):
        options |= {"nargs": "?", "default": argparse.SUPPRESS}
    return argparse._ActionsContainer.add_argument(parser, *names, **options)  # noqa: SLF001 - pydantic-settings' hook


def _read_yaml(uri: str | None) -> dict[str, Any]:
    if uri is None:
        return {}
    try:
        content = yaml.safe_load(storage.read_bytes(uri))
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {uri}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"--config {uri}: the file must hold lines 'setting: value'")
    return _with_underscores(content)


def _with_underscores(content: dict[Any, Any]) -> dict[str, Any]:
    return {
        str(name).replace("-", "_"): _with_underscores(value) if isinstance(value, dict) else value
        for name, value in content.items()
    }


@contextmanager
def _terminable() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    _handle_sigterm()
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):  # not the main thread; a handler that is not Python's
            signal.signal(signal.SIGTERM, before)


def _handle_sigterm() -> None:
    def terminate(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - the interface
        raise Terminated

    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, terminate)
