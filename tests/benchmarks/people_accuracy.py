"""How well two people in one picture are labeled, beside the same people filmed alone.

`python -m tests.benchmarks.people_accuracy [FOLDER] [--seeds 3] [--interviews 4] [--seconds 60] [--model demo]` draws interviews
of two people into FOLDER (`people-accuracy`), in a two-shot and with cuts to close-ups, and each of the people alone, doing the
same. It labels all of them and prints the fraction of windows with an action whose most likely action is the true one: mean and
standard deviation over seeds. Close-ups hide legs, so they are a row of their own.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from microaction import label_video
from microaction.synthetic.interview import interview_frames, plan_interview
from microaction.synthetic.render import DEFAULT_FPS, DEFAULT_SIZE, encode_video
from microaction.synthetic.scene import Place, Shot, close_up, make_scene, side_by_side
from microaction.synthetic.truth import TruthEvent
from tests.benchmarks.timing import console

SIZES = {"640×360": (640, 360), "1280×720": (1280, 720)}
MIN_OVERLAP_S = 1.0
FIRST_SUBJECT = 9000  # no subject of the demo's clips


def correct_of(windows: pd.DataFrame, events: list[TruthEvent], spans: list[tuple[float, float]]) -> list[bool]:
    """Return for each window within the spans that shows an action for a second or more whether that is its label."""
    found = []
    for start_s, end_s, action in zip(windows["start_s"], windows["end_s"], windows["action_id"], strict=True):
        if not any(first <= start_s and end_s <= last for first, last in spans):
            continue
        overlaps = [(min(end_s, event.end_s) - max(start_s, event.start_s), event.action) for event in events]
        longest, label = max(overlaps, default=(0.0, -1))
        if longest >= MIN_OVERLAP_S:
            found.append(bool(action == label))
    return found


def label(path: Path, model: str, people: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    labeled = label_video(path, model, people=people, precision="fp32")
    return labeled.windows.to_pandas(), labeled.people.to_pandas()


def windows_of(person: int, path: Path, model: str, shots: list[Shot], width: int) -> pd.DataFrame:
    """Return the windows of whoever is found where a person is drawn in each shot."""
    windows, people = label(path, model, "auto")
    parts, start_s = [], 0.0
    for shot in shots:
        place = shot.places.get(person)
        for row in people.to_dict("records") if place else ():
            for span in row["spans"]:
                middle = (span["left"] + span["width"] / 2) / width
                if span["start_s"] < shot.end_s and span["end_s"] > start_s and _is_at(place, middle):
                    its = windows[(windows["person"] == row["person"]) & (windows["start_s"] >= start_s)]
                    parts.append(its[its["end_s"] <= shot.end_s])
                    break
        start_s = shot.end_s
    return pd.concat(parts) if parts else windows.iloc[:0]


def _is_at(place: Place | None, middle: float) -> bool:
    return place is not None and place.left <= middle < place.left + place.width


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default="people-accuracy", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--interviews", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--model", default="demo")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    ways: dict[str, list[float]] = {}
    for seed in range(arguments.seeds):
        of_seed: dict[str, list[bool]] = {}
        for interview in range(arguments.interviews):
            for way, correct in measured(arguments, seed * 100 + interview):
                of_seed.setdefault(way, []).extend(correct)
        for way, correct in of_seed.items():
            ways.setdefault(way, []).append(100 * float(np.mean(correct)))
            console.print(f"seed {seed}, {way}: {ways[way][-1]:.1f}% of {len(correct)} windows", highlight=False)
    table = Table("", "windows labeled right, %", title="Two drawn people, labeled by a network that knows single ones")
    for way, values in ways.items():
        table.add_row(way, f"{np.mean(values):.1f} ± {np.std(values):.1f}")
    console.print(table)


def measured(arguments: argparse.Namespace, seed: int) -> list[tuple[str, list[bool]]]:
    """Return (way, whether each window is right) of one interview."""
    folder, seconds = arguments.folder, arguments.seconds
    subjects = [FIRST_SUBJECT + 2 * seed, FIRST_SUBJECT + 2 * seed + 1]
    rows: list[tuple[str, list[bool]]] = []
    whole = [(0.0, seconds)]
    events = [plan_interview(seed=seed * 100 + person, duration_s=seconds, fps=DEFAULT_FPS) for person in (0, 1)]
    for person, subject in enumerate(subjects):
        path = folder / f"{seed}-alone-{person}.mp4"
        if not path.exists():
            frames = interview_frames(
                events[person],
                subject_seed=subject,
                seed=seed * 100 + person,
                num_frames=round(seconds * DEFAULT_FPS),
                size=DEFAULT_SIZE,
                fps=DEFAULT_FPS,
            )
            encode_video(path, frames, DEFAULT_SIZE, DEFAULT_FPS)
        rows.append(("alone, whole frame", correct_of(label(path, arguments.model, "off")[0], events[person], whole)))
        rows.append(("alone, people found", correct_of(label(path, arguments.model, "auto")[0], events[person], whole)))
    both = side_by_side(0, 1)
    for name, size in SIZES.items():
        kinds = {f"two-shot {name}": [Shot(seconds, both)]}
        if name == "640×360":
            third = seconds / 3
            kinds["cuts"] = [
                Shot(third, both),
                Shot(1.5 * third, close_up(0)),
                Shot(2 * third, close_up(1)),
                Shot(seconds, both),
            ]
        for kind, shots in kinds.items():
            path = folder / f"{seed}-{kind.replace(' ', '-')}.mp4"
            if not path.exists():
                truth = make_scene(path, subject_seeds=subjects, shots=shots, seed=seed, size=size)
                assert truth.events == tuple(events), "the same as those who are filmed alone do"
            for person in (0, 1):
                windows = windows_of(person, path, arguments.model, shots, size[0])
                wide = [(start, shot.end_s) for start, shot in _timed(shots) if len(shot.places) == 2]
                close = [(start, shot.end_s) for start, shot in _timed(shots) if len(shot.places) == 1]
                rows.append((kind if kind != "cuts" else "cuts: two-shots", correct_of(windows, events[person], wide)))
                if close:
                    rows.append(("cuts: close-ups", correct_of(windows, events[person], close)))
            if kind.startswith("two-shot"):
                middle = label(path, arguments.model, "off")[0]
                rows.append((f"{kind}, whole frame", correct_of(middle, events[0], whole)))
    return rows


def _timed(shots: list[Shot]) -> list[tuple[float, Shot]]:
    return list(zip([0.0, *(shot.end_s for shot in shots)], shots, strict=False))


if __name__ == "__main__":
    main()
