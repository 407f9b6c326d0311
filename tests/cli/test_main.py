"""The command `microaction` itself: help and version."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from microaction import __version__
from microaction.cli import COMMANDS
from microaction.cli.demo import DemoSettings
from microaction.clips.settings import PackSettings
from microaction.evaluation.settings import EvaluateSettings, ImportSettings
from microaction.export.settings import ExportSettings, PageSettings
from microaction.labeling.settings import CatalogSettings, LabelSettings, PeopleSettings
from microaction.registry.settings import RegistrySettings
from microaction.retraining.settings import RetrainSettings
from microaction.skeletons.settings import SkeletonsSettings
from microaction.training.settings import TrainSettings
from tests.conftest import CommandResult

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, type[BaseModel]] = {
    "label": LabelSettings,
    "catalog": CatalogSettings,
    "people": PeopleSettings,
    "page": PageSettings,
    "export": ExportSettings,
    "pack": PackSettings,
    "train": TrainSettings,
    "evaluate": EvaluateSettings,
    "retrain": RetrainSettings,
    "registry": RegistrySettings,
    "import": ImportSettings,
    "skeletons": SkeletonsSettings,
    "demo": DemoSettings,
}


def test_help_lists_all_commands(job: Callable[..., CommandResult]) -> None:
    result = job("--help")
    assert result.returncode == 0
    assert SETTINGS.keys() == COMMANDS.keys()
    for name, (_, text) in COMMANDS.items():
        assert f"  {name:10} {text}\n" in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_setting(name: str, job: Callable[..., CommandResult]) -> None:
    result = job(name, "--help")
    assert result.returncode == 0
    assert f"usage: microaction {name} " in result.stdout
    text = "".join(result.stdout.split())
    for setting, field in SETTINGS[name].model_fields.items():
        names = (
            f"--{setting.replace('_', '-')}",
            f"  {setting.upper()} ",
            f"    {field.alias or setting} ",
        )  # flag, argument, command
        assert any(each in result.stdout for each in names), setting
        assert field.description is None or "".join(field.description.split()) in text, setting


@pytest.mark.parametrize("arguments", [("--version",), ("-V",)])
def test_version_is_that_of_the_package(arguments: tuple[str], job: Callable[..., CommandResult]) -> None:
    assert job(*arguments) == CommandResult(0, f"microaction {__version__}\n", "")


def test_an_unknown_command_is_refused_in_one_line(job: Callable[..., CommandResult]) -> None:
    expected = "microaction: no command 'labels'; `microaction --help` lists the commands\n"
    assert job("labels", "--model", "m") == CommandResult(2, "", expected)


@pytest.mark.parametrize("module", [module for module, _ in COMMANDS.values()])
def test_jobs_run_the_commands(module: str) -> None:
    """`python -m jobs.X` is for `ray job submit --working-dir`."""
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{module}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name = next(name for name, (its_module, _) in COMMANDS.items() if its_module == module)
    assert done.stdout.startswith(f"usage: microaction {name} ")
