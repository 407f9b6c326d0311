"""`microaction export` as people run it. No Ray is started."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from microaction.cli.export import NEXT_STEPS, split_names
from microaction.export.exporters import EXPORTERS
from microaction.export.labels import Event
from tests.conftest import ROOT, CommandResult
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING = 9
AWKWARD_NAMES = (*HOSTILE_NAMES, "Smith, Ann", "[1]", "{x}", 'a\\"b\\', "-x", "true", "12", "--format")


@pytest.fixture
def out(tmp_path: Path) -> str:
    event = Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)
    videos = [
        Video("broken.mp4", failures=[(0.0, None, "decode_error", "no picture")], duration_s=None),
        *(Video(f"{number}.mp4", [event], names={1: name}) for number, name in enumerate(AWKWARD_NAMES)),
        *(Video(name, [event]) for name in HOSTILE_NAMES),
    ]
    return str(write_output(tmp_path / "out", "/archive", videos))


@pytest.mark.parametrize("name", EXPORTERS)
def test_the_command_prints_what_it_wrote(
    name: str, out: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    result = job("export", out, str(tmp_path / "dest"), "--format", name)
    assert (result.returncode, result.stdout) == (0, "")
    assert EXPORTERS[name].title in result.stderr
    assert f"│ events               │ {len(AWKWARD_NAMES) + len(HOSTILE_NAMES)} " in result.stderr
    folded = "".join(line.split("│")[2].strip() for line in result.stderr.splitlines() if line.count("│") == 3)
    assert f"{tmp_path}/dest" in folded
    assert "│ spans without labels │ 1: see " in result.stderr
    assert result.stderr.splitlines()[-1].startswith(NEXT_STEPS[name].partition("{")[0])


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_a_person_may_be_called_anything(
    name: str, out: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    forms = [[f"--person={name}"], *([] if name.startswith("-") else [["--person", name]])]
    for flags in forms:
        result = job("export", out, str(tmp_path / "dest"), "--format=csv", *flags)
        assert result.returncode == 0, result.stderr
        assert "│ events               │ 1 " in result.stderr


def test_flags_may_be_repeated(out: str, tmp_path: Path, job: Callable[..., CommandResult]) -> None:
    flags = [f"--video={name}" for name in HOSTILE_NAMES]
    result = job("export", out, str(tmp_path / "dest"), "--format=csv", *flags, "--person=1", "--person", "2")
    assert result.returncode == 2
    assert result.stderr.startswith("no person '2' in the wanted videos of ")
    result = job("export", out, str(tmp_path / "dest"), "--format=csv", *flags, "--person=1")
    assert result.returncode == 0
    assert f"│ videos  │ {len(HOSTILE_NAMES)} " in result.stderr


def test_other_arguments_stay_as_they_are(out: str, job: Callable[..., CommandResult]) -> None:
    rest, names = split_names(["out", "--format", "csv", "--video", "a,b", "--person=x", "--person=", "--min-score=1"])
    assert rest == ["out", "--format", "csv", "--min-score=1"]
    assert names == {"video": ("a,b",), "person": ("x", "")}
    for arguments in (["--person"], ["--person", "--format=csv"]):
        assert split_names(arguments) == (arguments, {})
        result = job("export", out, "dest", *arguments)
        assert result.returncode == 2
        assert "argument --person: expected one argument" in result.stderr


def test_what_is_wrong_is_said_in_a_line(out: str, tmp_path: Path, job: Callable[..., CommandResult]) -> None:
    absent, file = str(tmp_path / "absent"), tmp_path / "file"
    file.touch()
    dest = str(tmp_path / "dest")
    for arguments, message in (
        ((absent, dest, "--format=csv"), f"{absent} has no labels: microaction label ARCHIVE {absent} --model"),
        ((str(tmp_path), dest, "--format=csv"), f"{tmp_path} has no labels: "),
        ((out, str(file), "--format=csv"), f"{file}/csv cannot be used: a part of its path is a file, not a folder"),
        ((out, dest, "--format=csv", "--video=x.mp4"), "no video 'x.mp4' in the labels of "),
        ((out, dest, "--format=csv", "--person=Zoe"), "no person 'Zoe' in the labels of "),
    ):
        result = job("export", *arguments)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith(message)
        assert not Path(dest).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--format=excel",),
            "format: Input should be 'elan', 'boris', 'csv', 'xlsx', 'webvtt', 'fiftyone' or 'mma52'",
        ),
        ((), "format: Field required"),
        (("--format=csv", "--min-score=2"), "min-score: Input should be less than or equal to 1"),
        (("--format=elan", "--decimal=comma"), "settings: decimal=comma is for format=csv"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    arguments: tuple[str, ...], message: str, out: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    result = job("export", out, str(tmp_path / "dest"), *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(message), result.stderr
    assert "`microaction export --help` lists the settings" in result.stderr


def test_an_export_starts_no_ray_and_no_torch(out: str, tmp_path: Path) -> None:
    script = (
        "import sys; from microaction.cli import main; main(sys.argv[1:]); "
        "sys.exit(bool({'ray', 'torch'} & set(sys.modules)))"
    )
    arguments = ["export", out, str(tmp_path / "dest"), "--format", "xlsx"]
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
