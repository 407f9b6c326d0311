"""The pages about an output, as files; what a browser makes of them is in test_browser.py."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from microaction.export.archive_summary import ArchiveSummary, bootstrap_rates
from microaction.export.labels import Event, VideoLabels, read_labels
from microaction.export.media import media_of
from microaction.export.report import page_name, write_report
from microaction.export.video_page import max_pooled
from tests.export.outputs import HOSTILE_NAMES, PROVENANCE, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
HOSTILE_PERSON = "</script><img src=x onerror=alert(1)>\u202e\n\"'"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page") / "archive"


@pytest.fixture(scope="module")
def report(archive: Path) -> Path:
    activity = np.zeros((480, 52), np.uint8)
    activity[8:80, NODDING] = 200
    videos = [
        Video(
            "one.mp4",
            [Event(1, NODDING, 1.0, 10.25, 0.75, 0.8), Event(2, SHAKING_LEGS, 5.0, 6.0, 0.5, 0.6)],
            names={1: HOSTILE_PERSON},
            activity={1: activity},
        ),
        Video("broken.mp4", failures=[(0.0, None, "decode_error", "the <b>index</b> is missing")], duration_s=None),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.9, 0.9)]) for name in HOSTILE_NAMES),
    ]
    out = write_output(archive.parent / "labels", str(archive), videos, videos_per_part=4)
    return Path(write_report(read_labels(str(out)))).parent


def page(report: Path, archive: Path, name: str) -> str:
    return (report / "videos" / page_name(f"{archive}/{name}")).read_text()


def data(content: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="labels">(.*?)</script>', content, re.DOTALL)
    assert found is not None
    loaded: dict[str, Any] = json.loads(found.group(1))
    return loaded


class Tags(HTMLParser):
    """The tags of a page, and the locations that it loads or links."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.locations: list[str] = []
        self.handlers: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.locations += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_a_page_holds_the_labels_of_its_video(report: Path, archive: Path) -> None:
    found = data(page(report, archive, "one.mp4"))
    assert found["events"] == {
        "person": [0, 1],
        "action": [NODDING, SHAKING_LEGS],
        "start_ms": [1000, 5000],
        "end_ms": [10250, 6000],
        "score": [750, 500],
    }
    (strip,) = found["activity"]
    assert (strip["person"], strip["action"], strip["start_s"], strip["step_s"]) == (0, NODDING, 0.0, 0.125)
    values = np.frombuffer(base64.b64decode(strip["values"]), np.uint8)
    assert np.flatnonzero(values).tolist() == list(range(8, 80))


def test_every_video_is_linked_once_in_the_list(report: Path) -> None:
    listed = (report / "index.html").read_text().split('id="videos"')[1]
    pages = [location for location in Tags(listed).locations if location.startswith("videos/")]
    assert len(pages) == len(set(pages)) == 2 + len(HOSTILE_NAMES)
    assert all((report / location).is_file() for location in pages)


def test_hostile_names_are_text(report: Path, archive: Path) -> None:
    for content in [path.read_text() for path in report.rglob("*.html")]:
        tags = Tags(content)
        assert tags.handlers == []
        assert "img" not in tags.tags
        assert tags.tags.count("script") in (0, 3), "the data, the library and the page's own"
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", content)
    people = data(page(report, archive, "one.mp4"))["people"]
    assert people[0]["name"].startswith("</script><img")


def test_nothing_is_asked_of_a_network(report: Path) -> None:
    for path in report.rglob("*.html"):
        content = path.read_text()
        assert "default-src 'none'" in content
        assert not [location for location in Tags(content).locations if "//" in location], path.name


def test_a_page_plays_the_file_that_it_is_about(report: Path, archive: Path) -> None:
    for name in ("one.mp4", *HOSTILE_NAMES):
        path = report / "videos" / page_name(f"{archive}/{name}")
        (source,) = re.findall(r'<video id="video" src="([^"]*)"', path.read_text())
        assert (path.parent / unquote(source)).resolve() == (archive / name).resolve()
    assert "<video" not in page(report, archive, "broken.mp4")


def test_failures_are_shown_with_their_reason(report: Path, archive: Path) -> None:
    reason = "the &lt;b&gt;index&lt;/b&gt; is missing"
    assert reason in page(report, archive, "broken.mp4")
    assert (report / "index.html").read_text().count(reason) == 2, "the kind's example, and beside the video"


def test_a_page_says_when_nothing_is_labeled(tmp_path: Path) -> None:
    failures = [(2.0, 4.5, "overlap", "covered"), (50.0, None, "decode_error", "damaged")]
    out = write_output(tmp_path / "out", "/archive", [Video("a.mp4", failures=failures)])
    content = page(Path(write_report(read_labels(str(out)))).parent, Path("/archive"), "a.mp4")
    assert "0:02.0 to 0:04.5: <bdi>covered</bdi>" in content
    assert "0:50.0 to the end: <bdi>damaged</bdi>" in content


def test_pages_of_videos_that_are_gone_are_deleted(tmp_path: Path) -> None:
    for names in (("a.mp4", "b.mp4"), ("b.mp4",)):
        out = write_output(tmp_path / "-".join(names), "/archive", [Video(name) for name in names])
        if names == ("b.mp4",):
            (tmp_path / "a.mp4-b.mp4" / "report").rename(out / "report")
            (out / "report" / "videos" / "notes.html").write_text("somebody's own")
        write_report(read_labels(str(out)))
    left = {path.name for path in (out / "report" / "videos").iterdir()}
    assert left == {page_name("/archive/b.mp4"), "notes.html"}


def test_copies_are_beside_the_pages_and_of_the_version_labeled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "archive").mkdir()
    for version in ("1", "2"):
        (tmp_path / "archive" / "a?.mp4").write_bytes(f"version {version}".encode())
        monkeypatch.setitem(PROVENANCE, "video_version", version)
        out = write_output(tmp_path / "out", str(tmp_path / "archive"), [Video("a?.mp4")])
        write_report(read_labels(str(out)), copy_videos=True)
        (path,) = (out / "report" / "videos").glob("*.html")
        (source,) = re.findall(r'<video id="video" src="([^"]*)"', path.read_text())
        assert (path.parent / source).read_text() == f"version {version}"
        assert len(list((out / "report" / "media").iterdir())) == 1, "earlier copies are deleted"
    write_report(read_labels(str(out)))
    assert not list((out / "report" / "media").iterdir()), "no copy was asked for"


def test_long_lists_have_several_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microaction.export.index_page.VIDEOS_PER_INDEX", 2)
    out = write_output(tmp_path / "out", "/archive", [Video(f"{number}.mp4") for number in range(5)])
    write_report(read_labels(str(out)))
    names = sorted(path.name for path in (out / "report").glob("*.html"))
    assert names == ["index-2.html", "index-3.html", "index.html"]
    assert Tags((out / "report" / "index-3.html").read_text()).locations.count("index.html") == 1


def test_what_plays_where() -> None:
    assert media_of("/a/ü b.mp4", "/out/report/videos/p.html", 60).uri == "../../../a/%C3%BC%20b.mp4"
    assert "bucket" in media_of("/a/b.mp4", "s3://bucket/report/p.html", 60).reason
    assert "copy it" in media_of("gs://bucket/b.mp4", "/out/p.html", 60).reason


def test_videos_in_s3_get_a_link_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never shown")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    media = media_of("s3://bucket/a/b.mp4", "/out/p.html", 60)
    assert media.origin == "http://127.0.0.1:9"
    assert media.uri.startswith("http://127.0.0.1:9/bucket/a/b.mp4?")
    assert "never" not in media.uri


def test_videos_without_labels_do_not_change_rates() -> None:
    summary = ArchiveSummary()
    for name, covered_s, num_events in (("a", 3600.0, 10), ("b", 3600.0, 12), ("broken", 0.0, 0)):
        facts: dict[str, Any] = dict.fromkeys(("duration_s", "coverage", "num_people"), None)
        facts |= {"covered_s": covered_s, "failed_s": 0.0}
        events = (Event(1, NODDING, 0.0, 1.0, 0.9, 0.9),) * num_events
        summary.add(VideoLabels(name, name, facts, (), events, (), ""), f"{name}.html")
    (rate,) = summary.rates()
    assert (rate.per_hour, rate.low, rate.high) == (11, 10, 12)


def test_pooling_keeps_every_peak() -> None:
    values = np.zeros((7, 2), np.uint8)
    values[6, 1], values[2, 0] = 9, 5
    assert max_pooled(values, 3).tolist() == [[5, 0], [0, 0], [0, 9]]
    assert max_pooled(values, 1).tolist() == values.tolist()


def test_intervals_hold_the_rate_95_times_of_100() -> None:
    rng = np.random.default_rng(1)
    num_inside = 0
    for _ in range(100):
        hours_V = rng.uniform(0.5, 1.5, 40)
        counts_VK = rng.poisson(hours_V * rng.gamma(2.0, 5.0, 40))[:, None]  # 10 an hour, people differ
        low_K, high_K = bootstrap_rates(counts_VK, hours_V)
        num_inside += bool(low_K[0] <= 10 <= high_K[0])
    assert 86 <= num_inside <= 100
    assert np.isnan(bootstrap_rates(np.ones((1, 2)), np.ones(1))).all()
