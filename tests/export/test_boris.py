"""BORIS's project and tables, field by field, and opened by BORIS where it is installed."""

import csv
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from microaction.export.boris import EXPORTER, states_of
from microaction.export.display import person_names, span_ms
from microaction.export.labels import Event, Labels, Selection, VideoLabels, read_labels
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from tests.export.event_strategies import LISTS_OF_EVENTS
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
ONE = (
    Event(1, NODDING, 1.0, 3.0, 0.9, 0.95),
    Event(2, NODDING, 1.5, 2.0, 0.5, 0.6),
    Event(1, NODDING, 3.0, 3.5, 0.7, 0.7),
    Event(1, SHAKING_LEGS, 59.0, 60.04, 0.25, 0.3),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files of the videos' names: BORIS looks whether they are there."""
    folder = tmp_path_factory.mktemp("interviews")
    for name in ("a/one.mp4", "frame.mp4", "empty.mp4", *HOSTILE_NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def labels(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Labels:
    videos = [
        Video("a/one.mp4", ONE, names={1: "Ann", 2: "Ann"}, duration_s=60.04),
        Video("frame.mp4", [Event(0, NODDING, 0.0, 0.0, 0.5, 0.5)]),
        Video("empty.mp4", names={1: "Ben"}),
        Video("unreadable.mp4", duration_s=None),
        *(Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)], names={1: name}) for name in HOSTILE_NAMES),
    ]
    return read_labels(str(write_output(tmp_path_factory.mktemp("labels") / "out", str(archive), videos, 3)))


@pytest.fixture(scope="module")
def one(labels: Labels) -> VideoLabels:
    return labels.video("a/one.mp4")


@pytest.fixture(scope="module")
def dest(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boris")
    written = EXPORTER.write(labels, labels.each_video(), str(folder))
    assert written.locations == (str(folder / "project.boris"), str(folder / "tabular"))
    assert (written.num_videos, written.num_events) == (3 + len(HOSTILE_NAMES), 5 + len(HOSTILE_NAMES))
    return folder


@pytest.fixture(scope="module")
def project(dest: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((dest / "project.boris").read_bytes().decode("ascii"))
    return loaded


def states_in(observation: Mapping[str, Any]) -> Counter[tuple[str, str, float, float, str]]:
    """Return subject, action, start, end and comment of the states, paired as BORIS does: every second event is a stop."""
    open_since: dict[tuple[str, str], tuple[float, str]] = {}
    states: Counter[tuple[str, str, float, float, str]] = Counter()
    for time_s, subject, action, modifier, comment, frame in sorted(observation["events"], key=lambda event: event[:3]):
        assert (modifier, frame) == ("", "NA")
        if (subject, action) in open_since:
            start_s, start_comment = open_since.pop((subject, action))
            assert comment == ""
            states[subject, action, start_s, time_s, start_comment] += 1
        else:
            open_since[subject, action] = (time_s, comment)
    assert not open_since, "every start has its stop"
    return states


def test_the_project_has_every_field_of_the_format(project: dict[str, Any]) -> None:
    assert project["project_format_version"] == "7.0"
    assert project["time_format"] == "hh:mm:ss"
    assert project["project_date"] == "2026-01-01T00:00:00"
    assert [project[name] for name in ("independent_variables", "coding_map", "converters")] == [{}, {}, {}]
    assert project["behaviors_coding_map"] == []
    assert project["behavioral_categories"] == list(BODY_PARTS)
    assert [each["name"] for each in project["behavioral_categories_config"].values()] == list(BODY_PARTS)
    assert set(project) == {
        *("time_format", "project_date", "project_name", "project_description", "project_format_version"),
        *("subjects_conf", "behaviors_conf", "observations", "behavioral_categories", "behavioral_categories_config"),
        *("independent_variables", "coding_map", "behaviors_coding_map", "converters"),
    }


def test_the_ethogram_is_the_52_actions(project: dict[str, Any]) -> None:
    ethogram = project["behaviors_conf"]
    assert [behavior["code"] for behavior in ethogram.values()] == list(ACTIONS)
    assert list(ethogram) == [str(number) for number in range(52)]
    assert [behavior["category"] for behavior in ethogram.values()] == [BODY_PARTS[part] for part in BODY_PART_OF]
    assert {behavior["type"] for behavior in ethogram.values()} == {"State event"}
    assert len({behavior["key"] for behavior in ethogram.values()}) == 52
    assert len({behavior["color"] for behavior in ethogram.values()}) == len(BODY_PARTS)
    fields = {"type", "key", "code", "description", "color", "category", "modifiers", "excluded", "coding map"}
    assert all(set(behavior) == fields for behavior in ethogram.values())


def test_an_observation_has_its_video_and_states(project: dict[str, Any], dest: Path, archive: Path) -> None:
    observation = project["observations"]["a/one.mp4"]
    (media,) = observation["file"].pop("1")
    assert observation["file"] == {str(player): [] for player in range(2, 9)}
    assert media.startswith("../")
    assert (dest / media).resolve() == archive / "a" / "one.mp4"
    assert (observation["type"], observation["time offset"], observation["date"]) == ("MEDIA", 0, "2026-01-01T00:00:00")
    info = observation["media_info"]
    assert info["length"][media] == pytest.approx(60.04)
    assert info["length"][media] > 60.04, "BORIS would leave out an event at the very end"
    assert (info["fps"], info["hasVideo"], info["offset"]) == ({media: 25.0}, {media: True}, {"1": 0.0})
    assert states_in(observation) == Counter(
        [
            ("Ann (person 1)", "nodding", 1.0, 3.0, "score 0.900"),
            ("Ann (person 1)", "nodding", 3.0, 3.5, "score 0.700"),
            ("Ann (person 2)", "nodding", 1.5, 2.0, "score 0.500"),
            ("Ann (person 1)", "shaking legs", 59.0, 60.04, "score 0.250"),
        ]
    )
    assert states_in(project["observations"]["frame.mp4"]) == {("everybody", "nodding", 0.0, 0.001, "score 0.500"): 1}
    assert project["observations"]["empty.mp4"]["events"] == []
    assert "unreadable.mp4" not in project["observations"]


def test_every_subject_is_listed_once(project: dict[str, Any]) -> None:
    subjects = [subject["name"] for subject in project["subjects_conf"].values()]
    assert len(subjects) == len(set(subjects))
    coded = {event[1] for observation in project["observations"].values() for event in observation["events"]}
    assert coded | {"Ben"} == set(subjects)
    assert {"Ann (person 1)", "Ann (person 2)", "everybody"} < coded


def test_hostile_names_are_only_names(project: dict[str, Any], dest: Path, archive: Path) -> None:
    observations = project["observations"]
    assert len(observations) == 3 + len(HOSTILE_NAMES)
    found = set()
    for name, observation in observations.items():
        (media,) = observation["media_info"]["length"]
        found.add((dest / media).resolve())
        for text in (name, observation["description"], *(event[1] for event in observation["events"])):
            assert text.isprintable()
            assert text == text.strip()
            assert not text.startswith(("=", "+", "-", "@")), "BORIS exports to spreadsheets"
            assert not set(text) & set("<>|"), "BORIS shows markup, and joins subjects with |"
    assert {archive / name for name in HOSTILE_NAMES} < found
    for table in (dest / "tabular").rglob("*.tsv"):
        for row in csv.reader(io.StringIO(table.read_bytes().decode(), newline=""), delimiter="\t"):
            assert all(cell.isprintable() and not cell.startswith(("=", "+", "-", "@")) for cell in row)


def test_tables_are_those_of_the_project(project: dict[str, Any], dest: Path) -> None:
    text = (dest / "tabular" / "a" / "one.tsv").read_bytes().decode()
    assert text.count("\n") == text.count("\r\n") == 1 + 2 * len(ONE)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))
    (media,) = project["observations"]["a/one.mp4"]["media_info"]["length"]
    assert rows[0] == {
        "Observation id": "a/one.mp4",
        "Observation date": "2026-01-01 00:00:00",
        "Description": "Labeled by microaction with the model demo-detector",
        "Observation duration": "60.040",
        "Observation type": "Media file(s)",
        "Source": f"player #1:{media}",
        "Time offset (s)": "0.0",
        "Media duration (s)": "60.040",
        "FPS": "25.000",
        "Subject": "Ann (person 1)",
        "Behavior": "nodding",
        "Behavioral category": "head",
        "Behavior type": "START",
        "Time": "1.000",
        "Media file name": media,
        "Image index": "NA",
        "Image file path": "NA",
        "Comment": "score 0.900",
    }
    for name, table in (("a/one.mp4", "a/one.tsv"), ("frame.mp4", "frame.tsv"), ("empty.mp4", "empty.tsv")):
        events = [[*event[:3], event[4]] for event in project["observations"][name]["events"]]
        with (dest / "tabular" / table).open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        assert [[float(row["Time"]), row["Subject"], row["Behavior"], row["Comment"]] for row in rows] == events
        seen: dict[tuple[str, str], int] = defaultdict(int)
        for row in rows:
            expected = "STOP" if seen[row["Subject"], row["Behavior"]] % 2 else "START"
            assert row["Behavior type"] == expected
            seen[row["Subject"], row["Behavior"]] += 1


@given(events=LISTS_OF_EVENTS)
def test_states_are_the_events_with_overlaps_joined(events: tuple[Event, ...], one: VideoLabels) -> None:
    video = replace(one, events=events)
    names = person_names(video)
    last_end_of: dict[tuple[str, int], int] = defaultdict(int)
    num_found = 0
    for state in states_of(video):
        key = (state.subject, state.action_id)
        assert last_end_of[key] <= state.start_ms < state.end_ms
        last_end_of[key] = state.end_ms
        joined = sorted(
            (span_ms(event), event.probability)
            for event in events
            if (names[event.person], event.action_id) == key and state.start_ms <= span_ms(event)[0] < state.end_ms
        )
        num_found += len(joined)
        (start_ms, end_ms), _ = joined[0]
        for (next_ms, next_end_ms), _ in joined[1:]:
            assert next_ms < end_ms
            end_ms = max(end_ms, next_end_ms)
        assert (state.start_ms, state.end_ms) == (start_ms, end_ms)
        assert state.probability == max(probability for _, probability in joined)
    assert num_found == len(events)


def test_any_selection_is_a_project(labels: Labels, tmp_path: Path) -> None:
    written = EXPORTER.write(labels, labels.each_video(Selection(videos=["a/*"], persons=["2"])), str(tmp_path))
    project = json.loads((tmp_path / "project.boris").read_text())
    assert list(project["observations"]) == ["a/one.mp4"]
    assert (written.num_videos, written.num_events) == (1, 1)
    EXPORTER.write(labels, labels.each_video(Selection(videos=["unreadable.mp4"])), str(tmp_path))
    project = json.loads((tmp_path / "project.boris").read_text())
    assert (project["observations"], project["subjects_conf"]) == ({}, {})


def test_a_failed_export_leaves_the_project_as_it_was(labels: Labels, dest: Path) -> None:
    before = (dest / "project.boris").read_bytes()

    def videos() -> Any:
        yield labels.video("a/one.mp4")
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        EXPORTER.write(labels, videos(), str(dest))
    assert (dest / "project.boris").read_bytes() == before
    assert [path.name for path in dest.iterdir() if path.is_file()] == ["project.boris"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("boris") is None, reason="boris-behav-obs is not installed")
def test_boris_opens_the_project_and_exports_the_same_tables(
    dest: Path, project: dict[str, Any], tmp_path: Path
) -> None:
    command = [
        sys.executable,
        str(Path(__file__).with_name("boris_check.py")),
        str(dest / "project.boris"),
        str(tmp_path),
    ]
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    found_lines = [line for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    assert found_lines, run.stderr
    found = json.loads(found_lines[0].removeprefix("FOUND "))
    assert (found["error"], found["has_changed"], found["message"]) == (None, False, "")
    assert found["integrity"].replace("<br>", "") == ""
    assert all(is_paired for is_paired, _ in found["states"])
    observations = list(project["observations"])
    for name, ours in (("a/one.mp4", "a/one.tsv"), ("frame.mp4", "frame.tsv"), ("empty.mp4", "empty.tsv")):
        tables = []
        for table in (tmp_path / f"{observations.index(name)}.tsv", dest / "tabular" / ours):
            with table.open(newline="") as file:
                rows = list(csv.DictReader(file, delimiter="\t"))
            # BORIS writes all digits of a binary number here.
            tables.append(
                [row | {"Observation duration": round(float(row["Observation duration"]), 3)} for row in rows]
            )
        assert tables[0] == tables[1]
