"""The Python examples of README and quickstart run."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import microaction
from microaction.synthetic import InterviewSpec, make_interviews
from tests.docs.pages import ROOT, blocks, name_of

SECONDS = 8.0


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the examples name: an interview, and the tables that labeling it gives."""
    root = tmp_path_factory.mktemp("examples")
    for folder, name in ((root, "interview.mp4"), (root / "demo" / "interviews", "interview_1.mp4")):
        make_interviews(folder, [InterviewSpec(name, 9000, 0, SECONDS)])
    labeled = microaction.label_video(root / "interview.mp4", "demo")
    for out in ("labels", "demo/labels"):
        (root / out / "events").mkdir(parents=True)
        pq.write_table(labeled.events, root / out / "events" / "part.parquet")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "quickstart.md"], ids=name_of)
def test_python_examples_run(
    page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    for code in blocks(page, "python"):
        exec(compile(code, name_of(page), "exec"), {})
    assert "probability" in capsys.readouterr().out
