"""`microaction page`: pages about an output, without Ray."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import CommandResult
from tests.export.outputs import Video, write_output


def test_pages_are_written_into_the_output(tmp_path: Path, job: Callable[..., CommandResult]) -> None:
    out = write_output(tmp_path / "labels", str(tmp_path), [Video("a.mp4"), Video("b.mp4")])
    result = job("page", str(out))
    assert result.returncode == 0
    assert result.stderr.splitlines()[-1] == f"open {out}/report/index.html"
    assert len(list((out / "report" / "videos").iterdir())) == 2


def test_a_folder_without_labels_is_refused(tmp_path: Path, job: Callable[..., CommandResult]) -> None:
    result = job("page", str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"{tmp_path} has no labels: microaction label ARCHIVE {tmp_path} --model … makes them"
    ]


def test_links_last_a_week_at_most(tmp_path: Path, job: Callable[..., CommandResult]) -> None:
    result = job("page", str(tmp_path), "--link-hours", "169")
    assert result.returncode == 2
    assert "link-hours: Input should be less than or equal to 168" in result.stderr
