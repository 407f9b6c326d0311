"""The rows of the public tables, made from some videos and their committed chunks. Knows no Ray.

Shapes: W windows of a video, K actions, P body parts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microaction.errors import FailureKind, InternalError
from microaction.labeling.detection_rule import DetectionRule
from microaction.labeling.events import Event, EventRule, find_events
from microaction.labeling.feature_tracks import Track, joined_tracks
from microaction.labeling.grid import is_detector
from microaction.labeling.settings import VideoLabelSettings
from microaction.schema import PUBLIC_TABLES
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS
from microaction.video.decoding.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, STEP_US, Span, merge_spans, microseconds, subtract_spans

if TYPE_CHECKING:
    from microaction.models import CheckpointConfig
    from microaction.models.detector import DetectionHead

PLEASE_REPORT = "; nothing was published. This is a bug: please report it"


class AccountingError(InternalError, RuntimeError):
    """The windows and failures of the ledger do not make up the videos."""


@dataclass(frozen=True)
class Provenance:
    """What made labels; in every row of the public tables."""

    model: str
    model_digest: str
    settings_digest: str


@dataclass(frozen=True)
class DecisionRule:
    """How probabilities become answers. None of it is part of a chunk's work, so it may change between two runs."""

    labels: tuple[str, ...]
    events: EventRule
    abstain_below: float
    detections: DetectionRule | None = None

    @classmethod
    def of(cls, settings: VideoLabelSettings, config: "CheckpointConfig") -> Self:
        """Return the rule that settings describe, for the labels of a checkpoint."""
        events = EventRule(
            settings.start_threshold,
            settings.effective_continue_threshold,
            microseconds(settings.max_gap_s),
            microseconds(settings.min_event_s),
        )
        detections = DetectionRule.of(settings, config) if is_detector(config) else None
        return cls(config.labels, events, settings.abstain_below, detections)

    @property
    def in_short(self) -> dict[str, Any]:
        """What a reader of the tables may want to know of the rule."""
        if self.detections is None:
            return asdict(self.events) | {"abstain_below": self.abstain_below}
        names = ("thresholds", "max_gap_us", "min_event_us", "clip_us", "active_probability")
        return {name: getattr(self.detections, name) for name in names}

    @property
    def described(self) -> dict[str, Any]:
        """The rule as JSON values."""
        rule = asdict(self)
        if self.detections is not None and self.detections.calibration is not None:
            rule["detections"]["calibration"] = self.detections.calibration.model_dump(mode="json")
        return rule


@dataclass(frozen=True)
class Totals:
    """Sums over videos; seconds are of video."""

    num_videos: int = 0
    num_people: int = 0
    num_windows: int = 0
    num_abstained: int = 0
    num_events: int = 0
    num_failures: int = 0
    video_s: float = 0.0
    covered_s: float = 0.0
    failed_s: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        """Return the sums of both."""
        return Totals(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))


class Tables:
    """The public rows of some videos, as they grow; `totals` counts them."""

    def __init__(self, runs: tuple[Provenance, ...], rule: DecisionRule, head: "DetectionHead | None" = None) -> None:
        """`head` is the rest of the detector, if one labels."""
        self._runs = runs
        self._rule = rule
        self._head = head
        self._parts: dict[str, list[pa.Table]] = {
            name: [schema.empty_table()] for name, schema in PUBLIC_TABLES.items()
        }
        self._membership_KP = np.eye(len(BODY_PARTS), dtype=np.float32)[list(BODY_PART_OF)]
        self._rows: dict[str, list[dict[str, Any]]] = {"events": [], "people": [], "failures": [], "videos": []}
        self.totals = Totals()

    def add(self, video: dict[str, Any], chunks: pa.Table, people: Mapping[str, Any] | None = None) -> None:
        """Add one video, its chunks by time, and its row of `schema.VIDEO_PEOPLE` if people were labeled in it.

        Raises `AccountingError` if a window occurs twice, or if a person's windows and failures are not what is seen of the
        person.
        """
        source = asdict(self._runs[0]) | {
            "video_version": video["version"],
            "decoder": ", ".join(sorted(set(chunks["decoder"].to_pylist()))) or DECODER,
        }
        timeline = _Timeline.of(video, chunks)
        windows = _LabeledWindows.of(chunks, timeline.start_us, len(self._rule.labels))
        tracks = [] if self._head is None else joined_tracks(chunks)
        seen = _seen_people(people, timeline)
        labeled = [
            self._add_person(
                video,
                person,
                windows.of_person(person.number),
                [each for each in tracks if each[0].person == person.number],
                timeline,
                source,
            )
            for person in seen
        ]
        covered = merge_spans(span for each in labeled for span in each.covered)
        failures = [row for each in labeled for row in each.failures]
        if people is None:
            failures += [{"person": None, **row} for row in _catalog_failures(video)]
        else:
            failures += [{"person": None, **row} for row in _unseen(people, seen, timeline)]
        self._rows["failures"] += [{"video": video["video"], **row, **source} for row in failures]
        covered_us, failed_us = _length_us(covered), _failed_us(failures, covered)
        events = [event for each in labeled for event in each.events]
        abstained_W = windows.abstained(self._rule)
        W = len(abstained_W)
        nobody_us = sum(
            microseconds(row["end_s"] - row["start_s"]) for row in failures if row["error"] == FailureKind.NOBODY_SEEN
        )
        facts = ("video", "duration_s", "video_start_s", "codec", "width", "height", "fps")
        row = {name: video[name] for name in facts} | {
            "num_people": None if people is None else sum(person.is_labeled for person in seen),
            "num_shots": None if people is None else people["num_shots"],
            "nobody_s": None if people is None else nobody_us / MICROSECONDS,
            **self._activity(events, abstained_W, covered_us, failed_us, video["duration_s"]),
        }
        self._rows["videos"].append(row | source)
        self.totals += Totals(
            num_videos=1,
            num_people=sum(person.is_labeled for person in seen) if people is not None else 0,
            num_windows=W,
            num_abstained=int(abstained_W.sum()),
            num_events=len(events),
            num_failures=len(failures),
            video_s=video["duration_s"] or 0.0,
            covered_s=covered_us / MICROSECONDS,
            failed_s=failed_us / MICROSECONDS,
        )

    def _add_person(
        self,
        video: dict[str, Any],
        person: "_SeenPerson",
        windows: "_LabeledWindows",
        tracks: Sequence[tuple[Track, np.ndarray]],
        timeline: "_Timeline",
        source: dict[str, str],
    ) -> "_LabeledPerson":
        """Add the windows or the activity, the events and the row of one person."""
        name, W = video["video"], len(windows.start_us_W)
        if (np.diff(windows.start_us_W) <= 0).any():
            raise AccountingError(f"windows of {name} occur twice, or out of order{PLEASE_REPORT}")
        abstained_W = windows.abstained(self._rule)
        if W:
            table = self._window_table(name, person.number, windows, abstained_W, source)
            self._parts["windows"].append(self._by_run(table, windows.run_W))
        events = []
        if W:
            spans = (windows.start_us_W, windows.end_us_W)
            events = find_events(*spans, windows.probabilities_WK, self._rule.events)
        if self._head is not None:
            events = self._detected(name, person.number, tracks, timeline.start_us, source)
        self._rows["events"] += [self._event_row(name, person.number, event) | source for event in events]
        covered = merge_spans(
            [
                *(Span(*span) for span in zip(windows.start_us_W.tolist(), windows.end_us_W.tolist(), strict=True)),
                *(track.span(timeline.start_us) for track, _ in tracks),
            ]
        )
        failures = [{"person": person.number, **row} for row in person.failures(timeline, covered)]
        covered_us, failed_us, seen_us = _length_us(covered), _failed_us(failures, covered), person.seen_us
        if covered_us + failed_us != seen_us:
            missing_s = (seen_us - covered_us - failed_us) / MICROSECONDS
            whose = f"person {person.number} in {name}" if person.number else name
            raise AccountingError(f"{missing_s:.6f} s of {whose} are neither labeled nor in failures/{PLEASE_REPORT}")
        if timeline.is_known:
            row = {"video": name, "person": person.number, "name": person.name, "seen_s": seen_us / MICROSECONDS}
            row |= self._activity(events, abstained_W, covered_us, failed_us, seen_us / MICROSECONDS)
            self._rows["people"].append(row | {"spans": person.rows()} | source)
        return _LabeledPerson(events, covered, failures)

    def _detected(
        self,
        video: str,
        person: int,
        tracks: Sequence[tuple[Track, np.ndarray]],
        shift_us: int,
        source: dict[str, str],
    ) -> list[Event]:
        """Add the activity of one person; return the events."""
        from microaction.labeling.detections import detect

        assert self._head is not None
        assert self._rule.detections is not None, "a detector has a rule"
        events, activity = detect(tracks, shift_us, self._head, self._rule.detections)
        schema = PUBLIC_TABLES["activity"]
        for span, probabilities_TK in activity:
            row = {"video": video, "person": person, "start_s": span.start_s, "end_s": span.end_s} | source
            row |= {"step_s": STEP_US / MICROSECONDS, "num_steps": len(probabilities_TK)}
            columns = {name: [value] for name, value in row.items()} | {
                "activity": _lists(probabilities_TK.reshape(1, -1))
            }
            self._parts["activity"].append(pa.table({name: columns[name] for name in schema.names}).cast(schema))
        return events

    def finished(self) -> dict[str, pa.Table]:
        """Return the tables, in the order in which they are written."""
        self._rows["events"].sort(key=lambda row: (row["action_id"], row["video"], row["person"], row["start_s"]))
        for name, rows in self._rows.items():
            self._parts[name].append(pa.Table.from_pylist(rows, schema=PUBLIC_TABLES[name]))
        # One dictionary per column, so that every row group has the same.
        return {
            name: pa.concat_tables(parts).unify_dictionaries().combine_chunks() for name, parts in self._parts.items()
        }

    def _window_table(
        self,
        video: str,
        person: int,
        windows: "_LabeledWindows",
        abstained_W: np.ndarray,
        source: dict[str, str],
    ) -> pa.Table:
        probabilities_WK = windows.probabilities_WK
        W = len(abstained_W)
        action_W = probabilities_WK.argmax(axis=1).astype(np.int32)
        body_part_W = np.array(BODY_PART_OF, np.int32)[action_W]
        columns: dict[str, Any] = {
            "video": pa.repeat(video, W),
            "person": pa.repeat(pa.scalar(person, pa.int32()), W),
            "start_s": windows.start_us_W / MICROSECONDS,
            "end_s": windows.end_us_W / MICROSECONDS,
            "action": pa.DictionaryArray.from_arrays(action_W, list(self._rule.labels)),
            "action_id": action_W,
            "body_part": pa.DictionaryArray.from_arrays(body_part_W, list(BODY_PARTS)),
            "body_part_id": body_part_W,
            "probability": probabilities_WK.max(axis=1),
            "abstained": abstained_W,
            "probabilities": _lists(probabilities_WK),
            "body_part_probabilities": _lists(probabilities_WK @ self._membership_KP),
        } | {name: _repeated(value, W) for name, value in source.items()}
        schema = PUBLIC_TABLES["windows"]
        return pa.table({name: columns[name] for name in schema.names}).cast(schema)

    def _by_run(self, windows: pa.Table, run_W: np.ndarray) -> pa.Table:
        """Return the windows, each with the provenance of the run that labeled it."""
        if not run_W.any():
            return windows
        for name in (field.name for field in fields(Provenance)):
            values = pa.DictionaryArray.from_arrays(run_W, [getattr(run, name) for run in self._runs])
            index = windows.schema.get_field_index(name)
            windows = windows.set_column(
                index, windows.schema.field(index), values.cast(pa.string()).dictionary_encode()
            )
        return windows

    def _event_row(self, video: str, person: int, event: Event) -> dict[str, Any]:
        body_part_id = BODY_PART_OF[event.action_id]
        return {
            "video": video,
            "person": person,
            "action": self._rule.labels[event.action_id],
            "action_id": event.action_id,
            "body_part": BODY_PARTS[body_part_id],
            "body_part_id": body_part_id,
            "start_s": event.start_us / MICROSECONDS,
            "end_s": event.end_us / MICROSECONDS,
            "probability": event.probability,
            "peak_probability": event.peak_probability,
            "num_windows": event.num_windows,
        }

    def _activity(
        self, events: list[Event], abstained_W: np.ndarray, covered_us: int, failed_us: int, total_s: float | None
    ) -> dict[str, Any]:
        """Return the columns that rows of a person and of a video share."""
        by_action: dict[int, list[Event]] = {}
        by_body_part: dict[int, list[Event]] = {}
        for event in events:
            by_action.setdefault(event.action_id, []).append(event)
            by_body_part.setdefault(BODY_PART_OF[event.action_id], []).append(event)

        def activity(its_events: list[Event]) -> dict[str, Any]:
            spans = merge_spans(Span(event.start_us, event.end_us) for event in its_events)
            return {
                "num_events": len(its_events),
                "events_per_minute": _per_minute(len(its_events), covered_us),
                "total_s": sum(span.end_us - span.start_us for span in spans) / MICROSECONDS,
            }

        labels = self._rule.labels
        return {
            "num_windows": len(abstained_W),
            "covered_s": covered_us / MICROSECONDS,
            "failed_s": failed_us / MICROSECONDS,
            "coverage": covered_us / MICROSECONDS / total_s if total_s else None,
            "abstained_fraction": float(abstained_W.mean()) if len(abstained_W) else None,
            "num_events": len(events),
            "events_per_minute": _per_minute(len(events), covered_us) if covered_us else None,
            "actions": [
                {"action": labels[action], "body_part": BODY_PARTS[BODY_PART_OF[action]]} | activity(its_events)
                for action, its_events in sorted(by_action.items())
            ],
            "body_parts": [
                {"body_part": BODY_PARTS[part]} | activity(its_events)
                for part, its_events in sorted(by_body_part.items())
            ],
        }


@dataclass(frozen=True)
class _Timeline:
    """A video on the timeline of its file, and its failed chunks: (start, end) of what each accounts for, and its row."""

    start_us: int
    end_us: int
    is_known: bool  # the video could be opened
    failed: list[tuple[Span, dict[str, Any]]]

    @classmethod
    def of(cls, video: dict[str, Any], chunks: pa.Table) -> Self:
        start_us = microseconds(video["video_start_s"] or 0.0)  # chunks count from the start of the video track
        end_us = start_us + microseconds(video["duration_s"] or 0.0)
        columns = ["chunk_start_us", "stage", "error", "reason", "attempts"]
        failed = chunks.select(columns).filter(pc.is_valid(chunks["error"])).to_pylist()
        # Windows extend past their chunk's end: a failed chunk accounts for what is missing up to the next failed one.
        borders_us = [start_us, *(start_us + chunk["chunk_start_us"] for chunk in failed[1:]), end_us]
        spans = [Span(*span) for span in pairwise(borders_us)] if failed else []
        is_known = video["error"] is None
        return cls(start_us, end_us, is_known, list(zip(spans, failed, strict=True)))


@dataclass(frozen=True)
class _LabeledWindows:
    """The windows of a video, or of one person in it, by time on the file's timeline."""

    start_us_W: np.ndarray
    end_us_W: np.ndarray
    person_W: np.ndarray
    probabilities_WK: np.ndarray
    run_W: np.ndarray

    @classmethod
    def of(cls, chunks: pa.Table, shift_us: int, num_classes: int) -> Self:
        starts_us_W, ends_us_W, person_W, probabilities, run_W = (
            _flat(chunks[name]).to_numpy()
            for name in ("window_start_us", "window_end_us", "window_person", "probabilities", "window_run")
        )
        probabilities_WK = probabilities.reshape(len(starts_us_W), num_classes)
        return cls(starts_us_W + shift_us, ends_us_W + shift_us, person_W, probabilities_WK, run_W)

    def of_person(self, number: int) -> "_LabeledWindows":
        is_its_W = self.person_W == number
        if is_its_W.all():
            return self
        return _LabeledWindows(*(getattr(self, column.name)[is_its_W] for column in fields(self)))

    def abstained(self, rule: DecisionRule) -> np.ndarray:
        is_abstained_W: np.ndarray = self.probabilities_WK.max(axis=1, initial=0) < rule.abstain_below
        return is_abstained_W


@dataclass(frozen=True)
class _SeenPerson:
    """A person of a video: the spans on the file's timeline, and the rows of `schema.VIDEO_PEOPLE` that they come from."""

    number: int
    name: str | None
    spans: tuple[tuple[Span, dict[str, Any]], ...]

    @property
    def seen_us(self) -> int:
        return sum(span.end_us - span.start_us for span, _ in self.spans)

    @property
    def is_labeled(self) -> bool:
        return any(row.get("error") is None for _, row in self.spans)

    def failures(self, timeline: _Timeline, covered: list[Span]) -> Iterator[dict[str, Any]]:
        """Yield what is seen of the person and not covered by windows, with the reason."""
        for span, row in self.spans:
            if row.get("error") is not None:
                reason = row["reason"] or "the list of people says so"
                yield _failure(span, {"stage": "people", "error": row["error"], "reason": reason, "attempts": 1})
                continue
            for responsible, chunk in timeline.failed:
                start_us, end_us = max(span.start_us, responsible.start_us), min(span.end_us, responsible.end_us)
                if start_us < end_us:
                    yield from (_failure(rest, chunk) for rest in subtract_spans(Span(start_us, end_us), covered))

    def rows(self) -> list[dict[str, Any]]:
        """Return the spans as `people/` shows them."""
        times = ({"start_s": span.start_s, "end_s": span.end_s} for span, _ in self.spans)
        return [{**row, **its} for its, (_, row) in zip(times, self.spans, strict=True) if row]


@dataclass(frozen=True)
class _LabeledPerson:
    events: list[Event]
    covered: list[Span]
    failures: list[dict[str, Any]]


def _seen_people(people: Mapping[str, Any] | None, timeline: _Timeline) -> list[_SeenPerson]:
    """Return who is seen in a video, by number: person 0, the whole frame, if people were not looked for."""
    if people is None:
        whole = Span(timeline.start_us, timeline.end_us)
        return [_SeenPerson(0, None, ((whole, {}),) if timeline.is_known else ())]
    by_number: dict[int, list[tuple[Span, dict[str, Any]]]] = {}
    for row in sorted(people["spans"], key=lambda row: (row["person"], row["start_us"])):
        span = Span(timeline.start_us + row["start_us"], timeline.start_us + row["end_us"])
        by_number.setdefault(row["person"], []).append((span, row))
    return [
        _SeenPerson(number, next((row["name"] for _, row in spans if row["name"]), None), tuple(spans))
        for number, spans in by_number.items()
    ]


def _catalog_failures(video: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the failure of a video that cannot be read."""
    if video["error"] is not None:
        yield {"start_s": 0.0, "end_s": video["duration_s"], "stage": "catalog", "attempts": 1} | {
            name: video[name] for name in ("error", "reason")
        }


def _unseen(people: Mapping[str, Any], seen: list[_SeenPerson], timeline: _Timeline) -> Iterator[dict[str, Any]]:
    """Yield what is not a person's: parts that could not be looked at, or show more people, and where nobody is seen."""
    anybody = merge_spans(span for person in seen for span, _ in person.spans)
    explained: list[Span] = []
    for problem in people["problems"]:
        what = {"stage": "people", "error": problem["error"], "reason": problem["reason"], "attempts": 1}
        span = Span(timeline.start_us + problem["start_us"], timeline.start_us + problem["end_us"])
        if problem["error"] == FailureKind.TOO_MANY_PEOPLE:
            yield _failure(span, what)
            continue
        yield from (_failure(rest, what) for rest in subtract_spans(span, anybody))
        explained.append(span)
    nobody = {"stage": "people", "error": str(FailureKind.NOBODY_SEEN), "reason": "nobody is seen", "attempts": 1}
    rest_of_video = subtract_spans(Span(timeline.start_us, timeline.end_us), merge_spans([*anybody, *explained]))
    yield from (_failure(rest, nobody) for rest in rest_of_video)


def _failure(span: Span, what: dict[str, Any]) -> dict[str, Any]:
    return {"start_s": span.start_s, "end_s": span.end_s} | {
        name: what[name] for name in ("stage", "error", "reason", "attempts")
    }


def _failed_us(failures: Iterable[dict[str, Any]], covered: list[Span]) -> int:
    """Return how long failures last, together and without what is covered."""
    spans = merge_spans(
        Span(microseconds(row["start_s"]), microseconds(row["end_s"])) for row in failures if row["end_s"] is not None
    )
    return sum(_length_us(subtract_spans(span, covered)) for span in spans)


def _length_us(spans: Iterable[Span]) -> int:
    return sum(span.end_us - span.start_us for span in spans)


def _flat(lists: pa.ChunkedArray) -> pa.Array:
    """Return the items of all lists in one array."""
    return pc.list_flatten(lists).combine_chunks()


def _lists(values_WN: np.ndarray) -> pa.Array:
    W, N = values_WN.shape
    return pa.ListArray.from_arrays(pa.array(np.arange(0, (W + 1) * N, N), pa.int32()), pa.array(values_WN.ravel()))


def _repeated(value: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(times, np.int32), [value])


def _per_minute(number: int, covered_us: int) -> float:
    return number / (covered_us / MICROSECONDS / 60)
