"""Draw docs/assets/timeline.png from the output of `make demo`: `python -m docs.scripts.make_timeline [DEMO_FOLDER]`.

An interview's frames, the actions that it shows (interviews/truth.csv) and the events that were found (labels/events). Colors are
of the Okabe-Ito palette, which people with color blindness can tell apart; what is found and not true is hatched too.
"""

import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from microaction.cli.demo import read_events, read_truth
from microaction.evaluation.detection import TimedAction, temporal_iou
from microaction.taxonomy import ACTIONS
from microaction.video import decode_frames, probe

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "docs" / "assets" / "timeline.png"
MIN_IOU = 0.5  # as the demo counts
SECONDS = 45.0
NUM_THUMBNAILS = 9
THUMBNAIL_ASPECT = 0.64  # width over height, as the layout below shows them
TRUE_COLOR, MATCHED_COLOR, UNMATCHED_COLOR = "#c9d1d9", "#0072b2", "#e69f00"
LABEL_CHARACTERS = 46  # blanks are narrow
WIDTH_IN, HEIGHT_IN, DPI = 9.0, 5.4, 200  # shown at 900 pixels: twice as many


class Bar(NamedTuple):
    """An event to draw."""

    event: TimedAction
    is_matched: bool


def main() -> None:
    """Draw a typical excerpt of the interviews."""
    demo = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "demo")
    truth = _by_video(read_truth(demo / "interviews" / "truth.csv"))
    found = _by_video(read_events(demo / "labels", set(truth)))
    video, start_s = _typical_excerpt(truth, found)
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    figure = draw(demo / "interviews" / video.rpartition("/")[0], truth[video], found[video], start_s)
    figure.savefig(IMAGE, dpi=DPI, facecolor="white", metadata={"Software": None})
    sys.stdout.write(f"{IMAGE}: {video}, {start_s:g} s to {start_s + SECONDS:g} s\n")


def draw(video: Path, truth: list[TimedAction], found: list[TimedAction], start_s: float) -> Figure:
    """Return the plot of an excerpt."""
    plt.rcParams |= {"font.size": 9.5, "font.family": "DejaVu Sans", "hatch.linewidth": 0.8}
    true_bars, found_bars = _matched(truth, found)
    end_s = start_s + SECONDS
    true_bars, found_bars = (_inside(bars, start_s, end_s) for bars in (true_bars, found_bars))
    first_s: dict[int, float] = {}
    for bar in sorted([*true_bars, *found_bars], key=lambda bar: bar.event.start_s):
        first_s.setdefault(bar.event.action_id, bar.event.start_s)
    row_of = {action: row for row, action in enumerate(first_s)}
    figure = plt.figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    film, axes = figure.subplots(2, 1, height_ratios=(1, 3.4))
    _draw_film(film, video, start_s)
    for bar in true_bars:
        _draw_bar(axes, bar, row_of, 0.02, TRUE_COLOR, "#57606a")
    for bar in found_bars:
        color, hatch = (MATCHED_COLOR, "") if bar.is_matched else (UNMATCHED_COLOR, "////")
        _draw_bar(axes, bar, row_of, -0.36, color, "white", hatch)
    axes.set(xlim=(start_s, end_s), ylim=(len(row_of) - 0.45, -0.55), xlabel=f"seconds of {video.name}")
    labels = [ACTIONS[action].rjust(LABEL_CHARACTERS) for action in row_of]  # as wide as the legend above them
    axes.set_yticks(range(len(row_of)), labels)
    axes.tick_params(length=0)
    axes.grid(axis="x", color="#e5e8eb")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    figure.legend(  # beside the frames
        handles=[
            Patch(facecolor=TRUE_COLOR, edgecolor="#57606a", label="shown"),
            Patch(facecolor=MATCHED_COLOR, label=f"found, overlap ≥ {MIN_IOU:.0%}"),
            Patch(facecolor=UNMATCHED_COLOR, edgecolor="white", hatch="////", label="found, not shown there"),
        ],
        loc="upper left",
        frameon=False,
        borderaxespad=1.2,
    )
    return figure


def _draw_film(axes: Axes, video: Path, start_s: float) -> None:
    """Draw frames of the excerpt in a row, each at its time."""
    info = probe(str(video))
    width_s = SECONDS / NUM_THUMBNAILS
    times_s = start_s + width_s * (np.arange(NUM_THUMBNAILS) + 0.5)
    frames = decode_frames(str(video), [int(time_s * info.fps) for time_s in times_s])
    for time_s, frame in zip(times_s, frames, strict=True):
        height, width = frame.shape[0], int(THUMBNAIL_ASPECT * frame.shape[0])
        left = (frame.shape[1] - width) // 2
        extent = (time_s - 0.48 * width_s, time_s + 0.48 * width_s, 0, 1)
        axes.imshow(frame[:height, left : left + width], extent=extent, aspect="auto", interpolation="lanczos")
    axes.set(xlim=(start_s, start_s + SECONDS), ylim=(0, 1))
    axes.axis("off")


def _draw_bar(
    axes: Axes, bar: Bar, row_of: dict[int, int], offset: float, color: str, edgecolor: str, hatch: str = ""
) -> None:
    event = bar.event
    axes.broken_barh(
        [(event.start_s, event.end_s - event.start_s)],
        (row_of[event.action_id] + offset, 0.34),
        linewidth=0.6,
        facecolor=color,
        edgecolor=edgecolor,
        hatch=hatch,
    )


def _matched(truth: list[TimedAction], found: list[TimedAction]) -> tuple[list[Bar], list[Bar]]:
    """Return all events with whether they have a partner, the best first, as the demo matches them."""
    free = list(truth)
    found_bars = []
    for event in sorted(found, key=lambda event: -event.score):
        candidates = [
            true for true in free if true.action_id == event.action_id and temporal_iou(event, true) >= MIN_IOU
        ]
        partner = max(candidates, key=lambda true: temporal_iou(event, true), default=None)
        if partner is not None:
            free.remove(partner)
        found_bars.append(Bar(event, partner is not None))
    return [Bar(true, true not in free) for true in truth], found_bars


def _inside(bars: list[Bar], start_s: float, end_s: float) -> list[Bar]:
    return [bar for bar in bars if bar.event.start_s < end_s and bar.event.end_s > start_s]


def _by_video(events: list[TimedAction]) -> dict[str, list[TimedAction]]:
    grouped: dict[str, list[TimedAction]] = defaultdict(list)
    for event in events:
        grouped[event.video].append(event)
    return grouped


def _typical_excerpt(truth: dict[str, list[TimedAction]], found: dict[str, list[TimedAction]]) -> tuple[str, float]:
    """Return the video and the start of the excerpt with the median recall: not the best one, and not the worst."""
    recalls = []
    for video, events in truth.items():
        true_bars, _ = _matched(events, found[video])
        last_s = max(event.end_s for event in events)
        for start_s in np.arange(0, max(last_s - SECONDS, 1), 5.0):
            inside = _inside(true_bars, start_s, start_s + SECONDS)
            recalls.append((sum(bar.is_matched for bar in inside) / max(1, len(inside)), video, float(start_s)))
    _, video, start_s = sorted(recalls)[len(recalls) // 2]
    return video, start_s


if __name__ == "__main__":
    main()
