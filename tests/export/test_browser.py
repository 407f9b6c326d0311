"""The pages in a browser: they play, seek, filter and zoom, from disk, and ask for nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from microaction.export.labels import Event, read_labels
from microaction.export.report import page_name, write_report
from microaction.taxonomy import ACTIONS
from tests.export.browser import OpenedPage, launched, opened
from tests.export.outputs import HOSTILE_NAMES, Video, write_output
from tests.videos import write_video

pytestmark = pytest.mark.slow

NODDING, SHAKING_LEGS, WAVING = (ACTIONS.index(name) for name in ("nodding", "shaking legs", "waving"))
DURATION_S = 8.0
EVENTS = [
    Event(1, NODDING, 1.0, 2.0, 0.9, 0.95),
    Event(1, WAVING, 1.5, 3.0, 0.35, 0.4),
    Event(2, SHAKING_LEGS, 4.0, 7.5, 0.8, 0.9),
]
HOSTILE_PERSON = "</script><img src=x onerror=alert(1)>"
LANE_HEIGHT = 24


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "archive #1 ü"
    folder.mkdir()
    write_video(folder / "two.mp4", num_frames=200, fps=25, size=(320, 180))
    for name in HOSTILE_NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "two.mp4", folder / name)
    (folder / "old.avi").write_bytes(b"RIFF")
    return folder


@pytest.fixture(scope="module")
def report(archive: Path) -> Path:
    activity = np.zeros((64, 52), np.uint8)
    activity[8:16, NODDING] = 230
    videos = [
        Video("two.mp4", EVENTS, DURATION_S, (320, 180), names={1: HOSTILE_PERSON, 2: "Bob"}, activity={1: activity}),
        Video("old.avi", EVENTS[:1], DURATION_S, (320, 180)),
        Video("broken.mp4", duration_s=None, failures=[(0.0, None, "decode_error", "cut short")]),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.9, 0.9)], DURATION_S, (320, 180)) for name in HOSTILE_NAMES),
    ]
    out = write_output(archive.parent / "labels", str(archive), videos)
    return Path(write_report(read_labels(str(out)))).parent


@pytest.fixture
def two(browser: Any, report: Path, archive: Path) -> Iterator[OpenedPage]:
    with opened(browser, path_of(report, archive, "two.mp4")) as page:
        page.wait_for("document.getElementById('video').readyState >= 2")
        yield page
        assert page.problems == []


def path_of(report: Path, archive: Path, name: str) -> Path:
    return report / "videos" / page_name(f"{archive}/{name}")


def click(page: OpenedPage, lane: int, time_s: float) -> None:
    box = page.page.locator("#surface").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] * time_s / DURATION_S, box["y"] + (lane + 0.5) * LANE_HEIGHT)


def lanes(page: OpenedPage) -> list[str]:
    return [text.split("\n")[-1].split(" ", 1)[-1] for text in page.page.locator("#lane-names li").all_inner_texts()]


def playhead_x(page: OpenedPage) -> float | None:
    """Return where the axis shows the playhead, in pixels; None if it does not."""
    found: float | None = page.page.evaluate(
        """(() => { const canvas = document.getElementById('axis');
          const row = canvas.getContext('2d').getImageData(0, 1, canvas.width, 1).data;
          for (let x = 0; x < canvas.width; x += 1) if (row[4 * x + 3] > 100 && row[4 * x + 2] > row[4 * x] + 60) return x;
          return null; })()"""
    )
    return found


def crops(page: OpenedPage) -> list[list[float]]:
    found: list[list[float]] = page.page.evaluate(
        """[...document.querySelectorAll('#overlay .crop')].map(
          (crop) => ['x', 'y', 'width', 'height'].map((name) => Number(crop.getAttribute(name))))"""
    )
    return found


def test_clicking_an_event_plays_it_to_its_end(two: OpenedPage) -> None:
    click(two, lane=2, time_s=5.0)
    two.wait_for("document.getElementById('video').currentTime > 4.2")
    assert two.page.inner_text("#status") == "Bob: shaking legs, 0:04.0 to 0:07.5, score 0.80"
    two.wait_for("document.getElementById('video').paused")
    assert two.number("document.getElementById('video').currentTime") == pytest.approx(7.5, abs=0.4)


def test_clicking_between_events_seeks(two: OpenedPage) -> None:
    click(two, lane=0, time_s=6.0)
    two.wait_for("!document.getElementById('video').seeking")
    assert two.number("document.getElementById('video').currentTime") == pytest.approx(6.0, abs=0.1)
    assert two.page.evaluate("document.getElementById('video').paused")


def test_filters_leave_lanes_and_events_out(two: OpenedPage) -> None:
    assert lanes(two) == ["nodding", "waving", "shaking legs"]
    two.page.uncheck("input[name=part][value='1']")
    assert lanes(two) == ["waving", "shaking legs"]
    two.page.uncheck("input[name=person][value='1']")
    assert lanes(two) == ["waving"]
    two.page.check("input[name=person][value='1']")
    two.page.fill("#min-score", "0.5")
    assert two.page.inner_text("#count") == "1 of 3 events"
    click(two, lane=0, time_s=2.2)  # the event is hidden, so that this seeks
    assert two.page.inner_text("#status") == ""


def test_zoom_and_pan_move_time(two: OpenedPage) -> None:
    two.page.click("#next-event")  # nodding, at 1 s
    for _ in range(3):
        two.page.click("#zoom-in")
    two.page.locator("#timeline").press("0")
    click(two, lane=0, time_s=6.0)
    two.wait_for("Math.abs(document.getElementById('video').currentTime - 6) < 0.1")
    box = two.page.locator("#surface").bounding_box()
    two.page.mouse.move(box["x"], box["y"] + 10)  # what is under the pointer stays there
    two.page.keyboard.down("Control")
    two.page.mouse.wheel(0, -300)
    two.page.keyboard.up("Control")
    two.page.mouse.click(box["x"] + box["width"] - 1, box["y"] + 10)
    two.wait_for("Math.abs(document.getElementById('video').currentTime - 6) > 0.5")
    zoomed_s = two.number("document.getElementById('video').currentTime")
    assert 0.5 < zoomed_s < 6, "the right edge is nearer"
    two.page.mouse.move(box["x"] + 900, box["y"] + 10)
    two.page.mouse.down()
    two.page.mouse.move(box["x"] + 400, box["y"] + 10, steps=5)
    two.page.mouse.up()
    two.page.wait_for_timeout(100)
    two.page.mouse.click(box["x"] + box["width"] - 1, box["y"] + 10)
    two.wait_for(f"document.getElementById('video').currentTime > {zoomed_s + 0.2}")


def test_playing_draws_once_a_frame_and_stops_with_the_video(two: OpenedPage) -> None:
    """However many things happen to the video, it asks for one frame at a time."""
    two.page.evaluate(
        """(() => { window.asked = 0; const request = window.requestAnimationFrame;
          window.requestAnimationFrame = (f) => { window.asked += 1; return request(f); };
          window.shown = 0; (function count() { window.shown += 1; request(count); })(); })()"""
    )
    two.page.evaluate("document.getElementById('video').play()")
    two.wait_for("document.getElementById('video').currentTime > 3")
    asked, shown = two.number("window.asked"), two.number("window.shown")
    assert asked < 2.5 * shown, "a tick and a drawing in each"
    two.page.evaluate("document.getElementById('video').pause()")
    two.page.wait_for_timeout(200)
    before = two.number("window.asked")
    two.page.wait_for_timeout(300)
    assert two.number("window.asked") == before


def test_the_view_follows_the_video_unless_it_is_moved_away(two: OpenedPage) -> None:
    for _ in range(4):
        two.page.click("#zoom-in")
    two.page.locator("#timeline").press("End")
    two.page.locator("#timeline").press("Home")
    two.page.evaluate("document.getElementById('video').currentTime = 1.2; document.getElementById('video').play()")
    two.wait_for("document.getElementById('video').currentTime > 3.5")
    two.page.evaluate("document.getElementById('video').pause()")
    assert playhead_x(two) is not None, "it is where the video is"
    two.page.locator("#timeline").press("PageDown")
    two.page.locator("#timeline").press("PageDown")
    two.page.wait_for_timeout(100)
    assert playhead_x(two) is None
    two.page.evaluate("document.getElementById('video').play()")
    two.page.wait_for_timeout(300)
    assert playhead_x(two) is None, "it stays where it was moved"


def test_a_hidden_event_is_no_longer_selected(two: OpenedPage) -> None:
    two.page.click("#next-event")
    two.page.click("#next-event")
    assert "waving" in two.page.inner_text("#status")
    two.page.fill("#min-score", "0.5")
    assert two.page.inner_text("#status") == ""


def test_fingers_scroll_down_and_move_time(browser: Any, report: Path, archive: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 500}, has_touch=True)
    page = context.new_page()
    page.goto(path_of(report, archive, "two.mp4").as_uri())
    page.wait_for_load_state("load")
    bars = "document.getElementById('bars').toDataURL()"
    whole = page.evaluate(bars)
    page.locator("#zoom-in").tap()
    page.wait_for_function(f"(before) => {bars} !== before", arg=whole)
    page.locator("#timeline").scroll_into_view_if_needed()
    box = page.locator("#surface").bounding_box()
    scrolled, zoomed = page.evaluate(f"[scrollY, {bars}]")
    client = context.new_cdp_session(page)

    def swipe(dx: float, dy: float) -> None:
        x, y, num_moves = box["x"] + 100, box["y"] + 30, 20
        client.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        for move in range(1, num_moves + 1):
            point = {"x": x + dx * move / num_moves, "y": y + dy * move / num_moves}
            client.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    swipe(-80, 0)
    page.wait_for_function(f"(before) => {bars} !== before", arg=zoomed)
    page.wait_for_timeout(100)
    moved = page.evaluate(bars)
    assert page.evaluate("scrollY") == scrolled
    swipe(0, -200)
    page.wait_for_function(f"scrollY > {scrolled + 50}")
    assert page.evaluate(bars) == moved, "time stays"
    context.close()


def test_keys_go_from_event_to_event(two: OpenedPage) -> None:
    two.page.locator("#timeline").focus()
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "End", "Home"):
        two.page.keyboard.press(key)
        seen.append(two.page.inner_text("#status").split(": ")[1].split(",")[0])
    assert seen == ["nodding", "waving", "shaking legs", "waving", "shaking legs", "nodding"]
    two.page.keyboard.press("Enter")
    two.wait_for("document.getElementById('video').currentTime >= 1")


def test_the_picture_shows_where_people_are_and_what_they_do(two: OpenedPage) -> None:
    assert crops(two) == [[0, 0, 160, 180], [160, 0, 160, 180]]
    two.page.evaluate("document.getElementById('video').currentTime = 1.7")
    two.wait_for("document.getElementById('overlay').textContent.includes('nodding')")
    assert two.page.locator("#overlay text").all_text_contents() == [HOSTILE_PERSON, "nodding", "waving", "Bob"]
    two.page.uncheck("input[name=person][value='0']")
    assert crops(two) == [[160, 0, 160, 180]]


def test_hovering_shows_score_span_and_thumbnail(two: OpenedPage) -> None:
    box = two.page.locator("#surface").bounding_box()
    two.page.mouse.move(box["x"] + box["width"] * 5.0 / DURATION_S, box["y"] + 2.5 * LANE_HEIGHT)
    assert two.page.inner_text("#tooltip-text") == "Bob: shaking legs, 0:04.0 to 0:07.5, score 0.80"
    two.wait_for(
        "(v => v && !v.seeking && Math.abs(v.currentTime - 5.75) < 0.1)(document.querySelector('#thumbnail video'))"
    )
    two.page.mouse.move(box["x"] + box["width"] * 7.9 / DURATION_S, box["y"] + 0.5 * LANE_HEIGHT)
    assert two.page.locator("#tooltip").is_hidden()


def test_bars_are_drawn_where_events_are(two: OpenedPage) -> None:
    drawn = two.page.evaluate(
        """(() => {
          const canvas = document.getElementById('bars'), ratio = devicePixelRatio;
          const at = (time, lane) => [...canvas.getContext('2d').getImageData(
            canvas.width * time / 8, (lane * 24 + 11) * ratio, 1, 1).data];
          return [at(1.5, 0), at(5, 2), at(3.5, 0), at(1, 2)];
        })()"""
    )
    assert drawn[0][0] > 200 > drawn[0][2], "person 1 is orange"
    assert drawn[1][2] > 150 > drawn[1][0], "person 2 is blue"
    assert drawn[2][3] == drawn[3][3] == 0, "nothing between events"


def test_a_file_that_no_browser_plays_says_so(browser: Any, report: Path, archive: Path) -> None:
    with opened(browser, path_of(report, archive, "old.avi")) as page:
        page.page.wait_for_selector("#cannot-play:visible")
        assert lanes(page) == ["nodding"]
        page.page.click("#next-event")
        assert "nodding" in page.page.inner_text("#status")


def test_pages_ask_for_files_beside_them_alone(browser: Any, report: Path, archive: Path) -> None:
    for path in (report / "index.html", path_of(report, archive, "two.mp4"), path_of(report, archive, "broken.mp4")):
        with opened(browser, path) as page:
            page.page.wait_for_timeout(300)
            assert page.problems == []
            assert page.requests[0] == path.as_uri()
            assert all(request.startswith("file:///") for request in page.requests)


def test_hostile_names_do_nothing_and_play(browser: Any, report: Path, archive: Path) -> None:
    for name in HOSTILE_NAMES:
        with opened(browser, path_of(report, archive, name)) as page:
            page.wait_for("document.getElementById('video').readyState >= 1")
            assert page.problems == []
            assert page.page.locator("img").count() == 0
    with opened(browser, report / "index.html") as page:
        assert page.page.locator("main script, main img").count() == 0
        page.page.click(f"a:has-text('{HOSTILE_NAMES[1]}') >> nth=-1")
        assert page.page.inner_text("h1") == HOSTILE_NAMES[1]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize("name", ["index", "two.mp4", "broken.mp4"])
def test_axe_finds_nothing_serious(
    browser: Any, report: Path, archive: Path, name: str, size: str, color_scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    path = report / "index.html" if name == "index" else path_of(report, archive, name)
    with opened(browser, path, size, color_scheme) as page:
        if name == "two.mp4":
            page.page.click("text=Events as a table")
        violations = axe.Axe().run(page.page).response["violations"]
        serious = [each for each in violations if each["impact"] in ("serious", "critical")]
        assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in serious] == []


@pytest.mark.parametrize("name", ["index", "two.mp4"])
def test_phones_scroll_down_only(browser: Any, report: Path, archive: Path, name: str) -> None:
    path = report / "index.html" if name == "index" else path_of(report, archive, name)
    with opened(browser, path, "phone") as page:
        assert page.number("document.documentElement.scrollWidth") == 390


def test_many_lanes_scroll_and_are_drawn(browser: Any, tmp_path: Path) -> None:
    events = [Event(1, action_id, 1.0 + action_id, 2.0 + action_id, 0.9, 0.9) for action_id in range(len(ACTIONS))]
    out = write_output(tmp_path / "out", str(tmp_path), [Video("many.mp4", events)])
    write_report(read_labels(str(out)))
    with opened(browser, path_of(out / "report", tmp_path, "many.mp4")) as page:
        assert len(lanes(page)) == len(ACTIONS)
        page.page.locator("#timeline").focus()
        page.page.keyboard.press("End")
        assert page.number("document.getElementById('lanes').scrollTop") > 500
        page.page.wait_for_timeout(100)
        has_bar = """(() => { const c = document.getElementById('bars');
          return c.getContext('2d').getImageData(0, c.height - 14 * devicePixelRatio, c.width, 1).data.some(v => v > 0); })()"""
        assert page.page.evaluate(has_bar)
