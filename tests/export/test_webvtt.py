"""Captions: the same events when they are read by the format's rules, whatever people are called."""

import html
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from microaction.export.display import person_names, span_ms
from microaction.export.labels import Event, Labels, VideoLabels, read_labels
from microaction.export.webvtt import EXPORTER, webvtt_of
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from tests.export.event_strategies import LISTS_OF_EVENTS
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

NODDING, SHAKING_LEGS = 9, 24
TIMING = re.compile(r"(\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3}) --> (\d{2,}):([0-5]\d):([0-5]\d)\.(\d{3})")
VOICE = re.compile(r"<v\.([^\s.<>&]+) ([^<>\n]+)>([^<>\n]*)</v>")

Cue = tuple[int, int, str, str, str]  # start and end in milliseconds, class, voice, text


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    one = [Event(2, SHAKING_LEGS, 10_799.9996, 10_801.5, 0.25, 0.6), Event(1, NODDING, 1.0, 3.0, 0.9, 0.95)]
    alone = [Event(1, NODDING, 0.0, 0.0, 0.5, 0.5)]
    videos = [
        Video("a/one.mp4", one, names={1: "Ann & <b>Ben</b>"}, duration_s=10_900.0),
        Video("alone.mp4", alone),
        Video("empty.mp4"),
        Video("unreadable.mp4", duration_s=None),
        *(
            Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)], names={1: name, 2: f"{name} --> x\n\n00:00.000"})
            for name in HOSTILE_NAMES
        ),
    ]
    return read_labels(str(write_output(tmp_path_factory.mktemp("labels") / "out", "/archive", videos)))


@pytest.fixture(scope="module")
def one(labels: Labels) -> VideoLabels:
    return labels.video("a/one.mp4")


def cues_of(text: str) -> list[Cue]:
    """Return the cues of a file, by the rules of WebVTT: blocks are separated by empty lines."""
    header, *blocks = text.removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    cues: list[Cue] = []
    for block in blocks:
        if block.startswith("NOTE\n"):
            assert "-->" not in block
            continue
        number, timing, payload = block.split("\n")
        assert number == str(len(cues) + 1)
        times, voice = TIMING.fullmatch(timing), VOICE.fullmatch(payload)
        assert times, timing
        assert voice, payload
        start_ms, end_ms = _milliseconds(times.groups()[:4]), _milliseconds(times.groups()[4:])
        cues.append((start_ms, end_ms, voice[1], html.unescape(voice[2]), html.unescape(voice[3])))
    return cues


def _milliseconds(groups: tuple[str, ...]) -> int:
    hours, minutes, seconds, milliseconds = map(int, groups)
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds


@given(events=LISTS_OF_EVENTS)
def test_any_events_are_read_back_equal(events: tuple[Event, ...], labels: Labels, one: VideoLabels) -> None:
    video = replace(one, events=events)
    names = person_names(video)
    cues = cues_of(webvtt_of(labels, video))
    assert Counter(cues) == Counter(
        (
            *span_ms(event),
            BODY_PARTS[BODY_PART_OF[event.action_id]].replace(" ", "-"),
            names[event.person],
            f"{names[event.person]}: {ACTIONS[event.action_id]} ({event.probability:.2f})",
        )
        for event in events
    )
    starts = [start_ms for start_ms, *_ in cues]
    assert starts == sorted(starts), "the format demands it"


def test_files_have_the_person_the_action_and_the_model(labels: Labels, tmp_path: Path) -> None:
    written = EXPORTER.write(labels, labels.each_video(), str(tmp_path))
    assert (written.num_videos, written.num_events) == (3 + len(HOSTILE_NAMES), 3 + len(HOSTILE_NAMES))
    text = (tmp_path / "a" / "one.vtt").read_text()
    assert text == (
        "WEBVTT\n\n"
        "NOTE\nVideo: a/one.mp4\n"
        f"Labeled by microaction with the model demo-detector, SHA-256 {'0' * 64}\n"
        "Published on 2026-01-01 at 00:00:00 UTC\n\n"
        "1\n00:00:01.000 --> 00:00:03.000\n"
        "<v.head Ann &amp; &lt;b&gt;Ben&lt;/b&gt;>Ann &amp; &lt;b&gt;Ben&lt;/b&gt;: nodding (0.90)</v>\n\n"
        "2\n03:00:00.000 --> 03:00:01.500\n"
        "<v.lower-limb person 2>person 2: shaking legs (0.25)</v>\n"
    )
    assert cues_of((tmp_path / "alone.vtt").read_text()) == [(0, 1, "head", "person 1", "nodding (0.50)")]
    assert cues_of((tmp_path / "empty.vtt").read_text()) == []
    assert not (tmp_path / "unreadable.vtt").exists()


def test_hostile_names_are_only_names(labels: Labels) -> None:
    for name in HOSTILE_NAMES:
        video = labels.video(name)
        (cue,) = cues_of(webvtt_of(labels, video))
        assert cue == (500, 1500, "head", person_names(video)[1], f"{person_names(video)[1]}: nodding (0.70)")
