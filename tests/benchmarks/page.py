"""A video's page with 5,000 events in 3 hours, in headless Chromium: `python -m tests.benchmarks.page`.

First paint counts from the request. Frames per second are those that the browser draws while the timeline is zoomed with the
wheel and dragged by the mouse, at 1440×1000 pixels, without a GPU.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table

from microaction.export.labels import Event, read_labels
from microaction.export.report import page_name, write_report
from tests.benchmarks.timing import console, cpu_name
from tests.export.browser import OpenedPage, launched, opened
from tests.export.outputs import STEP_S, Video, write_output

NUM_EVENTS, DURATION_S, NUM_ROUNDS, NUM_MOVES = 5000, 3 * 3600.0, 5, 60
COUNT_FRAMES = """() => { window.frames_ = 0; window.began = performance.now(); window.goesOn = true;
  (function count() { if (window.goesOn) { window.frames_ += 1; requestAnimationFrame(count); } })(); }"""
FRAMES_PER_S = "() => { window.goesOn = false; return window.frames_ / ((performance.now() - window.began) / 1000); }"
FIRST_PAINT_S = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_page(Path(folder))
        size_kb = path.stat().st_size / 1000
        paints, zooms, pans = [], [], []
        with launched() as browser:
            for _ in range(NUM_ROUNDS):
                with opened(browser, path) as page:
                    paints.append(float(page.page.evaluate(FIRST_PAINT_S)))
                    zooms.append(frames_per_s(page, zoom))
                    pans.append(frames_per_s(page, pan))
    table = Table("", "median", "worst", title=f"{NUM_EVENTS} events in 3 hours, {size_kb:.0f} kB ({cpu_name()})")
    table.add_row("first paint (s)", f"{median(paints):.2f}", f"{max(paints):.2f}")
    table.add_row("zooming (frames/s)", f"{median(zooms):.0f}", f"{min(zooms):.0f}")
    table.add_row("panning (frames/s)", f"{median(pans):.0f}", f"{min(pans):.0f}")
    console.print(table)


def write_page(folder: Path) -> Path:
    """Write the page of a drawn video: two people, all actions, and dense activity."""
    rng = np.random.default_rng(0)
    start_N = np.sort(rng.uniform(0, DURATION_S - 20, NUM_EVENTS))
    events = [
        Event(int(person), int(action), start_s, start_s + length_s, score, score)
        for person, action, start_s, length_s, score in zip(
            rng.integers(1, 3, NUM_EVENTS),
            rng.integers(0, 52, NUM_EVENTS),
            start_N.tolist(),
            rng.lognormal(1, 0.8, NUM_EVENTS).clip(0.3, 15).tolist(),
            rng.uniform(0.2, 1, NUM_EVENTS).tolist(),
            strict=True,
        )
    ]
    num_steps = round(DURATION_S / STEP_S)
    activity = {person: (255 * rng.beta(0.2, 3, (num_steps, 52))).astype(np.uint8) for person in (1, 2)}
    video = Video("long.mp4", events, DURATION_S, activity=activity)
    out = write_output(folder / "labels", str(folder), [video])
    report = Path(write_report(read_labels(str(out)))).parent
    return report / "videos" / page_name(f"{folder}/long.mp4")


def frames_per_s(page: OpenedPage, move: Callable[[OpenedPage, float, float], None]) -> float:
    """Return the frames per second while the timeline is moved."""
    page.page.locator("#lanes").scroll_into_view_if_needed()
    box = page.page.locator("#lanes").bounding_box()
    page.page.evaluate(COUNT_FRAMES)
    move(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    return float(page.page.evaluate(FRAMES_PER_S))


def zoom(page: OpenedPage, x: float, y: float) -> None:
    """Zoom in and out again."""
    page.page.mouse.move(x, y)
    page.page.keyboard.down("Control")
    for number in range(NUM_MOVES):
        page.page.mouse.wheel(0, -60 if number < NUM_MOVES // 2 else 60)
    page.page.keyboard.up("Control")


def pan(page: OpenedPage, x: float, y: float) -> None:
    """Drag an enlarged timeline left and right."""
    page.page.click("#zoom-in")
    page.page.mouse.move(x, y)
    page.page.mouse.down()
    for number in range(NUM_MOVES):
        page.page.mouse.move(x + (200 if number % 2 else -200), y, steps=2)
    page.page.mouse.up()


if __name__ == "__main__":
    main()
