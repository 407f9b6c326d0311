"""`microaction people` over a few drawn interviews: the list, the contact sheet, and what a second run does."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from microaction.labeling.ledger import LOOKS
from microaction.storage.lease import hold_lease
from microaction.synthetic.faults import write_truncated
from microaction.synthetic.scene import Shot, close_up, make_scene, side_by_side
from tests.conftest import CommandResult
from tests.labeling.runs import copy_of, label

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

FPS, SIZE = 4, (640, 360)
NAME = "<script>alert(1)<"


class Found(NamedTuple):
    """A run that several tests look at: none may change its files."""

    archive: Path
    out: Path
    result: CommandResult


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interview of two people with a cut, one with a hostile name and an empty end, and a file that is cut short."""
    archive = tmp_path_factory.mktemp("people") / "archive"
    archive.mkdir()
    two = [Shot(14.0, side_by_side(0, 1)), Shot(21.25, close_up(0))]
    make_scene(archive / "two.mp4", subject_seeds=[9100, 9101], shots=two, seed=5, size=SIZE, fps=FPS)
    one = [Shot(8.0, side_by_side(0)), Shot(16.0, {})]
    make_scene(archive / f"{NAME}.mp4", subject_seeds=[9102], shots=one, seed=6, size=SIZE, fps=FPS)
    write_truncated(archive / "cut.mp4", archive / "two.mp4")
    return archive


@pytest.fixture
def found(
    archive: Path,
    model: str,
    finished: list[Found],
    tmp_path_factory: pytest.TempPathFactory,
    job: Callable[..., CommandResult],
) -> Found:
    """The run, done once."""
    if not finished:
        out = tmp_path_factory.mktemp("found") / "out"
        finished.append(Found(archive, out, job("people", str(archive), str(out), "--model", model)))
    return finished[0]


@pytest.fixture(scope="module")
def finished() -> list[Found]:
    return []


def pages(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (out / "contact").iterdir()}


def page_of(out: Path, name: str) -> str:
    (page,) = (text for text in pages(out).values() if f"<h1><bdi>{name}</bdi></h1>" in text)
    return page


def written_at(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "contact").iterdir()}


def test_a_run_writes_the_list_and_a_page_per_video(found: Found) -> None:
    assert found.result.returncode == 0, found.result.stderr
    listed = pd.read_parquet(found.out / "people.parquet")
    of_two = listed[listed["video"] == str(found.archive / "two.mp4")]
    assert sorted(zip(of_two["person"], of_two["shot"], strict=True)) == [(1, 0), (1, 1), (2, 0)]
    assert set(listed["video"]) == {str(found.archive / "two.mp4"), str(found.archive / f"{NAME}.mp4")}
    rows = dict(re.findall(r"│ (\S.*?) +│ (\S.*?) +│", found.result.stderr))
    assert (rows["videos"], rows["people"], rows["shots"]) == ("3, 1 of them unreadable", "3", "3")
    assert (rows["seconds with nobody"], rows["left out"]) == ("9.0", "nobody")
    assert f"--people {found.out}/people.parquet" in found.result.stderr

    index = pages(found.out)["index.html"]
    links = set(re.findall(r'href="([^"]+)"', index))
    assert links == set(pages(found.out)) - {"index.html"}, "each page is linked, and no other"
    two = page_of(found.out, "two.mp4")
    assert two.count("<svg") == 2, "a frame per shot"
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', two)) == 3, "a crop per person and shot"
    assert "it cannot be read: cut short or damaged" in page_of(found.out, "cut.mp4")
    hostile = page_of(found.out, "&lt;script&gt;alert(1)&lt;.mp4")
    assert "<script" not in hostile + index
    assert "nobody is seen" in hostile


def test_the_same_command_draws_only_what_is_missing(
    found: Found, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    out = copy_of(found.out, tmp_path)
    (missing,) = (name for name, text in pages(out).items() if "<h1><bdi>two.mp4" in text)
    (out / "contact" / missing).unlink()
    for stale in ("gone-mp4-0123456789abcdef.html", "0123456789abcdef-incomplete.html", "index-2.html"):
        (out / "contact" / stale).write_text("of an earlier run")
    (out / "contact" / "notes.html").write_text("the user's own")
    before, looks = written_at(out), LOOKS.read_index(str(out))
    assert job("people", str(found.archive), str(out), "--model", model).returncode == 0
    assert pages(out).keys() - {"notes.html"} == pages(found.out).keys()
    assert pages(out)["notes.html"] == "the user's own"
    after = written_at(out)
    assert {name for name in before if name in after and before[name] != after[name]} == {"index.html"}
    assert pages(out)[missing] == pages(found.out)[missing]
    assert (out / "people.parquet").read_bytes() == (found.out / "people.parquet").read_bytes()
    label(found.archive, out, model, people="auto")
    assert LOOKS.read_index(str(out)).equals(looks), "labeling into the same output takes no look again"


def test_an_edited_list_is_kept_and_shown(
    found: Found, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    out = copy_of(found.out, tmp_path)
    edited = pd.read_parquet(out / "people.parquet")
    edited.loc[edited["person"] == 1, "name"] = "Anna <b>"
    edited.loc[(edited["person"] == 2), ["error", "reason"]] = ["overlap", "he asked not to be labeled"]
    edited.to_parquet(out / "people.parquet", index=False)
    content = (out / "people.parquet").read_bytes()
    command = ("people", str(found.archive), str(out), "--model", model)
    refused = job(*command)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"{out}/people.parquet was edited since it was written")
    assert "--overwrite" in line

    shown = job(*command, "--people", f"{out}/people.parquet")
    assert shown.returncode == 0, shown.stderr
    assert (out / "people.parquet").read_bytes() == content
    two = page_of(out, "two.mp4")
    assert "Anna &lt;b&gt;" in two
    assert "left out: overlap" in two
    assert "he asked not to be labeled" in two
    assert 'class="c1 out"' in two, "a dashed line"

    assert job(*command, "--overwrite").returncode == 0
    assert (out / "people.parquet").read_bytes() == (found.out / "people.parquet").read_bytes()
    assert "Anna" not in page_of(out, "two.mp4")


def test_a_video_that_changes_is_shown_by_the_next_run(
    archive: Path, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    """Its page without pictures is not taken for the page of the video."""
    shutil.copytree(archive, tmp_path / "archive")
    (tmp_path / "archive" / f"{NAME}.mp4").unlink()
    catalog, out = str(tmp_path / "catalog.parquet"), tmp_path / "out"
    assert job("catalog", str(tmp_path / "archive"), catalog).returncode == 0
    os.utime(tmp_path / "archive/two.mp4")
    command = ("people", str(tmp_path / "archive"), str(out), "--model", model)
    changed = job(*command, "--catalog", catalog)
    assert changed.returncode == 1
    assert "1 videos, or parts of them, failed for transient reasons" in changed.stderr
    assert "There are no pictures: <bdi>the file has changed since it was cataloged" in page_of(out, "two.mp4")
    assert job(*command).returncode == 0
    assert page_of(out, "two.mp4").count("<svg") == 2
    assert not [name for name in pages(out) if "incomplete" in name]


def test_what_does_not_fit_is_one_line(
    found: Found, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    out, absent = str(tmp_path / "out"), str(tmp_path / "absent")
    for arguments, message in (
        ((absent, out, "--model", model), f"no files below {absent}: check the spelling"),
        ((str(found.archive), out, "--model", str(tmp_path)), f"{tmp_path} is not a checkpoint directory"),
        ((str(found.archive), out, "--model", model, "--people", absent), f"no file at {absent}; `microaction people"),
    ):
        result = job("people", *arguments)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith(message)


def test_a_held_lease_asks_for_another_run(
    found: Found, model: str, tmp_path: Path, job: Callable[..., CommandResult]
) -> None:
    out = copy_of(found.out, tmp_path)
    with hold_lease(str(out / "_lease"), lifetime_s=1.0):
        held = job("people", str(found.archive), str(out), "--model", model)
    assert held.returncode == 1
    assert "wait until it ends, or stop it, then run the same command again" in held.stderr
