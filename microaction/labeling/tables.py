"""The rows of the public tables, made from some videos and their committed chunks. Knows no Ray.

Shapes: W windows of a video, K actions, P body parts.
"""

from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from microaction.errors import InternalError
from microaction.labeling.events import Event, EventRule, find_events
from microaction.labeling.settings import VideoLabelSettings
from microaction.schema import PUBLIC_TABLES
from microaction.taxonomy import BODY_PART_OF, BODY_PARTS
from microaction.video.decoding.av_backend import DECODER
from microaction.video.windows import MICROSECONDS, Span, merge_spans, microseconds, subtract_spans

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

    @classmethod
    def of(cls, settings: VideoLabelSettings, labels: tuple[str, ...]) -> Self:
        """Return the rule that settings describe."""
        events = EventRule(
            settings.start_threshold,
            settings.effective_continue_threshold,
            microseconds(settings.max_gap_s),
            microseconds(settings.min_event_s),
        )
        return cls(labels, events, settings.abstain_below)


@dataclass(frozen=True)
class Totals:
    """Sums over videos; seconds are of video."""

    num_videos: int = 0
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

    def __init__(self, runs: tuple[Provenance, ...], rule: DecisionRule) -> None:
        self._runs = runs
        self._rule = rule
        self._parts: dict[str, list[pa.Table]] = {
            name: [schema.empty_table()] for name, schema in PUBLIC_TABLES.items()
        }
        self._membership_KP = np.eye(len(BODY_PARTS), dtype=np.float32)[list(BODY_PART_OF)]
        self._rows: dict[str, list[dict[str, Any]]] = {"events": [], "failures": [], "videos": []}
        self.totals = Totals()

    def add(self, video: dict[str, Any], chunks: pa.Table) -> None:
        """Add one video and its chunks, by time. Raises `AccountingError` if a window occurs twice."""
        source = asdict(self._runs[0]) | {
            "video_version": video["version"],
            "decoder": ", ".join(sorted(set(chunks["decoder"].to_pylist()))) or DECODER,
        }
        start_us = microseconds(video["video_start_s"] or 0.0)  # chunks count from the start of the video track
        starts_us_W, ends_us_W = (
            _flat(chunks[name]).to_numpy() + start_us for name in ("window_start_us", "window_end_us")
        )
        W, K = len(starts_us_W), len(self._rule.labels)
        if (np.diff(starts_us_W) <= 0).any():
            raise AccountingError(f"windows of {video['video']} occur twice, or out of order{PLEASE_REPORT}")
        probabilities_WK = _flat(chunks["probabilities"]).to_numpy().reshape(W, K)
        abstained_W = probabilities_WK.max(axis=1, initial=0) < self._rule.abstain_below
        if W:
            table = self._window_table(video["video"], starts_us_W, ends_us_W, probabilities_WK, abstained_W, source)
            self._parts["windows"].append(self._by_run(table, _flat(chunks["window_run"]).to_numpy()))
        events = find_events(starts_us_W, ends_us_W, probabilities_WK, self._rule.events) if W else []
        self._rows["events"] += [self._event_row(video["video"], event) | source for event in events]
        windows = [Span(*span) for span in zip(starts_us_W.tolist(), ends_us_W.tolist(), strict=True)]
        covered = merge_spans(windows)
        failures = [
            {"video": video["video"], **failure, **source} for failure in _failures(video, chunks, covered, start_us)
        ]
        self._rows["failures"] += failures
        covered_us = sum(span.end_us - span.start_us for span in covered)
        failed_s = sum(row["end_s"] - row["start_s"] for row in failures if row["end_s"] is not None)
        facts = ("video", "duration_s", "video_start_s", "codec", "width", "height", "fps")
        row = {name: video[name] for name in facts} | {
            "num_windows": W,
            "covered_s": covered_us / MICROSECONDS,
            "failed_s": failed_s,
            "coverage": covered_us / MICROSECONDS / video["duration_s"] if video["duration_s"] else None,
            "abstained_fraction": float(abstained_W.mean()) if W else None,
            "num_events": len(events),
            "events_per_minute": _per_minute(len(events), covered_us) if covered_us else None,
            **self._activity(events, covered_us),
        }
        self._rows["videos"].append(row | source)
        self.totals += Totals(
            num_videos=1,
            num_windows=W,
            num_abstained=int(abstained_W.sum()),
            num_events=len(events),
            num_failures=len(failures),
            video_s=video["duration_s"] or 0.0,
            covered_s=row["covered_s"],
            failed_s=failed_s,
        )

    def finished(self) -> dict[str, pa.Table]:
        """Return the tables, in the order in which they are written."""
        self._rows["events"].sort(key=lambda row: (row["action_id"], row["video"], row["start_s"]))
        for name, rows in self._rows.items():
            self._parts[name].append(pa.Table.from_pylist(rows, schema=PUBLIC_TABLES[name]))
        # One dictionary per column, so that every row group has the same.
        return {
            name: pa.concat_tables(parts).unify_dictionaries().combine_chunks() for name, parts in self._parts.items()
        }

    def _window_table(
        self,
        video: str,
        starts_us_W: np.ndarray,
        ends_us_W: np.ndarray,
        probabilities_WK: np.ndarray,
        abstained_W: np.ndarray,
        source: dict[str, str],
    ) -> pa.Table:
        W = len(starts_us_W)
        action_W = probabilities_WK.argmax(axis=1).astype(np.int32)
        body_part_W = np.array(BODY_PART_OF, np.int32)[action_W]
        columns: dict[str, Any] = {
            "video": pa.repeat(video, W),
            "start_s": starts_us_W / MICROSECONDS,
            "end_s": ends_us_W / MICROSECONDS,
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

    def _event_row(self, video: str, event: Event) -> dict[str, Any]:
        body_part_id = BODY_PART_OF[event.action_id]
        return {
            "video": video,
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

    def _activity(self, events: list[Event], covered_us: int) -> dict[str, list[dict[str, Any]]]:
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
            "actions": [
                {"action": labels[action], "body_part": BODY_PARTS[BODY_PART_OF[action]]} | activity(its_events)
                for action, its_events in sorted(by_action.items())
            ],
            "body_parts": [
                {"body_part": BODY_PARTS[part]} | activity(its_events)
                for part, its_events in sorted(by_body_part.items())
            ],
        }


def _failures(
    video: dict[str, Any], chunks: pa.Table, covered: list[Span], video_start_us: int
) -> Iterator[dict[str, Any]]:
    """Yield a video's failures, as the spans that no window covers: together with the windows they make up the whole video."""
    if video["error"] is not None:
        yield {"start_s": 0.0, "end_s": video["duration_s"], "stage": "catalog", "attempts": 1} | {
            name: video[name] for name in ("error", "reason")
        }
    columns = ["chunk_start_us", "duration_us", "stage", "error", "reason", "attempts"]
    failed = chunks.select(columns).filter(pc.is_valid(chunks["error"])).to_pylist()
    if not failed:
        return
    # Windows extend past their chunk's end: a failed chunk accounts for what is missing up to the next failed one.
    starts_us = [0, *(chunk["chunk_start_us"] for chunk in failed[1:]), failed[-1]["duration_us"]]
    for chunk, (start_us, end_us) in zip(failed, pairwise(starts_us), strict=True):
        for span in subtract_spans(Span(video_start_us + start_us, video_start_us + end_us), covered):
            yield {"start_s": span.start_s, "end_s": span.end_s} | {
                name: chunk[name] for name in ("stage", "error", "reason", "attempts")
            }


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
