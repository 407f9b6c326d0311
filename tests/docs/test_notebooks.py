"""The notebooks in docs run, on labels as the demo makes them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from microaction.export.labels import Event
from tests.docs.pages import ROOT
from tests.export.outputs import Video, write_output

pytestmark = pytest.mark.slow
NOTEBOOKS = sorted((ROOT / "docs" / "examples").glob("*.ipynb"))


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Return a folder with the labels that the notebooks read."""
    rng = np.random.default_rng(0)
    videos = []
    for number in range(1, 4):
        start_N = np.sort(rng.uniform(0, 80, 12)).tolist()
        events = [
            Event(1 + index % 2, int(rng.integers(0, 52)), start_s, start_s + 8.0, float(rng.uniform(0.4, 1)), 1.0)
            for index, start_s in enumerate(start_N)
        ]
        activity = {person: rng.integers(0, 256, (720, 52), dtype=np.uint8) for person in (1, 2)}
        videos.append(Video(f"interview_{number}.mp4", events, 90.0, activity=activity))
    write_output(tmp_path / "demo" / "labels", str(tmp_path / "demo" / "interviews"), videos)
    return tmp_path


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(notebook: Path, workplace: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    shutil.copy(notebook, workplace)
    content = nbformat.read(workplace / notebook.name, as_version=4)
    nbclient.NotebookClient(content, timeout=300, resources={"metadata": {"path": str(workplace)}}).execute()
    outputs = [output for cell in content.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2, "the timeline and the curves"
    assert any("together with" in output.get("text", "") for output in outputs)
    assert not [output for output in outputs if output.get("name") == "stderr"]
