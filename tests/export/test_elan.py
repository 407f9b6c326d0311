"""ELAN's files: valid, and the same events when they are read with pympi."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import xmlschema
from hypothesis import HealthCheck, given, settings
from pympi.Elan import Eaf

from microaction.export.display import person_names, score_text, span_ms
from microaction.export.elan import EXPORTER, eaf_of, tiers_of
from microaction.export.labels import Event, Labels, VideoLabels, read_labels
from microaction.taxonomy import ACTIONS, BODY_PART_OF, BODY_PARTS
from tests.export.event_strategies import LISTS_OF_EVENTS
from tests.export.outputs import HOSTILE_NAMES, Video, write_output

SCHEMA = xmlschema.XMLSchema(Path(__file__).with_name("eaf_3_0.xsd"))
NODDING, SHAKING_HEAD, SHAKING_LEGS = 9, 10, 24
HEAD, LOWER_LIMB = BODY_PARTS.index("head"), BODY_PARTS.index("lower limb")

Row = tuple[str, str, str, int, int, str]  # person, body part, action, start and end in milliseconds, score


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interviews")


@pytest.fixture(scope="module")
def labels(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Labels:
    events = [
        Event(1, NODDING, 1.0, 3.0, 0.9, 0.95),
        Event(2, NODDING, 1.5, 2.0, 0.5, 0.6),
        Event(1, SHAKING_HEAD, 2.0, 4.0, 0.8, 0.85),
        Event(1, NODDING, 3.0, 3.5, 0.7, 0.7),
        Event(1, SHAKING_LEGS, 10_800.0004, 10_800.0004, 0.1234, 0.2),
    ]
    videos = [
        Video("a/one.mp4", events, names={1: "Ann", 2: "Ann"}, duration_s=10_900.0),
        Video("frame.MOV", [Event(0, NODDING, 0.0, 1.0, 0.5, 0.5)]),
        Video("no events.mkv", names={1: "Ben"}),
        Video("nobody.mp4"),
        Video("unreadable.mp4", duration_s=None),
        *(
            Video(name, [Event(1, NODDING, 0.5, 1.5, 0.7, 0.8)], names={1: name.removesuffix(".mp4")})
            for name in HOSTILE_NAMES
        ),
    ]
    return read_labels(str(write_output(tmp_path_factory.mktemp("labels") / "out", str(archive), videos, 3)))


@pytest.fixture(scope="module")
def one(labels: Labels) -> VideoLabels:
    return labels.video("a/one.mp4")


@pytest.fixture(scope="module")
def dest(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elan")
    written = EXPORTER.write(labels, labels.each_video(), str(folder))
    assert (written.locations, written.num_videos) == ((str(folder),), 4 + len(HOSTILE_NAMES))
    assert written.num_events == 6 + len(HOSTILE_NAMES)
    return folder


def rows_of(eaf: Eaf) -> Counter[Row]:
    """Return the events in a file; a tier's children hold the scores."""
    rows: Counter[Row] = Counter()
    for name, (aligned, _, attributes, _) in eaf.tiers.items():
        if attributes.get("PARENT_REF"):
            continue
        scores = {parent: score for parent, score, _, _ in eaf.tiers[f"{name} · score"][1].values()}
        assert set(scores) == set(aligned)
        person, _, tier = name.rpartition(" · ")
        assert person == attributes["PARTICIPANT"]
        for annotation, (start, end, value, _) in aligned.items():
            part = tier.rstrip("0123456789 ")
            rows[person, part, value, eaf.timeslots[start], eaf.timeslots[end], scores[annotation]] += 1
    return rows


def expected_rows(video_events: tuple[Event, ...], names: dict[int, str]) -> Counter[Row]:
    return Counter(
        (
            names[event.person],
            BODY_PARTS[BODY_PART_OF[event.action_id]],
            ACTIONS[event.action_id],
            *span_ms(event),
            score_text(event.probability),
        )
        for event in video_events
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(events=LISTS_OF_EVENTS)
def test_any_events_are_valid_and_read_back_equal(
    events: tuple[Event, ...], labels: Labels, one: VideoLabels, tmp_path: Path
) -> None:
    video = replace(one, events=events)
    file = tmp_path / "one.eaf"
    file.write_bytes(eaf_of(labels, video, str(tmp_path)))
    SCHEMA.validate(ElementTree.parse(file))
    assert rows_of(Eaf(str(file))) == expected_rows(events, person_names(video))


@given(events=LISTS_OF_EVENTS)
def test_tiers_have_no_overlaps_and_are_as_few_as_possible(events: tuple[Event, ...], one: VideoLabels) -> None:
    video = replace(one, events=events)
    tiers = list(tiers_of(video))
    for tier in tiers:
        spans = [span_ms(event) for event in tier.events]
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    for person, body_part in itertools.product(video.persons, range(len(BODY_PARTS))):
        spans = [
            span_ms(event) for event in events if (event.person, BODY_PART_OF[event.action_id]) == (person, body_part)
        ]
        most_at_once = max((sum(a <= start < b for a, b in spans) for start, _ in spans), default=1)
        numbers = [tier.number for tier in tiers if (tier.person, tier.body_part) == (person, body_part)]
        assert numbers == list(range(1, most_at_once + 1))


def test_every_file_is_valid(dest: Path) -> None:
    files = sorted(dest.rglob("*.eaf"))
    assert len(files) == 4 + len(HOSTILE_NAMES)
    for file in files:
        SCHEMA.validate(ElementTree.parse(file))


def test_people_are_participants_with_all_body_parts(dest: Path) -> None:
    eaf = Eaf(str(dest / "a" / "one.eaf"))
    people = ("Ann (person 1)", "Ann (person 2)")
    tiers = [f"{person} · {part}" for person in people for part in BODY_PARTS]
    tiers.insert(2, "Ann (person 1) · head 2")
    assert [name for name in eaf.tiers if not name.endswith("score")] == tiers
    assert {attributes["PARTICIPANT"] for _, _, attributes, _ in eaf.tiers.values()} == set(people)
    assert all(eaf.tiers[f"{name} · score"][2]["PARENT_REF"] == name for name in tiers)
    assert eaf.get_annotation_data_for_tier("Ann (person 1) · head") == [
        (1000, 3000, "nodding"),
        (3000, 3500, "nodding"),
    ]
    assert eaf.get_annotation_data_for_tier("Ann (person 1) · head 2") == [(2000, 4000, "shaking head")]
    assert eaf.get_annotation_data_for_tier("Ann (person 1) · lower limb") == [(10_800_000, 10_800_001, "shaking legs")]
    whole_frame = Eaf(str(dest / "frame.eaf"))
    assert whole_frame.get_annotation_data_for_tier("everybody · head") == [(0, 1000, "nodding")]
    assert next(iter(Eaf(str(dest / "no events.eaf")).tiers)) == "Ben · body"
    assert not Eaf(str(dest / "nobody.eaf")).tiers


def test_values_are_entries_of_the_vocabulary(dest: Path) -> None:
    document = ElementTree.parse(dest / "a" / "one.eaf").getroot()
    entries = {entry.attrib["CVE_ID"]: entry.findtext("CVE_VALUE") for entry in document.iter("CV_ENTRY_ML")}
    assert list(entries.values()) == list(ACTIONS)
    for annotation in document.iter("ALIGNABLE_ANNOTATION"):
        assert entries[annotation.attrib["CVE_REF"]] == annotation.findtext("ANNOTATION_VALUE")
    (linguistic_type,) = (t for t in document.iter("LINGUISTIC_TYPE") if t.get("CONTROLLED_VOCABULARY_REF"))
    assert linguistic_type.attrib["TIME_ALIGNABLE"] == "true"


def test_time_slots_are_in_order_of_time(dest: Path) -> None:
    document = ElementTree.parse(dest / "a" / "one.eaf").getroot()
    times = [int(slot.attrib["TIME_VALUE"]) for slot in document.iter("TIME_SLOT")]
    assert times == sorted(times)
    place = {slot.attrib["TIME_SLOT_ID"]: i for i, slot in enumerate(document.iter("TIME_SLOT"))}
    for annotation in document.iter("ALIGNABLE_ANNOTATION"):
        assert place[annotation.attrib["TIME_SLOT_REF1"]] < place[annotation.attrib["TIME_SLOT_REF2"]]


def test_the_video_is_linked_by_relative_path_and_uri(dest: Path, archive: Path, labels: Labels) -> None:
    found = {}
    for file in dest.rglob("*.eaf"):
        media = ElementTree.parse(file).getroot().find("HEADER/MEDIA_DESCRIPTOR")
        assert media is not None
        url, relative = media.attrib["MEDIA_URL"], media.attrib["RELATIVE_MEDIA_URL"]
        assert url.startswith("file:///")
        assert url.isascii()
        assert relative.startswith(("./", "../")), "ELAN takes nothing else for a relative path"
        location = unquote(url.removeprefix("file://"))
        assert (file.parent / unquote(relative)).resolve() == Path(location).resolve()
        found[location] = media.attrib["MIME_TYPE"]
    names = {video.name for video in labels.each_video()} - {"unreadable.mp4"}
    assert set(found) == {f"{archive}/{name}" for name in names}
    assert found[f"{archive}/frame.MOV"] == "video/quicktime"
    assert found[f"{archive}/no events.mkv"] == "video/x-matroska"


def test_relative_paths_with_spaces_are_as_elan_writes_them(dest: Path) -> None:
    for name, expected in (("no events", "no events.mkv"), ("emoji 🙂 ü", "emoji 🙂 ü.mp4")):
        media = ElementTree.parse(dest / f"{name}.eaf").getroot().find("HEADER/MEDIA_DESCRIPTOR")
        assert media is not None
        assert media.attrib["RELATIVE_MEDIA_URL"].endswith(f"/{expected}"), "ELAN does not decode %20"


def test_videos_in_a_store_are_linked_by_its_uri(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", "s3://bucket/inter views", [Video("a b#1.mp4")])
    labels = read_labels(str(out))
    written = EXPORTER.write(labels, labels.each_video(), str(tmp_path / "elan"))
    (file,) = written.locations
    SCHEMA.validate(ElementTree.parse(file))
    media = ElementTree.parse(file).getroot().find("HEADER/MEDIA_DESCRIPTOR")
    assert media is not None
    assert media.attrib == {"MEDIA_URL": "s3://bucket/inter%20views/a%20b%231.mp4", "MIME_TYPE": "video/mp4"}


def test_equal_labels_make_equal_files(labels: Labels, dest: Path, tmp_path: Path) -> None:
    before = (dest / "a" / "one.eaf").read_bytes()
    EXPORTER.write(labels, [labels.video("a/one.mp4")], str(dest))
    assert (dest / "a" / "one.eaf").read_bytes() == before
    assert not [file for file in dest.rglob("*") if file.is_file() and file.suffix != ".eaf"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('CVE_REF="ma52-09"', 'CVE_REF="ma52-99"'),
        ('TIME_SLOT_REF2="ts', 'TIME_SLOT_REF2="other'),
        ('PARENT_REF="Ann', 'PARENT_REF="Ben'),
        ('DATE="2', 'DATE="on 2'),
        ("<TIME_ORDER>", "<TIME_ORDER/><TIME_ORDER>"),
        ('TIME_VALUE="1000"', 'TIME_VALUE="-1"'),
        ('CONSTRAINTS="Symbolic_Association"', 'CONSTRAINTS="Anything"'),
    ],
)
def test_the_schema_finds_what_is_wrong(old: str, new: str, dest: Path) -> None:
    content = (dest / "a" / "one.eaf").read_text()
    assert SCHEMA.is_valid(content)
    assert old in content
    assert not SCHEMA.is_valid(content.replace(old, new, 1))
