"""The package: what its wheel holds, and that it works in an empty environment."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

import microaction
from microaction.schema import PUBLIC_TABLES
from microaction.synthetic.scene import Shot, make_scene, side_by_side
from tests.conftest import ROOT

LIMIT_S = 1500  # installing downloads PyTorch
SHIPPED_DATA = (
    "microaction/py.typed",
    "microaction/export/assets/THIRD_PARTY.md",
    "microaction/export/assets/d3-7.9.2.min.js",
    "microaction/export/assets/timeline.js",
    "microaction/export/index.html.j2",
    "microaction/export/video.html.j2",
    "microaction/pages/base.html.j2",
    "microaction/pages/macros.html.j2",
    "microaction/labeling/contact_index.html.j2",
    "microaction/labeling/contact_video.html.j2",
    "microaction/models/default_label_embeddings.safetensors",
    "microaction/models/demo/config.json",
    "microaction/models/demo/model.safetensors",
    "microaction/models/demo_detector/config.json",
    "microaction/models/demo_detector/model.safetensors",
    "microaction/people/THIRD_PARTY.md",
    "microaction/people/movenet_multipose.onnx",
    "microaction/retraining/page.html.j2",
    "microaction/training/detection_page.html.j2",
    "microaction/training/report.html.j2",
    "microaction/training/run_macros.html.j2",
)


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing on Python's path but what is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=LIMIT_S
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources that has no leftovers of earlier builds."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    without_caches = shutil.ignore_patterns("__pycache__")
    for package in ("docs", "jobs", "microaction", "tests"):
        shutil.copytree(ROOT / package, source / package, ignore=without_caches)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip_wheel = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    built = run(*pip_wheel, cwd=folder)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def empty_environment(tmp_path: Path) -> Iterator[Path]:
    """The `bin` folder of a new virtual environment, which is deleted afterwards: PyTorch is large."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    yield folder / "bin"
    shutil.rmtree(folder)


def test_all_files_name_the_same_release() -> None:
    assert f"## {microaction.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == microaction.__version__


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"microaction-{microaction.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "microaction").rglob("*.py")}
    assert {name for name in names if not name.startswith(f"{info}/")} == sources | set(SHIPPED_DATA)
    assert f"{info}/licenses/LICENSE" in names
    assert "License-Expression: Apache-2.0" in metadata
    assert "Classifier: Typing :: Typed" in metadata


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
def test_wheel_labels_a_video_in_an_empty_environment(wheel: Path, empty_environment: Path, tmp_path: Path) -> None:
    # Without compiling thousands of modules, of which few are imported.
    pip = (empty_environment / "python", "-m", "pip", "install", "--quiet", "--no-compile")
    pinned = ("--constraint", ROOT / "constraints.txt")
    if index := os.environ.get("TORCH_INDEX"):  # as the Makefile does: another build of PyTorch where it can be had
        unless_unreachable = ("--no-deps", "--retries", "1", "--timeout", "15", "--index-url", index)
        run(*pip, *pinned, *unless_unreachable, "torch", cwd=tmp_path)
    installed = run(*pip, *pinned, wheel, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr

    shown = run(empty_environment / "microaction", "--version", cwd=tmp_path)
    assert shown.stdout == f"microaction {microaction.__version__}\n"
    assert run(empty_environment / "python", "-c", "import jobs", cwd=tmp_path).returncode != 0

    (tmp_path / "videos").mkdir()
    shots = [Shot(5.0, side_by_side(0))]  # windows at 0, 1, 2 and 3 s
    make_scene(tmp_path / "videos/interview.mp4", subject_seeds=[9100], shots=shots, seed=1, size=(640, 360))
    labeled = run(empty_environment / "microaction", "label", "videos", "out", "--model", "demo", cwd=tmp_path)
    assert labeled.returncode == 0, labeled.stderr
    tables = {name: pd.read_parquet(tmp_path / "out" / name) for name in PUBLIC_TABLES}
    assert sorted(tables["windows"]["start_s"]) == [0, 1, 2, 3]
    assert set(tables["windows"]["person"]) == {1}
    assert len(tables["videos"]) == 1
    assert tables["failures"].empty
